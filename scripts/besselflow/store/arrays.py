"""Arrays that are written block by block, in as few files as possible, with one writer per chunk.

Where viewers are to open a store it is a folder, and each shard of an array is all of z (or p), y
and x of a time point and channel: one file, whatever its size. Zarr would hold all of it in memory
to write it. It is written block by block instead: the encoded chunks of a block are appended to the
file, and the index of their places ends it, as the `sharding_indexed` codec of Zarr 3 wants it.

A store may also be a single ZIP file, in which each chunk is an entry.
"""

from __future__ import annotations

import contextlib
import json
import math
import zipfile
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import zarr
from zarr.abc.store import Store
from zarr.codecs import BytesCodec, Crc32cCodec
from zarr.core.buffer import Buffer
from zarr.storage import LocalStore, MemoryStore, ZipStore

from besselflow.decoding import open_explained

ATTRIBUTE = "besselflow"
_BLOCK_VOXELS = 2**24
_CHUNK_EDGE = 128
_PACKED = (".ozx", ".zip")
_METADATA = "zarr.json"
_ABSENT = np.iinfo(np.uint64).max
_COMPUTE_AGAIN = "delete it and run the same command again"


def is_packed(path: Path | str) -> bool:
    """Say whether a store of this name is a single ZIP file (.ozx, .zip) rather than a folder."""
    return Path(path).suffix in _PACKED


class ZipSpool(MemoryStore):
    """Holds what Zarr writes until it is appended to a ZIP file, each entry once.

    Zarr's own store of that kind writes the metadata of the root before its attributes are known,
    and would write it a second time then.

    Parameters
    ----------
    archive : zipfile.ZipFile
        Open for writing.
    """

    def __init__(self, archive: zipfile.ZipFile):
        super().__init__()
        self.archive = archive

    def flush(self) -> None:
        """Append the chunks written so far."""
        for key in [key for key in self._store_dict if not key.endswith(_METADATA)]:
            self.archive.writestr(key, self._store_dict.pop(key).to_bytes())

    def finish(self) -> None:
        """Append all the rest; a root without attributes is not complete yet and left out."""
        self.flush()
        for key, content in sorted(self._store_dict.items()):
            if key != _METADATA or json.loads(content.to_bytes())["attributes"]:
                self.archive.writestr(key, content.to_bytes())


def open_store(path: Path | str) -> Store:
    """Open a folder or a ZIP file that holds Zarr arrays, for reading.

    Raises
    ------
    RuntimeError
        A file is no ZIP file; the message says to delete it.
    """
    if not Path(path).is_file():
        return LocalStore(path, read_only=True)
    if not zipfile.is_zipfile(path):
        raise RuntimeError(f"{path}: not a readable store; delete the file and run again")
    return ZipStore(path)


@contextlib.contextmanager
def write_store(path: Path | str, packed: bool) -> Iterator[Store]:
    """Open a folder or a ZIP file to add to it what is not there yet.

    Parameters
    ----------
    path : path
    packed : bool
        Whether it is a ZIP file.
    """
    if not packed:
        yield LocalStore(path)
        return
    with zipfile.ZipFile(path, "a", zipfile.ZIP_STORED) as archive:
        spool = ZipSpool(archive)
        yield spool
        spool.finish()


def create_array(
    store: Store,
    name: str,
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    dtype: str = "float32",
    **options,
) -> zarr.Array:
    """Create an array with axes (T, C, Z or P, Y, X), sharded if it lies in a folder."""
    packed = isinstance(store, ZipSpool)
    chunks = tuple(min(n, c) for n, c in zip(shape, chunks, strict=True))
    return zarr.create_array(
        store,
        name=name,
        shape=shape,
        chunks=chunks,
        shards=None if packed else shard_shape(shape, chunks),
        dtype=dtype,
        **options,
    )


def shard_shape(shape: tuple[int, ...], chunks: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shard of a time point and channel: all the rest, in whole chunks."""
    wanted = (1, 1, *shape[2:])
    return tuple(math.ceil(w / c) * c for w, c in zip(wanted, chunks, strict=True))


def column_edge(depth: int, multiple: int = _CHUNK_EDGE) -> int:
    """Return the lateral edge of blocks of all depths, about 2^24 voxels, in whole chunks.

    Parameters
    ----------
    depth : int
        Slices or projections.
    multiple : int
        Edge of a chunk in pixels; by default, that of volumes.
    """
    return max(1, math.isqrt(_BLOCK_VOXELS // depth) // multiple) * multiple


def slab_depth(shape: tuple[int, ...], most: int) -> int:
    """Return of how many whole planes a slab can be, a power of two.

    Parameters
    ----------
    shape : tuple of int
        (T, C, Z or P, Y, X).
    most : int
        At most so many.
    """
    fitting = max(1, _BLOCK_VOXELS // (shape[3] * shape[4]))
    return min(most, 1 << (fitting.bit_length() - 1))


def block_shape(data: da.Array, chunks: tuple[int, ...]) -> tuple[int, ...]:
    """Choose what is computed at once: about 2^24 voxels, in whole chunks.

    Data that come plane by plane, as from a file, are taken in slabs of planes, since every block
    that crosses a plane reads all of it; other data in columns of all depths.

    Parameters
    ----------
    data : dask.array.Array, shape (T, C, Z, Y, X)
    chunks : tuple of int
        Of the array to write.
    """
    depth, height, width = data.shape[2:]
    if data.numblocks[2] > 1:
        rows = max(1, _BLOCK_VOXELS // (chunks[2] * width * chunks[3])) * chunks[3]
        return (1, 1, chunks[2], height if chunks[2] == 1 else rows, width)
    return (1, 1, depth, column_edge(depth, chunks[3]), column_edge(depth, chunks[4]))


def store_blocks(data: da.Array, array: zarr.Array, block: tuple[int, ...] | None = None) -> None:
    """Write a dask array block by block, so that each chunk and shard has exactly one writer.

    As many blocks are computed at a time as Dask is configured to have workers (`num_workers`, 1 by
    default), and no more of the data is in memory.

    Parameters
    ----------
    data : dask.array.Array, shape (T, C, Z, Y, X)
        Computed block by block.
    array : zarr.Array
        Empty, from `create_array`, of the same shape.
    block : tuple of int, optional
        What is computed at once; `block_shape` by default.

    Raises
    ------
    AssertionError
        The blocks would not write every chunk and shard exactly once.
    FileExistsError
        A shard has another writer.
    """
    block = block_shape(data, array.chunks) if block is None else block
    check_writers(data.shape, array, block)
    for t, c in np.ndindex(data.shape[:2]):
        windows = [((t, c, *window)) for window in _windows(data.shape[2:], block[2:])]
        blocks = _computed(data, windows)
        if array.shards is None:
            for window, values in blocks:
                array[t, c, *window] = values
                array.store.flush()
        else:
            key = array.metadata.encode_chunk_key((t, c, 0, 0, 0))
            _write_shard(Path(array.store.root) / array.path / key, blocks, array)


def check_writers(shape: tuple[int, ...], array: zarr.Array, block: tuple[int, ...]) -> None:
    """Make sure that every chunk lies in one block, and every shard in one stream of blocks.

    Raises
    ------
    AssertionError
        A chunk or a shard would have two writers, or none.
    """
    if array.shape != shape:
        raise AssertionError(f"data of shape {shape} do not fill an array of shape {array.shape}")
    if array.shards not in (None, shard_shape(shape, array.chunks)):
        raise AssertionError(f"shards {array.shards} cut a time point and channel of {shape}")
    for axis, (size, edge, chunk) in enumerate(zip(shape, block, array.chunks, strict=True)):
        if edge < size and edge % chunk:
            raise AssertionError(f"blocks of {edge} along axis {axis} cut chunks of {chunk}")


def open_lazily(array: zarr.Array) -> da.Array:
    """Open an array in columns of all depths that memory allows."""
    depth = array.shape[2]
    edges = (column_edge(depth, array.chunks[3]), column_edge(depth, array.chunks[4]))
    return open_again(array, "TCZYX", (1, 1, depth, *edges))


def open_again(array: zarr.Array, axes: str, chunks: tuple[int, ...] | None = None) -> da.Array:
    """Open an array that BesselFlow wrote, whose remedy is to compute it again where it is damaged.

    Parameters
    ----------
    array : zarr.Array
        In a `open_store`.
    axes : str
        A letter per axis.
    chunks : tuple of int, optional
        Chunks of the result, by default those of the array.

    Returns
    -------
    dask.array.Array
    """
    store = array.store
    path = Path(store.path if isinstance(store, ZipStore) else store.root)
    return open_explained(array, path, axes, _COMPUTE_AGAIN, chunks)


def _windows(shape: tuple[int, ...], block: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    starts = [range(0, size, edge) for size, edge in zip(shape, block, strict=True)]
    for corner in product(*starts):
        ends = map(min, shape, map(sum, zip(corner, block, strict=True)))
        yield tuple(map(slice, corner, ends))


def _computed(
    data: da.Array, windows: Iterable[tuple]
) -> Iterator[tuple[tuple[slice, ...], np.ndarray]]:
    """Yield windows (z, y, x) and their values in order, computing a few ahead."""
    threads = dask.config.get("num_workers", 1)
    waiting: deque = deque()
    with ThreadPoolExecutor(threads) as pool:
        for t, c, *window in windows:
            part = data[t, c, *window]
            waiting.append((tuple(window), pool.submit(part.compute, scheduler="synchronous")))
            if len(waiting) == threads:
                place, work = waiting.popleft()
                yield place, work.result()
        for place, work in waiting:
            yield place, work.result()


def _write_shard(
    path: Path,
    blocks: Iterable[tuple[tuple[slice, ...], np.ndarray]],
    array: zarr.Array,
) -> None:
    edges = array.chunks[2:]
    counts = [s // c for s, c in zip(array.shards, array.chunks, strict=True)]
    index = np.full((*counts, 2), _ABSENT, np.uint64)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "xb") as file:
        for window, values in blocks:
            first = [w.start // edge for w, edge in zip(window, edges, strict=True)]
            for place, content in _encode(values, edges, array):
                where = (0, 0, *(f + p for f, p in zip(first, place, strict=True)))
                if index[where][0] != _ABSENT:
                    raise AssertionError(f"chunk {where} of {path} has two writers")
                index[where] = file.tell(), len(content)
                file.write(content)
        file.write(_encode_index(index))


def _encode(
    values: np.ndarray, edges: tuple[int, ...], array: zarr.Array
) -> Iterator[tuple[tuple[int, ...], bytes]]:
    """Have Zarr encode chunks in memory; yield their places and bytes, without empty ones."""
    content: dict[str, Buffer] = {}
    block = zarr.create_array(
        MemoryStore(content),
        shape=values.shape,
        chunks=edges,
        dtype=array.dtype,
        compressors=array.compressors,
        fill_value=array.fill_value,
    )
    block[:] = values
    for key in sorted(content):
        if key.startswith("c/"):
            yield tuple(map(int, key.split("/")[1:])), content[key].to_bytes()


def _encode_index(index: np.ndarray) -> bytes:
    content: dict[str, Buffer] = {}
    array = zarr.create_array(
        MemoryStore(content),
        shape=index.shape,
        chunks=index.shape,
        dtype=index.dtype,
        compressors=[Crc32cCodec()],
        serializer=BytesCodec(),
        config={"write_empty_chunks": True},
    )
    array[:] = index
    return content["/".join(["c", *("0" * index.ndim)])].to_bytes()
