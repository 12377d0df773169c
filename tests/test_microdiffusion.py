"""Checks the published scheme: schedule, guidance, conditions, interpolation, and training."""

import logging
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from monai.networks.schedulers import DDIMScheduler, DDPMScheduler
from scipy import stats
from torch import nn

from besselflow.config import Microdiffusion
from besselflow.inr.columns import NEIGHBOUR_WEIGHTS
from besselflow.microdiffusion import sampling
from besselflow.microdiffusion.images import (
    nearest_projections,
    smooth_neighbours,
    to_intensity,
    to_range,
)
from besselflow.microdiffusion.network import ConditionalUnet
from besselflow.microdiffusion.sampling import SlicesProblem, guide, sample_slices
from besselflow.microdiffusion.schedule import Schedule
from besselflow.microdiffusion.training import (
    TrainingImages,
    build_network,
    interpolate_states,
    kept_conditions,
    load_network,
    save_network,
    spread_out,
    train_network,
)
from interruption import interrupt

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
# The published weight would leave 6 levels to visit.
TINY = Microdiffusion(
    inr_weight=0.5,
    channels=[8, 16],
    octaves=3,
    steps=8,
    batch=2,
    timesteps=20,
    sampling_steps=10,
    checkpoint_seconds=1e-9,
)
PUBLISHED = Schedule.of(Microdiffusion())


def with_values(settings, **values):
    return settings.model_copy(update=values)


def shuffled(network, seed=0):
    """Give every weight a random value, so that nothing is zero by its initialisation."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(1)
    guides = rng.uniform(-1, 1, (3, 14, 12)).astype(np.float32)
    noisy = guides + 0.2 * rng.standard_normal(guides.shape, dtype=np.float32)
    weights = np.repeat(np.eye(3), 4, axis=1) / 4
    return TrainingImages(noisy, guides, weights)


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(2)
    draw = lambda *shape: rng.uniform(-1, 1, shape).astype(np.float32)  # noqa: E731
    return SlicesProblem(draw(5, 14, 12), draw(2, 14, 12), np.array([0.5, 3.5]), np.arange(5.0))


class Recorder(nn.Module):
    """Stands for the network: keeps its inputs and estimates the noise by a function."""

    def __init__(self, estimate=lambda noisy, condition: 0 * noisy, size=3):
        super().__init__()
        self.estimate, self.condition_size = estimate, size
        self.states, self.levels, self.conditions = [], [], []

    def embed_images(self, images):
        return images.mean(dim=(1, 2))[:, None].expand(-1, min(2, self.condition_size))

    def embed_positions(self, weights):
        where = torch.arange(weights.shape[1], dtype=weights.dtype)
        return (weights @ where)[:, None].expand(-1, self.condition_size - 2)

    def forward(self, noisy, timesteps, condition):
        self.states.append(noisy)
        self.levels.append(int(timesteps[0]))
        self.conditions.append(condition)
        return self.estimate(noisy, condition)


def test_published_schedule():
    assert len(PUBLISHED.alpha_bar) == 1000
    betas = 1 - PUBLISHED.alpha_bar / np.concatenate([[1.0], PUBLISHED.alpha_bar[:-1]])
    np.testing.assert_allclose(betas, np.linspace(1e-4, 0.02, 1000))
    np.testing.assert_allclose(PUBLISHED.alpha_bar, DDPMScheduler().alphas_cumprod, rtol=1e-2)
    assert 4e-5 < PUBLISHED.alpha_bar[-1] < 4.1e-5


@pytest.mark.parametrize("level", [0, 300, 999])
def test_moments_of_noised_images(level):
    clean = torch.full((2, 200, 200), 0.7)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    found = PUBLISHED.noised(clean, noise, np.array([level, level]))
    kept = PUBLISHED.alpha_bar[level]
    assert float(found.mean()) == pytest.approx(0.7 * math.sqrt(kept), abs=0.01)
    assert float(found.std()) == pytest.approx(math.sqrt(1 - kept), rel=0.01)


def test_images_of_a_batch_have_noise_levels_of_their_own():
    clean, levels = torch.ones(3, 2, 2), np.array([0, 999, 500])
    found = PUBLISHED.noised(clean, torch.zeros_like(clean), levels)
    np.testing.assert_allclose(found[:, 0, 0], np.sqrt(PUBLISHED.alpha_bar[levels]), rtol=1e-6)


def test_levels_of_sampling():
    assert PUBLISHED.visited(1000) == list(range(999, -1, -1))
    few = PUBLISHED.visited(10)
    assert few[0] == 999 and few[-1] == 0 and set(-np.diff(few)) == {111}


def random_images(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.mark.parametrize("level", [1, 400, 999])
def test_step_with_fresh_noise_is_that_of_ddpm(level):
    """The mean and variance of the posterior, Ho et al. (2020), eqs. 6 and 7."""
    state, noise, fresh = random_images(3, 4, 5)
    kept, ahead = PUBLISHED.alpha_bar[level], PUBLISHED.alpha_bar[level - 1]
    beta = 1 - kept / ahead
    clean = (state - math.sqrt(1 - kept) * noise) / math.sqrt(kept)
    mean = (math.sqrt(ahead) * beta * clean + math.sqrt(1 - beta) * (1 - ahead) * state) / (
        1 - kept
    )
    variance = (1 - ahead) / (1 - kept) * beta
    found = PUBLISHED.step(state, noise, level, level - 1, 1.0, fresh)
    torch.testing.assert_close(found, mean + math.sqrt(variance) * fresh)


def test_step_without_fresh_noise_is_that_of_another_library():
    schedule = DDIMScheduler(clip_sample=False, steps_offset=0)
    schedule.set_timesteps(50)
    own = Schedule(schedule.alphas_cumprod.double().numpy())
    state, noise, fresh = random_images(3, 4, 5)
    expected, clean = schedule.step(noise, 400, state, eta=0.0)
    torch.testing.assert_close(own.step(state, noise, 400, 380, 0.0, fresh), expected)
    torch.testing.assert_close(own.step(state, noise, 400, None, 1.0, fresh), clean)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_true_noise_leads_back_to_the_noised_image(eta):
    clean, noise, fresh = random_images(3, 100, 100)
    state = PUBLISHED.noised(clean[None], noise[None], np.array([700]))[0]
    found = PUBLISHED.step(state, noise, 700, 350, eta, fresh)
    left = found - math.sqrt(PUBLISHED.alpha_bar[350]) * clean
    expected = math.sqrt(1 - PUBLISHED.alpha_bar[350])
    assert float(left.std()) == pytest.approx(expected, rel=0.03)
    torch.testing.assert_close(PUBLISHED.step(state, noise, 700, None, eta, fresh), clean)


def test_guidance_identities():
    with_condition, without = random_images(2, 3, 4)
    torch.testing.assert_close(guide(with_condition, without, 0.0), with_condition)
    torch.testing.assert_close(guide(with_condition, without, 1.0), 2 * with_condition - without)
    torch.testing.assert_close(guide(without, without, 1.8), without)


def test_states_are_interpolated_as_published():
    state, guide_ = torch.tensor([1.0, -1.0]), torch.tensor([0.0, 1.0])
    found = interpolate_states(state, guide_, Microdiffusion().inr_weight)
    torch.testing.assert_close(found, torch.tensor([0.1, 0.8]))
    assert torch.equal(interpolate_states(state, guide_, 0.0), state)


def test_conditions_are_dropped_at_the_rate_asked_for():
    kept = kept_conditions(10_000, 0.1, np.random.default_rng(0))
    assert stats.binomtest(int((~kept).sum()), 10_000, 0.1).pvalue > 1e-3
    assert kept_conditions(10_000, 0.0, np.random.default_rng(0)).all()


def test_intensities_survive_the_range_of_the_network():
    intensity = np.array([0.0, 30.0, 90.0], np.float32)
    np.testing.assert_allclose(to_range(intensity, 60.0), [-1, 0, 2], rtol=1e-6)
    np.testing.assert_allclose(to_intensity(to_range(intensity, 60.0), 60.0), intensity, atol=1e-5)
    assert to_intensity(np.array([-1.5]), 60.0) == 0


def test_neighbours_are_averaged_around_the_slice():
    peak = np.zeros((11, 1, 1))
    peak[5] = 1
    found = smooth_neighbours(peak)[:, 0, 0]
    np.testing.assert_allclose(found, found[::-1], atol=1e-12)
    # What the published weights see half a slice above and below.
    six = np.array([*NEIGHBOUR_WEIGHTS, 0]) / 2 + np.array([0, *NEIGHBOUR_WEIGHTS]) / 2
    np.testing.assert_allclose(found[2:9], six)
    np.testing.assert_allclose(smooth_neighbours(np.ones((3, 2, 2))), 1)


def test_nearest_acquired_projection():
    found = nearest_projections(np.array([2.5, 8.5, 14.5]), np.arange(18.0))
    assert found.tolist() == [0] * 6 + [1] * 6 + [2] * 6


def test_units_to_learn_from_are_spread_over_the_sample():
    assert spread_out(range(5), 32) == [0, 1, 2, 3, 4]
    assert spread_out(range(100), 4) == [0, 33, 66, 99]


@pytest.mark.parametrize(("use_image", "use_position"), [(a, b) for a in (0, 1) for b in (0, 1)])
def test_network_listens_to_its_conditions(use_image, use_position):
    network = shuffled(ConditionalUnet([8, 16], 4, bool(use_image), bool(use_position)))
    assert network.condition_size == 128 * use_image + 32 * use_position
    generator = torch.Generator().manual_seed(1)
    noisy, image = torch.randn(2, 1, 13, 10, generator=generator)
    levels = torch.tensor([7])
    with torch.no_grad():
        first, last = torch.eye(6)[:1], torch.eye(6)[-1:]
        condition = lambda i, z: torch.cat(  # noqa: E731
            [network.embed_images(i), network.embed_positions(z)], dim=1
        )
        estimate = network(noisy, levels, condition(image, first))
        assert estimate.shape == noisy.shape
        other_image = network(noisy, levels, condition(-image, first))
        other_depth = network(noisy, levels, condition(image, last))
    assert torch.equal(estimate, other_image) != bool(use_image)
    assert torch.equal(estimate, other_depth) != bool(use_position)


def test_position_of_a_projection_is_the_mean_over_its_beam():
    network = shuffled(ConditionalUnet([8, 16], 4, False, True))
    slices = network.embed_positions(torch.eye(5))
    beam = torch.tensor([[0.0, 0.25, 0.5, 0.25, 0.0]])
    torch.testing.assert_close(network.embed_positions(beam), beam @ slices)


def test_image_embedding_takes_images_of_any_size():
    network = shuffled(ConditionalUnet([8, 16, 24], 4, True, False))
    for shape in ((5, 7), (24, 24), (40, 33)):
        assert network.embed_images(torch.ones(2, *shape)).shape == (2, 128)


def test_state_is_interpolated_before_every_step(problem):
    network = Recorder()
    settings = with_values(TINY, guidance=0.0, eta=0.0)
    found, record = sample_slices(problem, network, settings, 0, CPU)
    assert network.levels == Schedule.of(settings).visited(10)
    assert record["evaluations"] == 10
    alpha_bar, inr = Schedule.of(settings).alpha_bar, torch.from_numpy(problem.inr)
    start = torch.randn(inr.shape, generator=torch.Generator().manual_seed(network.levels[0]))
    torch.testing.assert_close(network.states[0], 0.5 * start + 0.5 * inr)
    for before, after, level, following in zip(
        network.states, network.states[1:], network.levels, network.levels[1:], strict=False
    ):
        # Without an estimate of noise, a step only undoes the loss of contrast.
        stepped = before * math.sqrt(alpha_bar[following] / alpha_bar[level])
        torch.testing.assert_close(after, 0.5 * stepped + 0.5 * inr)
    np.testing.assert_allclose(found, network.states[-1] / math.sqrt(alpha_bar[0]), rtol=1e-5)


def test_published_sampling_stays_close_to_the_inr(problem):
    """The last state is nine tenths INR, and the last noise level is 1 % of the range."""
    settings = with_values(Microdiffusion(), guidance=0.0)
    found, _ = sample_slices(problem, Recorder(lambda x, c: x), settings, 0, CPU)
    assert np.abs(found - problem.inr).max() < 0.15


@pytest.mark.parametrize(
    ("inr_weight", "steps", "visited"),
    [(0.0, 50, 50), (0.1, 50, 50), (0.5, 50, 20), (0.9, 50, 6), (0.99, 50, 3), (0.9, "all", 6)],
)
def test_levels_whose_trace_is_lost_are_passed_over(problem, inr_weight, steps, visited):
    network = Recorder()
    settings = Microdiffusion(inr_weight=inr_weight, sampling_steps=steps, guidance=0.0)
    _, record = sample_slices(problem, network, settings, 0, CPU)
    levels = Schedule.of(settings).visited(1000 if steps == "all" else steps)
    assert network.levels == levels[-visited:]
    assert record["evaluations"] == visited


@pytest.mark.parametrize("inr_weight", [0.5, 0.9])
def test_levels_that_are_passed_over_leave_no_trace(
    images, problem, tmp_path, monkeypatch, inr_weight
):
    # In low precision, a state that differs by a millionth may be rounded to another one.
    settings = Microdiffusion(channels=[8, 16], steps=120, learning_rate=3e-3, precision="float32")
    network = train_network(images, settings, 3, tmp_path / "c.pt", CPU).network
    settings = with_values(settings, inr_weight=inr_weight, sampling_steps=50)
    found, record = sample_slices(problem, network, settings, 0, CPU)
    monkeypatch.setattr("besselflow.config.diffusion._NEGLIGIBLE", 1e-100)
    expected, whole = sample_slices(problem, network, settings, 0, CPU)
    assert record["evaluations"] < whole["evaluations"] == 100
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_low_precision_changes_little(images, problem, tmp_path):
    settings = with_values(TINY, steps=40, batch=4, learning_rate=3e-3, precision="float32")
    trained = train_network(images, settings, 3, tmp_path / "c.pt", CPU)
    low = with_values(settings, precision="bfloat16")
    roughly = train_network(images, low, 3, tmp_path / "d.pt", CPU)
    curves = [np.array([loss for _, loss in each.info["curve"]]) for each in (trained, roughly)]
    assert not np.array_equal(*curves)
    np.testing.assert_allclose(*curves, rtol=0.1)
    path = tmp_path / "n.safetensors"
    save_network(path, trained, settings)
    exact, rough = (
        sample_slices(problem, load_network(path, CPU, precision).network, settings, 0, CPU)[0]
        for precision in ("float32", "bfloat16")
    )
    assert not np.array_equal(exact, rough)
    assert exact.dtype == rough.dtype == np.float32
    np.testing.assert_allclose(rough, exact, atol=0.05)


def test_slices_are_conditioned_on_acquired_projections_only(problem):
    network = Recorder()
    sample_slices(problem, network, TINY, 0, CPU)
    means = problem.projections.mean(axis=(1, 2))
    expected = [[means[p], means[p], z] for z, p in enumerate([0, 0, 0, 1, 1])]
    np.testing.assert_allclose(network.conditions[0], expected, rtol=1e-4)
    assert not network.conditions[1].any(), "the other half of the guidance"
    assert len(network.states) == 20


@pytest.mark.parametrize(("guidance", "size"), [(0.0, 3), (1.8, 0)])
def test_guidance_costs_nothing_where_it_does_nothing(problem, guidance, size):
    network = Recorder(size=size)
    network.embed_positions = lambda weights: weights.new_zeros(len(weights), max(size - 2, 0))
    settings = with_values(TINY, guidance=guidance)
    _, record = sample_slices(problem, network, settings, 0, CPU)
    assert len(network.states) == record["evaluations"] == 10 and record["guidance"] == 0


def test_guided_estimate_is_used(problem):
    """An estimate that is 1 with and 0 without a condition becomes 1 + g."""
    known = lambda x, c: torch.ones_like(x) * c.any(dim=1).float()[:, None, None]  # noqa: E731
    much = lambda x, c: torch.full_like(x, 2.5)  # noqa: E731
    settings = with_values(TINY, guidance=1.5)
    found, _ = sample_slices(problem, Recorder(known), settings, 0, CPU)
    expected, _ = sample_slices(problem, Recorder(much), with_values(TINY, guidance=0.0), 0, CPU)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_equal_seeds_sample_equal_slices(problem, monkeypatch):
    network = shuffled(build_network(TINY))
    first, _ = sample_slices(problem, network, TINY, 4, CPU)
    again, _ = sample_slices(problem, network, TINY, 4, CPU)
    other, _ = sample_slices(problem, network, TINY, 5, CPU)
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    # How many slices go through the network at once is a matter of memory alone.
    monkeypatch.setattr("besselflow.microdiffusion.sampling._PIXELS_AT_ONCE", 2 * 14 * 12)
    np.testing.assert_allclose(sample_slices(problem, network, TINY, 4, CPU)[0], first, atol=1e-4)


@pytest.mark.parametrize("done_at", [2, 7, 10])
def test_resumed_sampling_is_the_undisturbed_one(problem, tmp_path, caplog, done_at):
    network, calls = shuffled(build_network(TINY)), []
    network.register_forward_hook(lambda *_: calls.append(1))
    draw = lambda path: sample_slices(  # noqa: E731
        problem, network, TINY, 4, CPU, "sampling", path
    )
    expected, _ = draw(None)
    path = tmp_path / "unit.pt"
    interrupt(done_at, lambda: draw(path), sampling)
    calls.clear()
    with caplog.at_level(logging.INFO, "besselflow"):
        found, _ = draw(path)
    assert f"resuming from {path} at step {done_at - 1}" in caplog.messages
    assert np.array_equal(found, expected)
    # Two evaluations at each of the levels that were left.
    assert len(calls) == 2 * (TINY.sampling_steps - done_at + 1)
    calls.clear()
    assert np.array_equal(draw(path)[0], expected) and not calls, "what is finished stays so"


@pytest.mark.parametrize("changed", ["seed", "inr", "weights", "guidance"])
def test_checkpoint_of_other_slices_is_not_resumed_from(problem, tmp_path, caplog, changed):
    network, path = shuffled(build_network(TINY)), tmp_path / "unit.pt"
    sample_slices(problem, network, TINY, 4, CPU, "sampling", path)
    settings = with_values(TINY, guidance=0.3) if changed == "guidance" else TINY
    other = replace(problem, inr=-problem.inr) if changed == "inr" else problem
    network = shuffled(network, seed=1) if changed == "weights" else network
    seed = 5 if changed == "seed" else 4
    with caplog.at_level(logging.INFO, "besselflow"):
        found, _ = sample_slices(other, network, settings, seed, CPU, "sampling", path)
    assert "other settings or data; starting over" in caplog.text
    fresh, _ = sample_slices(other, network, settings, seed, CPU)
    assert np.array_equal(found, fresh)


def test_without_inr_nothing_depends_on_it(problem):
    network = shuffled(build_network(TINY))
    naive = with_values(TINY, inr_weight=0.0)
    other = SlicesProblem(
        -problem.inr, problem.projections, problem.positions_um, problem.centres_um
    )
    first, _ = sample_slices(problem, network, naive, 4, CPU)
    assert np.array_equal(first, sample_slices(other, network, naive, 4, CPU)[0])


def test_resumed_training_is_the_undisturbed_one(images, tmp_path, caplog):
    whole = train_network(images, TINY, 3, tmp_path / "whole.pt", CPU)
    path = tmp_path / "network.pt"
    interrupt(5, lambda: train_network(images, TINY, 3, path, CPU))
    with caplog.at_level(logging.INFO, "besselflow"):
        resumed = train_network(images, TINY, 3, path, CPU)
    assert f"resuming from {path} at step 4" in caplog.messages
    for name, weights in whole.network.state_dict().items():
        torch.testing.assert_close(resumed.network.state_dict()[name], weights, rtol=0, atol=0)
    assert resumed.info["curve"] == whole.info["curve"]


def test_training_on_a_checkpoint_of_other_settings_starts_over(images, tmp_path, caplog):
    path = tmp_path / "c.pt"
    train_network(images, with_values(TINY, steps=3), 3, path, CPU)
    with caplog.at_level(logging.INFO, "besselflow"):
        train_network(images, with_values(TINY, steps=3, inr_weight=0.7), 3, path, CPU)
    assert "belongs to other settings or data" in caplog.text
    caplog.clear()
    # Sampling takes no part in the training.
    with caplog.at_level(logging.INFO, "besselflow"):
        settings = with_values(TINY, steps=3, inr_weight=0.7, guidance=0.5)
        train_network(images, settings, 3, path, CPU)
    assert "resuming" in caplog.text


def test_training_learns_to_find_the_noise(images, tmp_path):
    settings = with_values(TINY, steps=120, batch=4, learning_rate=3e-3)
    trained = train_network(images, settings, 3, tmp_path / "c.pt", CPU)
    losses = [loss for _, loss in trained.info["curve"]]
    assert losses[0] > 0.9 and np.mean(losses[-20:]) < 0.8
    assert trained.info["projections"] == 3 and not trained.network.training


def test_network_survives_its_file(images, problem, tmp_path):
    settings = with_values(TINY, steps=2, use_image_embedding=False)
    trained = train_network(images, settings, 3, tmp_path / "c.pt", CPU)
    path = tmp_path / "n.safetensors"
    save_network(path, trained, settings)
    loaded = load_network(path, CPU)
    assert loaded.info == trained.info
    found, _ = sample_slices(problem, loaded.network, settings, 0, CPU)
    assert np.array_equal(found, sample_slices(problem, trained.network, settings, 0, CPU)[0])
    path.write_bytes(b"not a network")
    with pytest.raises(RuntimeError, match="delete the file and run again"):
        load_network(path, CPU)


@pytest.mark.parametrize(
    ("batch", "pixels", "images"),
    [
        *(("auto", 24**2, 4), ("auto", 128**2, 4), ("auto", 180**2, 2), ("auto", 560**2, 1)),
        *((3, 24**2, 3), (3, 560**2, 3)),
    ],
)
def test_a_step_sees_fewer_images_where_they_are_large(batch, pixels, images):
    assert Microdiffusion(batch=batch).images_per_step(pixels) == images
