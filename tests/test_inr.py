"""Checks the coordinate network, its fit to projections, and that a fit resumes where it was."""

import logging
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from besselflow import optimisation
from besselflow.baselines.interpolation import interpolate
from besselflow.baselines.spectral import fit_spectral_model, posterior_mean
from besselflow.beam import box_profile
from besselflow.checkpoint import load_checkpoint, save_checkpoint
from besselflow.config import Inr
from besselflow.inr import fit
from besselflow.inr.fit import InrProblem, automatic_bandwidth, fit_inr
from besselflow.inr.network import FourierMlp
from besselflow.phantoms import draw_phantom
from besselflow.projection import AxialGrid, AxialProjection

CPU = torch.device("cpu")
VOXEL = (1.0, 1.0, 1.0)
TINY = Inr(width=8, depth=2, features=8, steps=40, columns=32, checkpoint_seconds=1e-9)
POSITIONS = np.arange(2.5, 18, 6.0)


@pytest.fixture(scope="module")
def truth():
    return 10 + 300 * draw_phantom("vessels", (18, 20, 20), 3, VOXEL)


@pytest.fixture(scope="module")
def problem(truth):
    operator = AxialProjection.from_geometry(box_profile(6), POSITIONS, AxialGrid(0.0, 1.0, 18))
    y = np.random.default_rng(0).poisson(operator.forward(truth)).astype(np.float32)
    model = fit_spectral_model([y], operator, VOXEL)
    expected = operator.forward(posterior_mean(y, operator, model, VOXEL))
    return InrProblem(y, operator, VOXEL, float(np.percentile(y, 99.9)), model, expected)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run(problem, path, settings=TINY, seed=1, fingerprint="f"):
    return fit_inr(problem, settings, seed, path, fingerprint, CPU)


def test_encoding_is_that_of_the_coordinate():
    network = FourierMlp(4, 1, 16, 0.2, torch.Generator().manual_seed(0))
    seen = []
    network.layers.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    z, yx = torch.linspace(-9, 9, 7), 20 * torch.rand(5, 2) - 10
    output = network(z, yx)
    assert output.shape == (5, 7)
    coordinates = torch.cat([z[None, :, None].expand(5, 7, 1), yx[:, None].expand(5, 7, 2)], dim=-1)
    phase = 2 * math.pi * coordinates.double() @ network.frequencies.double().T
    expected = torch.cat([phase.cos(), phase.sin()], dim=-1).float()
    torch.testing.assert_close(seen[0], expected, atol=2e-5, rtol=0)
    torch.testing.assert_close(output, network.layers(expected)[..., 0], atol=1e-4, rtol=1e-4)


def test_frequencies_have_the_bandwidth_along_every_axis():
    network = FourierMlp(4, 1, 20_000, 0.13, torch.Generator().manual_seed(0))
    spread = network.frequencies.std(dim=0)
    torch.testing.assert_close(spread, torch.full((3,), 0.13), rtol=0.03, atol=0)
    assert network.frequencies.mean(dim=0).abs().max() < 0.005


def test_bandwidth_follows_the_spectrum(problem, tmp_path):
    model = problem.spectral
    # Twice the correlation length is half of every frequency.
    assert automatic_bandwidth(replace(model, length_um=2 * model.length_um)) == pytest.approx(
        automatic_bandwidth(model) / 2
    )
    automatic = run(problem, tmp_path / "a", TINY.model_copy(update={"steps": 1}))[1]
    assert automatic["bandwidth_per_um"] == automatic_bandwidth(model)
    given = run(problem, tmp_path / "b", TINY.model_copy(update={"steps": 1, "bandwidth": 0.3}))[1]
    assert given["bandwidth_per_um"] == 0.3


def test_noise_grows_with_the_expected_intensity(problem):
    mean, variance = problem.spectral.mean, problem.spectral.noise_variance
    shape = problem.projections.shape
    at = {
        level: replace(problem, expected=np.full(shape, level * mean)).noise_variance()
        for level in (-1, 0, 1, 2, 3)
    }
    np.testing.assert_allclose(at[1], variance, rtol=1e-6)
    np.testing.assert_allclose(at[3] - at[2], at[2] - at[1], rtol=1e-5)
    np.testing.assert_array_equal(at[-1], at[0])
    assert 0 < at[0].max() < 0.2 * variance


def test_every_epoch_takes_every_column_once():
    columns = [fit._columns_of_step(step, 90, 30, 5) for step in range(6)]
    for epoch in (columns[:3], columns[3:]):
        assert sorted(torch.cat(epoch).tolist()) == list(range(90))
    assert not torch.equal(columns[0], columns[3])
    torch.testing.assert_close(fit._columns_of_step(4, 90, 30, 5), columns[4])
    assert sorted(fit._columns_of_step(2, 7, 30, 5).tolist()) == list(range(7))


def test_fit_explains_the_data_and_beats_interpolation(problem, truth, tmp_path):
    settings = Inr(width=32, depth=2, features=32, steps=300, columns=128)
    volume, record = run(problem, tmp_path / "c", settings)
    assert volume.shape == truth.shape and volume.dtype == np.float32
    assert volume.min() > 0
    residual = problem.operator.forward(volume) - problem.projections
    chi2 = np.mean(residual**2 / problem.noise_variance())
    assert record["chi2"] == pytest.approx(chi2, rel=1e-4)
    assert 0.6 < chi2 < 1.3
    curve = np.array(record["curve"])
    assert curve[-1, 0] == 300 and curve[-1, 1] < 0.1 * curve[0, 1]
    straight = interpolate(problem.projections, POSITIONS, np.arange(18.0))
    scored = slice(3, 15)
    errors = [np.mean((v[scored] - truth[scored]) ** 2) for v in (volume, straight)]
    assert errors[0] < errors[1]
    assert not (tmp_path / "c").exists()


def test_equal_seeds_give_equal_volumes(problem, tmp_path):
    first, second = (run(problem, tmp_path / str(n))[0] for n in range(2))
    np.testing.assert_array_equal(first, second)
    assert np.abs(run(problem, tmp_path / "other", seed=2)[0] - first).max() > 1e-3


class Interrupted(Exception):
    """Stands for the kill of a job."""


def interrupt(problem, path, at_step):
    """Fit until a step, leaving the checkpoint of the step before."""

    class Bomb(optimisation.Progress):
        def update(self, done, detail=""):
            if done == at_step:
                raise Interrupted

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optimisation, "Progress", Bomb)
        with pytest.raises(Interrupted):
            run(problem, path)
    assert path.exists()


def test_resumed_fit_is_the_undisturbed_one(problem, tmp_path, caplog):
    undisturbed, record = run(problem, tmp_path / "whole")
    path = tmp_path / "unit-0.pt"
    interrupt(problem, path, 12)
    interrupt(problem, path, 27)
    caplog.clear()
    with caplog.at_level(logging.INFO, "besselflow"):
        resumed, resumed_record = run(problem, path)
    assert f"resuming from {path} at step 26" in caplog.messages
    np.testing.assert_array_equal(resumed, undisturbed)
    assert resumed_record["curve"] == record["curve"]


def test_checkpoint_of_other_settings_is_not_resumed_from(problem, tmp_path, caplog):
    path = tmp_path / "unit-0.pt"
    fresh = run(problem, tmp_path / "fresh")[0]
    interrupt(problem, path, 20)
    with caplog.at_level(logging.INFO, "besselflow"):
        volume = run(problem, path, fingerprint="other")[0]
    assert any("other settings or data; starting over" in text for text in caplog.messages)
    np.testing.assert_array_equal(volume, fresh)


def test_truncated_checkpoint_is_not_resumed_from(problem, tmp_path, caplog):
    path = tmp_path / "unit-0.pt"
    fresh = run(problem, tmp_path / "fresh")[0]
    interrupt(problem, path, 20)
    path.write_bytes(path.read_bytes()[:-200])
    with caplog.at_level(logging.WARNING, "besselflow"):
        volume = run(problem, path)[0]
    assert any("can't be read" in r.message and r.levelname == "WARNING" for r in caplog.records)
    np.testing.assert_array_equal(volume, fresh)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@given(st.binary(max_size=60) | st.binary(max_size=30).map(lambda tail: b"PK\x03\x04" + tail))
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_bytes_are_no_checkpoint(tmp_path, content):
    path = tmp_path / "c.pt"
    path.write_bytes(content)
    assert load_checkpoint(path, "f") is None


@pytest.mark.parametrize("content", [[1, 2], {"fingerprint": "f"}, "text"], ids=str)
def test_other_files_of_torch_are_no_checkpoint(tmp_path, content):
    torch.save(content, tmp_path / "c.pt")
    assert load_checkpoint(tmp_path / "c.pt", "f") is None


def test_checkpoint_round_trip(tmp_path):
    state = {"step": 3, "weights": torch.arange(4.0), "curve": [[1, 0.5]]}
    save_checkpoint(tmp_path / "deep" / "c.pt", "f", state)
    found = load_checkpoint(tmp_path / "deep" / "c.pt", "f")
    torch.testing.assert_close(found["weights"], state["weights"])
    assert (found["step"], found["curve"]) == (3, [[1, 0.5]])
    assert load_checkpoint(tmp_path / "missing.pt", "f") is None


def test_diverging_fit_is_an_error(problem, tmp_path):
    broken = replace(problem, projections=np.full_like(problem.projections, np.nan))
    with pytest.raises(RuntimeError, match=r"diverged at step 1; lower inr\.learning_rate"):
        run(broken, tmp_path / "c")
