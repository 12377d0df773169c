"""A killed sampling goes on where it was, and gives what an undisturbed one gives."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from besselflow.diffusion import sampling
from besselflow.diffusion.calibration import Calibration
from interruption import interrupt
from known_refinements import problem_of_vessels, sample
from tiny_priors import tiny_denoiser

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def problem():
    return problem_of_vessels()


@pytest.fixture
def kept_often(monkeypatch):
    """A checkpoint is written at every step."""
    monkeypatch.setattr(sampling, "_CHECKPOINT_SECONDS", 1e-9)


class Counted(torch.nn.Module):
    """A denoiser that counts how often it is asked."""

    def __init__(self, seed=0):
        super().__init__()
        self.denoiser, self.calls = tiny_denoiser(seed), 0
        self.multiple, self.reach = self.denoiser.multiple, self.denoiser.reach
        self.inr_error = self.denoiser.inr_error

    def forward(self, *inputs):
        self.calls += 1
        return self.denoiser(*inputs)


def resumed_sample(problem, denoiser, checkpoint, **options):
    calibration = Calibration((0.001, 0.1), (0.003, 0.3))
    return sample(problem, denoiser, calibration=calibration, checkpoint=checkpoint, **options)


# Four steps for each of three samples, after the first estimate.
OPTIONS = {"evaluations": 5, "samples": 3}


@pytest.mark.parametrize("done_at", [2, 5, 6, 12])
def test_resumed_sampling_is_the_undisturbed_one(problem, kept_often, tmp_path, caplog, done_at):
    """Killed in the first step, between two samples, or before the last step."""
    whole, killed, again = Counted(), Counted(), Counted()
    expected = resumed_sample(problem, whole, tmp_path / "whole.pt", **OPTIONS)
    path = tmp_path / "unit.pt"
    shown = len(sampling.VIEWS) + done_at
    interrupt(shown, lambda: resumed_sample(problem, killed, path, **OPTIONS), sampling)
    with caplog.at_level(logging.INFO, "besselflow"):
        found = resumed_sample(problem, again, path, **OPTIONS)
    assert f"resuming from {path} at step {done_at - 1}" in caplog.messages
    for name in ("mean", "spread", "std", "sample"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    # What the kill interrupted is done again, and nothing else.
    calls = whole.calls // (len(sampling.VIEWS) + 12)
    assert again.calls == calls * (12 - done_at + 1)
    times = [each.record.pop("seconds") for each in (expected, found)]
    assert min(times) > 0 and found.record == expected.record


@pytest.fixture
def two_together(monkeypatch):
    """Memory holds two of the samples, as on a GPU: the third is drawn after them."""
    monkeypatch.setattr(sampling, "drawn_together", lambda samples, *_: [[0, 1], [2]])


def test_samples_that_are_drawn_together_are_those_that_follow_each_other(
    problem, two_together, tmp_path, monkeypatch
):
    together, apart = Counted(), Counted()
    found = resumed_sample(problem, together, tmp_path / "unit.pt", **OPTIONS)
    monkeypatch.undo()
    expected = resumed_sample(problem, apart, tmp_path / "other.pt", **OPTIONS)
    for name in ("mean", "spread", "std", "sample"):
        values = getattr(found, name), getattr(expected, name)
        np.testing.assert_allclose(*values, rtol=1e-4, atol=1e-5)
    assert found.record["samples"] == 3 and together.calls < apart.calls


@pytest.mark.parametrize("done_at", [2, 4, 5, 8])
def test_samples_that_are_drawn_together_resume_together(
    problem, two_together, kept_often, tmp_path, monkeypatch, done_at
):
    """Whatever memory is free then."""
    expected = resumed_sample(problem, Counted(), tmp_path / "whole.pt", **OPTIONS)
    path, again = tmp_path / "unit.pt", Counted()
    shown = len(sampling.VIEWS) + done_at
    interrupt(shown, lambda: resumed_sample(problem, Counted(), path, **OPTIONS), sampling)
    monkeypatch.setattr(sampling, "drawn_together", lambda samples, *_: [[0], [1], [2]])
    found = resumed_sample(problem, again, path, **OPTIONS)
    for name in ("mean", "spread", "std", "sample"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_as_many_samples_are_drawn_together_as_memory_holds(monkeypatch):
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert sampling.drawn_together(3, 10**6, cpu) == [[0], [1], [2]]
    room = lambda volumes: lambda device: (volumes * 32 * 10**6, 10**12)  # noqa: E731
    for volumes, groups in ((2, [[0, 1], [2]]), (9, [[0, 1, 2]]), (0, [[0], [1], [2]])):
        monkeypatch.setattr(torch.cuda, "mem_get_info", room(volumes))
        assert sampling.drawn_together(3, 10**6, gpu) == groups


def test_finished_samples_are_not_drawn_again(problem, kept_often, tmp_path):
    """Where the job of several units is killed, those that are done stay done."""
    first, again = Counted(), Counted()
    expected = resumed_sample(problem, first, tmp_path / "unit.pt", **OPTIONS)
    found = resumed_sample(problem, again, tmp_path / "unit.pt", **OPTIONS)
    assert first.calls > 0 == again.calls
    np.testing.assert_array_equal(found.sample, expected.sample)
    # The time that it took counts; what came after the last checkpoint is not known of.
    assert found.record["seconds"] > 0.5 * expected.record["seconds"]


def test_samples_that_took_moments_are_not_kept(problem, tmp_path):
    resumed_sample(problem, Counted(), tmp_path / "unit.pt", evaluations=2, samples=1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("changed", ["seed", "inr", "projections", "weights", "samples", "matrix"])
def test_checkpoint_of_other_samples_is_not_resumed_from(
    problem, kept_often, tmp_path, caplog, changed
):
    path, other, options, network = tmp_path / "unit.pt", problem, dict(OPTIONS), Counted()
    resumed_sample(problem, Counted(), path, **options)
    if changed in ("inr", "projections"):
        other = replace(problem, **{changed: np.float32(1.01) * getattr(problem, changed)})
    elif changed == "matrix":
        operator = replace(problem.operator, matrix=problem.operator.matrix[:, ::-1].copy())
        other = replace(problem, operator=operator)
    elif changed == "weights":
        network = Counted(seed=1)
    else:
        options[changed] = 4
    with caplog.at_level(logging.INFO, "besselflow"):
        found = resumed_sample(other, network, path, **options)
    assert "other settings or data; starting over" in caplog.text
    fresh = resumed_sample(other, network, tmp_path / "fresh.pt", **options)
    np.testing.assert_array_equal(found.sample, fresh.sample)
