r"""Lateral displacements of single projections, from what all the others predict of each.

The displacements maximise the likelihood of `besselflow.corrections.likelihood`, from coarse to
fine. Its curvature would be their precision if the sample were the Gaussian process that it is
taken for; structures are not, so that the error is scaled by how much the slopes of the likelihood
in separate lateral blocks scatter (Huber's sandwich, as one factor). What is believed follows from
that (`besselflow.corrections.shrinkage`): displacements independent of each other, or a random
walk.

A displacement that changes smoothly with depth looks like a sample that leans or bends, and can't
be told from one; a parabola is therefore left in. Where beams overlap little, neither can any other
displacement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.ndimage import shift

from besselflow.baselines.spectral import fit_spectral_model
from besselflow.corrections.likelihood import RegionModes
from besselflow.corrections.shrinkage import Believed, believe, sandwich
from besselflow.projection import AxialProjection

FEWEST_PROJECTIONS = 7
SMALLEST_REGION = 48
_BLURS = (4.0, 2.0, 1.0, 0.0)
_BLOCKS_PER_EDGE = 4
_ROUNDS = 2
_ITERATIONS = 25
_LARGEST_STEP = 1.0
_PRECISE = 1e-3


def estimate_drift(
    regions: Sequence[np.ndarray],
    operator: AxialProjection,
    voxel_size_um: tuple[float, float, float],
) -> Believed | None:
    """Estimate the displacements of all projections of a stack.

    Parameters
    ----------
    regions : sequence of numpy.ndarray, shape (P, y, x)
        Intensities of the same lateral region in each channel.
    operator : AxialProjection
        How the volume was measured.
    voxel_size_um : tuple of float
        (z, y, x) voxel size.

    Returns
    -------
    Believed or None
        Displacements in pixels, the ``values`` (2, P) along y and x; they hold nothing that a
        parabola in depth could be. None where there are too few projections, or too few pixels.
    """
    count, *shape = regions[0].shape
    if count < FEWEST_PROJECTIONS or min(shape) < SMALLEST_REGION:
        return None
    found = np.zeros((count, 2))
    for _ in range(_ROUNDS):
        moved = [move(region, -found) for region in regions]
        models = [fit_spectral_model([region], operator, voxel_size_um) for region in moved]
        parts = [
            RegionModes.of(region, operator, model, voxel_size_um)
            for region, model in zip(regions, models, strict=True)
        ]
        found, hessian = register(parts, found)
    moved = [move(region, -found) for region in regions]
    errors = _errors(moved, models, operator, voxel_size_um, hessian)
    time = np.linspace(-1, 1, count)
    smooth = np.stack([np.ones(count), time, time**2], axis=1)
    walk = np.tri(count) @ np.tri(count).T
    priors = {"independent": np.eye(count), "random walk": walk}
    return believe(found.T, errors, smooth, priors)


def move(stack: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Move each image of a stack (P, Y, X) by its own (P, 2) pixels, with cubic splines."""
    return np.stack(
        [
            image if not own.any() else shift(image, own, order=3, mode="nearest")
            for image, own in zip(stack, pixels, strict=True)
        ]
    )


def register(parts: Sequence[RegionModes], start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Maximise the likelihood over displacements whose mean is 0.

    Parameters
    ----------
    parts : sequence of RegionModes
        Regions or channels that moved together.
    start : numpy.ndarray, shape (P, 2)
        Displacements to start from, in pixels.

    Returns
    -------
    displacements : numpy.ndarray, shape (P, 2)
    hessian : numpy.ndarray, shape (P, P, 2, 2)
        Curvature of the negative log-likelihood there.
    """
    found = start - start.mean(axis=0)
    for blur in _BLURS:

        def likelihood(pixels: np.ndarray, blur=blur) -> tuple:
            values = [part.by_displacement(pixels, blur) for part in parts]
            return tuple(sum(each) for each in zip(*values, strict=True))

        found, hessian = _descend(likelihood, found)
    return found, hessian


def _descend(likelihood: Callable, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Newton's method with positive curvatures, small steps, and no way up."""
    count = len(found)
    value, gradient, hessian = likelihood(found)
    for _ in range(_ITERATIONS):
        flat = hessian.transpose(0, 2, 1, 3).reshape(2 * count, 2 * count)
        values, vectors = np.linalg.eigh(flat)
        values = np.maximum(np.abs(values), 1e-3 * np.abs(values).max() + 1e-12)
        step = -(vectors / values) @ (vectors.T @ gradient.ravel())
        step = step.reshape(count, 2)
        step -= step.mean(axis=0)
        step *= min(1.0, _LARGEST_STEP / max(np.abs(step).max(), 1e-12))
        while np.abs(step).max() > _PRECISE:
            tried = likelihood(found + step)
            if tried[0] < value:
                break
            step = step / 2
        else:
            break
        found = found + step
        value, gradient, hessian = tried
    return found, hessian


def blocks_of(region: np.ndarray) -> list[np.ndarray]:
    """Cut a region (P, y, x) into a grid of 4 x 4 lateral blocks."""
    rows = np.array_split(np.arange(region.shape[1]), _BLOCKS_PER_EDGE)
    columns = np.array_split(np.arange(region.shape[2]), _BLOCKS_PER_EDGE)
    return [region[:, r[0] : r[-1] + 1, c[0] : c[-1] + 1] for r in rows for c in columns]


def _errors(moved, models, operator, voxel_size_um, hessian: np.ndarray) -> list[np.ndarray]:
    """Return the covariances of the displacements along y and x."""
    gradients, total = [], 0.0
    for region, model in zip(moved, models, strict=True):
        for block in blocks_of(region):
            part = RegionModes.of(block, operator, model, voxel_size_um)
            _, gradient, own = part.by_displacement(np.zeros((len(region), 2)))
            gradients.append(gradient)
            total = total + own
    slopes = np.array(gradients)
    return [
        sandwich(hessian[..., axis, axis], slopes[..., axis], total[..., axis, axis])
        for axis in range(2)
    ]
