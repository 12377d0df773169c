"""The corrections of single pixels and lines: masks, the phase of the scanner, and photons."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import dask.array as da
import numpy as np

from besselflow.config import Corrections
from besselflow.corrections.detector import counts_to_intensity
from besselflow.corrections.fill import fill_from_neighbours
from besselflow.corrections.hot_pixels import FEWEST_IMAGES, find_hot_pixels
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
    """

    intensity: da.Array
    masked: da.Array | None
    record: dict[str, Any] = field(default_factory=dict)


def correct_pixels(
    counts: da.Array, offset: float | None, gain: float | None, settings: Corrections
) -> CorrectedPixels:
    """Mask what is no measurement, shift odd lines back, and convert counts to photons.

    Parameters
    ----------
    counts : dask.array.Array, shape (T, C, P, Y, X)
        Raw counts, finite.
    offset, gain : float or None
        Counts of an unlit pixel, and counts per photon.
    settings : Corrections
        What to correct.
    """
    images = counts.rechunk((1, 1, 1, -1, -1))
    intensity = counts_to_intensity(images, offset, gain)
    record: dict[str, Any] = {}
    masks = []
    level = settings.saturation
    if level == "auto":
        level = saturation_level(images)
    if level not in (None, "none"):
        masks.append(images >= level)
        share = float(masks[0].mean().compute())
        record["saturation"] = {"level": float(level), "share": share}
        logger.info("%.3g %% of the pixels are saturated at %g counts", 100 * share, level)
    if settings.hot_pixels == "auto":
        hot, record["hot_pixels"] = _hot_mask(images)
        if hot.any():
            masks.append(da.from_array(hot[None, :, None], chunks=(1, 1, 1, -1, -1)))
    masked = None
    if masks:
        masked = da.broadcast_to(masks[0], images.shape, chunks=images.chunks)
        for mask in masks[1:]:
            masked = masked | mask
        masked = masked.rechunk(images.chunks)
        intensity = per_image(fill_from_neighbours, intensity, masked)
    phase = _scan_phase(intensity, settings)
    if phase is None:
        why_not = "neighbouring lines have no structure in common"
        if settings.scan_phase == "none":
            why_not = "it is switched off"
        record["scan_phase"] = {"applied": False, "why_not": why_not}
    else:
        is_given = settings.scan_phase != "auto"
        record["scan_phase"] = {"pixels": phase.pixels, "error": phase.error, "given": is_given}
        applied = is_given or phase.is_certain
        record["scan_phase"]["applied"] = bool(applied)
        if applied:
            logger.info("odd lines are moved by %.3g pixels", -phase.pixels)
            intensity = per_image(shift_odd_lines, intensity, pixels=phase.pixels)
            if masked is None:
                masked = da.zeros(images.shape, dtype=bool, chunks=images.chunks)
            masked = per_image(shift_odd_mask, masked, dtype=bool, pixels=phase.pixels)
    return CorrectedPixels(intensity, masked, record)


def per_image(function, *arrays: da.Array, dtype=np.float32, **options) -> da.Array:
    """Apply a function of images (Y, X) to arrays (T, C, P, Y, X) in chunks of one image."""

    def apply(*blocks: np.ndarray) -> np.ndarray:
        return function(*(block[0, 0, 0] for block in blocks), **options)[None, None, None]

    meta = np.empty((0,) * 5, dtype)
    return da.map_blocks(apply, *arrays, dtype=dtype, meta=meta)


def _hot_mask(images: da.Array) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the hot pixels of every channel, (C, Y, X), and a record."""
    times, channels, count, height, width = images.shape
    hot = np.zeros((channels, height, width), bool)
    if times * count < FEWEST_IMAGES:
        return hot, {"pixels": None, "why_not": f"fewer than {FEWEST_IMAGES} images"}
    for channel in range(channels):
        found = find_hot_pixels(images[:, channel].reshape(times * count, height, width))
        hot[channel] = found
    if hot.any():
        logger.info("%d hot pixels are masked", int(hot.sum()))
    return hot, {"pixels": int(hot.sum()), "share": float(hot.mean())}


def _scan_phase(intensity: da.Array, settings: Corrections) -> ScanPhase | None:
    if settings.scan_phase == "none":
        return None
    if settings.scan_phase != "auto":
        return ScanPhase(float(settings.scan_phase), 0.0)
    times, channels, count, height, _ = intensity.shape
    places = list(np.ndindex(times, channels, count))
    chosen = np.unique(np.linspace(0, len(places) - 1, min(len(places), _IMAGES_FOR_PHASE)))
    # The same rows of every image, beginning with an even one.
    rows = min(height, _LINES_FOR_PHASE)
    first = (height - rows) // 2 // 2 * 2
    images = [np.asarray(intensity[places[int(index)]])[first : first + rows] for index in chosen]
    return estimate_scan_phase(np.stack(images))
