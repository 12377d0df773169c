"""Offset and gain from the mean-variance line: known ones are found, and doubtful ones refused."""

import dask.array as da
import numpy as np
import pytest
import tifffile
from scipy.ndimage import gaussian_filter

import convert_ground_truth
import preprocess
from besselflow.beam import box_profile
from besselflow.config import Preflight
from besselflow.corrections import resolve_detector
from besselflow.corrections.photon_transfer import PhotonTransfer, estimate_photon_transfer
from besselflow.errors import InputError
from besselflow.phantoms import draw_phantom
from besselflow.preflight import read_subsample
from besselflow.simulate import (
    Detector,
    Disturbance,
    simulate_acquisition,
    stage_positions,
    write_acquisition,
)
from besselflow.store import open_projections, open_volume

BEAM = box_profile(6.0)
VOXEL = (1.0, 1.0, 1.0)


def texture(seed=0, shape=(12, 192, 192), sigma=2.0):
    """Relative brightness of structures a few pixels wide, most of them faint."""
    smooth = gaussian_filter(np.random.default_rng(seed).normal(size=shape), (0, sigma, sigma))
    return np.exp(0.8 * smooth / smooth.std()) / 4


def expose(brightness, detector, seed=1):
    counts = detector.expose(detector.photons * brightness, np.random.default_rng(seed))
    return da.from_array(counts, chunks=(1, -1, -1))


def acquire(kind="cells", detector=None, **disturbance):
    volume = draw_phantom(kind, (64, 96, 96), 11, VOXEL)
    positions = stage_positions(64, 1.0, BEAM, 3.0)
    disturbance = Disturbance(**disturbance)
    return simulate_acquisition(volume, BEAM, positions, VOXEL, detector, disturbance, seed=5)


def check(found, detector, tolerance):
    assert isinstance(found, PhotonTransfer), found
    assert found.gain == pytest.approx(detector.gain, rel=tolerance)
    assert abs(found.gain - detector.gain) < 4 * found.gain_error
    dark = detector.offset - detector.read_noise**2 / detector.gain
    assert abs(found.offset - dark) < 4 * found.offset_error + 0.02 * detector.gain


@pytest.mark.parametrize("photons", [5.0, 60.0, 500.0])
@pytest.mark.parametrize(("gain", "offset", "read"), [(10.0, 100.0, 5.0), (1.7, 20.0, 1.5)])
def test_known_constants_are_found(photons, gain, offset, read):
    detector = Detector(photons, gain, offset, read)
    check(estimate_photon_transfer(expose(texture(), detector)), detector, 0.08)


@pytest.mark.parametrize("kind", ["vessels", "cells"])
@pytest.mark.parametrize("bit_depth", [11, 16])
def test_phantoms_tell_them_to_15_percent(kind, bit_depth):
    detector = Detector(bit_depth=bit_depth)
    counts = acquire(kind, detector, hot_pixels=0.003).counts
    found = estimate_photon_transfer(da.from_array(counts, chunks=(1, -1, -1)))
    check(found, detector, 0.15)


def test_errors_are_as_large_as_they_are_said_to_be():
    detector = Detector(60.0)
    found = [
        estimate_photon_transfer(expose(texture(seed, (6, 192, 192)), detector, 100 + seed))
        for seed in range(16)
    ]
    scores = np.array([(each.gain - detector.gain) / each.gain_error for each in found])
    assert 0.5 < np.sqrt((scores**2).mean()) < 1.7


@pytest.mark.parametrize(
    ("brightness", "reason"),
    [
        (np.ones((8, 64, 64)), "too uncertain"),
        (np.zeros((8, 64, 64)), "too uncertain|does not grow|filters|too few"),
        (np.ones((8, 20, 64)), "smaller than"),
    ],
)
def test_too_little_range_is_refused(brightness, reason):
    found = estimate_photon_transfer(expose(brightness, Detector(50.0)))
    assert isinstance(found, str)
    assert any(part in found for part in reason.split("|")), found


def test_constant_images_are_refused():
    assert estimate_photon_transfer(da.zeros((4, 64, 64))) == "all pixels are equally bright"


def test_structure_as_fine_as_pixels_is_refused():
    grain = np.random.default_rng(3).uniform(0.5, 1.5, (12, 192, 192))
    found = estimate_photon_transfer(expose(texture() * grain, Detector(500.0)))
    assert isinstance(found, str) and "as fine as the pixels" in found


def test_noise_that_neighbours_share_is_refused():
    counts = np.asarray(expose(texture(), Detector(60.0))).astype(np.float32)
    smoothed = da.from_array(gaussian_filter(counts, (0, 0.6, 0.6)), chunks=(1, -1, -1))
    found = estimate_photon_transfer(smoothed)
    assert isinstance(found, str) and "share their noise" in found


def test_averaged_frames_have_the_gain_of_the_average():
    frames = [np.asarray(expose(texture(), Detector(60.0), seed)) for seed in range(4)]
    found = estimate_photon_transfer(da.from_array(np.mean(frames, axis=0), chunks=(1, -1, -1)))
    assert found.gain == pytest.approx(2.5, rel=0.05)


def test_stated_constants_are_left_as_they_are():
    counts = da.zeros((1, 1, 2, 8, 8))
    for stated in ((100.0, 10.0), (None, None), (7.0, None)):
        found = resolve_detector(counts, *stated, "a.tif")
        assert (found.offset, found.gain) == stated and found.record == {}


def test_channels_have_their_own_and_one_that_fails_is_named():
    first = expose(texture(), Detector(60.0, 10.0))
    second = expose(texture(1), Detector(60.0, 3.0))
    found = resolve_detector(da.stack([first, second])[None], 98.0, "auto", "a.tif")
    np.testing.assert_allclose(found.gain.ravel(), [10, 3], rtol=0.05)
    np.testing.assert_array_equal(found.offset.ravel(), [98, 98])
    with pytest.raises(InputError, match=r"a\.tif: the gain of channel 2 .* into the sample sheet"):
        resolve_detector(da.stack([first, da.zeros_like(second)])[None], "auto", "auto", "a.tif")


def test_preprocess_preflight_and_ground_truth_use_the_same(tmp_path):
    detector = Detector()
    volume = draw_phantom("cells", (64, 96, 96), 11, VOXEL)
    acquisition = acquire()
    files = write_acquisition(tmp_path, "mouse", acquisition, BEAM, VOXEL, detector, volume)
    sheet = (files.acquisition, files.stage_positions, files.ground_truth)
    row = (str(files.beam_profile), VOXEL, "auto", "auto")
    preprocess.main(*sheet, *row, "mouse", tmp_path / "projections.zip")
    measured = open_projections(tmp_path / "projections.zip")
    record = measured.attributes["corrections"]["photon_transfer"]
    gain, offset = record["lines"][0]["gain"], record["offset"][0]
    assert measured.unit == "photons" and gain == pytest.approx(10, rel=0.15)
    expected = (acquisition.counts - offset) / gain
    np.testing.assert_allclose(np.asarray(measured.data[0, 0]), expected, atol=1e-3)

    subsample = read_subsample(*sheet, *row, settings=Preflight())
    assert subsample.gain.ravel() == pytest.approx(gain)
    assert subsample.intensity.shape == subsample.counts.shape

    truth = tmp_path / "truth.ozx"
    convert_ground_truth.main(
        files.ground_truth, VOXEL, "auto", "auto", "mouse", truth, tmp_path / "projections.zip"
    )
    counts = tifffile.imread(files.ground_truth)
    found = open_volume(truth)
    assert found.attributes["unit"] == "photons"
    np.testing.assert_allclose(np.asarray(found.data[0, 0]), (counts - offset) / gain, atol=1e-3)
