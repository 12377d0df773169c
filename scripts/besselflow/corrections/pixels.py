"""The corrections of single pixels and lines: masks, the phase of the scanner, and photons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import dask.array as da
import numpy as np

from besselflow.config import Corrections
from besselflow.corrections.detector import counts_to_intensity
from besselflow.corrections.fill import fill_from_neighbours
from besselflow.corrections.flat_field import (
    ChosenField,
    fit_to_images,
    given_field,
    noise_factors,
    read_flat_field,
)
from besselflow.corrections.hot_pixels import FEWEST_IMAGES, find_hot_pixels
from besselflow.corrections.line_noise import LineNoise, estimate_line_noise, line_log_gains
from besselflow.corrections.pictures import lateral_pair, where_dense, whole_pair
from besselflow.corrections.saturation import saturation_level
from besselflow.corrections.scan_phase import (
    ScanPhase,
    estimate_scan_phase,
    shift_odd_lines,
    shift_odd_mask,
)
from besselflow.job import logger

_IMAGES_FOR_PHASE = 24
_LINES_FOR_PHASE = 512
_PAIRS_FOR_LINES = 24
# Of larger images, the middle tells as much, and memory does not grow with them.
_EDGE_FOR_LINES = 2048


@dataclass(frozen=True)
class CorrectedPixels:
    """An acquisition whose pixels are corrected, lazily.

    Attributes
    ----------
    intensity : dask.array.Array, shape (T, C, P, Y, X)
        float32; what is masked is guessed from its neighbours, unless it is saturated.
    masked : dask.array.Array of bool, same shape, or None
        Pixels that hold no measurement.
    saturated : dask.array.Array of bool, same shape, or None
        Those of them whose intensity is a lower bound.
    record : dict
        What was found and done, by correction.
    pictures : dict of str to numpy.ndarray, shape (2, y, x)
        A detail before and after each correction that was applied.
    """

    intensity: da.Array
    masked: da.Array | None
    saturated: da.Array | None = None
    record: dict[str, Any] = field(default_factory=dict)
    pictures: dict[str, np.ndarray] = field(default_factory=dict)


def correct_pixels(
    counts: da.Array,
    offset: float | np.ndarray | None,
    gain: float | np.ndarray | None,
    settings: Corrections,
    flat_field: ChosenField | None = None,
) -> CorrectedPixels:
    """Convert counts to photons under even light, mask what is no measurement, correct lines.

    Parameters
    ----------
    counts : dask.array.Array, shape (T, C, P, Y, X)
        Raw counts, finite.
    offset, gain : float, numpy.ndarray of shape (C, 1, 1, 1), or None
        Counts of an unlit pixel, and counts per photon.
    settings : Corrections
        What to correct.
    flat_field : ChosenField or None
        What to divide by, where that was estimated; None for what the settings give.
    """
    images = counts.rechunk((1, 1, 1, -1, -1))
    intensity = counts_to_intensity(images, offset, gain)
    intensity, record, pictures = _evened(
        intensity, offset, flat_field or given_field(settings.flat_field)
    )
    saturated, record["saturation"] = _saturated_mask(images, settings)
    masked = saturated
    hot, record["hot_pixels"] = _hot_mask(images, settings)
    if hot is not None:
        spoilt, intensity = intensity, per_image(fill_from_neighbours, intensity, hot)
        place = (0, int(np.argmax(np.asarray(hot[0, :, 0].sum(axis=(1, 2))))), 0)
        centre = where_dense(np.asarray(hot[place]))
        pictures["hot_pixels"] = lateral_pair(spoilt, intensity, place, centre)
        masked = hot if saturated is None else hot | saturated
        saturated = None if saturated is None else saturated & ~hot
    intensity, masked, saturated, found, drawn = _phase_taken_back(
        intensity, masked, saturated, settings
    )
    record, pictures = record | found, pictures | drawn
    # A gain and a displacement of a line commute, but where odd lines are displaced, neighbours
    # show different things; and a hot pixel is no light of its line, nor is a clipped one all.
    intensity, found, drawn = _lines_evened(intensity, masked, offset, settings)
    return CorrectedPixels(intensity, masked, saturated, record | found, pictures | drawn)


def _evened(
    intensity: da.Array, offset: float | None, flat_field: ChosenField
) -> tuple[da.Array, dict[str, Any], dict[str, np.ndarray]]:
    """Divide by the flat field, where there is one; with record and picture."""
    path = flat_field.path
    if path is None:
        return intensity, {"flat_field": {"applied": False} | flat_field.record}, {}
    _, channels, count, *size = intensity.shape
    flat = fit_to_images(read_flat_field(path), path, (channels, *size))
    even = intensity / da.from_array(flat[None, :, None], chunks=(1, 1, 1, -1, -1))
    noise = noise_factors(flat)
    record = {
        "applied": True,
        "path": path,
        "range": [float(flat.min()), float(flat.max())],
        "noise_range": [float(noise.min()), float(noise.max())],
        "offset_known": offset is not None,
    }
    record |= flat_field.record
    logger.info("divided by the flat field %s, of %.3g to %.3g", path, *record["range"])
    if offset is None:
        logger.warning("the detector's offset is not known, and is divided by the flat field, too")
    pictures = {"flat_field": whole_pair(intensity, even, (0, 0, count // 2))}
    return even, {"flat_field": record}, pictures


def moved_masks(
    masked: da.Array | None, saturated: da.Array | None, move: Callable[[da.Array], da.Array]
) -> tuple[da.Array, da.Array | None]:
    """Move masks along with an image.

    Parameters
    ----------
    masked, saturated : dask.array.Array of bool, shape (T, C, P, Y, X), or None
        As in `CorrectedPixels`.
    move : callable
        Moves a mask: what a masked pixel or the outside has a part in is masked.

    Returns
    -------
    masked, saturated : dask.array.Array of bool, shape (T, C, P, Y, X); the latter or None
        What a mere guess has a part in is no lower bound.
    """
    moved = move(masked)
    if saturated is None:
        return moved, None
    return moved, moved & ~move(masked & ~saturated)


def _saturated_mask(
    images: da.Array, settings: Corrections
) -> tuple[da.Array | None, dict[str, Any]]:
    """Return the pixels of which the counts are a lower bound, and a record."""
    level = settings.saturation
    if level == "auto":
        level = saturation_level(images)
    if level in (None, "none"):
        return None, {"applied": False, "share": 0.0}
    saturated = images >= level
    share = float(np.asarray(saturated.mean(axis=(3, 4))).mean())
    logger.info("%.3g %% of the pixels are saturated at %g counts", 100 * share, level)
    record = {"applied": share > 0, "level": float(level), "share": share}
    return saturated if share > 0 else None, record


def per_image(function, *arrays: da.Array, dtype=np.float32, **options) -> da.Array:
    """Apply a function of images (Y, X) to arrays (T, C, P, Y, X) in chunks of one image."""

    def apply(*blocks: np.ndarray) -> np.ndarray:
        return function(*(block[0, 0, 0] for block in blocks), **options)[None, None, None]

    meta = np.empty((0,) * 5, dtype)
    return da.map_blocks(apply, *arrays, dtype=dtype, meta=meta)


def _hot_mask(images: da.Array, settings: Corrections) -> tuple[da.Array | None, dict[str, Any]]:
    """Return the hot pixels of every channel in all images, and a record."""
    times, channels, count, height, width = images.shape
    if settings.hot_pixels == "none":
        return None, {"applied": False, "why_not": "it is switched off"}
    if times * count < FEWEST_IMAGES:
        return None, {"applied": False, "why_not": f"there are fewer than {FEWEST_IMAGES} images"}
    hot = np.zeros((channels, height, width), bool)
    for channel in range(channels):
        found = find_hot_pixels(images[:, channel].reshape(times * count, height, width))
        hot[channel] = found
    found = int(hot.sum())
    record = {"applied": found > 0, "pixels": found, "share": float(hot.mean())}
    if not found:
        return None, record
    logger.info("%d hot pixels are masked", found)
    lazy = da.from_array(hot[None, :, None], chunks=(1, 1, 1, -1, -1))
    return da.broadcast_to(lazy, images.shape, chunks=images.chunks), record


def _phase_taken_back(
    intensity: da.Array, masked: da.Array | None, saturated: da.Array | None, settings: Corrections
) -> tuple[da.Array, da.Array | None, da.Array | None, dict[str, Any], dict[str, np.ndarray]]:
    """Move odd lines back, if they are displaced; with record and picture."""
    phase = _scan_phase(intensity, settings)
    if isinstance(phase, str):
        record = {"applied": False, "why_not": phase}
        return intensity, masked, saturated, {"scan_phase": record}, {}
    is_given = settings.scan_phase != "auto"
    applied = bool(is_given or phase.is_certain)
    record = {"scan_phase": {"applied": applied, "given": is_given, **asdict(phase)}}
    if not applied:
        return intensity, masked, saturated, record, {}
    logger.info("odd lines are moved by %.3g pixels", -phase.pixels)
    shifted = per_image(shift_odd_lines, intensity, pixels=phase.pixels)
    if masked is None:
        masked = da.zeros(intensity.shape, dtype=bool, chunks=intensity.chunks)
    move = partial(per_image, shift_odd_mask, dtype=bool, pixels=phase.pixels)
    masked, saturated = moved_masks(masked, saturated, move)
    middle = (0, 0, intensity.shape[2] // 2)
    pictures = {"scan_phase": lateral_pair(intensity, shifted, middle, None)}
    return shifted, masked, saturated, record, pictures


def _scan_phase(intensity: da.Array, settings: Corrections) -> ScanPhase | str:
    """Return the phase, or why there is none."""
    if settings.scan_phase == "none":
        return "it is switched off"
    if settings.scan_phase != "auto":
        return ScanPhase(float(settings.scan_phase), 0.0)
    times, channels, count, *size = intensity.shape
    places = list(np.ndindex(times, channels, count))
    chosen = np.unique(np.linspace(0, len(places) - 1, min(len(places), _IMAGES_FOR_PHASE)))
    middle = _middle(size, _LINES_FOR_PHASE, _EDGE_FOR_LINES)
    # A view would keep its whole image.
    images = [np.asarray(intensity[places[int(index)]])[middle].copy() for index in chosen]
    found = estimate_scan_phase(np.stack(images))
    return found or "neighbouring lines have too little structure in common"


def _lines_evened(
    intensity: da.Array, masked: da.Array | None, offset: float | None, settings: Corrections
) -> tuple[da.Array, dict[str, Any], dict[str, np.ndarray]]:
    """Divide lines by their gains, where they flicker; with record and picture."""
    times, channels, count, height, _ = intensity.shape
    log_gains, errors = np.zeros((2, times, channels, count, height))
    found = []
    for channel in range(channels):
        # Channels may be excited by lasers of their own.
        noise = _line_noise(intensity, masked, channel, offset, settings)
        why_not = noise if isinstance(noise, str) else noise.why_not
        found.append({"applied": why_not is None, "why_not": why_not})
        if isinstance(noise, str):
            continue
        found[-1] |= {"spread": noise.spread, **asdict(noise)}
        if why_not is not None:
            continue
        logger.info("the brightness of lines flickers by %.2g %%", 100 * noise.spread)
        for t, p in np.ndindex(times, count):
            lines = line_log_gains(*_measured(intensity, masked, (t, channel, p)), noise.spread)
            log_gains[t, channel, p], errors[t, channel, p] = lines
    applied = [channel for channel, each in enumerate(found) if each["applied"]]
    if not applied:
        record = {"applied": False, "channels": found, "why_not": found[0]["why_not"]}
        return intensity, {"line_noise": record}, {}
    # Photons divided by a gain g have their variance divided by g, too, beside their mean. Later
    # stages take one variance for a brightness, which is the mean over all lines.
    noise = noise_factors(np.exp(log_gains[:, applied]).reshape(1, -1, height))
    record = {
        "applied": True,
        "channels": found,
        "spread": max(found[channel]["spread"] for channel in applied),
        "gain_error": float(np.sqrt((errors[:, applied] ** 2).mean())),
        "noise_range": [float(noise.min()), float(noise.max())],
    }
    factors = np.exp(-log_gains[..., None]).astype(np.float32)
    even = intensity * da.from_array(factors, chunks=(1, 1, 1, -1, 1))
    place = (0, applied[0], count // 2)
    return even, {"line_noise": record}, {"line_noise": lateral_pair(intensity, even, place, None)}


def _line_noise(
    intensity: da.Array,
    masked: da.Array | None,
    channel: int,
    offset: float | None,
    settings: Corrections,
) -> LineNoise | str:
    """Return how much the lines of a channel flicker, or why that is not known."""
    if settings.line_noise == "none":
        return "it is switched off"
    if offset is None:
        return "the detector's offset is not known, and would be taken for light that flickers"
    times, _, count, *size = intensity.shape
    if times * count < 2:
        return "a single image can't tell a bright line from a structure along it"
    to_next = (0, 1) if count > 1 else (1, 0)
    places = list(np.ndindex(times - to_next[0], count - to_next[1]))
    chosen = np.linspace(0, len(places) - 1, min(len(places), _PAIRS_FOR_LINES)).round().astype(int)
    pairs = ((places[i], tuple(np.add(places[i], to_next))) for i in chosen)
    middle = _middle(size, _EDGE_FOR_LINES, _EDGE_FOR_LINES)
    noise = estimate_line_noise(
        [
            [each[middle].copy() for each in _measured(intensity, masked, (t, channel, p))]
            for t, p in pair
        ]
        for pair in pairs
    )
    return noise or "the images are too small, or hold no light"


def _middle(size: Sequence[int], rows: int, columns: int) -> tuple[slice, slice]:
    """Return a window (y, x) of at most so many lines and columns, from an even line on."""
    starts = (
        (length - min(length, most)) // 4 * 2
        for length, most in zip(size, (rows, columns), strict=True)
    )
    lengths = map(min, size, (rows, columns))
    return tuple(slice(start, start + n) for start, n in zip(starts, lengths, strict=True))


def _measured(
    intensity: da.Array, masked: da.Array | None, place: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return an image, and which of its pixels are measurements."""
    image = np.asarray(intensity[place])
    usable = np.ones(image.shape, bool) if masked is None else ~np.asarray(masked[place])
    return image, usable
