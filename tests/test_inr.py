"""Checks the coordinate network, its fit to projections, and that a fit resumes where it was."""

import itertools
import logging
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from besselflow.baselines.interpolation import interpolate
from besselflow.baselines.spectral import fit_spectral_model, posterior_mean
from besselflow.beam import box_profile
from besselflow.checkpoint import load_checkpoint, save_checkpoint
from besselflow.config import Inr
from besselflow.device import compute_precision
from besselflow.inr.columns import NEIGHBOUR_WEIGHTS, BatchPlan, UnitColumns
from besselflow.inr.encodings import GaussianEncoding, GridEncoding, SinCosEncoding
from besselflow.inr.fit import (
    InrProblem,
    add_leftover,
    automatic_bandwidth,
    fit_inr,
)
from besselflow.inr.network import build_network
from besselflow.inr.steps import automatic_steps
from besselflow.lateral import LateralBlur
from besselflow.optimisation import Course, Plan
from besselflow.phantoms import draw_phantom
from besselflow.projection import AxialGrid, AxialProjection
from interruption import interrupt
from tiny_networks import Constant

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
VOXEL = (1.0, 1.0, 1.0)
TINY = Inr(width=8, depth=2, features=8, steps=40, columns=32, checkpoint_seconds=1e-9)
EXTENT = (9.0, 10.0, 10.0)
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


def run(problem, path, settings=TINY, seed=1, fingerprint="f", start=None):
    return fit_inr(problem, settings, seed, path, fingerprint, CPU, start=start)


def generator():
    return torch.Generator().manual_seed(0)


def coordinates():
    return torch.linspace(-8.0, 8.0, 5), torch.linspace(-9.0, 9.0, 12).reshape(6, 2)


def test_gaussian_encoding_is_that_of_the_coordinate():
    encoding = GaussianEncoding(16, 0.2, generator())
    z, yx = coordinates()
    points = torch.cat([z[None, :, None].expand(6, -1, -1), yx[:, None].expand(-1, 5, -1)], dim=-1)
    phases = 2 * math.pi * points @ encoding.frequencies.T
    expected = torch.cat([phases.cos(), phases.sin()], dim=-1)
    torch.testing.assert_close(encoding(z, yx), expected, atol=2e-5, rtol=0)


def test_frequencies_have_the_bandwidth_along_every_axis():
    spread = GaussianEncoding(20_000, 0.13, generator()).frequencies.std(dim=0)
    torch.testing.assert_close(spread, torch.full((3,), 0.13), rtol=0.03, atol=0)
    narrow = GaussianEncoding(20_000, 0.13, generator(), axial_share=0.5).frequencies.std(dim=0)
    torch.testing.assert_close(narrow, spread * torch.tensor([0.5, 1, 1]))


def test_octaves_double_from_one_period_per_unit():
    encoding = SinCosEncoding(3, EXTENT)
    z, yx = coordinates()
    values = encoding(z, yx)
    assert values.shape == (6, 5, encoding.size) and encoding.size == 21
    u = z / 9.0
    torch.testing.assert_close(values[2, :, 0], u)
    for octave in range(3):
        torch.testing.assert_close(values[0, :, 1 + octave], torch.sin(2**octave * math.pi * u))
        torch.testing.assert_close(values[0, :, 4 + octave], torch.cos(2**octave * math.pi * u))
    torch.testing.assert_close(values[:, 3, 7:9], yx / 10.0)


def test_grid_interpolates_linearly_between_its_nodes():
    encoding = GridEncoding(2.0, EXTENT, generator())
    with torch.no_grad():
        for level in encoding.levels:
            nodes = [torch.linspace(-h, h, n) for h, n in zip(EXTENT, level.shape[2:], strict=True)]
            z, y, x = torch.meshgrid(*nodes, indexing="ij")
            level.copy_((3 * z - 2 * y + 0.5 * x + 1).expand_as(level))
    z, yx = coordinates()
    expected = 3 * z[None] - 2 * yx[:, :1] + 0.5 * yx[:, 1:] + 1
    values = encoding(z, yx)
    torch.testing.assert_close(values, expected[..., None].expand_as(values), atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("kind", ["gaussian", "sincos", "siren", "grid"])
@pytest.mark.parametrize("skip", [False, True])
def test_every_network_starts_nearly_constant_and_learns_from_all_weights(kind, skip):
    settings = Inr(encoding=kind, width=16, depth=4, features=12, skip=skip)
    network = build_network(settings, 0.03, EXTENT, generator())
    z, yx = coordinates()
    output = network(z, yx)
    assert output.shape == (6, 5)
    assert float(output.detach().std()) < 0.3
    output.square().sum().backward()
    silent = [n for n, w in network.named_parameters() if w.grad is None or not w.grad.any()]
    assert not silent


def test_hidden_layers_alone_are_computed_in_the_low_precision():
    settings = Inr(width=32, features=16)
    network = build_network(settings, 0.03, EXTENT, generator())
    z, yx = coordinates()
    exact = network(z, yx)
    network.precision = torch.bfloat16
    rough = network.train()(z, yx)
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).abs().max() < 0.05 * exact.abs().max()
    torch.testing.assert_close(network.eval()(z, yx), exact, rtol=0, atol=0)


def test_low_precision_is_taken_only_where_the_processor_has_it(monkeypatch):
    for able in (True, False):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=able: {"avx512_bf16": able})
        expected = torch.bfloat16 if able else torch.float32
        assert compute_precision("auto", CPU) == expected
    assert compute_precision("bfloat16", CPU) == torch.bfloat16


def test_larger_fields_take_more_steps_within_bounds():
    assert automatic_steps(100) == 600
    assert automatic_steps(128 * 128) == round(0.15 * 128 * 128 - 0.5)
    assert automatic_steps(10**7) == 6000


def test_bandwidth_follows_the_spectrum(problem, tmp_path):
    model = problem.spectral
    # Twice the correlation length is half of every frequency.
    assert automatic_bandwidth(replace(model, length_um=2 * model.length_um)) == pytest.approx(
        automatic_bandwidth(model) / 2
    )
    automatic = run(problem, tmp_path / "a", TINY.model_copy(update={"steps": 1})).record
    assert automatic["bandwidth_per_um"] == automatic_bandwidth(model)
    given = run(
        problem, tmp_path / "b", TINY.model_copy(update={"steps": 1, "bandwidth": 0.3})
    ).record
    assert given["bandwidth_per_um"] == 0.3


@pytest.mark.parametrize("step_um, share", [(3.0, 1.0), (4.0, 1.0), (6.0, 0.5)])
def test_frequencies_along_z_are_halved_where_slices_lie_in_gaps(problem, tmp_path, step_um, share):
    positions = 3.5 + step_um * np.arange(3)
    operator = AxialProjection.from_geometry(box_profile(4), positions, AxialGrid(0.0, 1.0, 18))
    one_step = TINY.model_copy(update={"steps": 1})
    record = run(replace(problem, operator=operator), tmp_path, one_step).record
    assert record["axial_bandwidth_per_um"] == share * record["bandwidth_per_um"]


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
    plan = BatchPlan((9, 10), 30, (0, 0), 5)
    steps = [plan.of_step(step).targets.flatten() for step in range(6)]
    for epoch in (steps[:3], steps[3:]):
        assert sorted(torch.cat(epoch).tolist()) == list(range(90))
    assert not torch.equal(steps[0], steps[3])
    torch.testing.assert_close(plan.of_step(4).targets.flatten(), steps[4])
    assert sorted(BatchPlan((1, 7), 30, (0, 0), 5).of_step(2).targets.flatten()) == list(range(7))


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(0, 9),
    st.integers(0, 9),
    st.integers(1, 200),
)
@settings(max_examples=60, deadline=None)
def test_patches_hold_all_light_of_their_pixels(height, width, ry, rx, columns):
    plan = BatchPlan((height, width), columns, (ry, rx), 3)
    seen = torch.zeros(height * width)
    for step in range(4):
        batch = plan.of_step(step)
        seen[batch.targets] = 1
        inner = batch.columns[:, ry : batch.columns.shape[1] - ry, rx : batch.columns.shape[2] - rx]
        torch.testing.assert_close(inner, batch.targets)
        assert 0 <= int(batch.columns.min()) and int(batch.columns.max()) < height * width
    assert seen.any()


def test_an_epoch_of_patches_covers_the_unit():
    plan = BatchPlan((37, 22), 64, (3, 2), 3)
    side = plan.of_step(0).targets.shape[1]
    steps = math.ceil(37 / side + 1) * math.ceil(22 / side + 1)
    seen = torch.zeros(37 * 22, dtype=torch.int)
    for step in range(steps):
        seen[plan.of_step(step).targets] += 1
    assert int(seen.min()) > 0


def test_predictions_are_those_of_the_operator_with_and_without_blur():
    rng = np.random.default_rng(2)
    volume = rng.uniform(0, 5, (18, 20, 23)).astype(np.float32)
    kernel = np.outer([1, 2, 1], [1, 3, 5, 3, 1]) / 52
    matrix = AxialProjection.from_geometry(
        box_profile(6), POSITIONS, AxialGrid(0.0, 1.0, 18)
    ).matrix
    for lateral, radius in ((None, (0, 0)), (LateralBlur(kernel), (1, 2))):
        operator = AxialProjection(matrix, lateral)
        y = rng.uniform(0, 5, (3, 20, 23)).astype(np.float32)
        data = UnitColumns.of(y, np.ones_like(y), operator, VOXEL, 40.0, 0.0, False, CPU)
        network = Constant(volume / 4)
        batch = BatchPlan((20, 23), 64, radius, 0).of_step(1)
        network.wanted = batch.columns.flatten()
        data = replace(data, unit=1.0, shift=0.0)
        expected = (operator.forward(volume) - y).reshape(3, -1).T[batch.targets.numpy()] ** 2
        found = data.squared_error(network, batch)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-3, atol=1e-4)


def test_neighbour_average_is_centred_and_keeps_a_slope(problem):
    class Slope(torch.nn.Module):
        def forward(self, z_um, yx_um):
            return (0.25 * z_um).expand(len(yx_um), -1)

        def hidden_matrices(self):
            return []

    y = problem.projections
    data = UnitColumns.of(y, np.ones_like(y), problem.operator, VOXEL, 10.0, 0.0, False, CPU)
    assert sum(NEIGHBOUR_WEIGHTS) == pytest.approx(1)
    plain = data.render(Slope(), False)
    averaged = data.render(Slope(), True)
    # Six slices centred on a slice average a slope to its own value there.
    np.testing.assert_allclose(averaged, plain, atol=1e-4)
    assert plain[-1, 0, 0] - plain[0, 0, 0] == pytest.approx(17, abs=1e-4)


def test_fit_explains_the_data_and_beats_interpolation(problem, truth, tmp_path):
    settings = Inr(width=32, depth=2, features=32, steps=300, columns=128)
    fitted = run(problem, tmp_path / "c", settings)
    volume, record = fitted.volume, fitted.record
    assert volume.shape == truth.shape and volume.dtype == np.float32
    assert volume.min() >= 0
    residual = problem.operator.forward(volume) - problem.projections
    chi2 = np.mean(residual**2 / problem.noise_variance())
    assert record["chi2"] == pytest.approx(chi2, rel=1e-4)
    assert 0.6 < chi2 < 1.3
    curve = np.array(record["curve"])
    assert curve[-1, 0] == record["steps"] <= 300 and curve[-1, 1] < 0.1 * curve[0, 1]
    # New measurements are predicted, too.
    assert curve[-1, 2] < 2.5
    straight = interpolate(problem.projections, POSITIONS, np.arange(18.0))
    scored = slice(3, 15)
    errors = [np.mean((v[scored] - truth[scored]) ** 2) for v in (volume, straight)]
    assert errors[0] < errors[1]
    assert not (tmp_path / "c").exists()


def test_leftover_of_a_poor_volume_is_found_and_of_a_perfect_one_is_not(problem, truth):
    operator, model = problem.operator, problem.spectral
    rng = np.random.default_rng(5)
    noise = rng.normal(0, math.sqrt(model.noise_variance), problem.projections.shape)
    measured = replace(problem, projections=(operator.forward(truth) + noise).astype(np.float32))
    same, nothing = add_leftover(truth, measured)
    assert nothing < 1e-3
    np.testing.assert_allclose(same, truth, atol=0.05 * truth.std())
    flat = np.full_like(truth, model.mean)
    filled, everything = add_leftover(flat, measured)
    assert everything > 0.3
    expected = posterior_mean(measured.projections, operator, model, VOXEL)
    assert np.mean((filled - truth) ** 2) < 1.2 * np.mean((expected - truth) ** 2)


def test_fit_sees_through_the_lateral_blur(truth, tmp_path):
    y, x = np.mgrid[-4:5, -4:5]
    ring = np.exp(-((np.hypot(y, x) - 3) ** 2))
    kernel = 0.5 * ring / ring.sum()
    kernel[4, 4] += 0.5
    matrix = AxialProjection.from_geometry(
        box_profile(6), POSITIONS, AxialGrid(0.0, 1.0, 18)
    ).matrix
    blurred = AxialProjection(matrix, LateralBlur(kernel))
    measured = np.random.default_rng(0).poisson(blurred.forward(truth)).astype(np.float32)
    settings = Inr(width=32, depth=2, features=32, steps=300, columns=128, bandwidth=0.03)
    errors = []
    for operator in (blurred, AxialProjection(matrix)):
        model = fit_spectral_model([measured], operator, VOXEL)
        expected = operator.forward(posterior_mean(measured, operator, model, VOXEL))
        scale = float(np.percentile(measured, 99.9))
        problem = InrProblem(measured, operator, VOXEL, scale, model, expected)
        volume = run(problem, tmp_path / "c", settings).volume
        errors.append(np.mean((volume[3:15] - truth[3:15]) ** 2))
    assert errors[0] < 0.85 * errors[1]


@pytest.mark.parametrize(
    "changes",
    [
        {"encoding": "sincos", "octaves": 4, "output": "linear", "loss": "squares", "skip": True},
        {"encoding": "siren", "optimiser": "adam", "learning_rate": 1e-3},
        {"encoding": "grid", "neighbour_average": True, "held_out": 0},
    ],
    ids=lambda changes: changes["encoding"],
)
def test_every_kind_of_network_fits(problem, tmp_path, changes):
    settings = TINY.model_copy(update={"width": 16, "steps": 150} | changes)
    record = run(problem, tmp_path / "c", settings).record
    curve = record["curve"]
    assert curve[-1][1] < 0.5 * curve[0][1]
    assert len(curve[0]) == (2 if settings.held_out == 0 else 3)


def test_equal_seeds_give_equal_volumes(problem, tmp_path):
    first, second = (run(problem, tmp_path / str(n)).volume for n in range(2))
    np.testing.assert_array_equal(first, second)
    assert np.abs(run(problem, tmp_path / "other", seed=2).volume - first).max() > 1e-3


def test_fit_that_starts_from_another_needs_fewer_steps(problem, tmp_path):
    settings = TINY.model_copy(update={"steps": 100, "width": 16, "held_out": 0})
    before = run(problem, tmp_path / "a", settings)
    after = run(problem, tmp_path / "b", settings, seed=7, start=before.weights)
    assert after.record["steps"] == 40
    curves = before.record["curve"], after.record["curve"]
    assert curves[1][0][1] == pytest.approx(curves[0][-1][1], rel=0.3)
    frequencies = "encoding.frequencies"
    torch.testing.assert_close(after.weights[frequencies], before.weights[frequencies])


def plan_of(steps):
    return Plan(steps, 10, "key", None, "f", 1.0)


def test_rate_falls_to_zero_at_the_end_of_every_course():
    plan = plan_of(200)
    whole, early = Course(200, 200), Course(100, 130)
    for step in range(100):
        assert plan.rate_of(step, whole) == plan.rate_of(step, early)
    assert plan.rate_of(100, early) == pytest.approx(plan.rate_of(100, whole))
    for course in (whole, early):
        rates = [plan.rate_of(step, course) for step in range(10, course.end)]
        assert all(a > b for a, b in itertools.pairwise(rates))
        assert rates[-1] < 0.003


def test_fit_ends_early_only_when_the_held_out_error_stands_still():
    plan = plan_of(200)
    falling = [[2 * k, 1.0, 5 * 0.97**k] for k in range(50)]
    still = [[2 * k, 1.0, 1.0 + 0.0001 * (k % 3)] for k in range(50)]
    assert plan.course_after(100, falling) is None
    assert plan.course_after(100, still) == Course(100, 130)
    # A fit may stand still at its start, before the network has found the structures.
    assert plan.course_after(60, still[:30]) is None
    # Or longer: then it explains little.
    stuck = [[step, 4 * loss, held_out] for step, loss, held_out in still]
    assert plan.course_after(100, stuck) is None


def run_until(at_step, problem, path):
    """Fit until a step, leaving the checkpoint of the step before."""
    interrupt(at_step, lambda: run(problem, path))
    assert path.exists()


def test_resumed_fit_is_the_undisturbed_one(problem, tmp_path, caplog):
    undisturbed = run(problem, tmp_path / "whole")
    path = tmp_path / "unit-0.pt"
    run_until(12, problem, path)
    run_until(27, problem, path)
    caplog.clear()
    with caplog.at_level(logging.INFO, "besselflow"):
        resumed = run(problem, path)
    assert f"resuming from {path} at step 26" in caplog.messages
    np.testing.assert_array_equal(resumed.volume, undisturbed.volume)
    assert resumed.record["curve"] == undisturbed.record["curve"]


def test_checkpoint_of_other_settings_is_not_resumed_from(problem, tmp_path, caplog):
    path = tmp_path / "unit-0.pt"
    fresh = run(problem, tmp_path / "fresh").volume
    run_until(20, problem, path)
    with caplog.at_level(logging.INFO, "besselflow"):
        volume = run(problem, path, fingerprint="other").volume
    assert any("other settings or data; starting over" in text for text in caplog.messages)
    np.testing.assert_array_equal(volume, fresh)


def test_truncated_checkpoint_is_not_resumed_from(problem, tmp_path, caplog):
    path = tmp_path / "unit-0.pt"
    fresh = run(problem, tmp_path / "fresh").volume
    run_until(20, problem, path)
    path.write_bytes(path.read_bytes()[:-200])
    with caplog.at_level(logging.WARNING, "besselflow"):
        volume = run(problem, path).volume
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
