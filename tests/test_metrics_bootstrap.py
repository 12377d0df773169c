"""Intervals by drawing blocks of slices again: invariants, closed forms, and coverage."""

import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from besselflow.metrics import PSNR_CAP_DB, score_volume
from besselflow.metrics.bootstrap import draw_weights, interval


def mean(values):
    return lambda weights: weights @ values / weights.sum(axis=1)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(1, 20))
def test_every_draw_has_as_many_slices_as_there_are(n_slices, block):
    weights = draw_weights(n_slices, block, draws=50)
    if n_slices < 3 * block:
        assert weights is None
    else:
        assert weights.shape == (50, n_slices)
        assert (weights.sum(axis=1) == n_slices).all() and (weights >= 0).all()


def test_draws_are_runs_of_neighbours():
    weights = draw_weights(40, 8, draws=20)
    for row in weights:
        drawn = row > 0
        changes = np.count_nonzero(drawn != np.roll(drawn, 1))
        assert changes <= 2 * 5


def test_every_slice_is_drawn_equally_often():
    weights = draw_weights(24, 5, draws=4000)
    assert weights.mean(axis=0) == pytest.approx(1, abs=0.08)


def test_the_interval_of_a_constant_is_a_point():
    weights = draw_weights(20, 2)
    assert interval(mean(np.full(20, 3.5)), weights) == pytest.approx((3.5, 3.5))


def test_the_interval_of_a_mean_has_the_width_of_the_normal_one():
    rng = np.random.default_rng(0)
    values = rng.normal(0, 2, 400)
    low, high = interval(mean(values), draw_weights(400, 1))
    half = 1.96 * values.std() / np.sqrt(400)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.05)


def alike(rng, n_slices, length):
    """Values of which neighbours within a length are alike, with expectation 0."""
    noise = rng.normal(0, 1, n_slices + length - 1)
    return np.convolve(noise, np.ones(length) / length, "valid")


def test_blocks_keep_the_coverage_that_single_slices_lose():
    rng = np.random.default_rng(1)
    hits = {1: 0, 6: 0}
    for _ in range(150):
        values = alike(rng, 96, 6)
        for block in hits:
            low, high = interval(mean(values), draw_weights(96, block, draws=300))
            hits[block] += low <= 0 <= high
    assert hits[6] / 150 > 0.82
    assert hits[1] / 150 < 0.7


def volumes(n_slices=20, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.random((2, 1, n_slices, 12, 12)).astype("float32") ** 4 * 50
    estimate = truth + rng.normal(0, 4, truth.shape).astype("float32")
    return da.from_array(estimate), da.from_array(truth)


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 99), st.integers(1, 6))
def test_scores_lie_within_their_intervals(seed, block):
    found = score_volume(*volumes(seed=seed), np.ones(20, bool), 7, alike_slices=block).summary
    for name in ("psnr", "psnr_3d", "ssim", "dice"):
        assert found[f"{name}_lower"] < found[name] < found[f"{name}_upper"]


def test_too_few_slices_give_no_interval():
    found = score_volume(*volumes(8), np.ones(8, bool), 7, alike_slices=3).summary
    assert not [name for name in found if name.endswith(("_lower", "_upper"))]


def test_intervals_are_the_same_every_time_and_stay_below_the_cap():
    estimate, truth = volumes()
    first, second = (score_volume(estimate, truth, np.ones(20, bool), 7).summary for _ in range(2))
    assert first == second
    perfect = score_volume(truth, truth, np.ones(20, bool), 7).summary
    assert perfect["psnr_3d_upper"] == PSNR_CAP_DB
