"""Scores out of core: the memory that they take does not grow with the depth of a volume."""

import gc
import tracemalloc

import dask.array as da
import numpy as np
import pytest

from besselflow.metrics import correlate_shells, describe_truth, score_centrelines, score_volume
from besselflow.metrics.blocks import iterate_blocks

SIDE, SHALLOW, DEEP = 64, 90, 300


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr("besselflow.metrics.blocks.BLOCK_VOXELS", 2**15)
    monkeypatch.setattr("besselflow.metrics.fourier._EDGE", 24)


def volumes(depth):
    """Blocks that are computed when they are read, and never all at once."""

    def draw(seed, block_info=None):
        place = block_info[None]["array-location"]
        rng = np.random.default_rng([seed, place[2][0]])
        return (rng.random([high - low for low, high in place]) ** 6).astype("float32")

    chunks = ((1,), (1,), (10,) * (depth // 10), (SIDE,), (SIDE,))
    return [
        da.map_blocks(draw, seed, chunks=chunks, dtype="float32", meta=np.empty((0,) * 5, "f4"))
        for seed in (1, 2)
    ]


def scores(estimate, truth, scored):
    score_volume(estimate, truth, scored, 7, reference=describe_truth(truth, scored))


def shells(estimate, truth, scored):
    correlate_shells(estimate, truth, scored, (1, 1, 1))


def lines(estimate, truth, scored):
    score_centrelines({"a": estimate}, truth, scored, np.array([0.5]), (24, 24, 24))


def peak(compute, depth):
    arrays = volumes(depth)
    # The graphs of Dask hold themselves, and lie about until they are collected, which happens
    # seldom in a process that has much else to look through: that is set aside.
    usual = gc.get_threshold()
    gc.freeze()
    gc.collect()
    gc.set_threshold(50, 2, 2)
    tracemalloc.start()
    try:
        compute(*arrays, np.ones(depth, bool))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        gc.set_threshold(*usual)
        gc.unfreeze()


@pytest.mark.parametrize("compute", [scores, shells, lines])
def test_memory_does_not_grow_with_depth(compute):
    peak(compute, 30)
    added = 4 * SIDE**2 * (DEEP - SHALLOW)
    # On a busy machine, threads may hold more at once than they would have to.
    least = min(peak(compute, DEEP) for _ in range(2))
    assert least - peak(compute, SHALLOW) < added / 2


def test_no_chunk_is_decoded_twice(monkeypatch):
    monkeypatch.setattr("besselflow.metrics.blocks.BLOCK_VOXELS", 11 * SIDE**2)
    decoded = []

    def note(block, block_info=None):
        decoded.append(block_info[0]["chunk-location"][2])
        return block

    volume = da.zeros((1, 1, 40, SIDE, SIDE), chunks=(1, 1, 4, SIDE, SIDE))
    volume = volume.map_blocks(note, dtype=volume.dtype, meta=np.empty((0,) * 5))
    scored = np.zeros(40, bool)
    scored[3:38] = True
    found = list(iterate_blocks(volume, 0, 0, scored))
    assert sorted(decoded) == list(range(10))
    assert np.concatenate([index for index, _ in found]).tolist() == list(range(3, 38))
    assert max(len(index) for index, _ in found) == 8


class Recorded:
    """An array on a disk that counts the voxels that are read from it."""

    def __init__(self, values):
        self.values, self.read = values, 0
        self.shape, self.dtype, self.ndim = values.shape, values.dtype, values.ndim

    def __getitem__(self, place):
        values = self.values[place]
        self.read += values.size
        return values


@pytest.mark.parametrize(("compute", "most"), [(shells, 1.0), (lines, 12.5), (scores, 5.0)])
def test_no_more_is_read_than_is_looked_at(compute, most):
    rng = np.random.default_rng(0)
    shape = (1, 1, 48, 96, 96)
    arrays = [Recorded((rng.random(shape) ** 6).astype(np.float32)) for _ in range(2)]
    # Large chunks, as those of Dask are, of which Zarr can read a part. The halo of centre lines is
    # as large as their blocks are here.
    lazy = [da.from_array(array, chunks=shape) for array in arrays]
    compute(*lazy, np.ones(shape[2], bool))
    assert max(array.read / array.values.size for array in arrays) <= most
