"""Hot and dead pixels: fixed positions that stand out of their neighbours in every image."""

from __future__ import annotations

import math
from collections.abc import Iterator

import dask.array as da
import numpy as np

FEWEST_IMAGES = 6
"""With fewer, a small structure that is in all of them can't be told from a hot pixel."""
_MOST_IMAGES = 48
_VALUES_AT_ONCE = 2**24
# Of which all copies of a band stay in the cache of the processor.
_PIXELS_OF_A_BAND = 2**17
# Those that tell what is usual.
_SAMPLED_PIXELS = 2**18
_RING = [(y, x) for y in range(3) for x in range(3) if (y, x) != (1, 1)]
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
    # A quartile of the excess is above zero only where it is in so many images.
    enough = len(chosen) - math.ceil((len(chosen) - 1) / 4)
    standing = np.zeros((2, height, width), np.uint8)
    # An odd step, which comes by all columns of the usual widths.
    step = math.ceil(height * width / _SAMPLED_PIXELS) | 1
    sampled = np.unravel_index(np.arange(0, height * width, step), (height, width))
    usual = []
    for image in _iterate_images(images, chosen):
        standing += _stands_out(image)
        usual.append(_excess(image, *sampled))
    candidates = [np.nonzero(each >= enough) for each in standing]
    found: tuple[list[np.ndarray], ...] = ([], [])
    for image in _iterate_images(images, chosen):
        for sign, own in enumerate(candidates):
            found[sign].append(_excess(image, *own)[sign])
    hot = np.zeros((height, width), bool)
    for sign, own in enumerate(candidates):
        lower = np.percentile([each[sign] for each in usual], 25, axis=0)
        centre = np.median(lower)
        spread = 1.4826 * np.median(np.abs(lower - centre))
        lower, median, upper = np.percentile(found[sign], [25, 50, 75], axis=0)
        steady = median > _STEADY * (upper - lower) / 1.349
        hot[own] |= (lower > max(0.0, centre + _DEVIATIONS * spread)) & steady
    return hot


def _iterate_images(images: da.Array, chosen: np.ndarray) -> Iterator[np.ndarray]:
    """Yield images in float32, several of which may share what must be decoded."""
    at_once = max(1, _VALUES_AT_ONCE // math.prod(images.shape[1:]))
    for start in range(0, len(chosen), at_once):
        yield from np.asarray(images[chosen[start : start + at_once]], dtype=np.float32)


def _stands_out(image: np.ndarray) -> np.ndarray:
    """Return where pixels are above, and where below, all but two of their neighbours (2, Y, X)."""
    height, width = image.shape
    padded = np.pad(image, 1, mode="reflect")
    found = np.empty((2, height, width), bool)
    step = max(1, _PIXELS_OF_A_BAND // width)
    for start in range(0, height, step):
        own = image[start : start + step]
        neighbours = [padded[start + y :, x : x + width][: len(own)] for y, x in _RING]
        for out, compare in zip(found, (np.greater_equal, np.less_equal), strict=True):
            others = sum(compare(each, own).view(np.uint8) for each in neighbours)
            np.less_equal(others, _RANK, out=out[start : start + step])
    return found


def _excess(image: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return by how much pixels exceed all but two of their neighbours, and fall short, (2, N)."""
    padded = np.pad(image, 1, mode="reflect")
    ring = np.sort([padded[rows + y, columns + x] for y, x in _RING], axis=0)
    own = image[rows, columns]
    return np.stack([own - ring[-1 - _RANK], ring[_RANK] - own])
