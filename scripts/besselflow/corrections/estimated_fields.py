"""The flat fields that a run estimates of its own acquisitions, and the folder that keeps them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from besselflow.corrections.flat_field import ChosenField
from besselflow.corrections.shading import FEWEST_ACQUISITIONS, Shading, estimate_shading
from besselflow.errors import InputError
from besselflow.field_of_view import FieldOfView
from besselflow.sample_sheet import Sample
from besselflow.store.files import atomic_path, write_json

_RECORD = "estimate.json"


@dataclass(frozen=True)
class EstimatedField:
    """What the acquisitions of one field of view have in common.

    Attributes
    ----------
    view : FieldOfView
    samples : tuple of str
        Whose acquisitions were compared.
    shadings : tuple of Shading
        One per channel; none where there are too few acquisitions.
    mean : numpy.ndarray or None, shape (C, y, x)
        Mean of all acquisitions, each with the mean 1, at a few pixels.
    path : pathlib.Path or None
        TIFF with the field, once it is written; None where nothing is certain.
    """

    view: FieldOfView
    samples: tuple[str, ...]
    shadings: tuple[Shading, ...] = ()
    mean: np.ndarray | None = None
    path: Path | None = None

    @property
    def why_not(self) -> str | None:
        """Say why nothing is divided by it; None where a channel is."""
        number = _acquisitions(len(self.samples))
        if not self.shadings:
            return (
                f"{number} of {self.view} can't tell the light from the samples, which takes at "
                f"least {FEWEST_ACQUISITIONS}"
            )
        if any(shading.is_certain for shading in self.shadings):
            return None
        errors = ", ".join(f"{shading.error:.1%}" for shading in self.shadings)
        chances = ", ".join(f"{shading.chance:.2g}" for shading in self.shadings)
        by_channel = " (by channel)" if len(self.shadings) > 1 else ""
        return (
            f"it is not certain that the light is uneven: {number} show it with a standard error "
            f"of {errors}, and even light would look as uneven with a probability of "
            f"{chances}{by_channel}"
        )

    def describe(self) -> str:
        """Say of what it was estimated, what was found, and what is done with it."""
        title = f"{_acquisitions(len(self.samples))} of {self.view}"
        why_not = self.why_not
        if not self.shadings:
            return f"Nothing is divided by a flat field: {why_not}."
        if why_not is not None:
            return f"{title}: nothing is divided by a flat field, since {why_not}."
        parts = [
            (f"of channel {channel} " if len(self.shadings) > 1 else "")
            + (
                f"varies by {shading.variation:.1%}, with a standard error of {shading.error:.1%} "
                f"(halves of the acquisitions agree with a correlation of {shading.agreement:.2f})"
                if shading.is_certain
                else "is left as it is, since it is not certain that it is uneven (with a standard "
                f"error of {shading.error:.1%})"
            )
            for channel, shading in enumerate(self.shadings, start=1)
        ]
        found = ", and the light ".join(parts)
        return f"{title}: the light {found}. Projections are divided by its field."


@dataclass(frozen=True)
class Estimates:
    """All that a run found about its light.

    Attributes
    ----------
    fields : tuple of EstimatedField
        One per field of view, that of most samples first.
    left_out : dict of str to str
        Sample, or ``row N`` of the sheet -> why its acquisition was not compared.
    rows : dict of str to dict
        Sample -> what of its row the estimate depends on.
    """

    fields: tuple[EstimatedField, ...]
    left_out: dict[str, str] = field(default_factory=dict)
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)

    def choose(self, sample: str, view: FieldOfView, offset_known: bool) -> ChosenField:
        """Return what the projections of a sample are divided by.

        Parameters
        ----------
        sample : str
            Its name; it need not be among those that were compared.
        view : FieldOfView
            Of its acquisition.
        offset_known : bool
            Whether the detector's offset is, which would be divided, too.
        """
        found = next((each for each in self.fields if each.view.fits(view)), None)
        if found is None:
            why_not = (
                f"the light of images with {view} was not estimated; the page of all samples says "
                "of which it was"
            )
            return ChosenField(None, {"why_not": why_not})
        if found.why_not is not None:
            return ChosenField(None, {"why_not": found.why_not})
        if not offset_known:
            return ChosenField(
                None, {"why_not": "the detector's offset is not known, and would be divided, too"}
            )
        channels = [
            {
                "applied": shading.is_certain,
                "variation": shading.variation,
                "error": shading.error,
                "chance": shading.chance,
            }
            for shading in found.shadings
        ]
        record = {"acquisitions": len(found.samples), "channels": channels}
        return ChosenField(str(found.path), record | {"takes_part": sample in found.samples})

    def changes_since(self, samples: Iterable[Sample], others: Iterable[str] = ()) -> str | None:
        """Say how the sheet differs from that of the estimate; None where it doesn't.

        Parameters
        ----------
        samples : iterable of Sample
            Samples of the sheet.
        others : iterable of str
            Names of its other rows, of which nothing more is known.
        """
        now = {sample.name: facts_of(sample) for sample in samples}
        others = set(others)
        found = {
            "new": [name for name in now if name not in self.rows],
            "changed": [name for name in now if self.rows.get(name, now[name]) != now[name]],
            "gone": [name for name in self.rows if name not in now and name not in others],
        }
        parts = [f"{what}: {', '.join(names)}" for what, names in found.items() if names]
        return "; ".join(parts) or None


def facts_of(sample: Sample) -> dict[str, Any]:
    """Return what of a sample's row an estimate depends on."""
    return {"acquisition": str(sample.acquisition), "offset": sample.offset}


def estimate_field(
    view: FieldOfView, samples: Sequence[str], images: np.ndarray | None
) -> EstimatedField:
    """Estimate the field of all channels, where there are enough acquisitions.

    Parameters
    ----------
    view : FieldOfView
    samples : sequence of str
        Their names.
    images : numpy.ndarray or None, shape (N, C, y, x)
        Their mean images; None where they were too few to read them.
    """
    if images is None or len(images) < FEWEST_ACQUISITIONS:
        return EstimatedField(view, tuple(samples))
    shadings = tuple(estimate_shading(images[:, c]) for c in range(view.channels))
    return EstimatedField(view, tuple(samples), shadings, images.mean(axis=0))


def write_field(path: Path, shadings: Sequence[Shading], size: tuple[int, int]) -> None:
    """Write one image per channel, float32 with the mean 1; exactly 1 where it isn't certain."""
    even = np.ones(size)
    fields = [shading.field(size) if shading.is_certain else even for shading in shadings]
    images, axes = (fields, "CYX") if len(fields) > 1 else (fields[0], "YX")
    with atomic_path(path) as partial:
        tifffile.imwrite(
            partial,
            np.asarray(images, np.float32),
            photometric="minisblack",
            metadata={"axes": axes},
        )


def write_estimates(folder: Path | str, estimates: Estimates) -> Estimates:
    """Write the record, the fields that are certain, and the mean images that they come from.

    Parameters
    ----------
    folder : path
        What stands there is replaced.
    estimates : Estimates

    Returns
    -------
    Estimates
        With the paths of the fields.
    """
    folder = Path(folder)
    with atomic_path(folder) as partial:
        partial.mkdir()
        records, written = [], []
        for number, each in enumerate(estimates.fields, start=1):
            name = None
            if each.mean is not None:
                mean = each.mean.astype(np.float32)
                tifffile.imwrite(partial / f"mean-{number}.tif", mean, photometric="minisblack")
            if each.why_not is None:
                name = f"field-{number}.tif"
                write_field(partial / name, each.shadings, each.view.size)
            records.append(
                {
                    "view": asdict(each.view),
                    "samples": each.samples,
                    "shadings": [_as_record(shading) for shading in each.shadings],
                }
            )
            written.append(replace(each, path=None if name is None else folder / name))
        record = {"fields": records, "left_out": estimates.left_out, "rows": estimates.rows}
        write_json(partial / _RECORD, record)
    return replace(estimates, fields=tuple(written))


def read_estimates(folder: Path | str) -> Estimates:
    """Read what `write_estimates` wrote.

    Parameters
    ----------
    folder : path

    Raises
    ------
    InputError
        A file is missing or damaged.
    """
    folder = Path(folder)
    try:
        record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        fields = [
            _field_of(each, number, folder) for number, each in enumerate(record["fields"], start=1)
        ]
        return Estimates(tuple(fields), record["left_out"], record["rows"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder}: the flat field that was estimated can't be read ({error}); delete the "
            "folder, and run with --forcerun estimate_shading"
        ) from error


def _field_of(record: dict[str, Any], number: int, folder: Path) -> EstimatedField:
    view, shadings = record["view"], tuple(map(_shading_of, record["shadings"]))
    pixel_um = None if view["pixel_um"] is None else tuple(view["pixel_um"])
    mean = None
    if shadings:
        mean = tifffile.imread(folder / f"mean-{number}.tif")
        mean = mean.reshape(len(shadings), *mean.shape[-2:])
    found = EstimatedField(
        FieldOfView(view["channels"], tuple(view["size"]), pixel_um),
        tuple(record["samples"]),
        shadings,
        mean,
    )
    return replace(found, path=folder / f"field-{number}.tif" if found.why_not is None else None)


def _as_record(shading: Shading) -> dict[str, Any]:
    return {
        "estimates": shading.estimates.tolist(),
        "covariance": shading.covariance.tolist(),
        "acquisitions": shading.acquisitions,
        "agreement": shading.agreement,
    }


def _shading_of(record: dict[str, Any]) -> Shading:
    arrays = {key: np.array(record[key]) for key in ("estimates", "covariance")}
    return Shading(**record | arrays)


def _acquisitions(count: int) -> str:
    return "1 acquisition" if count == 1 else f"{count} acquisitions"
