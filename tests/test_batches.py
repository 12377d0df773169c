"""Checks that batches cover all items once, whatever memory there is."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from besselflow import batches
from besselflow.batches import Batches, batch_size, in_tiles, tile_size


class Gpu:
    """Runs out of memory above a number of items."""

    def __init__(self, fits):
        self.fits, self.attempts = fits, []

    def __call__(self, part):
        self.attempts.append(part.stop - part.start)
        if self.attempts[-1] > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return list(range(part.start, part.stop))


CPU = torch.device("cpu")


def in_batches(compute, total, size):
    return Batches(CPU)(compute, total, bytes_per_item=1000, on_cpu=size)


@given(st.integers(0, 200), st.integers(1, 200), st.integers(1, 200))
def test_every_item_is_computed_once_and_in_order(total, size, fits):
    found = [item for _, items in in_batches(Gpu(fits), total, size) for item in items]
    assert found == list(range(total))


def test_batches_are_halved_until_they_fit_and_stay_so():
    gpu = Gpu(fits=30)
    parts = [part for part, _ in in_batches(gpu, 100, 80)]
    assert gpu.attempts == [80, 40, 20, 20, 20, 20, 20]
    assert [part.start for part in parts] == [0, 20, 40, 60, 80]


def test_what_did_not_fit_is_not_tried_again_in_later_calls(caplog):
    gpu, compute = Gpu(fits=20), Batches(CPU)
    with caplog.at_level("WARNING", "besselflow"):
        for _ in range(2):
            assert len(list(compute(gpu, 60, bytes_per_item=1000, on_cpu=60))) == 4
        # Items of a third of the size: three times as many of them.
        small = Gpu(fits=60)
        list(compute(small, 60, bytes_per_item=333, on_cpu=60))
    assert gpu.attempts == [60, 30] + 8 * [15] and small.attempts == [45, 15]
    assert [text.rpartition(" ")[2] for text in caplog.messages] == ["30", "15"]


def test_an_item_that_never_fits_ends_it():
    gpu = Gpu(fits=0)
    with pytest.raises(torch.OutOfMemoryError):
        list(in_batches(gpu, 5, 4))
    assert gpu.attempts == [4, 2, 1]


def test_other_errors_are_not_tried_again():
    def fail(part):
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        list(in_batches(fail, 5, 4))


def test_half_of_the_free_memory_of_a_gpu_is_taken(monkeypatch):
    monkeypatch.setattr(batches.torch.cuda, "mem_get_info", lambda device: (2**30, 2**33))
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    assert batch_size(2**20, cuda, on_cpu=4) == 512
    assert batch_size(2**31, cuda, on_cpu=4) == 1
    assert batch_size(2**20, cpu, on_cpu=4) == 4


@given(st.integers(1, 3000), st.integers(1, 3000), st.sampled_from([1, 2, 4, 16]))
def test_tiles_are_halved_until_they_fit(edge, fits, multiple):
    attempts = []

    def compute(tile):
        attempts.append(tile)
        if tile > max(fits, multiple):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return f"in tiles of {tile}"

    result, tile = in_tiles(compute, edge, multiple)
    assert result == f"in tiles of {tile}" and tile == attempts[-1] <= max(fits, multiple)
    assert tile % multiple == 0 and attempts[0] in (multiple, edge // multiple * multiple)
    for larger, smaller in pairwise(attempts):
        assert smaller == max(multiple, larger // 2 // multiple * multiple)


def test_the_smallest_tile_that_never_fits_ends_it():
    attempts = []

    def fail(tile):
        attempts.append(tile)
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        in_tiles(fail, 50, 16)
    assert attempts == [48, 16]


def test_tiles_with_their_margins_take_half_of_the_free_memory(monkeypatch):
    monkeypatch.setattr(batches.torch.cuda, "mem_get_info", lambda device: (2**33, 2**34))
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    assert tile_size(1024, 4096, 64, cuda) == 1024
    assert tile_size(1025, 4096, 64, cuda) == 1024 - 2 * 64
    assert tile_size(2048, 2**32, 64, cuda) == 1
    assert tile_size(2048, 4096, 64, cpu) == 2048
