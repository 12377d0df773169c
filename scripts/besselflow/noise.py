"""The noise of each measured pixel, from what the spectral Gaussian process found of it."""

from __future__ import annotations

import numpy as np

# Read noise and the error of the expected intensity, as a share of the variance at the mean.
_VARIANCE_FLOOR = 0.08


def pixel_variance(expected: np.ndarray, noise_variance: float, mean: float) -> np.ndarray:
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

    Returns
    -------
    numpy.ndarray, shape (P, Y, X), float32
        Variances, positive.
    """
    relative = np.maximum(expected, 0) / max(mean, 1e-9)
    share = (relative + _VARIANCE_FLOOR) / (1 + _VARIANCE_FLOOR)
    return (noise_variance * share).astype(np.float32)
