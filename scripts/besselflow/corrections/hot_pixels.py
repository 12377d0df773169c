"""Hot and dead pixels: fixed positions that stand out of their neighbours in every image."""

from __future__ import annotations

import dask.array as da
import numpy as np
from scipy.ndimage import rank_filter

FEWEST_IMAGES = 6
"""With fewer, a small structure that is in all of them can't be told from a hot pixel."""
_MOST_IMAGES = 48
_VALUES_AT_ONCE = 2**24
_RING = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], bool)
# A pixel is compared with the third most extreme of its eight neighbours, so that neither the rim
# of a structure nor two hot neighbours hide or mimic a hot pixel.
_RANK = 2
_DEVIATIONS = 6.0
_STEADY = 2.0


def find_hot_pixels(images: da.Array) -> np.ndarray | None:
    """Find the pixels that stand out in all images, brighter or darker than their surroundings.

    In each image, the excess of a pixel is its difference from the third largest of its eight
    neighbours (the third smallest for dead ones). A pixel is hot if even the lower quartile of its
    excess over all images is above 6 robust standard deviations of that quartile over all pixels,
    and the median above twice the spread over the images: the dark signal of a hot pixel is the
    same in all images, and structures are not.

    Parameters
    ----------
    images : dask.array.Array, shape (N, Y, X)
        Images of one channel, at all depths and times; at most 48 of them are looked at.

    Returns
    -------
    numpy.ndarray of bool, shape (Y, X), or None
        None where there are fewer than 6 images.
    """
    count, height, width = images.shape
    if count < FEWEST_IMAGES:
        return None
    chosen = np.unique(np.linspace(0, count - 1, min(count, _MOST_IMAGES)).round().astype(int))
    found = np.zeros((2, 3, height, width), np.float32)
    rows = max(1, _VALUES_AT_ONCE // (len(chosen) * width))
    for start in range(0, height, rows):
        stop = min(start + rows, height)
        low, high = max(0, start - 1), min(height, stop + 1)
        strip = np.asarray(images[chosen, low:high], dtype=np.float32)
        for sign, quartiles in zip((1, -1), found, strict=True):
            excess = np.stack([_excess(sign * image) for image in strip])
            quartiles[:, start:stop] = np.percentile(
                excess[:, start - low : stop - low], [25, 50, 75], axis=0
            )
    hot = np.zeros((height, width), bool)
    for lower, median, upper in found:
        centre = np.median(lower)
        spread = 1.4826 * np.median(np.abs(lower - centre))
        steady = median > _STEADY * (upper - lower) / 1.349
        hot |= (lower > max(0.0, centre + _DEVIATIONS * spread)) & steady
    return hot


def _excess(image: np.ndarray) -> np.ndarray:
    return image - rank_filter(image, -1 - _RANK, footprint=_RING, mode="mirror")
