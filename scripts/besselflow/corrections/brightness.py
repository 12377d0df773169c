r"""Brightness of single projections: bleaching, and the laser's fluctuation.

A fluctuation from one projection to the next is estimated as a gain per projection that maximises
the likelihood of `besselflow.corrections.likelihood`, with the error and the prior of
`besselflow.corrections.drift`. The structures that neighbours share decide, never the mean
brightness or the histogram. What varies smoothly with depth (a parabola in the order of
acquisition) is left as it is: a loss by bleaching, the attenuation with depth and a sample that
holds less further down give the same projections, and no single stack can tell them apart.

A time series can: it sees the same planes again and again, and what it loses from one time point to
the next it also loses, in proportion, within each stack. There, the loss is the slope of a line
through the logarithms of the gains of the time points, so that activity from one time point to the
next is not taken for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from besselflow.baselines.spectral import fit_spectral_model
from besselflow.corrections.drift import (
    FEWEST_PROJECTIONS,
    SMALLEST_REGION,
    blocks_of,
)
from besselflow.corrections.likelihood import RegionModes
from besselflow.corrections.shrinkage import Believed, believe, sandwich
from besselflow.projection import AxialProjection

_ITERATIONS = 40
_PRECISE = 1e-5
_ERRORS = 4.0
_LEAST_SIGNAL = 3.0
FEWEST_TIMES = 3


@dataclass(frozen=True)
class Loss:
    """An exponential loss of brightness.

    Attributes
    ----------
    per_stack : float
        Logarithm of the brightness that is lost from one time point to the next, positive for a
        loss.
    error : float
        Its standard error.
    log_gains : numpy.ndarray, shape (T,)
        Logarithm of the brightness of each time point, that of the first is 0.
    """

    per_stack: float
    error: float
    log_gains: np.ndarray

    @property
    def is_certain(self) -> bool:
        """Whether there is a loss, larger than four times its error."""
        return self.per_stack > _ERRORS * self.error


def estimate_fluctuation(
    regions: Sequence[np.ndarray],
    operator: AxialProjection,
    voxel_size_um: tuple[float, float, float],
    acquired: np.ndarray,
) -> Believed | None:
    """Estimate how the brightness fluctuates from projection to projection.

    Parameters
    ----------
    regions : sequence of numpy.ndarray, shape (P, y, x)
        Intensities of the same lateral region in each channel.
    operator : AxialProjection
        How the volume was measured.
    voxel_size_um : tuple of float
        (z, y, x) voxel size.
    acquired : numpy.ndarray, shape (P,)
        Place of each projection in the order of acquisition.

    Returns
    -------
    Believed or None
        Logarithms of the gains as ``values`` (1, P); None where there is too little to tell.
    """
    count, *shape = regions[0].shape
    if count < FEWEST_PROJECTIONS or min(shape) < SMALLEST_REGION:
        return None
    parts, gradients = [], []
    models = [fit_spectral_model([region], operator, voxel_size_um) for region in regions]
    for region, model in zip(regions, models, strict=True):
        parts.append(RegionModes.of(region, operator, model, voxel_size_um, _LEAST_SIGNAL))
    found, hessian = _maximise(parts)
    total = np.zeros_like(hessian)
    for region, model in zip(regions, models, strict=True):
        for block in blocks_of(region):
            part = RegionModes.of(block, operator, model, voxel_size_um, _LEAST_SIGNAL)
            _, gradient, own = part.by_gain(found)
            gradients.append(gradient)
            total += own
    time = acquired / max(count - 1, 1) - 0.5
    smooth = np.stack([np.ones(count), time, time**2], axis=1)
    errors = sandwich(hessian, np.array(gradients), total)
    return believe(found[None], [errors], smooth, {"independent": np.eye(count)})


def _maximise(parts: Sequence[RegionModes]) -> tuple[np.ndarray, np.ndarray]:
    """Return the logarithms of the gains, and the expected curvature there."""
    found = np.zeros(len(parts[0].modes))
    modes = sum(part.count for part in parts)
    for _ in range(_ITERATIONS):
        values = [part.by_gain(found) for part in parts]
        gradient = sum(each[1] for each in values)
        # The curvature that is expected at the minimum is positive everywhere.
        hessian = sum(each[2] for each in values)
        hessian = hessian + np.diag(gradient)
        step = np.linalg.solve(hessian + 1e-9 * modes * np.eye(len(found)), gradient)
        found = found - np.clip(step, -0.5, 0.5)
        if np.abs(step).max() < _PRECISE:
            break
    return found, hessian


def estimate_loss(regions: np.ndarray) -> Loss | None:
    """Estimate what a time series loses from one time point to the next.

    Parameters
    ----------
    regions : numpy.ndarray, shape (T, N, y, x)
        The same images (planes and channels) at all time points, where nothing moves.

    Returns
    -------
    Loss or None
        The brightness of a time point is the slope of its images against the mean over all time
        points, each image about its own mean. None for fewer than 3 time points, or no structure.
    """
    times = len(regions)
    if times < FEWEST_TIMES:
        return None
    centred = regions - regions.mean(axis=(2, 3), keepdims=True)
    total = centred.sum(axis=0)
    slopes = np.empty(times)
    for t, stack in enumerate(centred):
        # Without the time point itself, whose noise would be seen twice.
        others = (total - stack) / (times - 1)
        slopes[t] = (stack * others).sum() / max((others * others).sum(), 1e-30)
    if (slopes <= 0).any():
        return None
    gains = np.log(slopes)
    # The mean of the others is dimmer than that of all where the time point itself is bright.
    gains *= (times - 1) / times
    time = np.arange(times) - (times - 1) / 2
    slope = float(time @ gains / (time @ time))
    residual = gains - gains.mean() - slope * time
    error = float(np.sqrt(residual @ residual / max(times - 2, 1) / (time @ time)))
    return Loss(-slope, error, gains - gains[0])
