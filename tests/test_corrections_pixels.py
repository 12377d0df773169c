"""Corrections of pixels and lines: each finds what was simulated, and nothing where nothing is."""

import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter, rank_filter

from besselflow.beam import box_profile
from besselflow.config import Corrections
from besselflow.corrections import pixels
from besselflow.corrections.fill import fill_from_neighbours
from besselflow.corrections.hot_pixels import FEWEST_IMAGES, find_hot_pixels
from besselflow.corrections.pixels import correct_pixels
from besselflow.corrections.saturation import saturation_level
from besselflow.corrections.scan_phase import estimate_scan_phase, shift_odd_lines
from besselflow.phantoms import draw_phantom
from besselflow.simulate import Detector, Disturbance, simulate_acquisition, stage_positions

SHAPE = (36, 64, 72)
VOXEL = (1.0, 1.0, 1.0)
BEAM = box_profile(6.0)


def acquire(seed=0, kind="vessels", bit_depth=16, step=3.0, **disturbance):
    volume = draw_phantom(kind, SHAPE, 4, VOXEL)
    positions = stage_positions(SHAPE[0], 1.0, BEAM, step)
    detector = Detector(bit_depth=bit_depth)
    return simulate_acquisition(
        volume, BEAM, positions, VOXEL, detector, Disturbance(**disturbance), seed
    )


def lazy(counts):
    return da.from_array(counts[None, None], chunks=(1, 1, 4, -1, -1))


def correct(acquisition, **settings):
    return correct_pixels(lazy(acquisition.counts), 100.0, 10.0, Corrections(**settings))


@pytest.mark.parametrize("kind", ["vessels", "neuron", "cells"])
def test_nothing_is_corrected_where_nothing_is_wrong(kind):
    acquisition = acquire(kind=kind)
    found = correct(acquisition)
    assert found.masked is None
    np.testing.assert_array_equal(
        np.asarray(found.intensity[0, 0]), (acquisition.counts.astype(np.float32) - 100) / 10
    )
    assert not any(each["applied"] for each in found.record.values()) and not found.pictures


@pytest.mark.parametrize("bit_depth", [10, 11])
def test_saturation_is_found_whatever_the_type_of_the_file(bit_depth):
    counts = acquire(bit_depth=bit_depth).counts
    assert counts.dtype == np.uint16 and (counts == 2**bit_depth - 1).sum() >= 8
    assert saturation_level(da.from_array(counts)) == 2**bit_depth - 1
    assert saturation_level(da.from_array(counts.astype(np.float32))) == 2**bit_depth - 1
    masked = np.asarray(correct(acquire(bit_depth=bit_depth)).masked[0, 0])
    np.testing.assert_array_equal(masked, counts == 2**bit_depth - 1)


def test_few_photons_or_a_single_level_are_no_saturation():
    rng = np.random.default_rng(0)
    assert saturation_level(da.from_array(rng.poisson(0.7, (9, 50, 50)).astype(np.uint8))) is None
    assert saturation_level(da.zeros((3, 20, 20))) is None
    binary = (rng.random((4, 30, 30)) < 0.5).astype(np.float32)
    assert saturation_level(da.from_array(binary)) is None


def test_a_level_can_be_given_or_ignored():
    acquisition = acquire(bit_depth=11)
    given = np.asarray(correct(acquisition, saturation=1500.0).masked[0, 0])
    np.testing.assert_array_equal(given, acquisition.counts >= 1500)
    assert correct(acquisition, saturation="none").masked is None


@pytest.mark.parametrize("kind", ["vessels", "neuron", "cells"])
def test_hot_pixels_are_found_and_nothing_else(kind):
    acquisition = acquire(kind=kind, hot_pixels=0.005)
    truth = acquisition.truth["hot_pixels"]
    found = np.asarray(correct(acquisition).masked[0, 0])
    assert (found == found[0]).all()
    missed, false = truth & ~found[0], found[0] & ~truth
    assert missed.sum() <= 0.05 * truth.sum() and false.sum() <= 0.001 * truth.size


def test_dead_pixels_are_found():
    rng = np.random.default_rng(0)
    images = rng.poisson(50, (12, 40, 40)).astype(np.float32)
    dead = np.zeros((40, 40), bool)
    dead[[3, 20, 0, 33], [7, 21, 39, 2]] = True
    images[:, dead] = 0
    np.testing.assert_array_equal(find_hot_pixels(da.from_array(images)), dead)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(6, 55), st.integers(4, 60), st.integers(4, 60))
def test_hot_pixels_are_those_of_the_definition(seed, count, height, width):
    rng = np.random.default_rng(seed)
    images = rng.poisson(rng.uniform(0.2, 80), (count, height, width)).astype(np.uint16)
    for counts, share in ((rng.integers(1, 300), 0.03), (0, 0.02)):
        images[:, rng.random((height, width)) < share] += np.uint16(counts)
    images[:, rng.random((height, width)) < 0.02] = 0
    ring = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], bool)
    chosen = np.unique(np.linspace(0, count - 1, min(count, 48)).round().astype(int))
    expected = np.zeros((height, width), bool)
    for sign in (1, -1):
        some = sign * images[chosen].astype(np.float32)
        third = [rank_filter(image, -3, footprint=ring, mode="mirror") for image in some]
        lower, median, upper = np.percentile(some - third, [25, 50, 75], axis=0)
        centre = np.median(lower)
        limit = max(0.0, centre + 6 * 1.4826 * np.median(np.abs(lower - centre)))
        expected |= (lower > limit) & (median > 2 * (upper - lower) / 1.349)
    np.testing.assert_array_equal(find_hot_pixels(da.from_array(images)), expected)


def test_large_images_are_read_twice_to_find_hot_pixels_and_not_once_per_strip():
    rng = np.random.default_rng(2)
    hot = rng.random((1500, 1400)) < 1e-3
    read = []

    def record(block_info=None):
        read.append(number := block_info[None]["chunk-location"][0])
        noise = np.random.default_rng(number).poisson(20, hot.shape)
        return (noise + 60 * hot).astype(np.uint16)[None]

    chunks = ((1,) * 9, *((n,) for n in hot.shape))
    images = da.map_blocks(record, chunks=chunks, dtype=np.uint16, meta=np.empty((0, 0, 0), "u2"))
    found = find_hot_pixels(images)
    assert found[hot].all() and (found & ~hot).mean() < 1e-4
    assert sorted(read) == sorted([*range(9)] * 2)


def test_a_structure_in_some_depths_is_no_hot_pixel():
    rng = np.random.default_rng(1)
    images = rng.poisson(20, (12, 40, 40)).astype(np.float32)
    images[:7, 11, 13] += 300
    assert not find_hot_pixels(da.from_array(images)).any()
    assert find_hot_pixels(da.from_array(images[: FEWEST_IMAGES - 1])) is None


@pytest.mark.parametrize("phase", [1.4, 0.3, -0.6])
def test_scan_phase_is_found_and_taken_back(phase):
    disturbed, plain = acquire(scan_phase=phase), acquire()
    found = correct(disturbed)
    record = found.record["scan_phase"]
    assert record["applied"] and record["pixels"] == pytest.approx(phase, abs=0.05)
    expected = plain.photons[:, 1::2, 4:-4]
    before = (disturbed.counts[:, 1::2, 4:-4] - 100.0) / 10
    after = np.asarray(found.intensity[0, 0])[:, 1::2, 4:-4]
    noise = np.mean((before - disturbed.photons[:, 1::2, 4:-4]) ** 2)
    assert np.mean((after - expected) ** 2) < 1.1 * noise
    assert np.mean((before - expected) ** 2) > 1.5 * noise or abs(phase) < 0.5
    # What was moved in from beyond the edge, and nothing else, is masked.
    masked = np.asarray(found.masked[0, 0])
    assert not masked[:, ::2].any() and not masked[:, :, 4:-4].any() and masked[:, 1::2].any()


def test_the_middle_of_large_images_tells_phase_and_flicker(monkeypatch):
    """So that memory does not grow with them, of which a view would keep the whole."""
    counts = acquire().counts
    seen = {}
    monkeypatch.setattr(pixels, "_LINES_FOR_PHASE", 40)
    monkeypatch.setattr(pixels, "_EDGE_FOR_LINES", 48)
    for name in ("estimate_scan_phase", "estimate_line_noise"):
        record = lambda images, name=name: seen.update({name: list(images)})  # noqa: E731
        monkeypatch.setattr(pixels, name, record)
    correct_pixels(lazy(counts), 100.0, 10.0, Corrections())
    intensity = (counts - 100.0) / 10
    np.testing.assert_allclose(seen["estimate_scan_phase"], intensity[:, 12:52, 12:60], rtol=1e-6)
    pairs = seen["estimate_line_noise"]
    assert len(pairs) == len(counts) - 1
    for number, pair in enumerate(pairs):
        for (image, usable), expected in zip(pair, intensity[number : number + 2], strict=True):
            np.testing.assert_allclose(image, expected[8:56, 12:60], rtol=1e-6)
            assert usable.shape == image.shape and image.base is usable.base is None


def test_noise_alone_has_no_scan_phase():
    for seed in range(10):
        noise = np.random.default_rng(seed).normal(size=(20, 64, 64))
        assert estimate_scan_phase(noise) is None
    assert estimate_scan_phase(np.zeros((20, 64, 64))) is None
    assert estimate_scan_phase(noise[:, :6]) is None


def test_shifting_odd_lines_leaves_even_ones():
    image = gaussian_filter(np.random.default_rng(0).normal(size=(20, 40)), 2)
    moved = shift_odd_lines(image, 1.0)
    np.testing.assert_array_equal(moved[::2], image[::2].astype(np.float32))
    np.testing.assert_allclose(moved[1::2, 3:-3], image[1::2, 4:-2], atol=1e-3)


def test_filling_interpolates_smooth_images_and_ignores_what_was_there():
    y, x = np.mgrid[:40, :50]
    image = np.sin(y / 9) + np.cos(x / 11)
    masked = np.zeros(image.shape, bool)
    masked[[4, 17, 30], [9, 22, 48]] = True
    masked[10:13, 30:33] = True
    spoilt = np.where(masked, 1e6, image)
    filled = fill_from_neighbours(spoilt, masked)
    np.testing.assert_allclose(filled[masked], image[masked], atol=0.1)
    np.testing.assert_array_equal(filled[~masked], image[~masked].astype(np.float32))
    everything = np.ones_like(masked)
    np.testing.assert_array_equal(fill_from_neighbours(image, everything), np.float32(image))


def test_channels_have_their_own_hot_pixels():
    first, second = acquire(hot_pixels=0.002, seed=1), acquire(hot_pixels=0.002, seed=2)
    counts = da.from_array(np.stack([first.counts, second.counts])[None])
    found = correct_pixels(counts, 100.0, 10.0, Corrections())
    for channel, each in enumerate((first, second)):
        masked = np.asarray(found.masked[0, channel, 0])
        np.testing.assert_array_equal(masked, each.truth["hot_pixels"])
