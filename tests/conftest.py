"""Fixtures that tests of several folders share."""

import pytest


@pytest.fixture(scope="module")
def one_thread():
    """PyTorch computes with one thread, as it does beside the other workers of `make test`."""
    # Most tests need no PyTorch, which takes seconds to load.
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
