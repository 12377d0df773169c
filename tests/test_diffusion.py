"""Checks the diffusion prior: conditions, preconditioning, training, and sampling with the data."""

import json
import logging
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from besselflow import optimisation
from besselflow.beam import box_profile, gaussian_profile
from besselflow.config import Prior, Refine
from besselflow.diffusion import training
from besselflow.diffusion.geometry import Geometry
from besselflow.diffusion.network import (
    SPECTRAL_REACH,
    STATE_REACH,
    Denoiser,
    SliceConditions,
    gather_conditions,
)
from besselflow.diffusion.sampling import (
    RefinementProblem,
    apparent_error,
    noise_levels,
    sample_posterior,
)
from besselflow.diffusion.training import (
    DiffusionPrior,
    intensity_scale,
    load_prior,
    save_prior,
    simulate_pairs,
    train_prior,
)
from besselflow.lateral import LateralBlur
from besselflow.phantoms import draw_phantom
from besselflow.projection import AxialGrid, AxialProjection

CPU = torch.device("cpu")
VOXEL = (1.0, 1.0, 1.0)
GEOMETRY = Geometry.of(box_profile(6.0), np.array([2.5, 8.5, 14.5]), VOXEL)
TINY = Prior(channels=[8, 16], steps=8, batch=2, patch=16, checkpoint_seconds=1e-9)
NOISE = 0.02
KERNEL = np.outer([0.2, 0.6, 0.2], [0.3, 0.4, 0.3])


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def volumes():
    return {kind: draw_phantom(kind, (18, 24, 24), 1, VOXEL) for kind in ("vessels", "cells")}


@pytest.fixture(scope="module")
def pairs(volumes):
    return simulate_pairs(volumes, GEOMETRY, 5)


def shuffled(denoiser, seed=0):
    """Give every weight a random value, so that nothing is zero by its initialisation."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return denoiser.eval()


class Constant(nn.Module):
    """Stands for the U-Net: keeps its inputs and returns a constant."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, inputs, timesteps):
        self.inputs, self.timesteps = inputs, timesteps
        return torch.full_like(inputs[:, :1], self.value)


def denoiser_with(value, error=0.2):
    denoiser = Denoiser([8, 16], error)
    denoiser.unet = Constant(value)
    return denoiser


def random_conditions(depth=9, shape=(6, 8), noise=0.03):
    generator = torch.Generator().manual_seed(1)
    draw = lambda *size: torch.randn(*size, generator=generator)  # noqa: E731
    return SliceConditions.of(
        draw(depth, *shape),
        draw(3, *shape),
        torch.tensor([1.5, 4.0, 7.25], dtype=torch.float64),
        torch.arange(depth, dtype=torch.float64),
        noise,
    )


@given(st.lists(st.integers(1, 30), min_size=1, max_size=7), st.integers(-20, 20))
@settings(max_examples=150, deadline=None)
def test_nearest_projections_of_every_slice(steps, first):
    positions = first + np.cumsum(steps) / 4
    centres = np.arange(math.floor(positions[0]) - 3, positions[-1] + 4, 0.5)
    images = torch.arange(float(len(positions)))[:, None, None].expand(-1, 2, 3)
    spectral = torch.zeros(len(centres), 2, 3)
    found = SliceConditions.of(
        spectral, images, torch.from_numpy(positions), torch.from_numpy(centres), 0.1
    )
    step = np.median(np.diff(positions)) if len(positions) > 1 else 1.0
    for z, centre in enumerate(centres):
        lower, upper = np.flatnonzero(positions <= centre), np.flatnonzero(positions >= centre)
        below = lower[-1] if lower.size else 0
        above = upper[0] if upper.size else len(positions) - 1
        assert found.below[z, 0, 0] == below
        assert found.above[z, 0, 0] == above
        distances = [(centre - positions[below]) / step, (positions[above] - centre) / step]
        np.testing.assert_allclose(found.place[z], distances, atol=1e-6)


def test_gathered_channels_are_mirrored_at_the_ends():
    conditions = random_conditions()
    spectral, other = gather_conditions(conditions, torch.tensor([0, 4, 8]))
    expected = [[2, 1, 0, 0, 1, 2, 3], [1, 2, 3, 4, 5, 6, 7], [5, 6, 7, 8, 8, 7, 6]]
    for row, slices in zip(spectral, expected, strict=True):
        torch.testing.assert_close(row, conditions.spectral[slices])
    for n, z in enumerate([0, 4, 8]):
        torch.testing.assert_close(other[n, 0], conditions.below[z])
        torch.testing.assert_close(other[n, 1], conditions.above[z])
        for channel in range(2):
            assert torch.all(other[n, 2 + channel] == conditions.place[z, channel])
    torch.testing.assert_close(other[:, 4], torch.full_like(other[:, 4], 10 * conditions.noise))


@pytest.mark.parametrize("sigma", [0.003, 0.2, 1.0])
def test_denoiser_without_network_is_the_linear_estimate(sigma):
    conditions, denoiser = random_conditions(), denoiser_with(0.0)
    state = conditions.spectral + torch.randn(conditions.spectral.shape)
    z = torch.tensor([0, 3, 8])
    found = denoiser(state, torch.full((3,), sigma), conditions, z)
    weight = 0.2**2 / (0.2**2 + sigma**2)
    expected = conditions.spectral[z] + weight * (state[z] - conditions.spectral[z])
    torch.testing.assert_close(found, expected)


def test_linear_estimate_is_the_best_one():
    """Of a truth that the spectral estimate misses by e, seen with noise sigma."""
    error, sigma = 0.2, 0.1
    generator = torch.Generator().manual_seed(0)
    draw = lambda: torch.randn(4, 200, 200, generator=generator)  # noqa: E731
    truth, zero = error * draw(), torch.zeros(4, 200, 200)
    conditions = SliceConditions(zero, zero, zero, torch.zeros(4, 2), 0.1)
    found = denoiser_with(0.0, error)(
        truth + sigma * draw(), torch.full((4,), sigma), conditions, torch.arange(4)
    )
    left = error * sigma / math.hypot(error, sigma)
    assert float((found - truth).std()) == pytest.approx(left, rel=0.01)


@pytest.mark.parametrize("sigma", [0.01, 0.2, 1.0])
def test_network_output_is_scaled_to_what_is_missing(sigma):
    conditions = random_conditions()
    state, z = torch.randn(conditions.spectral.shape), torch.tensor([1, 5])
    level = torch.full((2,), sigma)
    without = denoiser_with(0.0)(state, level, conditions, z)
    moved = denoiser_with(1.0)(state, level, conditions, z)
    spread = 0.2 * sigma / math.hypot(0.2, sigma)
    torch.testing.assert_close(moved - without, torch.full_like(moved, spread), atol=1e-6, rtol=0)


@pytest.mark.parametrize("sigma", [0.01, 0.2, 1.0])
def test_network_sees_noisy_slices_of_unit_variance(sigma):
    error, generator = 0.2, torch.Generator().manual_seed(0)
    draw = lambda: torch.randn(6, 150, 150, generator=generator)  # noqa: E731
    spectral = 5 * draw()
    conditions = SliceConditions(spectral, spectral, spectral, torch.zeros(6, 2), 0.1)
    denoiser = denoiser_with(0.0, error)
    state = spectral + error * draw() + sigma * draw()
    denoiser(state, torch.full((6,), sigma), conditions, torch.arange(6))
    noisy = denoiser.unet.inputs[:, : 2 * STATE_REACH + 1]
    assert noisy.shape[1] == 3
    for channel in range(3):
        assert float(noisy[:, channel].std()) == pytest.approx(1, abs=0.02)
    assert float(denoiser.unet.timesteps[0]) == pytest.approx(250 * math.log(sigma), rel=1e-5)
    torch.testing.assert_close(denoiser.unet.inputs[:, 3 + SPECTRAL_REACH], spectral)


def test_noise_level_is_that_of_each_slice():
    conditions, denoiser = random_conditions(), denoiser_with(1.0)
    state, z = torch.randn(conditions.spectral.shape), torch.tensor([2, 2, 6])
    levels = torch.tensor([0.05, 0.5, 0.05])
    together = denoiser(state, levels, conditions, z)
    for n in range(3):
        alone = denoiser(state, levels[n : n + 1], conditions, z[n : n + 1])
        torch.testing.assert_close(together[n : n + 1], alone)


def test_images_of_any_size():
    denoiser = shuffled(Denoiser([8, 16], 0.2))
    conditions = random_conditions(shape=(7, 9))
    state = torch.randn(conditions.spectral.shape)
    with torch.no_grad():
        found = denoiser(state, torch.full((2,), 0.3), conditions, torch.tensor([0, 4]))
    assert found.shape == (2, 7, 9)
    assert torch.isfinite(found).all()


def test_equal_setups_compare_equal():
    exact = Geometry.of(gaussian_profile(12.0), np.arange(0, 60, 6.0), (1.5, 0.5, 0.5))
    jittered = Geometry.of(
        gaussian_profile(12.0),
        np.arange(3, 90, 6.0)[::-1] + 1e-4 * np.sin(np.arange(15)),
        (1.5, 0.5 + 1e-6, 0.5),
    )
    assert exact == jittered and exact.key == jittered.key
    assert exact.key.isalnum() and len(exact.key) == 12


@pytest.mark.parametrize(
    "other",
    [
        Geometry.of(box_profile(6.0), np.array([2.5, 7.5, 12.5]), VOXEL),
        Geometry.of(box_profile(5.0), np.array([2.5, 8.5, 14.5]), VOXEL),
        Geometry.of(gaussian_profile(6.0), np.array([2.5, 8.5, 14.5]), VOXEL),
        Geometry.of(box_profile(6.0), np.array([2.5, 8.5, 14.5]), (1.0, 1.0, 0.9)),
        Geometry.of(box_profile(6.0), np.array([2.5, 8.5, 14.5]), VOXEL, KERNEL),
    ],
    ids=["step", "length", "profile", "voxel", "side lobes"],
)
def test_other_setups_have_another_prior(other):
    assert other != GEOMETRY and other.key != GEOMETRY.key


@pytest.mark.parametrize("kernel", [None, KERNEL], ids=["sharp", "blurred"])
def test_geometry_survives_json(kernel):
    positions = np.array([1.0, 3.3, 5.7])
    geometry = Geometry.of(gaussian_profile(4.0), positions, (0.5, 0.2, 0.3), kernel)
    restored = Geometry.from_dict(json.loads(json.dumps(geometry.as_dict())))
    assert restored == geometry and restored.key == geometry.key


@given(st.integers(8, 80), st.floats(0, 1, exclude_max=True), st.floats(1, 12), st.floats(1, 9))
@settings(max_examples=150, deadline=None)
def test_geometry_is_laid_over_any_training_volume(n_slices, phase, length, step):
    geometry = Geometry.of(box_profile(length), np.array([0.0, step]), VOXEL)
    positions, grid, operator = geometry.acquisition_of(n_slices, phase)
    assert grid.n_slices == n_slices and operator.n_projections == len(positions) >= 2
    assert positions.min() >= -0.5 and positions.max() <= n_slices - 0.5
    if len(positions) > 2:
        np.testing.assert_allclose(np.diff(positions), geometry.step_um)
    if length <= n_slices / 4:
        # Where the volume is thick enough, no projection is cut.
        np.testing.assert_allclose(operator.matrix.sum(axis=1), 1, atol=1e-3)


def test_side_lobes_of_the_geometry_blur_its_acquisitions():
    positions = np.array([2.5, 8.5])
    geometry = Geometry.of(box_profile(6.0), positions, VOXEL, KERNEL)
    operator = geometry.acquisition_of(40, 0.0)[2]
    np.testing.assert_allclose(operator.lateral.kernel, KERNEL, rtol=1e-3)


def test_phase_moves_the_projections_by_a_part_of_a_step():
    first = GEOMETRY.acquisition_of(40, 0.0)[0]
    moved = GEOMETRY.acquisition_of(40, 0.25)[0]
    np.testing.assert_allclose(moved[:5] - first[:5], 0.25 * 6)


def projections_of(conditions, n_slices):
    """Recover positions and images of the projections from what is known about each slice."""
    step, images = GEOMETRY.step_um, {}
    for z in range(n_slices):
        below, above = (float(value) for value in conditions.place[z])
        images[round(z - below * step, 3)] = conditions.below[z].numpy()
        images[round(z + above * step, 3)] = conditions.above[z].numpy()
    positions = np.array(sorted(images))
    return positions, np.stack([images[position] for position in positions])


def test_simulated_acquisitions_image_their_volume_with_the_noise_they_state(pairs):
    levels = []
    for pair in pairs:
        positions, measured = projections_of(pair.conditions, 18)
        operator = AxialProjection.from_geometry(
            box_profile(6.0), positions, AxialGrid(0.0, 1.0, 18)
        )
        residual = measured - operator.forward(pair.volume.numpy())
        noise = residual.std()
        assert abs(residual.mean()) < 5 * noise / residual.size**0.5
        assert noise == pytest.approx(pair.conditions.noise, rel=0.3)
        # Bright means 1, whatever the number of photons.
        assert 0.8 < intensity_scale(measured) < 1.2
        levels.append(noise)
    assert max(levels) > 1.2 * min(levels)


def test_simulations_are_determined_by_the_seed(volumes, pairs):
    again = simulate_pairs(volumes, GEOMETRY, 5)
    other = simulate_pairs(volumes, GEOMETRY, 6)
    for a, b, c in zip(pairs, again, other, strict=True):
        torch.testing.assert_close(a.conditions.below, b.conditions.below, rtol=0, atol=0)
        torch.testing.assert_close(a.volume, b.volume, rtol=0, atol=0)
        assert not torch.equal(a.conditions.below, c.conditions.below)


class Interrupted(Exception):
    """Stands for the kill of a job."""


def test_resumed_training_is_the_undisturbed_one(volumes, tmp_path, caplog, monkeypatch):
    whole = train_prior(volumes, GEOMETRY, TINY, 3, tmp_path / "whole.pt", CPU)
    path = tmp_path / "prior.pt"

    class Bomb(optimisation.Progress):
        def update(self, done, detail=""):
            if self.what == "training" and done == 5:
                raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(optimisation, "Progress", Bomb)
        with pytest.raises(Interrupted):
            train_prior(volumes, GEOMETRY, TINY, 3, path, CPU)
    with caplog.at_level(logging.INFO, "besselflow"):
        resumed = train_prior(volumes, GEOMETRY, TINY, 3, path, CPU)
    assert f"resuming from {path} at step 4" in caplog.messages
    for name, weights in whole.denoiser.state_dict().items():
        torch.testing.assert_close(resumed.denoiser.state_dict()[name], weights, rtol=0, atol=0)
    assert resumed.errors == whole.errors
    assert resumed.info["curve"] == whole.info["curve"]


def test_training_lowers_the_loss_and_beats_the_linear_estimate(volumes, tmp_path):
    settings = TINY.model_copy(update={"steps": 80, "batch": 4, "learning_rate": 4e-3})
    one = {"vessels": volumes["vessels"]}
    prior = train_prior(one, GEOMETRY, settings, 3, tmp_path / "c.pt", CPU)
    assert prior.info["trained_on"] == ["vessels"]
    losses = [loss for _, loss in prior.info["curve"]]
    # 1 is the loss of the linear estimate.
    assert np.mean(losses[-20:]) < 0.85
    assert len(prior.errors) == len(prior.error_levels)
    assert prior.errors[0] < prior.errors[-1] < 1.1 * prior.info["spectral_error"]
    assert not prior.denoiser.training


def test_training_on_a_checkpoint_of_other_volumes_starts_over(volumes, tmp_path, caplog):
    path, short = tmp_path / "c.pt", TINY.model_copy(update={"steps": 3})
    train_prior(volumes, GEOMETRY, short, 3, path, CPU)
    assert path.exists()
    other = {name: 2 * volume for name, volume in volumes.items()}
    with caplog.at_level(logging.INFO, "besselflow"):
        train_prior(other, GEOMETRY, short, 3, path, CPU)
    assert any("other settings or data; starting over" in text for text in caplog.messages)


def stub_prior(denoiser, error=1e-3):
    return DiffusionPrior(denoiser, [0.003, 1.0], [error, error])


def test_prior_round_trip(tmp_path):
    denoiser = shuffled(Denoiser([8, 16], 0.123456789))
    prior = DiffusionPrior(denoiser, [0.01, 1.0], [0.002, 0.3], {"trained_on": ["a"], "steps": 3})
    save_prior(tmp_path / "p.safetensors", prior)
    loaded = load_prior(tmp_path / "p.safetensors", CPU)
    assert loaded.info == prior.info
    assert (loaded.error_levels, loaded.errors) == (prior.error_levels, prior.errors)
    assert not loaded.denoiser.training
    conditions = random_conditions()
    state, z = torch.randn(conditions.spectral.shape), torch.arange(9)
    with torch.no_grad():
        outputs = [p.denoiser(state, torch.full((9,), 0.2), conditions, z) for p in (prior, loaded)]
    torch.testing.assert_close(*outputs, rtol=0, atol=0)


@pytest.mark.parametrize("spoil", ["truncate", "empty", "text", "foreign"])
def test_unreadable_prior_is_named(tmp_path, spoil):
    path = tmp_path / "p.safetensors"
    save_prior(path, stub_prior(Denoiser([8, 16], 0.1)))
    if spoil == "truncate":
        path.write_bytes(path.read_bytes()[:-100])
    elif spoil == "foreign":
        training.save_file({"w": torch.zeros(3)}, path)
    else:
        path.write_text("" if spoil == "empty" else "no weights at all")
    with pytest.raises(RuntimeError, match=r"p\.safetensors: not a readable prior .*delete the"):
        load_prior(path, CPU)


def test_expected_error_between_the_measured_levels():
    prior = DiffusionPrior(nn.Identity(), [0.01, 0.1, 1.0], [0.002, 0.02, 0.05])
    assert prior.error_at(0.1) == pytest.approx(0.02)
    assert prior.error_at(math.sqrt(0.001)) == pytest.approx(math.sqrt(0.002 * 0.02))
    assert prior.error_at(5.0) == pytest.approx(0.05)
    assert prior.error_at(1e-4) == pytest.approx(0.002)


class Oracle:
    """Stands for a denoiser: mixes the truth with the state, and keeps the states it was shown."""

    def __init__(self, truth, share=1.0):
        self.truth, self.share, self.states = truth, share, []

    def __call__(self, state, sigma, conditions, z):
        if int(z[0]) == 0:
            self.states.append((float(sigma[0]), state.clone()))
        return self.share * self.truth[z] + (1 - self.share) * state[z]


@pytest.fixture(scope="module")
def truth():
    return torch.from_numpy(draw_phantom("vessels", (24, 40, 40), 2, VOXEL))


@pytest.fixture(scope="module")
def problem(truth):
    positions, grid = np.arange(2.5, 24, 6.0), AxialGrid(0.0, 1.0, 24)
    operator = AxialProjection.from_geometry(box_profile(6.0), positions, grid)
    clean = operator.forward(truth.numpy())
    noise = NOISE * np.random.default_rng(0).standard_normal(clean.shape)
    y = (clean + noise).astype(np.float32)
    start = np.repeat(y, 6, axis=0)
    return RefinementProblem(start, start, y, operator, positions, grid.centres_um, NOISE)


def chi2(problem, volume):
    return float(np.mean((problem.operator.forward(volume) - problem.projections) ** 2)) / NOISE**2


def sample(problem, denoiser, seed=0, error=1e-3, **options):
    settings = Refine(**{"evaluations": 5, "samples": 1, "inr_weight": 0.0, **options})
    return sample_posterior(problem, stub_prior(denoiser, error), settings, seed, CPU)


@pytest.mark.parametrize(
    ("start", "evaluations"), [(0.3, 10), (0.3, 1), (0.3, 2), (0.005, 10), (0.0093, 25), (5.0, 25)]
)
def test_noise_levels_fall_and_can_be_sampled(problem, truth, start, evaluations):
    levels = noise_levels(Refine(start_noise=start, evaluations=evaluations))
    assert len(levels) == evaluations and levels[0] == pytest.approx(start)
    assert all(a >= b for a, b in pairwise(levels))
    if evaluations > 1:
        assert levels[-1] == pytest.approx(min(0.01, start))
    mean, _, record = sample(problem, Oracle(truth), start_noise=start, evaluations=evaluations)
    assert np.isfinite(mean).all()
    assert record["evaluations"] == evaluations


def test_perfect_denoiser_gives_the_truth_and_agrees_with_the_data(problem, truth):
    mean, std, record = sample(problem, Oracle(truth))
    assert mean.shape == truth.shape and mean.dtype == np.float32
    assert np.sqrt(np.mean((mean - truth.numpy()) ** 2)) < NOISE
    assert 0.9 < chi2(problem, mean) < 1.1
    np.testing.assert_array_equal(std, 0)
    assert record["training_error"] == pytest.approx(1e-3)


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_wrong_denoiser_is_overruled_by_the_data(problem, truth, share):
    wrong = Oracle(share * truth)
    assert chi2(problem, share * truth.numpy()) > 5
    mean, _, record = sample(problem, wrong)
    assert chi2(problem, mean) < 1.1
    assert record["assumed_error"] > 10 * record["training_error"]


def test_data_agree_with_every_estimate_that_the_next_step_starts_from(problem, truth):
    """The states are truth plus noise of the stated level, if denoiser and start are perfect."""
    oracle = Oracle(truth)
    settings = {"evaluations": 8, "start_noise": 0.5, "inr_weight": 0.0}
    sample(replace(problem, inr=truth.numpy()), oracle, error=1e-4, **settings)
    assert [level for level, _ in oracle.states] == pytest.approx(noise_levels(Refine(**settings)))
    for level, state in oracle.states:
        assert float((state - truth).std()) == pytest.approx(level, rel=0.03)
    # Ancestral sampling keeps a share of the noise: neighbouring levels correlate as their ratio.
    for (level, state), (following, lower) in pairwise(oracle.states):
        noises = np.stack([(state - truth).numpy().ravel(), (lower - truth).numpy().ravel()])
        assert np.corrcoef(noises)[0, 1] == pytest.approx(following / level, abs=0.03)


def test_sampling_starts_at_the_inr(problem, truth):
    oracle = Oracle(truth)
    sample(problem, oracle, start_noise=0.1)
    deviation = oracle.states[0][1] - torch.from_numpy(problem.inr)
    assert float(deviation.std()) == pytest.approx(0.1, rel=0.03)
    assert abs(float(deviation.mean())) < 0.003


def test_samples_are_determined_by_the_seed(problem, truth):
    first = sample(problem, Oracle(truth, 0.5), seed=4, samples=2)
    again = sample(problem, Oracle(truth, 0.5), seed=4, samples=2)
    other = sample(problem, Oracle(truth, 0.5), seed=5, samples=2)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert np.abs(first[0] - other[0]).max() > 1e-3


def test_mean_and_spread_are_those_of_the_samples(problem, truth):
    one = sample(problem, Oracle(truth, 0.5), samples=1)[0]
    mean, std, _ = sample(problem, Oracle(truth, 0.5), samples=2)
    two = 2 * mean - one
    assert std.mean() > 1e-3
    np.testing.assert_allclose(std, np.abs(one - two) / math.sqrt(2), atol=1e-3)


def test_inr_alone_is_made_to_agree_with_the_data(problem, truth):
    mean, std, record = sample(problem, Oracle(truth), inr_weight=1.0)
    ratio = (NOISE / record["assumed_error"]) ** 2
    expected = problem.operator.prox(problem.inr, problem.projections, ratio)
    np.testing.assert_allclose(mean, expected, atol=1e-5)
    np.testing.assert_array_equal(std, 0)


def test_spread_holds_the_disagreement_of_inr_and_prior(problem, truth):
    _, std, _ = sample(problem, Oracle(truth), inr_weight=0.3)
    expected = math.sqrt(0.3 * 0.7) * np.abs(truth.numpy() - problem.inr)
    np.testing.assert_allclose(std, expected, atol=1e-5)


def test_guidance_lies_between_inr_and_prior(problem, truth):
    """Where all agree with the data equally well, the weight divides the way between both."""
    away = np.random.default_rng(0).standard_normal(truth.shape).astype(np.float32)
    away -= problem.operator.pinv(problem.operator.forward(away))
    guided = replace(problem, inr=truth.numpy() + 0.1 * away)
    mean, _, _ = sample(guided, Oracle(truth), inr_weight=0.4)
    np.testing.assert_allclose(mean - truth.numpy(), 0.04 * away, atol=1e-3)


def test_apparent_error_of_a_known_residual(problem, truth):
    """Of windows of six slices, A A^T is I / 6: a residual c shows a white error of c sqrt(6)."""
    y = problem.operator.forward(truth.numpy())
    for offset in (0.05, 0.3):
        found = apparent_error(truth, torch.from_numpy(y + np.float32(offset)), problem)
        assert found == pytest.approx(math.sqrt(6 * (offset**2 - NOISE**2)), rel=1e-3)
    assert apparent_error(truth, torch.from_numpy(y), problem) == 0.0


@pytest.mark.parametrize("kernel", [None, KERNEL], ids=["sharp", "blurred"])
def test_apparent_error_of_a_white_error(problem, truth, kernel):
    operator = replace(problem.operator, lateral=None if kernel is None else LateralBlur(kernel))
    noise = problem.projections - problem.operator.forward(truth.numpy())
    measured = (operator.forward(truth.numpy()) + noise).astype(np.float32)
    problem = replace(problem, operator=operator, projections=measured)
    generator = torch.Generator().manual_seed(0)
    wrong = truth + 0.3 * torch.randn(truth.shape, generator=generator)
    found = apparent_error(wrong, torch.from_numpy(problem.projections), problem)
    assert found == pytest.approx(0.3, rel=0.05)
