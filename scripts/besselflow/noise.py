"""The noise of each measured pixel, from what the spectral Gaussian process found of it."""

from __future__ import annotations

import numpy as np

# Read noise and the error of the expected intensity, as a share of the variance at the mean.
_VARIANCE_FLOOR = 0.08
EXCLUDED = 1e4
"""Factor of the variance of a masked pixel: it counts as one ten-thousandth of a measurement."""


def pixel_variance(
    expected: np.ndarray,
    noise_variance: float,
    mean: float,
    masked: np.ndarray | None = None,
    factors: np.ndarray | None = None,
) -> np.ndarray:
    """Return the noise variance of each measured pixel.

    It grows with the expected intensity as that of photons does, and at the mean intensity it is
    the variance that was fitted: this holds for photons, and for counts of an unknown gain.

    Parameters
    ----------
    expected : numpy.ndarray, shape (P, Y, X)
        Noise-free projections, as far as they are known.
    noise_variance : float
        Fitted variance of a projected pixel.
    mean : float
        Mean intensity.
    masked : numpy.ndarray of bool, shape (P, Y, X), or None
        Pixels of which nothing is known (hot, beyond the edge; see `unknown`); their variance is
        `EXCLUDED` times as large. It stays finite, so that every solve stays regular.
    factors : numpy.ndarray, shape (P,), or None
        `noise_factors` of the operator (`besselflow.projection.AxialProjection`).

    Returns
    -------
    numpy.ndarray, shape (P, Y, X), float32
        Variances, positive.
    """
    relative = np.maximum(expected, 0) / max(mean, 1e-9)
    share = (relative + _VARIANCE_FLOOR) / (1 + _VARIANCE_FLOOR)
    variance = noise_variance * share
    if factors is not None:
        variance = variance * factors[:, None, None]
    if masked is not None:
        variance = np.where(masked, EXCLUDED * variance, variance)
    return variance.astype(np.float32)


def unknown(masked: np.ndarray | None, saturated: np.ndarray | None) -> np.ndarray | None:
    """Return the masked pixels of which not even a lower bound is known; None for none at all."""
    if masked is None or saturated is None:
        return masked
    return masked & ~saturated
