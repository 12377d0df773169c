"""Muon for many matrices at once takes the steps of PyTorch's, which takes them one by one."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from besselflow.muon import Muon, orthogonal

COEFFICIENTS = torch.optim.Muon([torch.nn.Parameter(torch.zeros(1, 1))]).defaults["ns_coefficients"]
SHAPES = st.lists(st.sampled_from([(4, 4), (3, 7), (7, 3), (1, 5), (5, 1)]), min_size=1, max_size=6)


def matrices_of(shapes, seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def give_gradients(matrices, seed):
    for matrix, gradient in zip(
        matrices, matrices_of([m.shape for m in matrices], seed), strict=True
    ):
        matrix.grad = gradient.detach()


@given(
    shapes=SHAPES,
    seed=st.integers(0, 1000),
    weight_decay=st.sampled_from([0.0, 0.1]),
    nesterov=st.booleans(),
)
@settings(max_examples=30)
def test_the_steps_are_those_of_pytorch(shapes, seed, weight_decay, nesterov):
    ours, theirs = matrices_of(shapes, seed), matrices_of(shapes, seed)
    own = {"lr": 0.1, "weight_decay": weight_decay, "nesterov": nesterov}
    one, other = Muon(ours, **own), torch.optim.Muon(theirs, **own)
    for step in range(3):
        give_gradients(ours, seed + step)
        give_gradients(theirs, seed + step)
        one.step()
        other.step()
    for found, expected in zip(ours, theirs, strict=True):
        # Steps are orthogonalised in bfloat16, of 8 bits.
        torch.testing.assert_close(found, expected, atol=5e-3, rtol=0)


def test_it_goes_on_from_a_state_of_pytorch():
    theirs = matrices_of([(4, 6), (4, 6), (2, 2)], 0)
    other = torch.optim.Muon(theirs, lr=0.1)
    give_gradients(theirs, 1)
    other.step()
    ours = [torch.nn.Parameter(matrix.detach().clone()) for matrix in theirs]
    one = Muon(ours, lr=0.1)
    one.load_state_dict(copy.deepcopy(other.state_dict()))
    give_gradients(ours, 2)
    give_gradients(theirs, 2)
    one.step()
    other.step()
    for found, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, expected, atol=5e-3, rtol=0)


def test_what_has_no_gradient_stays():
    moved, still = matrices_of([(3, 3), (3, 3)], 0)
    before = still.detach().clone()
    moved.grad = torch.eye(3)
    Muon([moved, still], lr=0.1, weight_decay=0.5).step()
    assert torch.equal(still, before)
    assert not torch.equal(moved, before)


@pytest.mark.parametrize("shape", [(5, 4, 12), (2, 6, 20), (3, 20, 6)])
def test_singular_values_come_near_to_1_in_the_same_directions(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    inside = left.mT @ orthogonal(matrices, COEFFICIENTS, 5, 1e-7).float() @ right.mT
    values = inside.diagonal(dim1=1, dim2=2)
    assert float((inside - torch.diag_embed(values)).abs().max()) < 0.1
    # The polynomial lets them lie around 1.
    assert 0.5 < float(values.min()) and float(values.max()) < 1.5
