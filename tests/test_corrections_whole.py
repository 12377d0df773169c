"""Corrections of whole projections: displacements and gains, from what all the others predict."""

from dataclasses import replace

import dask.array as da
import numpy as np
import pytest

from besselflow.baselines.spectral import fit_spectral_model
from besselflow.beam import box_profile
from besselflow.config import Corrections
from besselflow.corrections.brightness import estimate_loss
from besselflow.corrections.likelihood import RegionModes
from besselflow.corrections.motion import estimate_motion
from besselflow.corrections.shrinkage import believe
from besselflow.corrections.whole import apply, correct_whole
from besselflow.phantoms import draw_phantom
from besselflow.projection import AxialGrid
from besselflow.simulate import Detector, Disturbance, simulate_acquisition, stage_positions
from besselflow.store import Projections

SHAPE = (48, 64, 64)
VOXEL = (1.0, 1.0, 1.0)
BEAM = box_profile(6.0)


def acquire(step=3.0, kind="vessels", seed=0, **disturbance):
    volume = draw_phantom(kind, SHAPE, 4, VOXEL)
    positions = stage_positions(SHAPE[0], 1.0, BEAM, step)
    return simulate_acquisition(
        volume, BEAM, positions, VOXEL, Detector(), Disturbance(**disturbance), seed
    )


def projections(*acquisitions, masked=None):
    data = np.stack([(each.counts.astype(np.float32) - 100) / 10 for each in acquisitions])
    return Projections(
        data=da.from_array(data[:, None]),
        positions_um=acquisitions[0].positions_um,
        profile=BEAM,
        grid=AxialGrid(0.0, 1.0, SHAPE[0]),
        pixel_size_um=VOXEL[1:],
        unit="photons",
        masked=masked,
    )


def correct(measured, **settings):
    count = len(measured.positions_um)
    found = correct_whole(measured, np.arange(count), Corrections(**settings))
    return found, found.attributes["corrections"]


def modes_of(measured):
    region = np.asarray(measured.data[0, 0])
    model = fit_spectral_model([region], measured.operator, VOXEL)
    return RegionModes.of(region, measured.operator, model, VOXEL)


def test_slopes_of_the_likelihood_are_its_differences():
    modes = modes_of(projections(acquire()))
    count = len(modes.modes)
    rng = np.random.default_rng(0)
    pixels, gains = 0.3 * rng.normal(size=(count, 2)), 0.1 * rng.normal(size=count)
    step = 1e-4
    for blur in (0.0, 1.5):
        _, gradient, hessian = modes.by_displacement(pixels, blur)
        for p, axis in ((0, 0), (3, 1), (count - 1, 0)):
            change = np.zeros_like(pixels)
            change[p, axis] = step
            up, down = (modes.by_displacement(pixels + s * change, blur) for s in (1, -1))
            difference = (up[0] - down[0]) / (2 * step)
            assert gradient[p, axis] == pytest.approx(difference, rel=1e-4, abs=1e-2)
            slope = (up[1] - down[1]) / (2 * step)
            np.testing.assert_allclose(hessian[:, p, :, axis], slope, rtol=1e-3, atol=1e-1)
    _, gradient, hessian = modes.by_gain(gains)
    change = step * np.eye(count)[2]
    up, down = modes.by_gain(gains + change), modes.by_gain(gains - change)
    assert gradient[2] == pytest.approx((up[0] - down[0]) / (2 * step), rel=1e-4)
    np.testing.assert_allclose(hessian[2], (up[1] - down[1]) / (2 * step), rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("kind", ["vessels", "neuron", "cells"])
@pytest.mark.parametrize("step", [3.0, 6.0])
def test_nothing_is_corrected_where_nothing_is_wrong(kind, step):
    measured = projections(acquire(step, kind))
    found, record = correct(measured)
    assert not any(each["applied"] for each in record.values())
    np.testing.assert_array_equal(np.asarray(found.data), np.asarray(measured.data))
    assert found.masked is None and not found.pictures


def test_jitter_of_a_pixel_is_found_to_a_fifth():
    acquisition = acquire(jitter_um=1.0)
    found, record = correct(projections(acquisition))
    assert record["drift"]["applied"]
    left = acquisition.truth["drift_um"] - np.array(record["drift"]["pixels"])
    # From one projection to the next; a parabola in depth could be the sample's own.
    assert np.diff(left, 2, axis=0).std() / np.sqrt(6) < 0.2
    plain = np.asarray(projections(acquire()).data)
    inner = (slice(None), slice(None), slice(None), slice(8, -8), slice(8, -8))
    before = np.asarray(projections(acquisition).data)[inner] - plain[inner]
    after = np.asarray(found.data)[inner] - plain[inner]
    assert (after**2).mean() < 0.5 * (before**2).mean()
    # What came in from beyond the edges is no measurement.
    masked = np.asarray(found.masked[0, 0])
    assert masked.any() and not masked[:, 8:-8, 8:-8].any()
    assert found.pictures["drift"].shape == (2, len(found.positions_um), SHAPE[2])


def test_displacements_without_an_overlap_are_left_alone():
    _, record = correct(projections(acquire(6.0, jitter_um=1.0)))
    assert not record["drift"]["applied"] and "overlap by 0%" in record["drift"]["why_not"]


def test_a_fluctuating_laser_is_steadied():
    acquisition = acquire(kind="cells", laser=0.15)
    found, record = correct(projections(acquisition))
    assert record["laser"]["applied"]
    truth = np.log(acquisition.truth["brightness"])
    rough = lambda series: np.diff(series, 2).std() / np.sqrt(6)  # noqa: E731
    assert rough(np.log(record["laser"]["gains"]) - truth) < 0.6 * rough(truth)
    # The noise of the acquisition apart.
    plain, gain = acquire(kind="cells").photons, np.array(record["laser"]["gains"])[:, None, None]
    before, after = acquisition.photons - plain, acquisition.photons / gain - plain
    assert (after**2).mean() < 0.6 * (before**2).mean()
    expected = np.asarray(projections(acquisition).data[0, 0]) / gain
    np.testing.assert_allclose(np.asarray(found.data[0, 0]), expected, rtol=1e-5)


def test_a_single_stack_does_not_say_what_bleached():
    _, record = correct(projections(acquire(bleaching=0.4)))
    assert not record["bleaching"]["applied"]
    assert "single stack" in record["bleaching"]["why_not"]


def test_a_given_loss_is_restored():
    acquisition = acquire(bleaching=0.4)
    found, record = correct(projections(acquisition), bleaching=0.4, laser="none", drift="none")
    assert record["bleaching"]["given"]
    expected = np.asarray(projections(acquisition).data[0, 0])
    expected /= acquisition.truth["brightness"][:, None, None]
    np.testing.assert_allclose(np.asarray(found.data[0, 0]), expected, rtol=1e-5)


def series(loss_per_stack, motion, times=4):
    """Repeat an acquisition that fades and moves, with fresh noise at all times."""
    volume = draw_phantom("vessels", SHAPE, 4, VOXEL)
    positions = stage_positions(SHAPE[0], 1.0, BEAM, 3.0)
    count = len(positions)
    acquisitions, gains = [], []
    for t in range(times):
        moved = np.roll(volume, tuple(int(m) for m in motion[t]), axis=(1, 2))
        clean = simulate_acquisition(moved, BEAM, positions, VOXEL, Detector(), seed=t)
        gain = np.exp(-loss_per_stack * (t + np.arange(count) / count))
        counts = Detector().expose(clean.photons * gain[:, None, None], np.random.default_rng(t))
        acquisitions.append(replace(clean, counts=counts))
        gains.append(gain)
    return projections(*acquisitions), np.array(gains)


def test_a_time_series_says_what_bleached_and_moved():
    motion = np.array([[0, 0], [2, -1], [3, 1], [-1, 4]])
    measured, gains = series(0.15, motion)
    found, record = correct(measured, laser="none", drift="none")
    assert record["motion"]["applied"] and record["bleaching"]["applied"]
    np.testing.assert_allclose(record["motion"]["pixels"], motion, atol=0.15)
    assert record["bleaching"]["share"] == pytest.approx(1 - gains[-1, -1], abs=0.03)
    plain = np.asarray(projections(acquire()).data[0, 0])
    inner = (slice(None), slice(8, -8), slice(8, -8))
    last = np.asarray(found.data[-1, 0])[inner]
    unchanged = np.asarray(measured.data[-1, 0])[inner]
    assert ((last - plain[inner]) ** 2).mean() < 0.3 * ((unchanged - plain[inner]) ** 2).mean()
    assert set(found.pictures) == {"motion", "bleaching"}


def test_a_steady_series_is_left_alone():
    measured, _ = series(0.0, np.zeros((4, 2)))
    found, record = correct(measured)
    assert not any(each["applied"] for each in record.values())
    np.testing.assert_array_equal(np.asarray(found.data), np.asarray(measured.data))


def test_motion_between_the_pixels():
    rng = np.random.default_rng(0)
    frequency = np.fft.fftfreq(64)
    low = np.exp(-((frequency[:, None] ** 2 + frequency**2) * 200))
    picture = np.fft.fft2(rng.normal(size=(3, 64, 64))) * low
    turn = np.exp(-2j * np.pi * (1.3 * frequency[:, None] - 0.45 * frequency))
    stacks = np.stack([np.fft.ifft2(picture).real, np.fft.ifft2(picture * turn).real])
    np.testing.assert_allclose(estimate_motion(stacks)[1], [1.3, -0.45], atol=0.1)


def test_activity_is_no_bleaching():
    rng = np.random.default_rng(1)
    image = rng.random((2, 40, 40)) * 100
    gains = np.array([1.0, 1.3, 0.9, 1.2, 0.8, 1.1])
    stacks = rng.poisson(image * gains[:, None, None, None]).astype(float)
    assert not estimate_loss(stacks).is_certain
    assert estimate_loss(stacks[:2]) is None


def test_nothing_is_believed_of_pure_error():
    rng = np.random.default_rng(0)
    ignored, priors = np.ones((30, 1)), {"independent": np.eye(30)}
    error = np.diag(rng.uniform(0.5, 2, 30))
    draw = np.sqrt(np.diag(error)) * rng.normal(size=(2, 30))
    found = believe(draw, [error, error], ignored, priors)
    assert not found.is_certain and not found.values.any()
    truth = 5 * rng.normal(size=(2, 30))
    found = believe(draw + truth, [error, error], ignored, priors)
    assert found.is_certain
    centred = truth - truth.mean(axis=1, keepdims=True)
    assert np.sqrt(np.mean((found.values - centred) ** 2)) < 1.3
    assert found.errors.mean() == pytest.approx(1.0, abs=0.3)


def test_masks_move_with_their_pixels():
    mask = np.zeros((1, 1, 15, *SHAPE[1:]), bool)
    mask[0, 0, :, 20, 30] = True
    measured = projections(acquire(), masked=da.from_array(mask))
    displacement = np.zeros((1, 15, 2))
    displacement[0, 4] = 2, -3
    found = apply(measured, np.zeros((1, 15)), displacement)
    moved = np.asarray(found.masked[0, 0])
    assert moved[4, 18, 33] and not moved[4, 20, 30] and moved[3, 20, 30]
    # Rows and columns that came in from beyond the edges.
    assert moved[4, -1].all() and moved[4, :, 0].all() and not moved[3, -1].any()
