"""Reading volumes a few slices at a time, so that memory does not grow with their depth."""

from __future__ import annotations

from collections.abc import Iterator

import dask.array as da
import numpy as np

BLOCK_VOXELS = 2**25
"""At most as many voxels are in memory at once of each volume, but at least a slice."""


def iterate_blocks(
    volume: da.Array, t: int, channel: int, slices: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield some chosen slices at a time, as many as memory allows.

    Blocks span a power of two of slices and begin at its multiples, as the chunks of a store do, so
    that no chunk is decoded for two blocks unless it is thicker than they are.

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
    fitting = max(1, BLOCK_VOXELS // (volume.shape[3] * volume.shape[4]))
    block = chosen // (1 << (fitting.bit_length() - 1))
    for index in np.split(chosen, np.flatnonzero(np.diff(block)) + 1):
        if len(index):
            yield index, read_slices(volume, t, channel, index)


def read_slices(volume: da.Array, t: int, channel: int, index: np.ndarray) -> np.ndarray:
    """Read slices by way of one range, which Zarr can read without the rest of their shards."""
    block = np.asarray(volume[t, channel, index[0] : index[-1] + 1])
    # A choice of all would be a copy.
    return block if len(block) == len(index) else block[index - index[0]]


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
