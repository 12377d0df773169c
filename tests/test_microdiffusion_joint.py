"""Checks the INR that is fitted within the training of the published diffusion model."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from besselflow.baselines.spectral import fit_spectral_model, posterior_mean
from besselflow.beam import box_profile
from besselflow.config import Inr, Microdiffusion
from besselflow.inr import columns
from besselflow.inr.fit import InrProblem, finish_fit, fit_inr
from besselflow.lateral import LateralBlur
from besselflow.microdiffusion.images import smooth_neighbours, to_range
from besselflow.microdiffusion.joint import prepare_joint
from besselflow.microdiffusion.training import TrainingImages, train_network
from besselflow.phantoms import draw_phantom
from besselflow.projection import AxialGrid, AxialProjection
from interruption import interrupt

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
VOXEL = (1.0, 1.0, 1.0)
POSITIONS = np.arange(2.5, 18, 6.0)
INR = Inr(width=8, depth=2, features=8, columns=32, checkpoint_seconds=1e-9, precision="float32")
JOINT = Microdiffusion(
    inr_training="joint",
    channels=[8, 16],
    octaves=3,
    steps=12,
    batch=3,
    timesteps=20,
    sampling_steps=10,
    checkpoint_seconds=1e-9,
)
SEEDS = [5, 6]


@pytest.fixture(scope="module")
def problems():
    """Two time points: one and the other phantom through the same beam."""
    operator = AxialProjection.from_geometry(box_profile(6), POSITIONS, AxialGrid(0.0, 1.0, 18))
    return [problem_of(operator, seed) for seed in (3, 4)]


def problem_of(operator, seed):
    truth = 10 + 300 * draw_phantom("vessels", (18, 16, 14), seed, VOXEL)
    y = np.random.default_rng(seed).poisson(operator.forward(truth)).astype(np.float32)
    model = fit_spectral_model([y], operator, VOXEL)
    expected = operator.forward(posterior_mean(y, operator, model, VOXEL))
    return InrProblem(y, operator, VOXEL, float(np.percentile(y, 99.9)), model, expected)


def joint_of(problems, settings=JOINT, inr=INR):
    return prepare_joint(problems, settings, inr, SEEDS[: len(problems)], CPU)


def train(joint, checkpoint, settings=JOINT):
    seen = [to_range(problem.projections, problem.scale) for problem in joint.problems]
    matrix = joint.problems[0].operator.matrix
    shares = np.tile(matrix / matrix.sum(axis=1, keepdims=True), (len(seen), 1))
    images = TrainingImages(np.concatenate(seen), None, shares)
    return train_network(images, settings, 3, checkpoint, CPU, joint)


def volumes(joint, trained):
    curves = trained.info["inr_curves"]
    return [
        finish_fit(problem, joint.settings, fit, curve, 0.0).volume
        for problem, fit, curve in zip(joint.problems, joint.fits, curves, strict=True)
    ]


@pytest.mark.parametrize("neighbour_average", [False, True])
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("blurred", [False, True])
def test_images_are_those_of_the_rendered_volumes(
    problems, neighbour_average, inside, blurred, monkeypatch
):
    """Whichever of both places smooths the volume; and in whatever blocks."""
    monkeypatch.setattr(columns, "_GRADIENT_VOXELS", 18 * 50)
    if blurred:
        kernel = np.outer([0.2, 0.6, 0.2], [0.1, 0.8, 0.1])
        operator = replace(problems[0].operator, lateral=LateralBlur(kernel))
        problems = [replace(problem, operator=operator) for problem in problems]
    settings = JOINT.model_copy(update={"neighbour_average": neighbour_average})
    joint = joint_of(problems, settings, INR.model_copy(update={"neighbour_average": inside}))
    chosen = np.array([4, 0, 4, 2])
    found = joint.project(chosen).detach().numpy()
    for image, number in zip(found, chosen, strict=True):
        problem, fit = problems[number // 3], joint.fits[number // 3]
        volume = fit.data.render(fit.network, inside)
        if neighbour_average:
            volume = smooth_neighbours(volume)
        seen = problem.operator.forward(volume)[number % 3]
        np.testing.assert_allclose(image, to_range(seen, problem.scale), atol=2e-4)


def test_gradient_in_blocks_is_that_of_the_whole(problems, monkeypatch):
    def gradient():
        joint = joint_of(problems)
        joint.project(np.array([1, 2])).square().sum().backward()
        assert all(weight.grad is None for weight in joint.fits[1].network.parameters())
        return [weight.grad.numpy() for weight in joint.fits[0].network.parameters()]

    whole = gradient()
    assert any(np.abs(values).max() > 0 for values in whole)
    monkeypatch.setattr(columns, "_GRADIENT_VOXELS", 18 * 50)
    for blocks, expected in zip(gradient(), whole, strict=True):
        np.testing.assert_allclose(blocks, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("optimiser", ["muon", "adam"])
def test_inr_that_the_network_does_not_see_is_fitted_as_if_alone(problems, optimiser, tmp_path):
    settings = JOINT.model_copy(update={"inr_weight": 0.0})
    inr = INR.model_copy(update={"optimiser": optimiser})
    joint = joint_of(problems, settings, inr)
    found = volumes(joint, train(joint, tmp_path / "joint.pt", settings))
    alone = inr.model_copy(update={"steps": settings.steps, "held_out": 0.0})
    for problem, seed, volume in zip(problems, SEEDS, found, strict=True):
        fit = fit_inr(problem, alone, seed, tmp_path / f"{seed}.pt", "alone", CPU)
        np.testing.assert_array_equal(volume, fit.volume)


def test_loss_of_the_network_reaches_the_inr(problems, tmp_path):
    """Its volume differs from that of a fit by itself, and of one with another network."""
    found = {}
    for weight in (0.0, 0.5, 0.9):
        settings = JOINT.model_copy(update={"inr_weight": weight})
        joint = joint_of(problems[:1], settings)
        (found[weight],) = volumes(joint, train(joint, tmp_path / f"{weight}.pt", settings))
    assert not np.array_equal(found[0.0], found[0.9])
    assert not np.array_equal(found[0.5], found[0.9])


def test_inr_learns_its_projections_beside_the_network(problems, tmp_path):
    settings = JOINT.model_copy(update={"steps": 150, "checkpoint_seconds": 1e9})
    joint = joint_of(problems, settings)
    start = [fit.data.render(fit.network, False) for fit in joint.fits]
    trained = train(joint, tmp_path / "c.pt", settings)
    assert len(trained.info["inr_curves"]) == 2
    for curve, fit, before in zip(trained.info["inr_curves"], joint.fits, start, strict=True):
        misfits = [misfit for _, misfit in curve]
        assert curve[-1][0] == 150 and np.mean(misfits[-10:]) < 0.5 * np.mean(misfits[:3])
        assert not np.allclose(fit.data.render(fit.network, False), before, rtol=0.1)
    assert all(len(point) == 2 for point in trained.info["curve"])
    assert trained.info["curve"][0][1] > 0.5, "the loss of the network alone"


def test_resumed_joint_training_is_the_undisturbed_one(problems, tmp_path, caplog):
    whole = joint_of(problems)
    expected = train(whole, tmp_path / "whole.pt")
    path = tmp_path / "network.pt"
    interrupt(7, lambda: train(joint_of(problems), path))
    resumed = joint_of(problems)
    with caplog.at_level(logging.INFO, "besselflow"):
        found = train(resumed, path)
    assert f"resuming from {path} at step 6" in caplog.messages
    assert found.info["curve"] == expected.info["curve"]
    assert found.info["inr_curves"] == expected.info["inr_curves"]
    networks = [(found.network, expected.network)]
    networks += [(a.network, b.network) for a, b in zip(resumed.fits, whole.fits, strict=True)]
    for one, other in networks:
        for name, weights in other.state_dict().items():
            assert torch.equal(one.state_dict()[name], weights), name
    for one, other in zip(volumes(resumed, found), volumes(whole, expected), strict=True):
        np.testing.assert_array_equal(one, other)


def test_checkpoint_of_another_inr_is_not_resumed_from(problems, tmp_path, caplog):
    path = tmp_path / "network.pt"
    train(joint_of(problems[:1]), path)
    with caplog.at_level(logging.INFO, "besselflow"):
        train(joint_of(problems[:1], inr=INR.model_copy(update={"learning_rate": 1e-3})), path)
    assert "belongs to other settings or data; starting over" in caplog.text
    assert "resuming" not in caplog.text


def test_progress_names_both_losses(problems, tmp_path, caplog):
    with caplog.at_level(logging.INFO, "besselflow"):
        train(joint_of(problems), tmp_path / "c.pt")
    lines = [text for text in caplog.messages if "misfit of INR" in text]
    assert lines and all("loss" in text and "training" in text for text in lines)
