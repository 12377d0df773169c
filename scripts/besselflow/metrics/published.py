"""The metrics of the published evaluation, so that numbers can be compared with those in the paper.

Hui et al., CVPR 2024 (arXiv 2403.10815) and their released code normalise truth and result each by
its own minimum and maximum, store the result with 8 bits, and compute per slice a PSNR with the
range 255, whose mean they give. For Dice, each slice of each volume is cut at its own threshold
after Otsu, and the masks of all slices are compared at once. A result on the wrong scale can score
well in this way, and a noisy dark slice badly, which is why these are not our headline metrics.

Their SSIM is left out: it was computed without a data range, so that it depends on the version of
scikit-image.
"""

from __future__ import annotations

import numpy as np
from skimage.filters import threshold_otsu

from besselflow.metrics.patches import iterate_bands

_RANGE = 255


def slice_published(
    guess: np.ndarray,
    true: np.ndarray,
    guess_extremes: tuple[float, float],
    true_extremes: tuple[float, float],
) -> dict[str, float]:
    """Return what the published metrics need of one slice.

    Parameters
    ----------
    guess, true : numpy.ndarray, shape (Y, X)
        A slice of the estimate and of the truth, as they are.
    guess_extremes, true_extremes : tuple of float
        Minimum and maximum of the whole volumes.

    Returns
    -------
    dict
        ``published_square`` (mean squared error in units of the 8-bit range), ``published_overlap``
        and ``published_sizes`` (voxels).
    """
    stored, cut = np.empty((2, *guess.shape), np.uint8)
    start, total = 0, 0.0
    for part, true_part in iterate_bands(guess, true):
        rows = slice(start, start + len(part))
        exact = _stretch(true_part, true_extremes)
        cut[rows] = exact
        stored[rows] = np.floor(_stretch(part, guess_extremes) + 0.5)
        total += float(np.square(stored[rows] - exact).sum())
        start = rows.stop
    masks = _otsu_mask(stored), _otsu_mask(cut)
    return {
        "published_square": total / stored.size / _RANGE**2,
        "published_overlap": int(np.count_nonzero(masks[0] & masks[1])),
        "published_sizes": sum(int(np.count_nonzero(mask)) for mask in masks),
    }


def _stretch(values: np.ndarray, extremes: tuple[float, float]) -> np.ndarray:
    low, high = extremes
    if high <= low:
        return np.zeros(values.shape)
    return np.clip((values - low) / (high - low), 0, 1) * _RANGE


def _otsu_mask(image: np.ndarray) -> np.ndarray:
    """Cut at Otsu's threshold; a constant slice at 0, as OpenCV does, which the authors used."""
    constant = image.min() == image.max()
    return image > (0 if constant else threshold_otsu(image))
