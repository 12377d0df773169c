"""Reading volumes a few slices at a time, so that memory does not grow with their depth."""

from __future__ import annotations

from collections.abc import Iterator

import dask.array as da
import numpy as np

BLOCK_VOXELS = 2**24
"""About as many voxels are in memory at once of each volume."""


def iterate_blocks(
    volume: da.Array, t: int, channel: int, slices: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield some chosen slices at a time, as many as memory allows.

    Parameters
    ----------
    volume : dask.array.Array, shape (T, C, Z, Y, X)
        Volume.
    t, channel : int
        Which stack of it to read.
    slices : numpy.ndarray of bool, shape (Z,)
        Slices to read.

    Yields
    ------
    numpy.ndarray, shape (N,)
        Indices of slices.
    numpy.ndarray, shape (N, Y, X)
        Their values.
    """
    chosen = np.flatnonzero(slices)
    count = max(1, BLOCK_VOXELS // (volume.shape[3] * volume.shape[4]))
    for start in range(0, len(chosen), count):
        index = chosen[start : start + count]
        yield index, read_slices(volume, t, channel, index)


def read_slices(volume: da.Array, t: int, channel: int, index: np.ndarray) -> np.ndarray:
    """Read slices by way of one range, which Zarr can read without the rest of their shards."""
    block = np.asarray(volume[t, channel, index[0] : index[-1] + 1])
    return block[index - index[0]]


def check_finite(block: np.ndarray, what: str, t: int, channel: int, index: np.ndarray) -> None:
    """Complain about the first value that is not finite, and say where it stands.

    Raises
    ------
    ValueError
        There is one.
    """
    bad = np.argwhere(~np.isfinite(block))
    if bad.size:
        z, y, x = bad[0]
        raise ValueError(
            f"{what} holds {block[z, y, x]} at t {t}, channel {channel}, slice {index[z]}, "
            f"row {y}, column {x} of what was read; it can't be scored"
        )
