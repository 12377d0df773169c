"""A trained prior: its file, its errors where the truth is known, and how sure it may be."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.fft import dctn
from scipy.ndimage import gaussian_filter
from torch import nn

from besselflow.config import Refine
from besselflow.diffusion.assessment import assess, problem_of, unseen_part
from besselflow.diffusion.calibration import Calibration, spread_of
from besselflow.diffusion.network import Denoiser
from besselflow.diffusion.prior import DiffusionPrior, load_prior, save_prior
from besselflow.diffusion.sampling import DenoisedUnit, sample_posterior
from tiny_priors import tiny_denoiser, toy_acquisition

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
CALIBRATION = Calibration((0.01, 0.1), (0.02, 0.3), (1.5, 1.0, 0.5), 0.25, 1.2, 0.5)


@pytest.mark.parametrize("calibration", [None, CALIBRATION], ids=["bare", "calibrated"])
def test_prior_round_trip(tmp_path, calibration):
    denoiser = tiny_denoiser(inr_error=0.123456789)
    info = {"trained_on": ["a"], "steps": 3}
    prior = DiffusionPrior(denoiser, [0.01, 1.0], [0.002, 0.3], info, calibration)
    save_prior(tmp_path / "p.safetensors", prior)
    loaded = load_prior(tmp_path / "p.safetensors", CPU)
    assert loaded.info == prior.info
    assert (loaded.error_levels, loaded.errors) == (prior.error_levels, prior.errors)
    assert loaded.denoiser.inr_error == 0.123456789
    assert not loaded.denoiser.training
    if calibration is None:
        assert loaded.calibration is None
    else:
        spread, change = np.array([[0.005, 0.03, 0.5], [0.1, 0.0, 0.0]], np.float32)
        expected = calibration(spread, change)
        np.testing.assert_array_equal(loaded.calibration(spread, change), expected)
        sparse = loaded.calibration(spread, change, 2.0)
        np.testing.assert_allclose(sparse, 2.0**1.2 * expected, rtol=1e-5)
        assert (expected > calibration(spread, 0 * change)).all()
        assert list(loaded.calibration.gains) == list(calibration.gains)
    for name, weights in denoiser.state_dict().items():
        found = loaded.denoiser.state_dict()[name]
        assert found.dtype == torch.float32
        # Half precision has eleven binary digits.
        torch.testing.assert_close(found, weights, rtol=2**-11, atol=2**-24)


def test_saved_prior_estimates_the_same(tmp_path):
    prior = DiffusionPrior(tiny_denoiser(), [0.01, 1.0], [0.002, 0.3])
    save_prior(tmp_path / "p.safetensors", prior)
    loaded = load_prior(tmp_path / "p.safetensors", CPU)
    loaded.denoiser.precision = torch.float32
    torch.manual_seed(0)
    volumes, level = [torch.rand(2, 24, 8, 8) for _ in range(3)], torch.full((2,), 0.5)
    others = torch.rand(2, 5, 8, 8), torch.rand(2, 5, 24), torch.full((2,), 0.02)
    with torch.no_grad():
        exact, rounded = (
            each.denoiser(volumes[0], level, *volumes[1:], *others) for each in (prior, loaded)
        )
    deviation = (exact - rounded).std() / (exact - volumes[1][:, 8:16]).std()
    assert 0 < float(deviation) < 1e-3


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_prior_computes_in_the_precision_asked_for(tmp_path, precision):
    save_prior(tmp_path / "p.safetensors", DiffusionPrior(tiny_denoiser(), [0.01, 1.0], [0.1, 0.3]))
    loaded = load_prior(tmp_path / "p.safetensors", CPU, precision)
    seen = []
    loaded.denoiser.unet.middle[0].first.register_forward_hook(
        lambda _, __, output: seen.append(output.dtype)
    )
    volume = torch.rand(1, 24, 8, 8)
    others = torch.rand(1, 5, 8, 8), torch.rand(1, 5, 24), torch.full((1,), 0.02)
    with torch.no_grad():
        found = loaded.denoiser(volume, torch.full((1,), 0.5), volume, volume, *others)
    assert seen == [getattr(torch, precision)] and found.dtype == torch.float32


@pytest.mark.parametrize("spoil", ["truncate", "empty", "text", "foreign", "missing"])
def test_unreadable_prior_is_named(tmp_path, spoil):
    path = tmp_path / "p.safetensors"
    save_prior(path, DiffusionPrior(tiny_denoiser(), [0.003, 1.0], [0.1, 0.1]))
    if spoil == "truncate":
        path.write_bytes(path.read_bytes()[:-100])
    elif spoil == "foreign":
        save_file({"w": torch.zeros(3)}, path)
    elif spoil == "missing":
        path.unlink()
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


def samples_of(factor, shape=(40, 60, 60), seed=0):
    """Return normal errors whose standard deviations are a factor times the spreads; no change."""
    rng = np.random.default_rng(seed)
    spread = (0.01 * np.exp(0.5 * rng.standard_normal(shape))).astype(np.float32)
    return factor * spread * rng.standard_normal(shape), spread, np.zeros(shape)


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_calibration_finds_the_factor_between_spread_and_error(factor):
    parts = [samples_of(factor, seed=seed) for seed in range(2)]
    calibration = Calibration.fit(*zip(*parts, strict=True))
    assert all(np.diff(calibration.levels) > 0) and all(np.diff(calibration.stds) >= 0)
    errors, spread, change = samples_of(factor, seed=9)
    std = calibration(spread, change)
    assert std.dtype == np.float32
    np.testing.assert_allclose(std, factor * spread, rtol=0.25)
    # Also where few voxels lie: the brightest hundredth.
    for chosen in (spread > 0, spread > np.median(spread), spread > np.quantile(spread, 0.99)):
        held = np.mean(np.abs(errors[chosen]) < 1.6448536 * std[chosen])
        assert held == pytest.approx(0.9, abs=0.03)


def test_where_the_inr_was_moved_the_result_is_less_certain():
    """Samples of both kinds of volume spread alike; the prior moves the INR as far as it errs."""
    shape = (30, 40, 40)
    spread = np.full(shape, 0.002, np.float32)

    def part(size, seed):
        rng = np.random.default_rng(seed)
        error, change = size * rng.standard_normal((2, *shape))
        return error, spread, change

    sizes = (0.005, 0.05)
    learnt = [part(size, seed) for seed, size in enumerate(sizes)]
    calibration = Calibration.fit(*zip(*learnt, strict=True))
    unmoved = [(error, own, 0 * change) for error, own, change in learnt]
    blind = Calibration.fit(*zip(*unmoved, strict=True))
    for size in sizes:
        error, _, change = part(size, 7)
        held = lambda std, e=error: np.mean(np.abs(e) < 1.6448536 * std)  # noqa: E731
        assert held(calibration(spread, change)) == pytest.approx(0.9, abs=0.04)
        assert abs(held(blind(spread, 0 * change)) - 0.9) > 0.08


def test_level_joins_spread_and_change():
    rng = np.random.default_rng(0)
    spread, change = rng.random((2, 8, 9, 10))
    expected = np.sqrt(spread**2 + 0.25 * gaussian_filter(change**2, 1.0))
    np.testing.assert_allclose(CALIBRATION.level(spread, change), expected, rtol=1e-6)


def test_calibration_keeps_its_ratio_beyond_what_it_has_seen():
    std = lambda *spread: CALIBRATION(np.array(spread), np.zeros(len(spread)))  # noqa: E731
    np.testing.assert_allclose(std(0.001, 0.01), [0.002, 0.02], rtol=1e-5)
    np.testing.assert_allclose(std(0.1, 10.0), [0.3, 30.0], rtol=1e-5)
    np.testing.assert_allclose(std(math.sqrt(0.001)), math.sqrt(0.02 * 0.3), rtol=1e-5)
    assert 0 < std(0)[0] < 1e-5


@pytest.mark.parametrize("size", [(1, 1, 1), (2, 3, 5), (4, 8, 8)])
def test_calibration_of_few_voxels_and_of_no_spread(size):
    errors = np.full(size, 0.2)
    for spread in (np.zeros(size), np.full(size, 0.1)):
        std = Calibration.fit([errors], [spread], [np.zeros(size)])(spread, np.zeros(size))
        np.testing.assert_allclose(std, 0.2 / 1.6448536, rtol=1e-4)


@pytest.mark.parametrize("shape", [(24, 40, 36), (16, 12, 40)])
def test_a_deviation_gets_the_power_of_the_error_in_every_ring(shape):
    """Errors are smooth and samples white, as those of a network are that sees more than it may."""
    rng = np.random.default_rng(0)
    spread = np.full(shape, 0.01, np.float32)

    def part():
        error = 0.03 * gaussian_filter(rng.standard_normal(shape), 0.7) / 0.35
        return error, spread, np.zeros(shape), 0.01 * rng.standard_normal(shape)

    calibration = Calibration.fit(*zip(part(), part(), strict=True))
    assert calibration.gains[0] > 3 * calibration.gains[8]
    error, _, change, deviation = part()
    enlarged = calibration.enlarge(deviation, spread, change)
    ratio = enlarged.std() / error.std()
    assert ratio == pytest.approx(1, abs=0.1)
    powers = [np.square(dctn(each, norm="ortho")) for each in (enlarged, error)]
    axes = np.meshgrid(*[np.arange(n) / (2 * n) for n in shape], indexing="ij")
    radius = np.sqrt(sum(axis**2 for axis in axes))
    for low in np.arange(0.1, 0.5, 0.1):
        ring = (radius >= low) & (radius < low + 0.1)
        found, expected = (power[ring].mean() for power in powers)
        assert abs(10 * np.log10(found / expected)) < 1.5


def test_a_deviation_without_gains_is_enlarged_as_the_standard_deviation():
    spread = np.array([[[0.01, 0.1]]], np.float32)
    calibration = Calibration((0.01, 0.1), (0.02, 0.3))
    deviation = np.array([[[0.5, -1.0]]], np.float32)
    enlarged = calibration.enlarge(deviation, spread, 0 * spread)
    np.testing.assert_allclose(enlarged, [[[1.0, -3.0]]], rtol=1e-5)


def test_spread_is_smoothed_over_neighbouring_voxels():
    variance = np.random.default_rng(0).random((8, 9, 10)).astype(np.float32)
    np.testing.assert_allclose(spread_of(variance) ** 2, gaussian_filter(variance, 1.0), rtol=1e-5)
    assert spread_of(np.zeros((3, 3, 3), np.float32)).max() == 0


def test_the_unseen_part_holds_the_rows_that_no_prior_learns_from():
    whole = toy_acquisition(0, (24, 40, 31), noise=0.0)
    part, rows = unseen_part(whole, 16)
    assert part.truth.shape == (24, 16, 16) and part.projections.shape[1:] == (16, 16)
    np.testing.assert_array_equal(part.truth, whole.truth[:, 24:, 7:23])
    np.testing.assert_array_equal(part.truth[:, rows], whole.truth[:, 35:, 7:23])
    assert whole.learnt_rows.stop == 35
    np.testing.assert_allclose(part.operator.forward(part.truth), part.projections, atol=1e-5)
    small, rows = unseen_part(whole, 100)
    assert rows == slice(35, None)
    for name, value in vars(small).items():
        np.testing.assert_array_equal(value, getattr(whole, name))


def test_errors_are_taken_where_nothing_was_learnt(acquisitions):
    """A network that has learnt the other rows by heart is not believed for it."""
    one = acquisitions["a"]
    by_heart = one.truth.copy()
    unlearnt = slice(one.learnt_rows.stop, None)
    by_heart[:, unlearnt] = one.inr[:, unlearnt]
    known = {"a": replace(one, inr=by_heart)}
    sampler = Refine(evaluations=2, samples=2)
    honest, fooled = (
        assess(Denoiser([8, 16], 1, 0.2).eval(), {}, each, sampler, 1, CPU)
        for each in ({"a": one}, known)
    )
    assert fooled.info["calibration_inr_error"] == pytest.approx(0.2, rel=0.05)
    np.testing.assert_allclose(fooled.errors, honest.errors, rtol=0.1)


def test_a_simulated_acquisition_is_posed_as_a_sample_is():
    acquisition = toy_acquisition(0)
    posed = problem_of(acquisition)
    for name in ("inr", "spectral", "projections", "positions_um", "centres_um", "noise"):
        np.testing.assert_array_equal(getattr(posed, name), getattr(acquisition, name))
    # The variance grows with the light, and is that of the noise where it is mean.
    assert posed.variance.shape == acquisition.projections.shape
    assert posed.variance.mean() == pytest.approx(acquisition.noise**2, rel=0.1)
    light = acquisition.operator.forward(acquisition.spectral)
    assert np.corrcoef(posed.variance.ravel(), light.ravel())[0, 1] > 0.999


@pytest.fixture(scope="module")
def acquisitions():
    made = {name: toy_acquisition(seed) for seed, name in enumerate("abc")}
    rng = np.random.default_rng(0)
    white = lambda shape: 0.2 * rng.standard_normal(shape).astype(np.float32)  # noqa: E731
    return {n: replace(a, inr=a.truth + white(a.truth.shape)) for n, a in made.items()}


@pytest.fixture(scope="module")
def assessed(acquisitions):
    """A network that adds nothing to the linear estimate, whose error is known."""
    info = {"steps": 1}
    sampler = Refine(evaluations=3, samples=3)
    prior = assess(Denoiser([8, 16], 1, 0.2).eval(), info, acquisitions, sampler, 5, CPU)
    assert info == {"steps": 1} and prior.info["steps"] == 1
    return prior


def test_errors_are_those_of_the_denoiser_at_every_level(assessed):
    levels = np.array(assessed.error_levels)
    assert levels[0] == pytest.approx(0.003) and levels[-1] == pytest.approx(1.0)
    # White errors look the same through the projections.
    expected = 0.2 * levels / np.hypot(0.2, levels)
    np.testing.assert_allclose(assessed.errors, expected, rtol=0.3)
    assert assessed.error_at(0.2) == pytest.approx(0.2 / math.sqrt(2), rel=0.3)


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_noise_that_was_taken_over_is_nothing_that_data_can_correct(monkeypatch, share):
    """An estimate that follows the data would follow their noise twice."""
    acquisition = toy_acquisition(0, (24, 48, 40))
    operator = acquisition.operator
    noise = acquisition.projections - operator.forward(acquisition.truth)
    followed = torch.from_numpy(acquisition.truth + share * operator.pinv(noise))
    monkeypatch.setattr(DenoisedUnit, "denoise", lambda *_: followed[None])
    sampler = Refine(evaluations=2, samples=2)
    prior = assess(Denoiser([8, 16], 1, 0.2).eval(), {}, {"a": acquisition}, sampler, 1, CPU)
    assert prior.errors == pytest.approx([1e-4] * 7)


def test_calibrated_intervals_hold_their_share_of_the_errors(assessed, acquisitions):
    shares = []
    for seed, acquisition in enumerate(acquisitions.values()):
        settings = Refine(evaluations=3, samples=3)
        found = sample_posterior(problem_of(acquisition), assessed, settings, 50 + seed, CPU)
        error = np.abs(found.mean - acquisition.truth)
        shares.append(np.mean(error < 1.6448536 * found.std))
    assert np.mean(shares) == pytest.approx(0.9, abs=0.03)


def test_facts_of_an_assessment(assessed):
    assert assessed.info["calibration_inr_error"] == pytest.approx(0.2, rel=0.05)
    # The data improve on the INR, where nothing else does.
    assert 0.1 < assessed.info["calibration_error"] < 0.195
    # Of acquisitions that are alike.
    assert assessed.calibration.exponent == 0 < assessed.calibration.least_sparseness


def test_assessment_is_determined_by_the_seed(acquisitions):
    sampler, one = Refine(evaluations=2, samples=2), {"a": acquisitions["a"]}
    first, again, other = (
        assess(Denoiser([8, 16], 1, 0.2).eval(), {}, one, sampler, seed, CPU) for seed in (1, 1, 2)
    )
    assert first.errors == again.errors != other.errors
    assert first.calibration == again.calibration != other.calibration
