"""Thinned acquisitions: what is taken out, what is folded, and that nothing else is lost."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from besselflow.thinning import Thinning


@st.composite
def thinnings(draw):
    every = draw(st.integers(2, 12))
    first = draw(st.none() | st.integers(0, every - 1))
    return Thinning.of(draw(st.integers(2, 60)), every, first), every


@given(thinnings())
@settings(max_examples=300, deadline=None)
def test_every_projection_is_withheld_folded_or_kept_once(case):
    thinning, _ = case
    seen = sorted([*thinning.withheld, *(p for group in thinning.groups for p in group)])
    assert seen == list(range(thinning.count))
    assert thinning.groups == sorted(thinning.groups)
    assert [tuple(group) for group in thinning.groups if len(group) > 1] == thinning.folded
    assert all(b == a + 1 for a, b in thinning.folded)


@given(thinnings())
@settings(max_examples=300, deadline=None)
def test_the_outermost_projections_are_not_withheld(case):
    thinning, _ = case
    assert thinning.groups[0] == [0]
    assert thinning.groups[-1][-1] == thinning.count - 1


@given(thinnings())
@settings(max_examples=300, deadline=None)
def test_one_of_so_many_is_withheld_and_two_between_are_folded(case):
    thinning, every = case
    assert set(np.diff(thinning.withheld)) <= {every}
    assert set(np.diff([a for a, _ in thinning.folded])) <= {every}
    if every < 5:
        assert thinning.folded == []
    # A folded pair has neighbours of its own on both sides, unless it is the last.
    for pair in thinning.folded:
        around = {pair[0] - 1, pair[1] + 1} - {thinning.count}
        assert all([p] in thinning.groups for p in around)
    if thinning.count >= 4 * every:
        assert len(thinning.withheld) >= thinning.count // every - 1
        assert len(thinning.folded) >= (thinning.count // every - 2 if every >= 5 else 0)


def test_every_sixth_of_twenty_four():
    thinning = Thinning.of(24, 6)
    assert thinning.withheld == [3, 9, 15, 21]
    assert thinning.folded == [(6, 7), (12, 13), (18, 19)]
    assert Thinning.of(10, 4).withheld == [2, 6] and Thinning.of(10, 4).folded == []
    assert Thinning.of(24, 6, 1).withheld == [1, 7, 13, 19]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_folded_projections_are_the_mean_of_both(dtype):
    thinning = Thinning.of(12, 6)
    assert (thinning.withheld, thinning.folded) == ([3, 9], [(6, 7)])
    images = np.random.default_rng(0).random((12, 3, 4)).astype(dtype)
    found = thinning.apply(images)
    assert found.dtype == dtype and found.shape == (9, 3, 4)
    kept = [0, 1, 2, 4, 5, 8, 10, 11]
    np.testing.assert_array_equal(np.delete(found, 5, axis=0), images[kept])
    np.testing.assert_allclose(found[5], (images[6] + images[7]) / 2)


@given(thinnings())
@settings(max_examples=60, deadline=None)
def test_thinning_measures_what_the_thinned_operator_does(case):
    thinning, _ = case
    rng = np.random.default_rng(0)
    matrix, volume = rng.random((thinning.count, 7)), rng.random((7, 5))
    np.testing.assert_allclose(
        thinning.apply(matrix) @ volume, thinning.apply(matrix @ volume), rtol=1e-12
    )
    positions = np.cumsum(rng.random(thinning.count))
    assert np.all(np.diff(thinning.apply(positions)) > 0)
