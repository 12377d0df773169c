"""Flicker of lines is found and taken back; structures along lines are not taken for it."""

import functools

import dask.array as da
import numpy as np
import pytest

from besselflow.beam import box_profile
from besselflow.config import Corrections
from besselflow.corrections.flat_field import noise_factors
from besselflow.corrections.line_noise import line_log_gains
from besselflow.corrections.pixels import correct_pixels
from besselflow.phantoms import draw_phantom
from besselflow.simulate import Detector, Disturbance, simulate_acquisition, stage_positions

SHAPE = (36, 96, 96)
VOXEL = (1.0, 1.0, 1.0)
BEAM = box_profile(6.0)


@functools.cache
def phantom(kind):
    return draw_phantom(kind, SHAPE, 4, VOXEL)


def acquire(volume, step=3.0, seed=0, **disturbance):
    positions = stage_positions(len(volume), 1.0, BEAM, step)
    return simulate_acquisition(
        volume, BEAM, positions, VOXEL, Detector(), Disturbance(**disturbance), seed
    )


def correct(counts, offset=100.0, **settings):
    lazy = da.from_array(counts[None, None], chunks=(1, 1, 4, -1, -1))
    return correct_pixels(lazy, offset, 10.0, Corrections(**settings))


def check_unchanged(counts, offset=100.0, **settings):
    """Check that not a pixel is changed, and return the record."""
    found = correct(counts, offset, **settings)
    assert not found.record["line_noise"]["applied"] and not found.pictures
    plain = (np.float32(counts) - np.float32(offset or 0)) / np.float32(10)
    np.testing.assert_array_equal(np.asarray(found.intensity[0, 0]), plain)
    return found.record["line_noise"]


def found_gains(counts, found, masked=False):
    """Return the logarithm of what lines were divided by."""
    before = (counts - 100.0) / 10
    usable = (before > 1) & ~np.broadcast_to(masked, before.shape)
    ratio = np.where(usable, before, 1) / np.where(
        usable, np.asarray(found.intensity[0, 0]), np.nan
    )
    return np.log(np.nanmedian(ratio, axis=2))


def flickering(spread, shape=(8, 64, 80), seed=0):
    """Return an even sample whose lines flicker, and the gains."""
    rng = np.random.default_rng(seed)
    gains = np.exp(spread * rng.normal(size=shape[:2]))
    counts = 10 * rng.poisson(200 * np.broadcast_to(gains[..., None], shape)) + 100.0
    return counts, gains


def fibres(along, width, seed=0):
    """Return fibres that run exactly along an axis, from edge to edge."""
    rng = np.random.default_rng(seed)
    z, y = np.mgrid[: SHAPE[0], : SHAPE[1]]
    section = np.full(z.shape, 0.02)
    for _ in range(60):
        squared = (z - rng.uniform(0, SHAPE[0])) ** 2 + (y - rng.uniform(0, SHAPE[1])) ** 2
        section += rng.uniform(0.2, 1) * np.exp(-0.5 * squared / width**2)
    volume = np.broadcast_to(section[:, :, None] / section.max(), SHAPE)
    return volume if along == "x" else volume.swapaxes(1, 2)


def test_steps_without_noise_give_the_gains_exactly():
    image = np.full((40, 64), 50.0, np.float32)
    truth = 0.1 * np.random.default_rng(1).normal(size=40)
    image *= np.exp(truth)[:, None]
    found, errors = line_log_gains(image, np.ones(image.shape, bool), 0.1)
    # The mean of all lines is the brightness of the sample.
    np.testing.assert_allclose(found, truth - truth.mean(), atol=1e-3)
    assert (errors <= 0.1).all()


@pytest.mark.parametrize("spread", [0.03, 0.1])
def test_gains_of_an_even_sample_are_found_within_their_errors(spread):
    counts, gains = flickering(spread)
    found = correct(counts)
    record = found.record["line_noise"]
    assert record["applied"] and record["spread"] == pytest.approx(spread, rel=0.2)
    left = found_gains(counts, found) - np.log(gains)
    assert left.std() == pytest.approx(record["gain_error"], rel=0.35)
    assert left.std() < 0.5 * spread
    assert found.masked is None and found.pictures["line_noise"].shape == (2, 64, 80)


@pytest.mark.parametrize("kind", ["vessels", "neuron", "cells"])
def test_flicker_is_found_and_taken_back(kind):
    acquisition = acquire(phantom(kind), lines=0.1)
    found = correct(acquisition.counts)
    record = found.record["line_noise"]
    # Pixels that noise moves along with the flicker count a little less, so that it is found low.
    assert record["applied"] and 0.075 < record["spread"] < 0.105
    truth = np.log(acquisition.truth["line_brightness"])
    left = found_gains(acquisition.counts, found) - truth
    # Neighbours become equally bright; what changes over many lines stays.
    assert np.diff(left, axis=1).std() < 0.6 * np.diff(truth, axis=1).std()
    assert left.std() < 0.75 * truth.std()


@pytest.mark.parametrize("step", [3.0, 6.0])
@pytest.mark.parametrize("width", [0.4, 0.8, 1.2, 2.0])
def test_fibres_along_lines_are_no_flicker(width, step):
    record = check_unchanged(acquire(fibres("x", width), step).counts)
    assert record["channels"][0]["variance"] > 1e-4


@pytest.mark.parametrize("kind", ["vessels", "neuron", "cells"])
def test_offsets_of_lines_are_no_flicker(kind):
    counts = acquire(phantom(kind)).counts
    offsets = np.random.default_rng(0).normal(0, 10, (*counts.shape[:2], 1))
    record = check_unchanged(counts + offsets)
    assert "offsets of the detector" in record["why_not"]


@pytest.mark.parametrize("kind", ["vessels", "neuron", "cells"])
@pytest.mark.parametrize("turned", [False, True])
def test_steady_light_is_left_as_it_is(kind, turned):
    volume = phantom(kind)
    check_unchanged(acquire(volume.swapaxes(1, 2) if turned else volume, 6.0).counts)


def test_noise_alone_does_not_flicker():
    for seed in range(3):
        check_unchanged(flickering(0.0, seed=seed)[0])
    check_unchanged(np.full((6, 40, 40), 300.0))
    check_unchanged(np.full((6, 40, 40), 100.0))


def test_what_is_no_measurement_has_no_part():
    counts, _ = flickering(0.1)
    image, usable = np.float32(counts[0] - 100) / 10, np.ones(counts[0].shape, bool)
    usable[10:14, 20:60] = usable[:, 3] = False
    expected, _ = line_log_gains(image, usable, 0.1)
    wild = np.where(usable, image, np.random.default_rng(2).uniform(0, 1e4, image.shape))
    np.testing.assert_array_equal(line_log_gains(np.float32(wild), usable, 0.1)[0], expected)
    assert np.abs(line_log_gains(image, ~usable & False, 0.1)[0]).max() == 0


def test_hot_and_saturated_pixels_do_not_hide_flicker():
    counts, gains = flickering(0.1, (8, 96, 96))
    counts[:, 17, 40] = counts[:, 60, 8] = 60000
    counts[:, 30:34, 50:60] = 65535
    found = correct(counts.astype(np.uint16))
    assert found.record["saturation"]["applied"] and found.record["line_noise"]["applied"]
    left = found_gains(counts, found, np.asarray(found.masked[0, 0])) - np.log(gains)
    assert left.std() < 0.04


def test_channels_flicker_for_themselves():
    counts = np.stack([flickering(0.08)[0], flickering(0.0, seed=1)[0]])[None]
    found = correct_pixels(da.from_array(counts), 100.0, 10.0, Corrections())
    first, second = found.record["line_noise"]["channels"]
    assert first["applied"] and not second["applied"]
    plain = np.float32((counts - 100) / 10)
    np.testing.assert_array_equal(np.asarray(found.intensity[0, 1]), plain[0, 1])
    assert (np.asarray(found.intensity[0, 0]) != plain[0, 0]).any()


def test_the_noise_is_what_the_record_says():
    gains = np.exp(0.2 * np.random.default_rng(0).normal(size=40))
    photons = np.random.default_rng(1).poisson(100 * gains[:, None], (40, 20000)) / gains[:, None]
    variance = photons.var(axis=1)
    factors = noise_factors(gains[None, None])[0, 0]
    np.testing.assert_allclose(variance / variance.mean(), factors, rtol=0.05)
    counts, _ = flickering(0.1)
    found = correct(counts)
    applied = noise_factors(np.exp(found_gains(counts, found))[None])
    np.testing.assert_allclose(
        found.record["line_noise"]["noise_range"], [applied.min(), applied.max()], rtol=1e-3
    )


def test_images_are_corrected_one_by_one():
    counts, _ = flickering(0.1)
    found = correct(counts)
    assert found.intensity.chunks == ((1,), (1,), (1,) * 8, (64,), (80,))
    assert found.intensity.dtype == np.float32


def test_there_is_a_reason_where_nothing_is_done():
    counts, _ = flickering(0.1)
    assert "switched off" in check_unchanged(counts, line_noise="none")["why_not"]
    assert "offset is not known" in check_unchanged(counts, None)["why_not"]
    assert "single image" in check_unchanged(counts[:1])["why_not"]
    assert "too small" in check_unchanged(counts[:, :31])["why_not"]
    series = da.from_array(counts[:, None, None])
    assert correct_pixels(series, 100.0, 10.0, Corrections()).record["line_noise"]["applied"]


def test_the_simulation_makes_lines_flicker_as_the_truth_says():
    volume = phantom("vessels")
    plain, flickers = acquire(volume), acquire(volume, lines=0.1)
    truth = flickers.truth["line_brightness"]
    np.testing.assert_allclose(flickers.photons, plain.photons * truth[:, :, None])
    assert np.log(truth).std() == pytest.approx(0.1, rel=0.1)
    np.testing.assert_array_equal(plain.truth["line_brightness"], 1)
    with pytest.raises(ValueError, match="lines must be"):
        Disturbance(lines=-0.1)
