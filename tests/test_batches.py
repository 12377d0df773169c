"""Checks that batches cover all items once, whatever memory there is."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from besselflow import batches
from besselflow.batches import batch_size, in_batches


class Gpu:
    """Runs out of memory above a number of items."""

    def __init__(self, fits):
        self.fits, self.attempts = fits, []

    def __call__(self, part):
        self.attempts.append(part.stop - part.start)
        if self.attempts[-1] > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return list(range(part.start, part.stop))


@given(st.integers(0, 200), st.integers(1, 200), st.integers(1, 200))
def test_every_item_is_computed_once_and_in_order(total, size, fits):
    found = [item for _, items in in_batches(Gpu(fits), total, size) for item in items]
    assert found == list(range(total))


def test_batches_are_halved_until_they_fit_and_stay_so():
    gpu = Gpu(fits=30)
    parts = [part for part, _ in in_batches(gpu, 100, 80)]
    assert gpu.attempts == [80, 40, 20, 20, 20, 20, 20]
    assert [part.start for part in parts] == [0, 20, 40, 60, 80]


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
