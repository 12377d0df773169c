"""Filtering large slices patch by patch, so that its passes stay in the cache of the processor."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

PATCH_EDGE = 256
"""Windows along each edge of a patch, of which a few copies in float64 fit a cache. Square patches
of any image share as small a part of their pixels; rows of a wide one would share more."""


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
