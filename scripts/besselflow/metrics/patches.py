"""Large slices part by part, so that all passes over a part stay in the cache of the processor."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np

PATCH_EDGE = 256
"""Windows along each edge of a patch, of which a few copies in float64 fit a cache. Square patches
of any image share as small a part of their pixels; rows of a wide one would share more."""

BAND_PIXELS = 2**17
"""At most as many pixels are in a band of rows, but at least a row."""


def iterate_bands(*images: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Yield the same rows of several images of one shape, a few at a time, in float64."""
    rows, columns = images[0].shape
    step = max(1, BAND_PIXELS // columns)
    for start in range(0, rows, step):
        yield tuple(image[start : start + step].astype(np.float64) for image in images)


def iterate_patches(
    shape: tuple[int, int], window: int
) -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """Cut an image into patches, so that every window lies within exactly one of them.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of the image.
    window : int
        Edge length of the windows in pixels, odd and at most either of these.

    Yields
    ------
    tuple of slice
        Rows and columns to read; neighbours share ``window - 1`` of them.
    tuple of slice
        Which windows, by the number of their first row and column, lie in them.
    """
    counts = [length - window + 1 for length in shape]
    for corner in product(*(range(0, count, PATCH_EDGE) for count in counts)):
        inside = tuple(
            slice(start, min(start + PATCH_EDGE, count))
            for start, count in zip(corner, counts, strict=True)
        )
        yield tuple(slice(each.start, each.stop + window - 1) for each in inside), inside
