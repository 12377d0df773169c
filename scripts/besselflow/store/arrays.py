"""What all Zarr arrays here share: the key of our attributes, shards, and writing in parallel."""

from __future__ import annotations

import math

import dask.array as da
import zarr

ATTRIBUTE = "besselflow"
_SHARD_PIXELS = 512


def shard_shape(shape: tuple[int, ...], chunks: tuple[int, ...]) -> tuple[int, ...]:
    """Return shards that hold all of z (or p) and a lateral square: few files, bounded memory."""
    wanted = (1, 1, shape[2], min(shape[3], _SHARD_PIXELS), min(shape[4], _SHARD_PIXELS))
    return tuple(math.ceil(w / c) * c for w, c in zip(wanted, chunks, strict=True))


def store_blocks(data: da.Array, array: zarr.Array) -> None:
    """Write a dask array so that each shard has exactly one writer."""
    blocks = data.rechunk(tuple(min(n, s) for n, s in zip(data.shape, array.shards, strict=True)))
    for axis, sizes in enumerate(blocks.chunks):
        if any(size != array.shards[axis] for size in sizes[:-1]):
            raise AssertionError(f"blocks {sizes} of axis {axis} do not match {array.shards}")
    da.store(blocks, array, lock=False, compute=True, scheduler="threads")
