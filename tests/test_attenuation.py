"""Attenuation with depth is taken back exactly where its length is known, noise included."""

from dataclasses import replace

import dask.array as da
import numpy as np
import pytest

from besselflow.baselines.richardson_lucy import richardson_lucy
from besselflow.baselines.spectral import fit_spectral_model, posterior_mean
from besselflow.beam import AxialProfile, box_profile, gaussian_profile
from besselflow.config import Corrections, load_config
from besselflow.corrections.attenuation import Attenuation, estimate_fall, require_plausible
from besselflow.corrections.whole import correct_whole
from besselflow.errors import InputError, ProblemsError
from besselflow.phantoms import draw_phantom
from besselflow.projection import AxialGrid
from besselflow.simulate import Detector, Disturbance, simulate_acquisition, stage_positions
from besselflow.store import Projections
from besselflow.validation import Noise, examine
from lab import Lab

SHAPE = (48, 64, 64)
VOXEL = (1.0, 1.0, 1.0)
BEAM = box_profile(6.0)
SKEWED = AxialProfile(np.array([-8.0, -2.0, 1.0, 4.0]), np.array([0.2, 0.5, 0.3]), "skewed")


def acquire(length_um, beam=BEAM, volume=None, step=3.0, detector=None):
    volume = draw_phantom("cells", SHAPE, 4, VOXEL) if volume is None else volume
    positions = stage_positions(len(volume), 1.0, beam, step)
    disturbance = Disturbance(attenuation_um=length_um)
    return simulate_acquisition(volume, beam, positions, VOXEL, detector, disturbance)


def as_projections(acquisition, beam=BEAM):
    photons = (acquisition.counts.astype(np.float32) - 100) / 10
    return Projections(
        data=da.from_array(photons[None, None]),
        positions_um=acquisition.positions_um,
        profile=beam,
        grid=AxialGrid(0.0, 1.0, len(acquisition.seen)),
        pixel_size_um=VOXEL[1:],
        unit="photons",
    )


def correct(measured, offset_known=True, **settings):
    settings = Corrections(**{"laser": "none", "drift": "none"} | settings)
    count = len(measured.positions_um)
    found = correct_whole(measured, np.arange(count), settings, offset_known)
    return found, found.attributes["corrections"]["depth_attenuation"]


@pytest.mark.parametrize("length", [9.0, -9.0, 150.0])
def test_a_tilted_box_has_its_closed_form(length):
    profile, collected = box_profile(12.0).attenuated(length)
    assert collected == pytest.approx(np.sinh(6 / length) / (6 / length), rel=1e-12)
    assert profile.weights.sum() == pytest.approx(1) and profile.support_um == (-6, 6)
    middles = (profile.edges_um[1:] + profile.edges_um[:-1]) / 2
    centre = length - 6 / np.tanh(6 / length)
    # Brightness changes by 2 % within a bin.
    assert middles @ profile.weights == pytest.approx(centre, abs=0.02**2 / 12 * abs(length))
    # Light comes from the side of the surface.
    assert np.sign(centre) == -np.sign(length)


@pytest.mark.parametrize("length", [30.0, -30.0])
@pytest.mark.parametrize("beam", [BEAM, SKEWED, gaussian_profile(16.0)], ids=lambda b: b.source)
def test_gains_and_a_tilted_beam_are_the_attenuated_acquisition(beam, length):
    volume = np.random.default_rng(0).random((60, 5, 6))
    acquisition = acquire(length, beam, volume)
    measured = as_projections(acquisition, beam)
    attenuation = Attenuation.of(measured, length)
    gains = np.exp(attenuation.log_gains)[:, None, None]
    predicted = 300 * gains * attenuation.account_for(measured).operator.forward(volume)
    np.testing.assert_allclose(predicted, acquisition.photons, rtol=2e-3)
    # A beam that is not tilted misses far more.
    plain = 300 * gains * measured.operator.forward(volume)
    assert np.abs(plain / acquisition.photons - 1).max() > 0.01


@pytest.mark.parametrize("length", [60.0, -60.0])
def test_the_simulated_light_falls_to_one_eth_over_the_length(length):
    acquisition = acquire(length, volume=np.ones((127, 2, 2)))
    z, level = acquisition.positions_um, acquisition.photons[:, 0, 0] / 300
    depth = z - z[0] if length > 0 else z[-1] - z
    assert level[np.argmin(depth)] == pytest.approx(1, abs=1e-3)
    assert level[np.argmin(np.abs(depth - 60))] == pytest.approx(np.exp(-1), abs=1e-3)
    np.testing.assert_allclose(level, np.exp(-depth / 60), rtol=1e-3)


def test_a_given_length_makes_all_projections_equally_bright_and_knows_their_noise():
    acquisition = acquire(40.0, volume=np.ones(SHAPE))
    found, record = correct(as_projections(acquisition), depth_attenuation=40)
    assert record["applied"] and record["given"] and record["length_um"] == 40
    left = np.exp(-np.ptp(acquisition.positions_um) / 40)
    assert record["left"] == pytest.approx(left)
    images = np.asarray(found.data[0, 0], np.float64)
    # 64 x 64 pixels of 90 photons and more: means are known to 0.2 %, variances to 2 %.
    np.testing.assert_allclose(images.mean(axis=(1, 2)), 300, rtol=0.01)
    np.testing.assert_allclose(record["after"][0], images.mean(axis=(1, 2)), rtol=1e-5)
    variance = images.var(axis=(1, 2))
    factors = found.operator.noise_factors
    np.testing.assert_allclose(variance, 300 * factors, rtol=0.1)
    assert factors[0] == pytest.approx(1, abs=0.01)
    assert factors[-1] == pytest.approx(1 / left, rel=0.01)
    assert found.pictures["depth_attenuation"].shape == (2, len(factors), SHAPE[2])


def chi2_by_projection(measured):
    """Return chi² of the spectral reconstruction, by the noise that it found."""
    data = np.asarray(measured.data[0, 0])
    model = fit_spectral_model([data], measured.operator, VOXEL)
    volume = da.from_array(posterior_mean(data, measured.operator, model, VOXEL)[None, None])
    fitted = [np.array([[value]]) for value in (model.noise_variance, model.mean)]
    return examine(volume, measured, Noise(volume, *fitted)).chi2_by_projection[0, 0]


def test_later_stages_find_the_noise_that_they_expect():
    measured = as_projections(acquire(40.0, detector=Detector(photons=60)))
    found, _ = correct(measured, depth_attenuation=40)
    third = len(measured.positions_um) // 3
    chi2 = chi2_by_projection(found)
    assert chi2[-third:].mean() / chi2[:third].mean() == pytest.approx(1, abs=0.3)
    unaware = chi2_by_projection(replace(found, noise_factors=None))
    assert unaware[-third:].mean() / unaware[:third].mean() > 1.7


def test_richardson_lucy_counts_the_photons_that_there_were():
    measured = as_projections(acquire(25.0, detector=Detector(photons=40)))
    found, _ = correct(measured, depth_attenuation=25)
    gains = 1 / found.operator.noise_factors
    raw = replace(found.operator, matrix=gains[:, None] * found.operator.matrix, noise_factors=None)
    expected = richardson_lucy(np.asarray(measured.data[0, 0]), raw, 5)
    corrected = np.asarray(found.data[0, 0])
    volume = richardson_lucy(corrected, found.operator, 5)
    np.testing.assert_allclose(volume, expected, rtol=1e-3, atol=1e-3)
    unaware = richardson_lucy(corrected, replace(found.operator, noise_factors=None), 5)
    assert np.abs(unaware - expected).max() > 1


def test_an_offset_that_is_not_known_is_noted(caplog):
    measured = as_projections(acquire(60.0))
    _, record = correct(measured, offset_known=False, depth_attenuation=60)
    assert not record["offset_known"] and "offset is not known" in caplog.text
    _, record = correct(measured, offset_known=False, depth_attenuation="auto")
    assert not record["applied"] and "offset is not known" in record["why_not"]


def brightness(rng, positions_um, spread, reach_um):
    """Draw regions whose mean brightness varies at random along z, of a correlation length."""
    distance = np.abs(positions_um[:, None] - positions_um)
    root = np.linalg.cholesky(np.exp(-distance / reach_um) + 1e-9 * np.eye(len(distance)))
    return 50 * np.exp(spread * root @ rng.normal(size=len(positions_um)))[:, None, None]


def test_an_exponential_moves_the_estimate_by_its_rate_and_nothing_else():
    positions = np.arange(2.5, 120, 6)
    region = brightness(np.random.default_rng(0), positions, 0.2, 20.0)
    plain = estimate_fall([region], positions)
    falling = np.exp(-positions / 25)[:, None, None] * region
    found = estimate_fall([falling, 3 * falling], positions)
    assert found.rate_per_um - plain.rate_per_um == pytest.approx(1 / 25)
    assert found.rate_error_per_um == pytest.approx(plain.rate_error_per_um)
    assert found.is_certain and not plain.is_certain
    assert abs(found.length_um - 25) < 4 * found.error_um
    # From the other side.
    turned = estimate_fall([falling[::-1]], positions)
    assert turned.length_um == pytest.approx(-found.length_um)


@pytest.mark.parametrize("reach", [1.0, 15.0, 60.0])
def test_the_error_of_the_estimate_is_that_of_a_sample_that_varies_at_random(reach):
    rng, positions = np.random.default_rng(1), np.arange(2.5, 120, 6)
    found = [estimate_fall([brightness(rng, positions, 0.3, reach)], positions) for _ in range(150)]
    relative = np.array([each.rate_per_um / each.rate_error_per_um for each in found])
    # 150 draws know a standard deviation to 6 %; errors may be too large, hardly too small.
    assert 0.25 < relative.std() < 1.25
    assert sum(each.is_certain for each in found) <= 1


def test_too_little_to_tell_is_said():
    assert "fewer than 8" in estimate_fall([np.ones((7, 2, 2))], np.arange(7.0))
    assert "no light" in estimate_fall([np.zeros((9, 2, 2))], np.arange(9.0))
    assert "equally bright" in estimate_fall([np.ones((9, 2, 2))], np.arange(9.0))


@pytest.mark.parametrize("turn", [1, -1])
def test_on_request_the_length_is_estimated(turn):
    measured = as_projections(acquire(turn * 15.0))
    found, record = correct(measured, depth_attenuation="auto")
    assert record["applied"] and not record["given"]
    assert record["length_um"] == pytest.approx(turn * 15, abs=4 * record["error_um"])
    assert record["error_um"] < 3
    expected = np.exp(Attenuation.of(measured, record["length_um"]).log_gains)
    images = np.asarray(measured.data[0, 0]) / expected[:, None, None]
    np.testing.assert_allclose(np.asarray(found.data[0, 0]), images, rtol=1e-5)


def test_on_request_a_sample_that_varies_by_itself_is_left_alone():
    measured = as_projections(acquire(np.inf))
    found, record = correct(measured, depth_attenuation="auto")
    assert not record["applied"] and record["rate_error_per_um"] > 0
    np.testing.assert_array_equal(np.asarray(found.data), np.asarray(measured.data))


def test_on_request_nothing_is_made_of_hardly_any_light():
    measured = as_projections(acquire(8.0, volume=np.ones(SHAPE)))
    _, record = correct(measured, depth_attenuation="auto")
    assert record == {"applied": False, "why_not": "the brightness falls by more than 100 times"}


def test_by_default_nothing_is_done():
    measured = as_projections(acquire(60.0))
    found, record = correct(measured)
    assert record == {"applied": False, "why_not": "it is switched off"}
    assert found.noise_factors is None and found.profile is measured.profile
    np.testing.assert_array_equal(np.asarray(found.data), np.asarray(measured.data))


@pytest.mark.parametrize("value", ["off", False, 0, float("inf"), float("nan"), "150um"])
def test_a_length_without_a_meaning_is_refused(value):
    with pytest.raises(
        ProblemsError, match=r"corrections\.depth_attenuation.* length in micrometres"
    ):
        load_config({"corrections": {"depth_attenuation": value}})


@pytest.mark.parametrize("length", [0.15, -0.15])
def test_a_length_in_millimetres_is_refused(length):
    message = r"length of 0.15 um leaves .* over the 120 um .* into corrections.depth_attenuation"
    with pytest.raises(InputError, match=message):
        require_plausible(np.array([200.0, 320.0, 260.0]), length)
    require_plausible(np.array([200.0, 320.0, 260.0]), 150.0)


def test_it_is_refused_before_anything_runs(tmp_path):
    lab = Lab(tmp_path)
    lab.attenuation_um = -150.0
    assert lab.check(lab.test, lab.train).rejected == {}
    lab.attenuation_um = 0.15
    (problem,) = lab.check(lab.test, lab.train).rejected["a"]
    assert "0.15 um leaves" in problem.message and "depth_attenuation" in problem.remedy
