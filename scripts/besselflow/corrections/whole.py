"""The corrections of whole projections: motion, bleaching, attenuation, drift and the laser."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import dask.array as da
import numpy as np
from scipy.ndimage import shift

from besselflow.baselines.spectral import fit_spectral_model
from besselflow.baselines.spectral_masked import fill_masked
from besselflow.config import Corrections
from besselflow.corrections.attenuation import (
    LEAST_LEFT,
    Attenuation,
    estimate_fall,
    share_left,
)
from besselflow.corrections.brightness import estimate_fluctuation, estimate_loss
from besselflow.corrections.drift import estimate_drift
from besselflow.corrections.motion import (
    LEAST_AGREEMENT,
    LEAST_PIXELS,
    agreement,
    estimate_motion,
)
from besselflow.corrections.pictures import section_pair, where_dense, window_around
from besselflow.corrections.pixels import moved_masks
from besselflow.job import logger
from besselflow.store import Projections

LEAST_OVERLAP = 0.3
_REGION = 320
_PLANES_FOR_MOTION = 8
_NEAR_PLANES = 8
_LEAST_FLUCTUATION = 0.01
_LEAST_DRIFT = 0.2
_FLAT = 1e-6


def correct_whole(
    projections: Projections,
    acquired: np.ndarray,
    settings: Corrections,
    offset_known: bool = True,
) -> Projections:
    """Take back motion, drift, and changes of the brightness.

    Everything is estimated in a central region of at most 320 x 320 pixels, on all channels
    together, and applied image by image. Motion comes first: what follows is then estimated on the
    mean over time.

    Parameters
    ----------
    projections : Projections
        Intensities, sorted by stage position.
    acquired : numpy.ndarray, shape (P,)
        Place of each projection in the order of acquisition.
    settings : Corrections
        What to correct.
    offset_known : bool
        Whether a place without light has the intensity 0.

    Returns
    -------
    Projections
        Corrected, lazily; the attribute ``corrections`` says what was found.

    Raises
    ------
    InputError
        A given attenuation length would leave no light.
    """
    times, _, count, height, width = projections.data.shape
    region = tuple(
        slice(max(0, (length - _REGION) // 2), (length + min(length, _REGION) + 1) // 2)
        for length in (height, width)
    )
    log_gains, displacement = np.zeros((times, count)), np.zeros((times, count, 2))
    record: dict[str, Any] = {}
    if times > 1 and settings.motion == "auto":
        record["motion"], displacement[:] = _motion(projections, region)
    mean = _mean_over_time(projections.data, displacement, region)
    lost, record["bleaching"] = _loss(projections, displacement, region, acquired, settings)
    log_gains += lost
    overlap = _overlap(projections)
    enough = overlap >= LEAST_OVERLAP
    why_not = None if enough else _too_little(overlap)
    mean = [stack * np.exp(-lost.mean(axis=0))[:, None, None] for stack in mean]
    mean = _completed(projections, mean, region)
    faded, record["depth_attenuation"] = _attenuation(projections, mean, settings, offset_known)
    if faded is not None:
        projections = faded.account_for(projections)
        log_gains += faded.log_gains
        mean = [stack * np.exp(-faded.log_gains)[:, None, None] for stack in mean]
    off = {"applied": False, "why_not": "it is switched off"}
    record |= {"laser": off, "drift": off}
    # Displaced structures look dimmer to their neighbours, so that displacements come first.
    if settings.drift == "auto":
        pixels, record["drift"] = _drift(projections, mean, why_not)
        displacement += pixels
        mean = [_moved_back(stack, pixels) for stack in mean]
    if settings.laser == "auto":
        values, record["laser"] = _fluctuation(projections, mean, acquired, why_not)
        log_gains += values
    corrected = apply(projections, log_gains, displacement)
    pictures = dict(projections.pictures)
    kinds = ("bleaching", "depth_attenuation", "laser", "drift")
    for name, axis in (("motion", 0), *((kind, 2) for kind in kinds)):
        if record.get(name, {}).get("applied"):
            pictures[name] = section_pair(projections.data, corrected.data, axis)
    if corrected.saturated is not None:
        pictures |= _where_saturated(corrected)
    attributes = dict(projections.attributes)
    attributes["corrections"] = attributes.get("corrections", {}) | record
    return replace(corrected, attributes=attributes, pictures=pictures)


def apply(projections: Projections, log_gains: np.ndarray, displacement: np.ndarray) -> Projections:
    """Divide by gains, move images back, and mask what comes from beyond their edges.

    Parameters
    ----------
    projections : Projections
    log_gains : numpy.ndarray, shape (T, P)
    displacement : numpy.ndarray, shape (T, P, 2)
        In pixels (y, x), as the images are displaced.
    """
    data = projections.data.rechunk((1, 1, 1, -1, -1))
    masked, saturated = projections.masked, projections.saturated
    if np.abs(log_gains).max() > 0:
        factors = np.exp(-log_gains).astype(np.float32)[:, None, :, None, None]
        data = data * da.from_array(factors, chunks=(1, 1, 1, 1, 1))
    if np.abs(displacement).max() > 0:
        if masked is None:
            masked = da.zeros(data.shape, dtype=bool, chunks=data.chunks)
        data = data.map_blocks(_shift_block, displacement, 3, dtype=np.float32)

        def move(mask: da.Array) -> da.Array:
            return mask.rechunk(data.chunks).map_blocks(_shift_block, displacement, 1, dtype=bool)

        masked, saturated = moved_masks(masked, saturated, move)
    return replace(projections, data=data, masked=masked, saturated=saturated)


def _shift_block(block: np.ndarray, displacement: np.ndarray, order: int, block_info=None):
    t, _, p = block_info[0]["chunk-location"][:3]
    back = -displacement[t, p]
    if not back.any():
        return block
    if order > 1:
        return shift(block[0, 0, 0], back, order=order, mode="nearest")[None, None, None]
    # What a masked pixel or the outside has a part in is masked.
    moved = shift(block[0, 0, 0].astype(np.float32), back, order=1, mode="constant", cval=1.0)
    return (moved > 0.01)[None, None, None]


def _overlap(projections: Projections) -> float:
    """Return the median overlap of neighbouring beams: 0 for none, 1 for the same depths."""
    matrix = projections.operator.matrix
    if len(matrix) < 2:
        return 0.0
    gram = matrix @ matrix.T
    return float(np.median(np.diag(gram, 1) / np.sqrt(np.diag(gram)[1:] * np.diag(gram)[:-1])))


def _too_little(overlap: float) -> str:
    return (
        f"neighbouring beams overlap by {overlap:.0%}, and {LEAST_OVERLAP:.0%} is the least that "
        "is needed: the projections show different depths"
    )


def _window(data: da.Array, t: int, c: int, planes, region) -> np.ndarray:
    return np.asarray(data[t, c, planes, region[0], region[1]], dtype=np.float32)


def _mean_over_time(data, displacement: np.ndarray, region) -> list[np.ndarray]:
    """Return the mean over time of every channel, motion taken back, each (P, y, x)."""
    times, channels = data.shape[:2]
    means = []
    for c in range(channels):
        total = 0.0
        for t in range(times):
            total = total + _moved_back(_window(data, t, c, slice(None), region), displacement[t])
        means.append(total / times)
    return means


def _moved_back(stack: np.ndarray, displacement: np.ndarray) -> np.ndarray:
    if not displacement.any():
        return stack
    return np.stack(
        [
            shift(image, -own, order=3, mode="nearest")
            for image, own in zip(stack, displacement, strict=True)
        ]
    )


def _completed(projections: Projections, mean: list[np.ndarray], region) -> list[np.ndarray]:
    """Let the spectral Gaussian process predict what is masked at any time."""
    if projections.masked is None or _is_flat(mean):
        return mean
    operator, voxels, filled = projections.operator, projections.voxel_size_um, []
    for c, stack in enumerate(mean):
        masked = np.asarray(projections.masked[:, c, :, region[0], region[1]].any(axis=0))
        model = fit_spectral_model([stack], operator, voxels)
        filled.append(fill_masked(stack, masked, operator, model, voxels))
    return filled


def _where_saturated(projections: Projections) -> dict[str, np.ndarray]:
    """Draw a detail of the first channel and time, with its bounds and as bright as is probable."""
    counted = np.asarray(projections.saturated[0, 0].sum(axis=(1, 2)))
    plane = int(np.argmax(counted))
    centre = where_dense(np.asarray(projections.saturated[0, 0, plane]))
    window = window_around(centre, projections.data.shape[3:])
    # What lies far off in depth says little of this projection, and much computing is saved.
    near = slice(max(0, plane - _NEAR_PLANES), plane + _NEAR_PLANES + 1)
    stack = np.asarray(projections.data[0, 0, near, *window])
    if not counted.any() or _is_flat([stack]):
        return {}
    whole, voxels = projections.operator, projections.voxel_size_um
    factors = whole.noise_factors
    operator = replace(
        whole,
        matrix=whole.matrix[near],
        noise_factors=None if factors is None else factors[near],
    )
    masked, saturated = (
        np.asarray(mask[0, 0, near, *window])
        for mask in (projections.masked, projections.saturated)
    )
    model = fit_spectral_model([stack], operator, voxels)
    filled = fill_masked(stack, masked, operator, model, voxels, saturated)
    own = plane - near.start
    return {"saturation": np.stack([stack[own], filled[own]])}


def _some_planes(count: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, min(count, _PLANES_FOR_MOTION)).round().astype(int))


def _planes_over_time(projections: Projections, displacement: np.ndarray, region) -> np.ndarray:
    """Return some planes of all channels at all times, motion taken back, (T, N, y, x)."""
    times, channels, count = projections.data.shape[:3]
    planes = _some_planes(count)
    return np.stack(
        [
            np.concatenate(
                [
                    _moved_back(
                        _window(projections.data, t, c, planes, region), displacement[t, planes]
                    )
                    for c in range(channels)
                ]
            )
            for t in range(times)
        ]
    )


def _motion(projections: Projections, region) -> tuple[dict[str, Any], np.ndarray]:
    nothing = np.zeros((*projections.data.shape[::2][:2], 2))
    stacks = _planes_over_time(projections, nothing, region)
    motion = estimate_motion(stacks)
    if agreement(stacks, motion) < LEAST_AGREEMENT:
        record = {"applied": False, "why_not": "the time points have too little in common"}
        return record, np.zeros((len(stacks), 1, 2))
    largest = float(np.abs(motion).max())
    applied = largest >= LEAST_PIXELS
    if applied:
        logger.info("time points are moved by up to %.3g pixels", largest)
    record = {"applied": applied, "pixels": motion.tolist()}
    return record, motion[:, None, :] * float(applied)


def _loss(
    projections: Projections, displacement, region, acquired, settings: Corrections
) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the logarithm of what is left of the brightness, (T, P), and a record."""
    times, _, count = projections.data.shape[:3]
    elapsed = np.arange(times)[:, None] + acquired / count
    if settings.bleaching == "none":
        return np.zeros((times, count)), {"applied": False, "why_not": "it is switched off"}
    if settings.bleaching != "auto":
        share = float(settings.bleaching)
        rate = -np.log1p(-share) / elapsed.max() if elapsed.max() > 0 else 0.0
        return -rate * elapsed, {"applied": True, "given": True, "share": share}
    loss = None
    if times > 1:
        stacks = _planes_over_time(projections, displacement, region)
        if agreement(stacks, np.zeros((times, 2))) < LEAST_AGREEMENT:
            why_not = "the time points have too little in common"
            return np.zeros((times, count)), {"applied": False, "why_not": why_not}
        loss = estimate_loss(stacks)
    if loss is None:
        why_not = (
            "a single stack can't tell a loss over time from the attenuation with depth, or from "
            "a sample that holds less further down"
        )
        return np.zeros((times, count)), {"applied": False, "why_not": why_not}
    share = float(-np.expm1(-loss.per_stack * elapsed.max()))
    record = {
        "applied": bool(loss.is_certain),
        "share": share,
        "error": float(loss.error * elapsed.max()),
        "gains": np.exp(loss.log_gains).tolist(),
    }
    if not loss.is_certain:
        return np.zeros((times, count)), record
    logger.info("%.3g %% of the brightness are lost over the series", 100 * share)
    return -loss.per_stack * elapsed, record


def _attenuation(
    projections: Projections, mean: list[np.ndarray], settings: Corrections, offset_known: bool
) -> tuple[Attenuation | None, dict[str, Any]]:
    """Return what attenuation does to the projections, and a record."""
    length, positions = settings.depth_attenuation, projections.positions_um
    if length == "none":
        return None, {"applied": False, "why_not": "it is switched off"}
    record: dict[str, Any] = {"applied": True, "given": True, "offset_known": offset_known}
    if length == "auto":
        if not offset_known:
            why_not = "the detector's offset is not known, and it does not fall with depth"
            return None, {"applied": False, "why_not": why_not}
        found = estimate_fall(mean, positions)
        if isinstance(found, str):
            return None, {"applied": False, "why_not": found}
        record |= {"applied": found.is_certain, "given": False, "error_um": found.error_um}
        record |= {"rate_per_um": found.rate_per_um, "rate_error_per_um": found.rate_error_per_um}
        if not found.is_certain:
            return None, record
        length = found.length_um
        if share_left(positions, length) < LEAST_LEFT:
            why_not = f"the brightness falls by more than {1 / LEAST_LEFT:g} times"
            return None, {"applied": False, "why_not": why_not}
    faded = Attenuation.of(projections, float(length))
    before = np.array([stack.mean(axis=(1, 2)) for stack in mean])
    record |= {
        "length_um": float(length),
        "left": share_left(positions, length),
        "z_um": positions.tolist(),
        "before": before.tolist(),
        "after": (before * np.exp(-faded.log_gains)).tolist(),
    }
    logger.info("the brightness falls to 1/e over %.4g um of depth", length)
    if not offset_known:
        logger.warning("the detector's offset is not known, and is raised with depth, too")
    return faded, record


def _fluctuation(
    projections: Projections, mean: list[np.ndarray], acquired: np.ndarray, why_not: str | None
) -> tuple[np.ndarray, dict[str, Any]]:
    nothing = np.zeros(len(acquired))
    if why_not is not None or _is_flat(mean):
        return nothing, {"applied": False, "why_not": why_not or "there is no structure"}
    found = estimate_fluctuation(mean, projections.operator, projections.voxel_size_um, acquired)
    if found is None:
        return nothing, {"applied": False, "why_not": "too few projections or pixels"}
    values = found.values[0]
    least = max(_LEAST_FLUCTUATION, found.errors.mean())
    applied = bool(found.is_certain and values.std() >= least)
    record = {
        "applied": applied,
        "gains": np.exp(values).tolist(),
        "spread": float(values.std()),
        "error": float(found.errors.mean()),
        "evidence": found.evidence,
    }
    if applied:
        logger.info("the brightness of projections fluctuates by %.2g %%", 100 * values.std())
    return (values if applied else nothing), record


def _drift(
    projections: Projections, mean: list[np.ndarray], why_not: str | None
) -> tuple[np.ndarray, dict[str, Any]]:
    nothing = np.zeros((len(mean[0]), 2))
    if why_not is not None or _is_flat(mean):
        return nothing, {"applied": False, "why_not": why_not or "there is no structure"}
    found = estimate_drift(mean, projections.operator, projections.voxel_size_um)
    if found is None:
        return nothing, {"applied": False, "why_not": "too few projections or pixels"}
    pixels = found.values.T
    spread = float(np.sqrt((pixels**2).mean()))
    applied = bool(found.is_certain and spread >= max(_LEAST_DRIFT, found.errors.mean()))
    record = {
        "applied": applied,
        "pixels": pixels.tolist(),
        "spread": spread,
        "error": float(found.errors.mean()),
        "evidence": found.evidence,
        "kind": found.kind,
    }
    if applied:
        logger.info("projections are displaced by %.2g pixels (%s)", spread, found.kind)
    return (pixels if applied else nothing), record


def _is_flat(mean: list[np.ndarray]) -> bool:
    return any(float(np.ptp(stack)) <= _FLAT * float(np.abs(stack).max()) for stack in mean)
