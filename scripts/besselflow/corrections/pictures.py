"""Small images from before and after a correction, for the report."""

from __future__ import annotations

import dask.array as da
import numpy as np
from scipy.ndimage import uniform_filter

_EDGE = 96
_LONGEST = 256


def where_dense(masked: np.ndarray) -> tuple[int, int]:
    """Return the centre (y, x) of the square that holds most of a mask (Y, X)."""
    dense = uniform_filter(masked.astype(np.float32), min(_EDGE, *masked.shape), mode="constant")
    y, x = np.unravel_index(np.argmax(dense), masked.shape)
    return int(y), int(x)


def window_around(centre: tuple[int, int], shape: tuple[int, int]) -> tuple[slice, slice]:
    """Return the square (y, x) around a place that fits into an image (Y, X)."""
    starts = (
        int(np.clip(at - _EDGE // 2, 0, max(0, length - _EDGE)))
        for at, length in zip(centre, shape, strict=True)
    )
    return tuple(
        slice(start, start + min(_EDGE, length))
        for start, length in zip(starts, shape, strict=True)
    )


def lateral_pair(
    before: da.Array, after: da.Array, place: tuple[int, int, int], centre: tuple[int, int] | None
) -> np.ndarray:
    """Cut the same square out of an image before and after.

    Parameters
    ----------
    before, after : dask.array.Array, shape (T, C, P, Y, X)
    place : tuple of int
        (t, c, p).
    centre : tuple of int or None
        (y, x) of the square; None for the one with the most light.

    Returns
    -------
    numpy.ndarray, shape (2, y, x), float32
    """
    images = [np.asarray(stack[place], dtype=np.float32) for stack in (before, after)]
    shape = images[0].shape
    if centre is None:
        light = uniform_filter(images[1], min(_EDGE, *shape), mode="constant")
        centre = np.unravel_index(np.argmax(light), shape)
    window = window_around(centre, shape)
    return np.stack([image[window] for image in images])


def whole_pair(before: da.Array, after: da.Array, place: tuple[int, int, int]) -> np.ndarray:
    """Take a whole image before and after, averaged over squares of pixels where it is large.

    Parameters
    ----------
    before, after : dask.array.Array, shape (T, C, P, Y, X)
    place : tuple of int
        (t, c, p).

    Returns
    -------
    numpy.ndarray, shape (2, y, x), float32
        At most 256 pixels along an axis.
    """
    factor = -(-max(before.shape[3:]) // _LONGEST)
    pair = np.stack([np.asarray(stack[place], dtype=np.float32) for stack in (before, after)])
    height, width = (length // factor * factor for length in pair.shape[1:])
    squares = pair[:, :height, :width].reshape(2, height // factor, factor, width // factor, factor)
    return squares.mean(axis=(2, 4))


def section_pair(before: da.Array, after: da.Array, axis: int) -> np.ndarray:
    """Cut along the brightest line, across projections or time points, before and after.

    Parameters
    ----------
    before, after : dask.array.Array, shape (T, C, P, Y, X)
    axis : int
        2 for projections from top to bottom, 0 for time points.

    Returns
    -------
    numpy.ndarray, shape (2, P or T, x), float32
    """
    middle = before.shape[2] // 2
    stacks = [stack[0, 0] if axis == 2 else stack[:, 0, middle] for stack in (before, after)]
    light = np.asarray(stacks[1].mean(axis=0))
    row = int(np.argmax(light.var(axis=1)))
    width = light.shape[1]
    columns = slice(max(0, (width - _LONGEST) // 2), (width + min(width, _LONGEST) + 1) // 2)
    return np.stack([np.asarray(stack[:, row, columns], dtype=np.float32) for stack in stacks])
