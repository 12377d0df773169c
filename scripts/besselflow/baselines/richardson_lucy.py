"""Richardson-Lucy deconvolution along z: maximum likelihood for photons, stopped early."""

from __future__ import annotations

import numpy as np

from besselflow.noise import unknown
from besselflow.projection import AxialProjection

_SMALLEST = 1e-6


def richardson_lucy(
    projections: np.ndarray,
    operator: AxialProjection,
    iterations: int,
    masked: np.ndarray | None = None,
    saturated: np.ndarray | None = None,
) -> np.ndarray:
    """Run the classical iteration from a constant volume.

    Each iteration multiplies the volume by the back-projected ratio of measured to predicted
    projections, divided by the back-projection of ones (Richardson, JOSA 1972; Lucy, Astronomical
    Journal 1974). Slices that no projection sees stay at the start value.

    Parameters
    ----------
    projections : numpy.ndarray, shape (P, Y, X)
        Measured intensities; negative values count as 0.
    operator : AxialProjection
        How the volume was measured.
    iterations : int
        Number of iterations; noise grows with it.
    masked : numpy.ndarray of bool, shape (P, Y, X), or None
        Pixels that hold no measurement, which have no say: each is taken to be what the volume so
        far predicts, which is the step of expectation maximisation for missing counts.
    saturated : numpy.ndarray of bool, shape (P, Y, X), or None
        Those of them that are lower bounds, and only ever raise the volume.

    Returns
    -------
    numpy.ndarray, shape (Z, Y, X), float32
        Not negative.
    """
    measured = np.maximum(projections, 0).astype(np.float32)
    mean = measured.mean() if masked is None else measured[~masked].mean()
    seen = operator.seen[:, None, None]
    # Photons that were multiplied afterwards are no more than they were.
    trust = np.ones(len(measured), np.float32)
    if operator.noise_factors is not None:
        trust = (1 / operator.noise_factors).astype(np.float32)
    # A blur with mirror boundaries leaves ones as they are.
    sensitivity = (trust @ operator.matrix)[:, None, None].astype(np.float32)
    volume = np.full((operator.n_slices, *measured.shape[1:]), mean, np.float32)
    for _ in range(iterations):
        ratio = measured / np.maximum(operator.forward(volume), _SMALLEST)
        if masked is not None:
            ratio[unknown(masked, saturated)] = 1.0
        if saturated is not None:
            ratio[saturated] = np.maximum(ratio[saturated], 1.0)
        # The rounding of a blur's transforms can leave a little below zero.
        back = operator.adjoint(ratio * trust[:, None, None])
        factor = np.maximum(back, 0) / np.maximum(sensitivity, _SMALLEST)
        volume = np.where(seen, volume * factor, volume)
    return volume
