"""Sampling: what the denoiser is asked, how its answers meet the data, and what is made of them."""

import logging
import math
import operator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from besselflow.config import Refine
from besselflow.diffusion import sampling
from besselflow.diffusion.blocks import SLICES, lay_blocks
from besselflow.diffusion.calibration import Calibration
from besselflow.diffusion.prior import BLIND, HIGHEST_NOISE
from besselflow.diffusion.sampling import noise_levels
from besselflow.lateral import LateralBlur
from known_refinements import (
    NOISE,
    OWN,
    Oracle,
    problem_of,
    problem_of_vessels,
    sample,
    vessels,
)
from tiny_priors import tiny_denoiser

pytestmark = pytest.mark.usefixtures("one_thread")
KERNEL = np.outer([0.2, 0.6, 0.2], [0.3, 0.4, 0.3])
VIEWS = sampling.VIEWS


@pytest.fixture(autouse=True)
def one_view(monkeypatch):
    """An oracle knows its answer as it lies there, not mirrored."""
    monkeypatch.setattr(sampling, "VIEWS", ((),))


@pytest.fixture(scope="module")
def truth():
    return vessels()


@pytest.fixture(scope="module")
def problem():
    return problem_of_vessels()


@pytest.fixture(scope="module")
def unheard(problem):
    """The same, of data so noisy that they say nothing: every estimate stays as it is."""
    return replace(problem, variance=np.full_like(problem.variance, 1e12))


def chi2(problem, volume):
    return float(np.mean((problem.operator.forward(volume) - problem.projections) ** 2)) / NOISE**2


def white(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("count", [1, 2, 7, 24])
def test_noise_levels_fall_to_almost_none(count):
    levels = noise_levels(count)
    assert len(levels) == count and levels[0] == pytest.approx(HIGHEST_NOISE)
    if count > 1:
        assert levels[-1] == pytest.approx(0.005)
        ratios = [following / level for level, following in pairwise(levels)]
        np.testing.assert_allclose(ratios, ratios[0])
        assert ratios[0] < 1


@pytest.mark.parametrize("evaluations", [2, 3, 6])
def test_denoiser_is_asked_at_every_level_and_sample(problem, truth, evaluations):
    oracle = Oracle(truth)
    found = sample(problem, oracle, evaluations=evaluations, samples=3)
    wanted = [BLIND] + 3 * noise_levels(evaluations - 1)
    if evaluations > 2:
        assert [level for level, _ in oracle.states] == pytest.approx(wanted)
    assert len(oracle.calls) == len(wanted)
    assert found.record["evaluations"] == evaluations and found.record["samples"] == 3


def test_denoiser_is_shown_what_is_known_of_every_block(problem, truth):
    oracle = Oracle(truth)
    sample(problem, oracle, evaluations=2)
    blocks = lay_blocks(problem.operator.matrix, problem.positions_um, problem.centres_um)
    _, sigma, inr, spectral, projections, geometry, noise = oracle.calls[0]
    assert len(blocks) == len(sigma) == len(noise) > 3
    for n, block in enumerate(blocks):
        torch.testing.assert_close(inr[n], torch.from_numpy(problem.inr)[block.slices])
        torch.testing.assert_close(spectral[n], torch.from_numpy(problem.spectral)[block.slices])
        expected = torch.from_numpy(problem.projections)[block.nearest]
        torch.testing.assert_close(projections[n], expected)
        torch.testing.assert_close(geometry[n], block.geometry)
    torch.testing.assert_close(sigma, torch.ones_like(sigma))
    torch.testing.assert_close(noise, torch.full_like(noise, NOISE))


def test_perfect_denoiser_gives_the_truth_and_agrees_with_the_data(problem, truth):
    found = sample(problem, Oracle(truth), samples=2)
    for volume in (found.mean, found.sample):
        assert volume.shape == truth.shape and volume.dtype == np.float32
        assert np.sqrt(np.mean((volume - truth.numpy()) ** 2)) < 0.1 * NOISE
        assert 0.9 < chi2(problem, volume) < 1.1
    # The standard deviation of equal samples is that of rounding.
    assert found.spread.max() < 1e-3 and found.std.dtype == np.float32
    assert found.record["training_error"] == pytest.approx(1e-3)
    assert found.record["assumed_error"] == pytest.approx(1e-3, rel=2)


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_wrong_denoiser_is_overruled_by_the_data(problem, truth, share):
    assert chi2(problem, share * truth.numpy()) > 5
    found = sample(problem, Oracle(share * truth))
    assert chi2(problem, found.mean) < 1.1 and chi2(problem, found.sample) < 1.1
    assert found.record["assumed_error"] > 10 * found.record["training_error"]
    assert found.record["assumed_error_of_a_sample"] > 10 * found.record["training_error"]


def test_a_prior_that_was_wrong_in_training_is_trusted_less(problem, truth):
    """Where the projections look right, its own error says how much the data may change."""
    believed = sample(problem, Oracle(truth), error=1e-3)
    doubted = sample(problem, Oracle(truth), error=0.1)
    assert chi2(problem, doubted.mean) < 0.2 < chi2(problem, believed.mean)
    assert doubted.record["assumed_error"] == pytest.approx(0.1)


def test_states_are_the_truth_with_noise_of_each_level(problem, truth):
    """If denoiser and start are perfect."""
    oracle = Oracle(truth)
    sample(replace(problem, inr=truth.numpy()), oracle, error=1e-4, evaluations=8)
    (blind, start), *states = oracle.states
    assert blind == BLIND and len(states) == 7
    torch.testing.assert_close(start, truth)
    for level, state in states:
        assert float((state - truth).std()) == pytest.approx(level, rel=0.03)
    # Ancestral sampling keeps a share of the noise: neighbouring levels correlate as their ratio.
    for (level, state), (following, lower) in pairwise(states):
        noises = np.stack([(state - truth).numpy().ravel(), (lower - truth).numpy().ravel()])
        assert np.corrcoef(noises)[0, 1] == pytest.approx(following / level, abs=0.03)


def test_sampling_starts_at_the_inr(problem, truth):
    oracle = Oracle(truth, 0.5)
    sample(problem, oracle)
    (blind, start), (level, state), *_ = oracle.states
    assert blind == BLIND and level == pytest.approx(HIGHEST_NOISE)
    torch.testing.assert_close(start, torch.from_numpy(problem.inr))
    # Then from what was estimated there.
    estimate = 0.5 * truth + 0.5 * start
    deviation = state - estimate
    assert float(deviation.std()) == pytest.approx(HIGHEST_NOISE, rel=0.02)
    assert abs(float(deviation.mean())) < 0.03 * HIGHEST_NOISE
    assert abs(np.corrcoef(deviation.ravel(), estimate.ravel())[0, 1]) < 0.03


def test_samples_are_determined_by_the_seed(problem, truth):
    first = sample(problem, Oracle(truth, 0.5), seed=4, samples=2)
    again = sample(problem, Oracle(truth, 0.5), seed=4, samples=2)
    other = sample(problem, Oracle(truth, 0.5), seed=5, samples=2)
    for name in ("mean", "spread", "std", "sample"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
        if name != "mean":
            assert np.abs(getattr(first, name) - getattr(other, name)).max() > 1e-4
    # Nothing about the mean is random.
    np.testing.assert_array_equal(first.mean, other.mean)


def test_more_samples_go_on_where_fewer_ended(problem, truth):
    one, three = Oracle(truth, 0.5), Oracle(truth, 0.5)
    sample(problem, one, samples=1)
    sample(problem, three, samples=3)
    assert len(three.states) - 1 == 3 * (len(one.states) - 1)
    for (level, state), (same_level, same_state) in zip(one.states, three.states, strict=False):
        assert level == same_level and torch.equal(state, same_state)


def test_mean_is_the_estimate_from_the_inr(problem, truth):
    found = sample(problem, Oracle(truth, 0.5), samples=3)
    estimate = 0.5 * truth.numpy() + 0.5 * problem.inr
    ratio = problem.variance / found.record["assumed_error"] ** 2
    expected = problem.operator.prox(estimate, problem.projections, ratio)
    np.testing.assert_allclose(found.mean, expected, atol=1e-4)


def test_mean_does_not_depend_on_what_follows(problem, truth):
    """Estimates at lower levels make the samples, and the samples alone."""
    right, wrong = (
        sample(problem, Oracle(lambda level, low=low: truth if level == BLIND else low))
        for low in (truth, 0.2 * truth)
    )
    np.testing.assert_array_equal(right.mean, wrong.mean)
    assert np.abs(right.sample - wrong.sample).max() > 0.01


def test_mean_is_that_of_mirrored_views(unheard, truth, monkeypatch):
    """What prefers one side of the image has no preference in the mean."""
    monkeypatch.setattr(sampling, "VIEWS", VIEWS)
    seen = []

    class Lopsided(Oracle):
        def __call__(self, noisy, sigma, *others):
            if float(sigma[0]) == BLIND:
                seen.append(others[0])
            side = torch.linspace(0, 1, noisy.shape[-1]).expand_as(noisy[:, OWN])
            return noisy[:, OWN] + side

    found = sample(unheard, Lopsided(None), evaluations=2).mean
    np.testing.assert_allclose(found, unheard.inr + 0.5, atol=1e-5)
    assert len(VIEWS) == len(seen) == 4
    for axes, inr in zip(VIEWS, seen, strict=True):
        assert torch.equal(inr.flip(axes), seen[0])


def test_no_sample_takes_more_than_25_evaluations_of_a_block(problem, monkeypatch):
    """All views of the first estimate included, with as many as can be configured."""
    monkeypatch.setattr(sampling, "VIEWS", VIEWS)
    most = Refine.model_json_schema()["properties"]["evaluations"]["maximum"]
    network, blocks = tiny_denoiser(), []
    network.register_forward_hook(lambda _, inputs, __: blocks.append(len(inputs[0])))
    sample(problem, network, evaluations=most)
    laid = lay_blocks(problem.operator.matrix, problem.positions_um, problem.centres_um)
    assert sum(blocks) == 25 * len(laid)


def test_spread_is_that_of_the_samples(unheard, truth):
    oracle = Oracle(truth, 0.5)
    found = sample(unheard, oracle, samples=4, evaluations=4)
    lowest = noise_levels(3)[-1]
    last = [state for level, state in oracle.states if level == pytest.approx(lowest)]
    samples = np.stack([(0.5 * truth + 0.5 * state).numpy() for state in last])
    assert len(samples) == 4
    # One of four lies closer to their mean than to that of all.
    deviation = math.sqrt(4 / 3) * (samples[0] - samples.mean(axis=0))
    np.testing.assert_allclose(found.sample, found.mean + deviation, atol=1e-5)
    # Smoothed, for the variance of four numbers is a rough one.
    expected = np.sqrt(gaussian_filter(samples.var(axis=0, ddof=1), 1.0))
    assert expected.mean() > 1e-3
    np.testing.assert_allclose(found.spread, expected, atol=1e-4)
    np.testing.assert_array_equal(found.std, found.spread)


def test_one_sample_has_no_spread(problem, truth):
    np.testing.assert_array_equal(sample(problem, Oracle(truth, 0.5)).spread, 0)


def test_calibration_turns_spread_into_a_standard_deviation(problem, truth):
    calibration = Calibration((0.001, 0.1), (0.003, 0.3))
    found = sample(problem, Oracle(truth, 0.5), samples=2, calibration=calibration)
    bare = sample(problem, Oracle(truth, 0.5), samples=2)
    np.testing.assert_array_equal(found.spread, bare.spread)
    np.testing.assert_allclose(found.std, 3 * np.maximum(bare.spread, 1e-6), rtol=1e-4)


def test_a_calibrated_sample_lies_as_far_from_the_mean_as_is_stated(unheard, truth):
    calibration = Calibration((0.001, 0.1), (0.003, 0.3))
    found = sample(unheard, Oracle(truth, 0.5), samples=3, calibration=calibration)
    bare = sample(unheard, Oracle(truth, 0.5), samples=3)
    np.testing.assert_allclose(found.sample - found.mean, 3 * (bare.sample - bare.mean), atol=1e-4)
    ratio = np.square(found.sample - found.mean).mean() / np.square(found.std).mean()
    assert 0.7 < ratio < 1.3


def test_a_calibrated_sample_agrees_with_the_data(problem, truth):
    draw = lambda calibration: sample(  # noqa: E731
        problem, Oracle(truth, 0.5), samples=3, calibration=calibration, error=0.05
    )
    bare, found = draw(None), draw(Calibration((0.001, 0.1), (0.1, 10.0)))
    apart = bare.mean + 100 * (bare.sample - bare.mean)
    assert chi2(problem, found.sample) < 1.1 < chi2(problem, apart)
    assert np.abs(found.sample - found.mean).max() > 10 * np.abs(bare.sample - bare.mean).max()


POSITIONS = {
    "every step": np.arange(2.5, 40, 6.0),
    "dense": np.arange(1.0, 40, 1.5),
    "two": np.array([12.0, 13.0]),
    "gap": np.array([3.0, 4.0, 30.0, 38.0]),
    "downwards": np.arange(2.5, 40, 6.0)[::-1],
}


@pytest.mark.parametrize("positions", POSITIONS.values(), ids=POSITIONS)
@pytest.mark.parametrize("depth", [40, 15])
@pytest.mark.parametrize("at_once", [1, 10**6])
def test_blocks_are_joined_without_seams(monkeypatch, positions, depth, at_once):
    """What returns the state as it is gives it back, whatever blocks lie over it."""
    monkeypatch.setattr(sampling, "_PIXELS_AT_ONCE", at_once)
    volume = white((depth, 5, 7))
    places = positions[positions < depth]
    problem = problem_of(volume, places, inr=volume.numpy(), variance=1e12)
    oracle = Oracle(volume, share=0.0)
    found = sample(problem, oracle, evaluations=2)
    state = oracle.states[0][1]
    assert torch.isfinite(state).all()
    np.testing.assert_allclose(found.mean, state, atol=1e-5)
    assert (len(oracle.calls) == 2) == (at_once > 1)


class LittleMemory(torch.nn.Module):
    """A network on a GPU that runs out of memory above a number of pixels at once."""

    def __init__(self, denoiser, fits):
        super().__init__()
        self.denoiser, self.fits, self.sizes = denoiser, fits, []
        self.multiple, self.reach = denoiser.multiple, denoiser.reach

    def forward(self, noisy, *others):
        self.sizes.append(noisy[:, 0].numel())
        if self.sizes[-1] > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.denoiser(noisy, *others)


@pytest.mark.parametrize("shape", [(24, 90, 67), (24, 64, 97)])
def test_tiles_that_fit_give_the_volume_of_a_large_gpu(shape, monkeypatch, caplog):
    """Each sees what can matter to it, mirrored or not: there are no seams."""
    monkeypatch.setattr(sampling, "VIEWS", VIEWS)
    volume = 0.2 * white(shape).abs()
    problem = problem_of(volume, np.arange(2.5, 24, 6.0), inr=volume.numpy())
    problem = replace(problem, spectral=0.8 * volume.numpy())
    whole = sample(problem, tiny_denoiser(), evaluations=2)
    small = LittleMemory(tiny_denoiser(), 64 * 64)
    with caplog.at_level(logging.WARNING, "besselflow"):
        found = sample(problem, small, evaluations=2)
    assert any("out of memory; going on with tiles of" in text for text in caplog.messages)
    assert min(small.sizes) <= small.fits < max(small.sizes)
    failed = [size for size in small.sizes if size > small.fits]
    assert all(map(operator.gt, failed, failed[1:])), "what did not fit once was tried again"
    np.testing.assert_allclose(found.mean, whole.mean, atol=1e-5)
    np.testing.assert_allclose(found.sample, whole.sample, atol=1e-5)


def test_neighbouring_blocks_are_blended(unheard):
    """Where blocks disagree, the volume goes over from one to the next."""

    class Striped(Oracle):
        def __call__(self, noisy, *others):
            stripes = torch.arange(len(noisy)) % 2
            return stripes[:, None, None, None].expand(-1, SLICES, *noisy.shape[2:]).float()

    found = sample(unheard, Striped(None), evaluations=2).mean
    # Blocks of eight slices, every six, the first from -1 on: they share 5 and 6, 11 and 12, ...
    line = found[:, 0, 0]
    np.testing.assert_allclose(found, line[:, None, None] + np.zeros_like(found), atol=1e-6)
    for first, value in ((0, 0.0), (7, 1.0), (13, 0.0), (19, 1.0)):
        np.testing.assert_allclose(line[first : first + 4], value, atol=1e-6)
    assert 0.1 < line[5] < 0.4 and line[5] + line[6] == pytest.approx(1)
    assert line[11] == pytest.approx(line[6]) and line[12] == pytest.approx(line[5])


@pytest.mark.parametrize("offset", [0.05, 0.3])
def test_apparent_error_of_a_known_residual(problem, truth, offset):
    """Of windows of six slices, A A^T is I / 6: a residual c shows a white error of c sqrt(6)."""
    clean = problem.operator.forward(truth.numpy())
    off = replace(problem, projections=clean + np.float32(offset))
    found = sample(off, Oracle(truth), evaluations=2, error=1e-6)
    expected = math.sqrt(6 * (offset**2 - NOISE**2))
    assert found.record["assumed_error"] == pytest.approx(expected, rel=1e-3)


def test_residuals_below_the_noise_show_no_error(problem, truth):
    exact = replace(problem, projections=problem.operator.forward(truth.numpy()))
    found = sample(exact, Oracle(truth), evaluations=2, error=1e-6)
    assert found.record["assumed_error"] == pytest.approx(1e-6)


@pytest.mark.parametrize("kernel", [None, KERNEL], ids=["sharp", "blurred"])
def test_apparent_error_of_a_white_error(problem, truth, kernel):
    operator = replace(problem.operator, lateral=None if kernel is None else LateralBlur(kernel))
    noise = problem.projections - problem.operator.forward(truth.numpy())
    measured = (operator.forward(truth.numpy()) + noise).astype(np.float32)
    problem = replace(problem, operator=operator, projections=measured)
    wrong = truth + 0.3 * white(truth.shape)
    found = sample(problem, Oracle(wrong), evaluations=2)
    assert found.record["assumed_error"] == pytest.approx(0.3, rel=0.05)


def test_pixels_of_little_noise_count_more(problem, truth):
    variance = problem.variance.copy()
    variance[:, :, :20] *= 1e-4
    variance[:, :, 20:] *= 1e4
    found = sample(replace(problem, variance=variance), Oracle(0 * truth), error=0.1)
    residual = problem.operator.forward(found.mean) - problem.projections
    left = np.sqrt(np.mean(residual**2, axis=(0, 1)))
    alone = np.sqrt(np.mean(problem.projections**2, axis=(0, 1)))
    assert np.all(left[:20] < 0.05 * alone[:20]) and np.all(left[20:] > 0.5 * alone[20:])
