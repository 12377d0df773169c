"""The corrections of single pixels and lines: masks, the phase of the scanner, and photons."""

from __future__ import annotations

import functools
import operator
from dataclasses import asdict, dataclass, field
from typing import Any

import dask.array as da
import numpy as np

from besselflow.config import Corrections
from besselflow.corrections.detector import counts_to_intensity
from besselflow.corrections.fill import fill_from_neighbours
from besselflow.corrections.flat_field import fit_to_images, noise_factors, read_flat_field
from besselflow.corrections.hot_pixels import FEWEST_IMAGES, find_hot_pixels
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


@dataclass(frozen=True)
class CorrectedPixels:
    """An acquisition whose pixels are corrected, lazily.

    Attributes
    ----------
    intensity : dask.array.Array, shape (T, C, P, Y, X)
        float32; what is masked is guessed from its neighbours.
    masked : dask.array.Array of bool, same shape, or None
        Pixels that hold no measurement.
    record : dict
        What was found and done, by correction.
    pictures : dict of str to numpy.ndarray, shape (2, y, x)
        A detail before and after each correction that was applied.
    """

    intensity: da.Array
    masked: da.Array | None
    record: dict[str, Any] = field(default_factory=dict)
    pictures: dict[str, np.ndarray] = field(default_factory=dict)


def correct_pixels(
    counts: da.Array,
    offset: float | np.ndarray | None,
    gain: float | np.ndarray | None,
    settings: Corrections,
) -> CorrectedPixels:
    """Convert counts to photons under even light, mask what is no measurement, shift odd lines.

    Parameters
    ----------
    counts : dask.array.Array, shape (T, C, P, Y, X)
        Raw counts, finite.
    offset, gain : float, numpy.ndarray of shape (C, 1, 1, 1), or None
        Counts of an unlit pixel, and counts per photon.
    settings : Corrections
        What to correct.
    """
    images = counts.rechunk((1, 1, 1, -1, -1))
    intensity = counts_to_intensity(images, offset, gain)
    intensity, record, pictures = _evened(intensity, offset, settings)
    masked, found, drawn = _masks(images, intensity, settings)
    record, pictures = record | found, pictures | drawn
    if masked is not None:
        intensity = per_image(fill_from_neighbours, intensity, masked)
    phase = _scan_phase(intensity, settings)
    if isinstance(phase, str):
        record["scan_phase"] = {"applied": False, "why_not": phase}
        return CorrectedPixels(intensity, masked, record, pictures)
    is_given = settings.scan_phase != "auto"
    applied = bool(is_given or phase.is_certain)
    record["scan_phase"] = {"applied": applied, "given": is_given, **asdict(phase)}
    if applied:
        logger.info("odd lines are moved by %.3g pixels", -phase.pixels)
        shifted = per_image(shift_odd_lines, intensity, pixels=phase.pixels)
        middle = (0, 0, images.shape[2] // 2)
        pictures["scan_phase"] = lateral_pair(intensity, shifted, middle, None)
        intensity = shifted
        if masked is None:
            masked = da.zeros(images.shape, dtype=bool, chunks=images.chunks)
        masked = per_image(shift_odd_mask, masked, dtype=bool, pixels=phase.pixels)
    return CorrectedPixels(intensity, masked, record, pictures)


def _evened(
    intensity: da.Array, offset: float | None, settings: Corrections
) -> tuple[da.Array, dict[str, Any], dict[str, np.ndarray]]:
    """Divide by the flat field, where one is given; with record and picture."""
    path = settings.flat_field
    if path == "none":
        return intensity, {"flat_field": {"applied": False, "why_not": "none is given"}}, {}
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
    logger.info("divided by the flat field %s, of %.3g to %.3g", path, *record["range"])
    if offset is None:
        logger.warning("the detector's offset is not known, and is divided by the flat field, too")
    pictures = {"flat_field": whole_pair(intensity, even, (0, 0, count // 2))}
    return even, {"flat_field": record}, pictures


def _masks(
    images: da.Array, intensity: da.Array, settings: Corrections
) -> tuple[da.Array | None, dict[str, Any], dict[str, np.ndarray]]:
    """Return what is no measurement, with records and pictures."""
    masks, pictures = {}, {}
    record: dict[str, Any] = {"saturation": {"applied": False, "share": 0.0}}
    level = settings.saturation
    if level == "auto":
        level = saturation_level(images)
    if level not in (None, "none"):
        masks["saturation"] = images >= level
        by_image = np.asarray(masks["saturation"].mean(axis=(3, 4)))
        share = float(by_image.mean())
        record["saturation"] = {"applied": share > 0, "level": float(level), "share": share}
        logger.info("%.3g %% of the pixels are saturated at %g counts", 100 * share, level)
    hot, record["hot_pixels"] = _hot_mask(images, settings)
    if hot.any():
        masks["hot_pixels"] = da.broadcast_to(
            da.from_array(hot[None, :, None], chunks=(1, 1, 1, -1, -1)),
            images.shape,
            chunks=images.chunks,
        )
    if not masks:
        return None, record, pictures
    for name, mask in masks.items():
        filled = per_image(fill_from_neighbours, intensity, mask.rechunk(images.chunks))
        counted = np.asarray(mask[0, 0].sum(axis=(1, 2)))
        place = (0, 0, int(np.argmax(counted)))
        if counted.any():
            centre = where_dense(np.asarray(mask[place]))
            pictures[name] = lateral_pair(intensity, filled, place, centre)
    masked = functools.reduce(operator.or_, masks.values())
    return masked.rechunk(images.chunks), record, pictures


def per_image(function, *arrays: da.Array, dtype=np.float32, **options) -> da.Array:
    """Apply a function of images (Y, X) to arrays (T, C, P, Y, X) in chunks of one image."""

    def apply(*blocks: np.ndarray) -> np.ndarray:
        return function(*(block[0, 0, 0] for block in blocks), **options)[None, None, None]

    meta = np.empty((0,) * 5, dtype)
    return da.map_blocks(apply, *arrays, dtype=dtype, meta=meta)


def _hot_mask(images: da.Array, settings: Corrections) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the hot pixels of every channel, (C, Y, X), and a record."""
    times, channels, count, height, width = images.shape
    hot = np.zeros((channels, height, width), bool)
    if settings.hot_pixels == "none":
        return hot, {"applied": False, "why_not": "it is switched off"}
    if times * count < FEWEST_IMAGES:
        return hot, {"applied": False, "why_not": f"there are fewer than {FEWEST_IMAGES} images"}
    for channel in range(channels):
        found = find_hot_pixels(images[:, channel].reshape(times * count, height, width))
        hot[channel] = found
    if hot.any():
        logger.info("%d hot pixels are masked", int(hot.sum()))
    found = int(hot.sum())
    return hot, {"applied": found > 0, "pixels": found, "share": float(hot.mean())}


def _scan_phase(intensity: da.Array, settings: Corrections) -> ScanPhase | str:
    """Return the phase, or why there is none."""
    if settings.scan_phase == "none":
        return "it is switched off"
    if settings.scan_phase != "auto":
        return ScanPhase(float(settings.scan_phase), 0.0)
    times, channels, count, height, _ = intensity.shape
    places = list(np.ndindex(times, channels, count))
    chosen = np.unique(np.linspace(0, len(places) - 1, min(len(places), _IMAGES_FOR_PHASE)))
    # The same rows of every image, beginning with an even one.
    rows = min(height, _LINES_FOR_PHASE)
    first = (height - rows) // 2 // 2 * 2
    images = [np.asarray(intensity[places[int(index)]])[first : first + rows] for index in chosen]
    found = estimate_scan_phase(np.stack(images))
    return found or "neighbouring lines have too little structure in common"
