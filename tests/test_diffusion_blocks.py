"""Blocks of slices: every slice lies in one, and each tells how it was measured."""

from functools import cached_property
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from besselflow.beam import box_profile
from besselflow.diffusion.blocks import (
    CONTEXT,
    GEOMETRY_VALUES,
    NEAREST,
    REACH,
    SLICES,
    blend_window,
    lay_blocks,
    mirror,
)
from besselflow.projection import AxialGrid

MIDDLE = (SLICES - 1) / 2
# Quarters of a slice are exact, and so are their sums.
QUARTERS = st.integers(-20, 320).map(lambda quarters: quarters / 4)


class Acquisition:
    """A stack of slices, positions given in slices, and a box of six slices as the beam."""

    def __init__(self, n_slices, places, spacing=1.0):
        self.grid = AxialGrid(3.0, spacing, n_slices)
        self.places = np.asarray(places, float)
        self.positions = 3.0 + spacing * self.places
        offset = self.grid.centres_um - self.positions[:, None]
        profile = box_profile(6.0 * spacing)
        self.matrix = profile.collected(offset - spacing / 2, offset + spacing / 2)

    @cached_property
    def blocks(self):
        return lay_blocks(self.matrix, self.positions, self.grid.centres_um)

    @property
    def starts(self):
        return [block.start for block in self.blocks]


@st.composite
def acquisitions(draw):
    """Any number of slices and projections, in any order; the beam may stick out of the volume."""
    n_slices = draw(st.integers(1, 70))
    inside = QUARTERS.filter(lambda place: -5 <= place <= n_slices + 4)
    places = draw(st.lists(inside, min_size=1, max_size=12))
    return Acquisition(n_slices, places, draw(st.sampled_from([0.5, 1.0, 1.75])))


@given(acquisitions())
@example(Acquisition(1, [0.0]))
@example(Acquisition(5, [2.0]))
@example(Acquisition(40, [-5.0, -4.75, 44.0]))
@example(Acquisition(64, np.arange(0, 64, 0.25)))
@example(Acquisition(64, [0.0, 63.0]))
@settings(max_examples=200, deadline=None)
def test_every_slice_lies_in_a_block(acquisition):
    n_slices = acquisition.grid.n_slices
    covered = np.zeros(n_slices, int)
    for block in acquisition.blocks:
        inside, own = block.inside(n_slices)
        assert 0 <= inside.start < inside.stop <= n_slices
        assert inside.start - block.start == own.start >= 0
        assert inside.stop - block.start == own.stop <= SLICES
        covered[inside] += 1
    assert covered.min() >= 1
    # From low to high, and neighbours share a slice, so that they can be blended.
    for start, following in pairwise(acquisition.starts):
        assert start < following < start + SLICES


@given(acquisitions())
@settings(max_examples=120, deadline=None)
def test_slices_beyond_the_volume_are_mirrored(acquisition):
    n_slices = acquisition.grid.n_slices
    # What numpy reflects is an answer of its own.
    reach = 200
    reflected = np.pad(np.arange(n_slices), reach, mode="symmetric")
    for block in acquisition.blocks:
        first = reach + block.start - REACH
        np.testing.assert_array_equal(block.slices, reflected[first : first + CONTEXT])


@given(acquisitions())
@settings(max_examples=120, deadline=None)
def test_geometry_holds_the_weights_of_the_operator(acquisition):
    n_slices = acquisition.grid.n_slices
    padded = np.pad(acquisition.matrix, ((0, 0), (200, 200)))
    known = min(NEAREST, len(acquisition.positions))
    for block in acquisition.blocks:
        assert block.geometry.shape == (NEAREST, CONTEXT)
        assert block.geometry.numel() == GEOMETRY_VALUES
        first = 200 + block.start - REACH
        rows = padded[block.nearest.numpy()[:known], first : first + CONTEXT]
        np.testing.assert_allclose(block.geometry[:known], SLICES * rows, atol=1e-5)
        assert not block.geometry[known:].any()
        beyond = torch.arange(block.start - REACH, block.start - REACH + CONTEXT)
        assert not block.geometry[:, (beyond < 0) | (beyond >= n_slices)].any()


@given(acquisitions())
@settings(max_examples=120, deadline=None)
def test_nearest_projections_are_the_nearest_in_the_order_of_depth(acquisition):
    places = acquisition.places
    known = min(NEAREST, len(places))
    for block in acquisition.blocks:
        assert block.nearest.shape == (NEAREST,)
        chosen = block.nearest[:known].numpy()
        assert len(set(chosen)) == known
        assert np.all(np.diff(places[chosen]) >= 0)
        distance = np.abs(places - (block.start + MIDDLE))
        others = np.setdiff1d(np.arange(len(places)), chosen)
        if others.size:
            assert distance[chosen].max() <= distance[others].min() + 1e-9
        # Too few are repeated, so that every input of the network is filled.
        assert np.all(block.nearest[known:].numpy() == chosen[-1])


@given(acquisitions(), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_the_order_of_the_stack_does_not_matter(acquisition, random):
    order = list(range(len(acquisition.places)))
    random.shuffle(order)
    shuffled = lay_blocks(
        acquisition.matrix[order], acquisition.positions[order], acquisition.grid.centres_um
    )
    for block, other in zip(acquisition.blocks, shuffled, strict=True):
        assert block.start == other.start
        torch.testing.assert_close(block.geometry, other.geometry)
        np.testing.assert_allclose(
            acquisition.positions[block.nearest], acquisition.positions[order][other.nearest]
        )


@given(acquisitions(), st.integers(0, 30), st.integers(0, 30))
@settings(max_examples=100, deadline=None)
def test_blocks_move_with_volume_and_positions(acquisition, before, behind):
    n_slices, spacing = acquisition.grid.n_slices, acquisition.grid.spacing_um
    places = np.clip(acquisition.places, 0, n_slices - 1)
    small = Acquisition(n_slices, places, spacing)
    large = Acquisition(before + n_slices + behind, places + before, spacing)
    moved = {block.start - before: block for block in large.blocks}
    for block in small.blocks:
        if block.start < REACH or block.start + SLICES + REACH > n_slices:
            continue
        other = moved[block.start]
        torch.testing.assert_close(other.slices - before, block.slices)
        torch.testing.assert_close(other.nearest, block.nearest)
        torch.testing.assert_close(other.geometry, block.geometry)


def test_blocks_are_centred_on_projections_of_a_box_as_long_as_its_step():
    acquisition = Acquisition(48, np.arange(2.5, 48, 6))
    assert [start + MIDDLE for start in acquisition.starts] == acquisition.places.tolist()
    # Neighbours share two slices, and all blocks but those at the ends were measured alike.
    assert set(np.diff(acquisition.starts)) == {6}
    inner = acquisition.blocks[2:-2]
    assert len(inner) == 4
    for block in inner:
        torch.testing.assert_close(block.geometry, inner[0].geometry)
        middle = block.geometry[NEAREST // 2]
        expected = [0.0] * 9 + [SLICES / 6] * 6 + [0.0] * 9
        torch.testing.assert_close(middle, torch.tensor(expected))


@pytest.mark.parametrize("step", [1.0, 2.0, 3.0, 7.0])
def test_blocks_are_centred_on_projections_where_steps_are_dense(step):
    places = np.arange(3.5, 66, step)
    acquisition = Acquisition(70, places)
    centres = np.array(acquisition.starts) + MIDDLE
    inner = centres[(centres >= places[0]) & (centres <= places[-1])]
    assert set(inner) <= set(places) and {places[0], places[-1]} <= set(inner)
    # As far apart as may be, but for the last.
    assert set(np.diff(inner)[:-1]) == {SLICES - 1 - (SLICES - 1) % step}


def test_gaps_are_filled_evenly():
    acquisition = Acquisition(44, [3.5, 23.5, 40.5])
    starts = np.array(acquisition.starts)
    assert {0, 20, 37} <= set(starts)
    inside_the_gap = np.diff(starts[(starts >= 0) & (starts <= 20)])
    assert inside_the_gap.tolist() in ([7, 6, 7], [6, 7, 7], [7, 7, 6])


@pytest.mark.parametrize("length", [1, 2, 7])
def test_mirrored_slices_repeat_those_at_the_ends(length):
    found = mirror(np.arange(-3 * length, 4 * length), length)
    up = list(range(length))
    down = up[::-1]
    assert found.tolist() == [*down, *up, *down, *up, *down, *up, *down]


def test_every_slice_of_a_block_counts_and_the_middle_most():
    window = blend_window(torch.device("cpu"))
    assert window.shape == (SLICES,) and window.min() > 0
    torch.testing.assert_close(window, window.flip(0))
    assert torch.all(torch.diff(window[: SLICES // 2]) > 0)
