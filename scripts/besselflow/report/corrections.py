"""What was corrected in the projections: a number, a sentence and a picture of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from besselflow.report.curves import draw_depth_attenuation
from besselflow.report.figures import draw_photon_transfer
from besselflow.report.page import ThemedImage, image_uri, themed_figure, to_grey
from besselflow.store import Projections

_PICTURE_EDGE = 240


@dataclass(frozen=True)
class CorrectionView:
    """One correction on the page.

    Attributes
    ----------
    title : str
    number : str
        What was found, in a few words.
    sentence : str
        What that means, and what was done.
    before, after : str or None
        Pictures as data URIs; None where nothing was changed.
    caption : str
        What the pictures show.
    plot : ThemedImage or None
        What the estimate was read off, or what it changes, where that is no picture.
    plot_caption : str
        What the plot shows.
    """

    title: str
    number: str
    sentence: str
    before: str | None = None
    after: str | None = None
    caption: str = ""
    plot: ThemedImage | None = None
    plot_caption: str = ""


def describe_corrections(measured: Projections) -> list[CorrectionView]:
    """Return all corrections that were looked for, those that were applied first.

    Parameters
    ----------
    measured : Projections
        The projection store, whose attribute ``corrections`` says what was found. Empty for stores
        without it.
    """
    record = measured.attributes.get("corrections", {})
    views = []
    for name, (title, describe, caption) in _KINDS.items():
        if name not in record:
            continue
        found = record[name]
        if found["applied"]:
            number, sentence = describe(found)
            pictures = _pictures(measured.pictures.get(name))
            plot, plotted = None, ""
            if name == "photon_transfer":
                plot = themed_figure(partial(draw_photon_transfer, found["lines"]))
                plotted = caption
            elif name == "depth_attenuation":
                plot = themed_figure(partial(draw_depth_attenuation, found))
                plotted = _BRIGHTNESS
            views.append(CorrectionView(title, number, sentence, *pictures, caption, plot, plotted))
        else:
            views.append(CorrectionView(title, "not applied", _why_not(name, found)))
    return sorted(views, key=lambda view: view.number == "not applied")


def _pictures(pair: np.ndarray | None) -> tuple[str | None, str | None]:
    """Draw both in one intensity window, enlarged without smoothing."""
    if pair is None:
        return None, None
    # Hot pixels must not make everything else black.
    window = (float(np.percentile(pair[1], 1)), float(np.percentile(pair[1], 99.8)))
    window = window if window[1] > window[0] else (window[0], window[0] + 1)
    height, width = pair.shape[1:]
    factors = max(1, _PICTURE_EDGE // width), max(1, _PICTURE_EDGE // width)
    if height < width / 4:
        factors = max(1, _PICTURE_EDGE // (2 * height)), factors[1]
    size = (width * factors[1], height * factors[0])
    grey = (Image.fromarray(to_grey(image, window)) for image in pair)
    uris = [image_uri(np.asarray(g.resize(size, Image.Resampling.NEAREST))) for g in grey]
    return uris[0], uris[1]


def _photon_transfer(found: Mapping[str, Any]) -> tuple[str, str]:
    gains = [f"{line['gain']:.3g} ± {line['gain_error']:.1g}" for line in found["lines"]]
    if found["offset_given"]:
        offset = f"the given offset of {found['offset'][0]:g} counts"
    else:
        errors = [line["offset_error"] for line in found["lines"]]
        pairs = zip(found["offset"], errors, strict=True)
        offset = "an offset of " + ", ".join(f"{o:.4g} ± {e:.1g}" for o, e in pairs) + " counts"
    return (
        f"{', '.join(gains)} counts per photon",
        "The variance of the counts grows with their mean by the gain of the detector. Counts "
        f"became photons with it and with {offset}.",
    )


def _saturation(found: Mapping[str, Any]) -> tuple[str, str]:
    return (
        f"{found['share']:.3%} of the pixels",
        f"They have {found['level']:g} counts or more, the detector's limit, and say only that the "
        "light was at least so bright. That much every fit takes from them: a volume that would "
        "show less is at odds with them, and one that shows more is not.",
    )


def _hot_pixels(found: Mapping[str, Any]) -> tuple[str, str]:
    return (
        f"{found['pixels']} pixels ({found['share']:.3%})",
        "They stand out of their neighbours in every image. They were left out of every fit, and "
        "predicted from all others.",
    )


def _flat_field(found: Mapping[str, Any]) -> tuple[str, str]:
    low, high = found["range"]
    least, most = found["noise_range"]
    number = f"{low:.2f} to {high:.2f} of the mean"
    sentence = (
        f"The projections were divided by the flat field {found['path']}. The noise variance that "
        f"all later stages take for a brightness is the mean of the image; after the division, it "
        f"is {least:.2f} times that where most light came, and {most:.2f} times where least came."
    )
    if not found["offset_known"]:
        sentence += " The detector's offset is not known, and was divided, too: state it."
    if "channels" not in found:
        return number, sentence
    varies, origin = _estimated_field(found)
    return f"varies by {varies}, {number}", f"{origin} {sentence}"


def _estimated_field(found: Mapping[str, Any]) -> tuple[str, str]:
    """Say how uneven the light of every channel is, and how that is known."""
    several = len(found["channels"]) > 1
    numbers, left = [], []
    for number, each in enumerate(found["channels"], start=1):
        name = f"channel {number}" if several else ""
        if each["applied"]:
            of_channel = f" ({name})" if several else ""
            numbers.append(f"{each['variation']:.1%} ± {each['error']:.1%}{of_channel}")
        else:
            left.append(f"{name} (standard error {each['error']:.1%})")
    chance = max(each["chance"] for each in found["channels"] if each["applied"])
    origin = (
        f"It was estimated from what {found['acquisitions']} acquisitions of this run have in "
        f"common{'' if found['takes_part'] else ', of which this sample is none'}; even light "
        f"would look as uneven with a probability of {chance:.2g}. Samples that were moved into "
        "the middle of every image would look the same."
    )
    if left:
        origin += f" That the light is uneven is not certain in {', '.join(left)}: left as it is."
    return ", ".join(numbers), origin


def _scan_phase(found: Mapping[str, Any]) -> tuple[str, str]:
    origin = "as given" if found["given"] else f"± {found['error']:.2g}"
    return (
        f"{found['pixels']:.2f} pixels ({origin})",
        "Odd lines were displaced against even ones, as by a scanner that records in both "
        "directions, and were moved back.",
    )


def _line_noise(found: Mapping[str, Any]) -> tuple[str, str]:
    least, most = found["noise_range"]
    return (
        f"{found['spread']:.1%} (each line known to {found['gain_error']:.1%})",
        "The brightness flickered from line to line, as both halves of the images agree, and lines "
        "were made as bright as their neighbours. What changes over many lines was left as it is. "
        f"The noise variance of a line is now {least:.2f} to {most:.2f} times the one that all "
        "later stages take for its brightness.",
    )


def _motion(found: Mapping[str, Any]) -> tuple[str, str]:
    largest = float(np.abs(found["pixels"]).max())
    return (
        f"up to {largest:.2g} pixels",
        "The time points were registered to the first, each as a whole.",
    )


def _bleaching(found: Mapping[str, Any]) -> tuple[str, str]:
    origin = "as given" if found.get("given") else f"± {found['error']:.2g}"
    return (
        f"{found['share']:.0%} lost ({origin})",
        "The brightness fell exponentially from the first to the last image, and was restored.",
    )


def _depth_attenuation(found: Mapping[str, Any]) -> tuple[str, str]:
    length, left = found["length_um"], found["left"]
    origin = "as given" if found["given"] else f"± {found['error_um']:.2g}"
    sentence = (
        f"The brightness falls to 1/e (37 %) over this length, towards "
        f"{'larger' if length > 0 else 'smaller'} z. The deepest projection kept {left:.0%} of its "
        f"light; all were made as bright as the one nearest to the surface, the deepest with "
        f"{1 / left:.2g} times the noise variance of that one at the same intensity, which all "
        "later stages know. A ground truth was left as it is."
    )
    if not found["given"]:
        sentence += (
            " The length is that of a sample that holds as much at all depths, as the setting "
            "auto asserts: a sample that holds less further down, or a stack that bleached on the "
            "way down, looks the same."
        )
    if not found["offset_known"]:
        sentence += " The detector's offset is not known, and was raised with depth, too: state it."
    return f"{abs(length):.3g} µm ({origin})", sentence


def _laser(found: Mapping[str, Any]) -> tuple[str, str]:
    return (
        f"{found['spread']:.1%} (known to {found['error']:.1%})",
        "The brightness fluctuated from projection to projection; structures that neighbouring "
        "projections share were made equally bright. What is smooth in depth was left as it is.",
    )


def _drift(found: Mapping[str, Any]) -> tuple[str, str]:
    return (
        f"{found['spread']:.2g} pixels (known to {found['error']:.2g})",
        "Projections were displaced laterally, and were registered against what all others "
        "predict of them. A displacement that is smooth in depth looks like a leaning sample, and "
        "was left as it is. Pixels from beyond the edges were left out of every fit.",
    )


_SECTION = "A line of the image (across) in all projections (downwards)."
_DETAIL = "A detail of one projection."
_BRIGHTNESS = "Mean brightness of the projections before and after, and the exponential (dashed)."
_KINDS: dict[str, tuple[str, Callable[[Mapping[str, Any]], tuple[str, str]], str]] = {
    "photon_transfer": (
        "Offset and gain",
        _photon_transfer,
        "The variance of the counts (dots) at each mean, found where a filter that takes structure "
        "away leaves noise, and the line that offset and gain are read off.",
    ),
    "saturation": (
        "Saturated pixels",
        _saturation,
        "A detail of one projection, as it was recorded, and with the brightness of the saturated "
        "pixels that all others make most probable.",
    ),
    "flat_field": ("Flat field", _flat_field, "One projection as a whole."),
    "hot_pixels": ("Hot pixels", _hot_pixels, _DETAIL),
    "scan_phase": ("Scan phase", _scan_phase, _DETAIL),
    "line_noise": ("Line noise", _line_noise, _DETAIL),
    "motion": ("Motion", _motion, "A line of one projection (across) at all times (downwards)."),
    "bleaching": ("Bleaching", _bleaching, _SECTION),
    "depth_attenuation": ("Attenuation with depth", _depth_attenuation, _SECTION),
    "laser": ("Laser", _laser, _SECTION),
    "drift": ("Drift", _drift, _SECTION),
}


def _why_not(name: str, found: Mapping[str, Any]) -> str:
    if "why_not" in found:
        reason = found["why_not"]
        return f"{reason[0].upper()}{reason[1:]}."
    if name == "saturation":
        return "Counts pile up at no value."
    if name == "hot_pixels":
        return "No pixel stands out of its neighbours in every image."
    if name == "scan_phase":
        return f"Found {found['pixels']:.2f} ± {found['error']:.2g} pixels, which is too little."
    if name == "motion":
        return "No time point moved by a tenth of a pixel."
    if name == "bleaching":
        return f"Found a loss of {found['share']:.1%} ± {found['error']:.1%}, which is not certain."
    if name == "depth_attenuation":
        found = [100 * found[key] for key in ("rate_per_um", "rate_error_per_um")]
        return (
            f"Over 100 µm of depth, the logarithm of the brightness falls by {found[0]:.2g} ± "
            f"{found[1]:.2g}, which is not certain."
        )
    return "No displacement is certain." if name == "drift" else "No fluctuation is certain."
