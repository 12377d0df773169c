"""Filtering large slices band by band, so that a filter's passes stay in the processor's cache."""

from __future__ import annotations

from collections.abc import Iterator

BAND_PIXELS = 2**16
"""About as many pixels are filtered at once, of which a few copies in float64 fit a cache."""


def iterate_bands(rows: int, columns: int, window: int) -> Iterator[slice]:
    """Cut an image into bands of rows, so that every window lies within exactly one of them.

    Parameters
    ----------
    rows, columns : int
        Size of the image in pixels.
    window : int
        Edge length of the windows in pixels, odd and at most `rows`.

    Yields
    ------
    slice
        Rows to read; neighbours share ``window - 1`` of them.
    """
    positions = rows - window + 1
    count = max(1, BAND_PIXELS // columns)
    for start in range(0, positions, count):
        yield slice(start, min(start + count, positions) + window - 1)
