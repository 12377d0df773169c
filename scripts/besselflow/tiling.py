"""Work units: which part of a sample one computation handles, and how the parts are joined."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise, product

import dask.array as da
import numpy as np


@dataclass(frozen=True)
class Tile:
    """A lateral window of an image, halo included.

    Attributes
    ----------
    y, x : slice
        Pixels that the window covers.
    """

    y: slice
    x: slice


@dataclass(frozen=True)
class Unit:
    """One time point and channel of one tile.

    Attributes
    ----------
    index : int
        Position in the list of all units of the sample.
    t, c : int
        Time point and channel.
    tile : Tile
        Lateral window, halo included.
    """

    index: int
    t: int
    c: int
    tile: Tile


def tile_starts(length: int, tile: int, halo: int) -> tuple[list[int], int]:
    """Cut one axis into equal windows that overlap by at least twice the halo.

    Parameters
    ----------
    length : int
        Pixels along the axis.
    tile, halo : int
        Window size without halo, and halo, in pixels.

    Returns
    -------
    starts : list of int
        First pixel of each window.
    size : int
        Pixels of each window, halo included; all windows are equal.
    """
    size = min(length, tile + 2 * halo)
    count = 1 if size == length else math.ceil((length - 2 * halo) / tile)
    starts = np.linspace(0, length - size, count).round().astype(int)
    return starts.tolist(), size


def list_units(shape: tuple[int, int, int, int, int], tile: int, halo: int) -> list[Unit]:
    """List all work units of an acquisition.

    Parameters
    ----------
    shape : tuple of int
        (T, C, P or Z, Y, X).
    tile, halo : int
        Tile size without halo, and halo, in pixels.
    """
    t, c, _, y, x = shape
    y_starts, y_size = tile_starts(y, tile, halo)
    x_starts, x_size = tile_starts(x, tile, halo)
    tiles = [
        Tile(slice(y0, y0 + y_size), slice(x0, x0 + x_size))
        for y0, x0 in product(y_starts, x_starts)
    ]
    places = product(range(t), range(c), tiles)
    return [Unit(index, *place) for index, place in enumerate(places)]


def unit_shape(units: list[Unit], n_slices: int) -> tuple[int, int, int]:
    """Return the (Z, y, x) shape that all units of a sample share, halo included."""
    tile = units[0].tile
    return (n_slices, tile.y.stop - tile.y.start, tile.x.stop - tile.x.start)


def units_of_shard(units: list[Unit], shard: int, shards: int, chain: int = 1) -> list[Unit]:
    """Return the units that one of `shards` jobs handles (none, if there are few).

    Parameters
    ----------
    units : list of Unit
        All units of the sample.
    shard, shards : int
        Which job, and how many there are.
    chain : int
        Time points in a row of one tile and channel that stay in one job.

    Returns
    -------
    list of Unit
        Chain by chain, each in the order of time.
    """
    return units_by_shard(units, shards, chain)[shard]


def units_by_shard(units: list[Unit], shards: int, chain: int = 1) -> list[list[Unit]]:
    """Return the units of every shard; parameters as above."""
    chains: dict[tuple, list[Unit]] = {}
    for unit in units:
        place = (unit.t // chain, unit.c, unit.tile.y.start, unit.tile.x.start)
        chains.setdefault(place, []).append(unit)
    ordered = list(chains.values())
    bounds = np.linspace(0, len(ordered), shards + 1).round().astype(int)
    return [[u for own in ordered[low:high] for u in own] for low, high in pairwise(bounds)]


@dataclass(frozen=True)
class Span:
    """Pixels of a window along one axis of an image, of which no other window keeps any.

    Attributes
    ----------
    kept, seen : slice
        Pixels of the image that are computed, and those that this needs.
    own : slice
        Where the former lie among the latter.
    """

    kept: slice
    seen: slice
    own: slice


def margined_spans(length: int, tile: int, margin: int) -> list[Span]:
    """Cut one axis into windows that see a margin on either side, as far as there is one.

    Parameters
    ----------
    length : int
        Pixels along the axis.
    tile, margin : int
        Pixels that each window keeps, but for the last, and that it sees besides on either side.
    """
    spans = []
    for start in range(0, length, tile):
        kept = slice(start, min(start + tile, length))
        seen = slice(max(kept.start - margin, 0), min(kept.stop + margin, length))
        spans.append(Span(kept, seen, _shift(kept, seen)))
    return spans


def blend_weights(window: slice, length: int, halo: int) -> np.ndarray:
    """Return the weight of each pixel of a window when windows are joined.

    The weight rises linearly over twice the halo from the window's edges, except where the edge
    is that of the image. Sums over windows are normalised by the caller.

    Parameters
    ----------
    window : slice
        Pixels of the window along one axis.
    length : int
        Pixels of the image along the axis.
    halo : int
        Halo in pixels.

    Returns
    -------
    numpy.ndarray, shape (window.stop - window.start,)
        Weights in (0, 1].
    """
    position = np.arange(window.start, window.stop)
    ramp = 2 * halo + 1
    low = np.ones(len(position)) if window.start == 0 else (position - window.start + 1) / ramp
    high = np.ones(len(position)) if window.stop == length else (window.stop - position) / ramp
    return np.minimum(1.0, np.minimum(low, high))


def blend_units(
    arrays: dict[int, da.Array], units: list[Unit], shape: tuple[int, ...], halo: int, block: int
) -> da.Array:
    """Join work units into a volume, blending where they overlap.

    Parameters
    ----------
    arrays : dict
        Unit index -> (Z, y, x) array, read when needed.
    units : list of Unit
        All units of the sample.
    shape : tuple of int
        (T, C, Z, Y, X) of the volume.
    halo : int
        Halo of the units in pixels.
    block : int
        Lateral edge of the blocks that are computed at once, in pixels.

    Returns
    -------
    dask.array.Array, shape (T, C, Z, Y, X), float32
    """
    by_place: dict[tuple[int, int], list[Unit]] = {}
    for unit in units:
        by_place.setdefault((unit.t, unit.c), []).append(unit)

    def compute(block_info=None) -> np.ndarray:
        bounds = [slice(*pair) for pair in block_info[None]["array-location"]]
        t, c, _, rows, columns = bounds
        out = np.zeros([bound.stop - bound.start for bound in bounds], np.float32)
        total = np.zeros(out.shape[3:], np.float32)
        for unit in by_place[t.start, c.start]:
            y, x = _overlap(unit.tile.y, rows), _overlap(unit.tile.x, columns)
            if y.start >= y.stop or x.start >= x.stop:
                continue
            weight_y = blend_weights(unit.tile.y, shape[3], halo)[_shift(y, unit.tile.y)]
            weight_x = blend_weights(unit.tile.x, shape[4], halo)[_shift(x, unit.tile.x)]
            weight = (weight_y[:, None] * weight_x[None, :]).astype(np.float32)
            part = arrays[unit.index][:, _shift(y, unit.tile.y), _shift(x, unit.tile.x)]
            values = np.asarray(part.compute(scheduler="synchronous"))
            target = (_shift(y, rows), _shift(x, columns))
            out[0, 0, :, *target] += weight * values
            total[target] += weight
        return out / total

    edges = [(block,) * (n // block) + ((n % block,) if n % block else ()) for n in shape[3:]]
    chunks = ((1,) * shape[0], (1,) * shape[1], (shape[2],), *edges)
    return da.map_blocks(compute, chunks=chunks, dtype=np.float32, meta=np.empty(0, np.float32))


def _overlap(a: slice, b: slice) -> slice:
    return slice(max(a.start, b.start), min(a.stop, b.stop))


def _shift(part: slice, window: slice) -> slice:
    """Return the same pixels counted from the start of a window."""
    return slice(part.start - window.start, part.stop - window.start)
