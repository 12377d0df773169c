"""On a CUDA GPU: fits repeat and resume, agree with the CPU, and halve batches that do not fit."""

import logging
import math

import numpy as np
import pytest
import torch

from besselflow.baselines.spectral import fit_spectral_model, posterior_mean
from besselflow.beam import box_profile
from besselflow.config import Inr, Microdiffusion, Prior, Refine
from besselflow.device import compute_precision, describe_device
from besselflow.diffusion.assessment import problem_of
from besselflow.diffusion.network import Denoiser
from besselflow.diffusion.prior import DiffusionPrior
from besselflow.diffusion.sampling import sample_posterior
from besselflow.diffusion.training import train_prior
from besselflow.inr.fit import InrProblem, fit_inr
from besselflow.lateral import LateralBlur
from besselflow.microdiffusion.sampling import SlicesProblem, sample_slices
from besselflow.microdiffusion.training import TrainingImages, train_network
from besselflow.phantoms import draw_phantom
from besselflow.projection import AxialGrid, AxialProjection
from interruption import interrupt
from tiny_priors import tiny_denoiser, toy_acquisition

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is visible"),
]
CPU, GPU = torch.device("cpu"), torch.device("cuda")
VOXEL = (1.0, 1.0, 1.0)
SHAPE = (32, 48, 48)
QUICK = Inr(width=64, features=64, steps=300, columns=128, checkpoint_seconds=1e9)
KERNEL = np.outer([0.2, 0.6, 0.2], [0.3, 0.4, 0.3])


@pytest.fixture(scope="module")
def truth():
    return 10 + 300 * draw_phantom("vessels", SHAPE, 3, VOXEL)


def problem_with(truth, kernel=None):
    """Image a volume with a box beam and fit its spectrum."""
    positions = np.arange(2.5, SHAPE[0], 6.0)
    grid = AxialGrid(0.0, 1.0, SHAPE[0])
    lateral = None if kernel is None else LateralBlur(kernel)
    operator = AxialProjection.from_geometry(box_profile(6), positions, grid, lateral)
    y = np.random.default_rng(0).poisson(operator.forward(truth)).astype(np.float32)
    model = fit_spectral_model([y], operator, VOXEL)
    expected = operator.forward(posterior_mean(y, operator, model, VOXEL))
    return InrProblem(y, operator, VOXEL, float(np.percentile(y, 99.9)), model, expected)


@pytest.fixture(scope="module", params=[None, KERNEL], ids=["no blur", "lateral blur"])
def problem(request, truth):
    return problem_with(truth, request.param)


def fit(problem, path, device=GPU, settings=QUICK, seed=1):
    return fit_inr(problem, settings, seed, path, "f", device)


def psnr(volume, truth):
    return 10 * math.log10(np.ptp(truth) ** 2 / np.mean((volume - truth) ** 2))


def test_the_gpu_is_named_and_computes_in_bfloat16():
    assert describe_device(GPU) == torch.cuda.get_device_name()
    able = torch.cuda.get_device_capability() >= (8, 0)
    assert compute_precision("auto", GPU) == (torch.bfloat16 if able else torch.float32)


def test_equal_seeds_give_equal_volumes(problem, tmp_path):
    one, same = (fit(problem, tmp_path / name).volume for name in ("one", "same"))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, fit(problem, tmp_path / "other", seed=2).volume)


def test_a_fit_is_as_good_as_on_the_cpu(problem, truth, tmp_path):
    found = {
        device.type: fit(problem, tmp_path / device.type, device).volume for device in (CPU, GPU)
    }
    scores = {name: psnr(volume, truth) for name, volume in found.items()}
    assert scores["cuda"] == pytest.approx(scores["cpu"], abs=0.5)
    assert scores["cuda"] > psnr(np.full(SHAPE, truth.mean()), truth) + 5


def test_a_resumed_fit_is_the_undisturbed_one(problem, tmp_path, caplog):
    settings = QUICK.model_copy(update={"checkpoint_seconds": 1e-9})
    whole = fit(problem, tmp_path / "whole", settings=settings)
    path = tmp_path / "killed"
    interrupt(150, lambda: fit(problem, path, settings=settings))
    with caplog.at_level(logging.INFO, "besselflow"):
        resumed = fit(problem, path, settings=settings)
    assert any("resuming from" in text for text in caplog.messages)
    assert np.array_equal(resumed.volume, whole.volume)


@pytest.fixture
def little_memory():
    """The process may take 1 GiB of the GPU, of which `mem_get_info` knows nothing."""
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(GPU).total_memory
    torch.cuda.set_per_process_memory_fraction(2**30 / total)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


def test_rendering_halves_its_batches_when_memory_runs_out(tmp_path, caplog, little_memory):
    """All columns of this unit at once would take 1 GiB for every activation."""
    truth = np.zeros((64, 160, 160), np.float32)
    truth[:, 40:60, 40:60] = 300
    operator = AxialProjection.from_geometry(
        box_profile(6), np.arange(2.5, 64, 6.0), AxialGrid(0.0, 1.0, 64)
    )
    y = np.random.default_rng(0).poisson(operator.forward(10 + truth)).astype(np.float32)
    model = fit_spectral_model([y], operator, VOXEL)
    problem = InrProblem(y, operator, VOXEL, 300.0, model, y)
    settings = Inr(width=128, features=64, steps=20, columns=32, precision="float32")
    with caplog.at_level(logging.WARNING, "besselflow"):
        small = fit(problem, tmp_path / "small", settings=settings).volume
    assert any("out of memory; going on with batches of" in text for text in caplog.messages)
    torch.cuda.set_per_process_memory_fraction(1.0)
    caplog.clear()
    large = fit(problem, tmp_path / "large", settings=settings).volume
    assert not caplog.messages
    np.testing.assert_allclose(small, large, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize(
    ("shape", "halved"),
    # The features of all nine blocks of the first at once would take several GiB; of the second, a
    # single activation takes 300 MiB.
    [((48, 256, 256), "batches"), ((12, 768, 768), "tiles")],
    ids=["batches", "tiles"],
)
def test_sampling_halves_what_does_not_fit(shape, halved, caplog, little_memory):
    torch.manual_seed(0)
    denoiser = Denoiser([128, 128], 1, 0.1).to(GPU).eval()
    prior = DiffusionPrior(denoiser, [0.003, 1.0], [0.01, 0.1])
    problem = problem_of(toy_acquisition(0, shape))
    sample = lambda: sample_posterior(problem, prior, Refine(samples=1, evaluations=2), 0, GPU)  # noqa: E731
    with caplog.at_level(logging.WARNING, "besselflow"):
        small = sample().mean
    assert any(f"out of memory; going on with {halved} of" in text for text in caplog.messages)
    torch.cuda.set_per_process_memory_fraction(1.0)
    caplog.clear()
    large = sample().mean
    assert not caplog.messages
    np.testing.assert_allclose(small, large, rtol=1e-3, atol=1e-4)


TINY_PRIOR = Prior(channels=[16, 32], depth=1, steps=60, patch=16, checkpoint_seconds=1e-9)


def test_a_prior_learns_and_resumes(tmp_path, caplog):
    acquisitions = {name: toy_acquisition(seed) for seed, name in enumerate("ab")}
    train = lambda name: train_prior(acquisitions, TINY_PRIOR, 3, tmp_path / name, GPU)  # noqa: E731
    whole, facts = train("whole")
    losses = [loss for _, loss in facts["curve"]]
    assert facts["batch"] == 32
    assert np.mean(losses[-10:]) < np.mean(losses[:5])
    interrupt(30, lambda: train("killed"))
    with caplog.at_level(logging.INFO, "besselflow"):
        resumed, _ = train("killed")
    assert any("resuming from" in text for text in caplog.messages)
    # Convolutions on a GPU add up in no fixed order.
    for name, weights in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], weights, rtol=0.1, atol=0.02)


def test_samples_are_those_of_the_cpu():
    """The noise differs between devices, the posterior mean does not depend on it."""
    problem, settings = problem_of(toy_acquisition(0)), Refine(samples=4, evaluations=4)
    found = {}
    for device in (CPU, GPU):
        prior = DiffusionPrior(tiny_denoiser().to(device), [0.003, 1.0], [0.01, 0.1])
        found[device.type] = sample_posterior(problem, prior, settings, 0, device)
    np.testing.assert_allclose(found["cuda"].mean, found["cpu"].mean, rtol=1e-3, atol=2e-4)
    assert found["cuda"].spread.mean() == pytest.approx(found["cpu"].spread.mean(), rel=0.1)


def test_the_published_scheme_trains_and_samples(tmp_path):
    rng = np.random.default_rng(1)
    guides = rng.uniform(-1, 1, (3, 16, 16)).astype(np.float32)
    images = TrainingImages(guides, guides, np.repeat(np.eye(3), 4, axis=1) / 4)
    settings = Microdiffusion(
        channels=[8, 16], octaves=3, steps=8, batch=2, timesteps=20, sampling_steps=10
    )
    trained = train_network(images, settings, 3, tmp_path / "c.pt", GPU)
    assert all(map(math.isfinite, np.ravel(trained.info["curve"])))
    problem = SlicesProblem(guides, guides, np.array([0.5, 1.5, 2.5]), np.arange(3.0))
    slices, _ = sample_slices(problem, trained.network, settings, 0, GPU)
    assert np.isfinite(slices).all() and slices.shape == guides.shape
    again, _ = sample_slices(problem, trained.network, settings, 0, GPU)
    np.testing.assert_allclose(again, slices, atol=1e-2)
