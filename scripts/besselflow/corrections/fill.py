"""A guess of masked pixels from their neighbours, for pictures and for resampling."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

_FIRST_SIGMA, _LARGEST_SIGMA = 0.8, 64.0
_LEAST_SUPPORT = 0.05


def fill_from_neighbours(image: np.ndarray, masked: np.ndarray) -> np.ndarray:
    """Replace masked pixels by a weighted mean of the unmasked ones around them.

    Parameters
    ----------
    image : numpy.ndarray, shape (Y, X)
    masked : numpy.ndarray of bool, shape (Y, X)
        Pixels to replace.

    Returns
    -------
    numpy.ndarray, shape (Y, X), float32
        The weights are Gaussian, and as narrow as reaches enough unmasked pixels (Knutsson &
        Westin, Normalized and differential convolution, CVPR 1993). The image itself where all is
        masked.
    """
    filled = image.astype(np.float32)
    if not masked.any() or masked.all():
        return filled
    kept = (~masked).astype(np.float32)
    left, sigma = masked.copy(), _FIRST_SIGMA
    while left.any() and sigma <= _LARGEST_SIGMA:
        support = gaussian_filter(kept, sigma, mode="mirror")
        mean = gaussian_filter(filled * kept, sigma, mode="mirror") / np.maximum(support, 1e-6)
        reached = left & (support > _LEAST_SUPPORT)
        filled[reached] = mean[reached]
        left &= ~reached
        sigma *= 2
    return filled
