"""Scores of shape and detail: Dice by threshold, centre lines, Fourier shell correlation."""

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from skimage.morphology import skeletonize

from besselflow.metrics import (
    correlate_shells,
    describe_truth,
    is_thin,
    resolutions_um,
    score_centrelines,
    score_volume,
)
from besselflow.metrics.overlap import SWEEP
from besselflow.phantoms import draw_phantom

VOXEL_UM = (1.0, 0.5, 0.5)


def lazy(*stacks):
    return [da.from_array(np.asarray(stack, "float32")[None, None]) for stack in stacks]


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 999), st.floats(0.1, 10))
def test_the_sweep_is_dice_at_each_threshold(seed, noise):
    rng = np.random.default_rng(seed)
    truth = rng.random((5, 16, 16)).astype("float32") ** 3 * 30
    estimate = truth + rng.normal(0, noise, truth.shape).astype("float32")
    every = np.ones(5, bool)
    arrays = lazy(estimate, truth)
    threshold = describe_truth(arrays[1], every).threshold[0]
    scores = score_volume(*arrays, every, 7)
    assert list(scores.sweep["threshold"]) == list(SWEEP)
    for factor, found in scores.sweep.itertuples(index=False):
        a, b = np.clip(estimate, 0, truth.max()) > factor * threshold, truth > factor * threshold
        sizes = a.sum() + b.sum()
        assert found == pytest.approx(2 * (a & b).sum() / sizes if sizes else 1)
    assert scores.summary["dice_best"] == scores.sweep["dice"].max()
    at_one = scores.sweep.set_index("threshold")["dice"][1.0]
    assert scores.summary["dice"] == pytest.approx(at_one)


def tube(radius, stop=60, shape=(24, 24, 64)):
    z, y, x = np.indices(shape)
    inside = (z - 12) ** 2 + (y - 12) ** 2 <= radius**2
    return 10.0 * (inside & (x >= 4) & (x < stop))


def centreline_dice(estimate, truth, threshold=5.0, edge=128):
    block = (edge, edge, edge)
    arrays = lazy(estimate, truth)
    scored = np.ones(len(truth), bool)
    volumes = {"a": arrays[0]}
    return score_centrelines(volumes, arrays[1], scored, np.array([threshold]), block)["a"]


def test_centre_lines_forgive_thickness_and_not_length():
    assert centreline_dice(tube(5), tube(3)) == 1
    # The half that is there is right, and half of the line is followed: 2 * 1 * 0.5 / 1.5.
    assert centreline_dice(tube(3, stop=32), tube(3)) == pytest.approx(2 / 3, abs=0.03)


def test_centre_lines_of_empty_masks():
    nothing = np.zeros((24, 24, 64))
    assert centreline_dice(nothing, nothing) == 1
    assert centreline_dice(nothing, tube(3)) == 0
    assert centreline_dice(tube(3), nothing) == 0
    away = np.roll(tube(2), 8, axis=0)
    assert centreline_dice(away, tube(2)) == 0


def vessels(seed=1, shape=(40, 72, 72)):
    truth = draw_phantom("vessels", shape, seed) * 100
    rng = np.random.default_rng(seed)
    return gaussian_filter(truth, (2, 0.7, 0.7)) + rng.normal(0, 2, shape), truth


@pytest.mark.parametrize("edge", [128, 32, 25])
def test_centre_lines_by_blocks_equal_those_of_the_definition_on_whole_arrays(edge):
    estimate, truth = vessels()
    a, b = estimate.astype("float32") > 10, truth.astype("float32") > 10
    lines_a, lines_b = skeletonize(a) > 0, skeletonize(b) > 0
    precision, sensitivity = (
        (lines_a & b).sum() / lines_a.sum(),
        (lines_b & a).sum() / lines_b.sum(),
    )
    expected = 2 * precision * sensitivity / (precision + sensitivity)
    found = centreline_dice(estimate, truth, 10.0, edge)
    assert found == pytest.approx(expected, abs=1e-12 if edge == 128 else 0.01)


@pytest.mark.parametrize(
    ("kind", "seed", "thin"),
    [
        *((kind, seed, True) for kind in ("vessels", "neuron") for seed in (1, 2, 3)),
        ("cells", 1, False),
        ("cells", 2, False),
    ],
)
def test_vessels_and_neurons_are_thin_and_round_cells_are_not(kind, seed, thin):
    truth = lazy(draw_phantom(kind, (64, 96, 96), seed) * 100)[0]
    scored = np.ones(64, bool)
    assert is_thin(truth, scored, describe_truth(truth, scored).threshold) == thin


def test_an_empty_mask_is_not_thin():
    assert not is_thin(lazy(np.zeros((12, 12, 12)))[0], np.ones(12, bool), np.array([1.0]))


def test_a_large_volume_is_not_read_whole_to_tell_whether_it_is_thin():
    read = []

    def plane_of_lines(block_info=None):
        read.append(block_info[None]["chunk-location"])
        values = np.zeros((1, 1, 4, 128, 128), "float32")
        values[..., 2, ::32, :] = 1
        return values

    chunks = ((1,), (1,), (4,), (128,) * 12, (128,) * 12)
    truth = da.map_blocks(
        plane_of_lines, chunks=chunks, dtype="float32", meta=np.empty(0, "float32")
    )
    assert is_thin(truth, np.ones(4, bool), np.array([0.5]))
    assert len(read) == 64
    assert {place[3] for place in read} == {place[4] for place in read} == set(range(12))


def correlate(estimate, truth, scored=None):
    scored = np.ones(len(truth), bool) if scored is None else scored
    return correlate_shells(*lazy(estimate, truth), scored, VOXEL_UM)


def white(seed, shape=(24, 40, 48)):
    return np.random.default_rng(seed).normal(0, 1, shape)


def direct_correlation(estimate, truth, axis):
    """The definition, on the full transform and shell by shell."""
    taper = 1.0
    for count, place in zip(truth.shape, range(3), strict=True):
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1, count + 1) / (count + 1))
        taper = taper * window.reshape([-1 if place == each else 1 for each in range(3)])
    f, g = (np.fft.fftn(taper * (volume - volume.mean())) for volume in (estimate, truth))
    k = np.meshgrid(
        *(np.fft.fftfreq(n, d) for n, d in zip(truth.shape, VOXEL_UM, strict=True)), indexing="ij"
    )
    length = np.sqrt(k[0] ** 2 + k[1] ** 2 + k[2] ** 2)
    inside = np.abs(k[axis]) >= np.cos(np.pi / 9) * length
    count, size = truth.shape[axis], VOXEL_UM[axis]
    found = []
    for number in range(1, count // 2 + 1):
        shell = inside & (np.rint(length * count * size) == number)
        norm = np.sqrt((np.abs(f[shell]) ** 2).sum() * (np.abs(g[shell]) ** 2).sum())
        found.append((f[shell] * g[shell].conj()).sum().real / norm)
    return found


@pytest.mark.parametrize("shape", [(24, 40, 48), (25, 31, 33)])
def test_shell_correlation_is_that_of_the_full_transform(shape):
    truth = gaussian_filter(white(0, shape), 1)
    estimate = truth + 0.3 * white(1, shape)
    curves = correlate(estimate, truth)
    for axis, name in enumerate("zyx"):
        own = curves[curves["axis"] == name]
        expected = direct_correlation(estimate, truth, axis)
        assert own["correlation"].to_numpy() == pytest.approx(np.array(expected), abs=1e-4)
        count, size = shape[axis], VOXEL_UM[axis]
        assert own["frequency_per_um"].iloc[-1] == pytest.approx(count // 2 / count / size)


@settings(max_examples=8, deadline=None)
@given(st.floats(0.1, 50), st.floats(-100, 100), st.integers(0, 99))
@example(1.5, 86.0, 38)
def test_scale_and_shift_do_not_change_the_shell_correlation(scale, shift, seed):
    truth = white(seed)
    estimate = truth + 0.5 * white(seed + 1000)
    before, after = correlate(estimate, truth), correlate(scale * (estimate + shift), truth)
    # In single precision, a hundred times the signal leaves that much of shells with few voxels.
    assert after["correlation"].to_numpy() == pytest.approx(
        before["correlation"].to_numpy(), abs=5e-3
    )


def test_white_noise_lowers_all_shells_by_the_closed_form():
    truth = white(3, (64, 64, 64))
    curves = correlate(truth + 0.75 * white(4, truth.shape), truth)
    fine = curves[curves["frequency_per_um"] > 0.25]
    assert fine["correlation"].mean() == pytest.approx(1 / np.hypot(1, 0.75), abs=0.01)


def test_perfect_and_unrelated_volumes():
    truth = white(5)
    perfect = correlate(truth, truth)
    assert perfect["correlation"].to_numpy() == pytest.approx(1)
    assert resolutions_um(perfect) == pytest.approx(
        {"resolution_z": 2.0, "resolution_y": 1.0, "resolution_x": 1.0}
    )
    unrelated = correlate(white(6), truth)
    # Shells of low frequency hold few coefficients, which agree by chance.
    fine = unrelated[unrelated["frequency_per_um"] > 0.3]
    assert np.abs(fine["correlation"]).mean() < 0.15
    assert (correlate(np.full(truth.shape, 7.0), truth)["correlation"] == 0).all()
    assert resolutions_um(correlate(np.zeros(truth.shape), truth)) == {}


def test_the_resolution_is_where_the_correlation_falls_below_a_half_for_good():
    frequency = np.arange(1, 8) / 10

    def resolution(*correlation):
        table = {"axis": "z", "frequency_per_um": frequency, "correlation": correlation}
        return resolutions_um(pd.DataFrame(table)).get("resolution_z")

    assert resolution(1, 1, 0.9, 0.6, 0.2, 0.1, 0) == pytest.approx(1 / 0.425)
    assert resolution(1, 1, 0.4, 0.9, 0.6, 0.4, 0) == pytest.approx(1 / 0.55)
    assert resolution(1, 1, 1, 1, 1, 1, 0.3) == pytest.approx(1 / (0.6 + 0.1 * 5 / 7))
    assert resolution(1, 1, 1, 1, 1, 1, 1) == pytest.approx(1 / 0.7)
    assert resolution(0.4, 0.3, 1, 1, 1, 1, 1) is None


def test_detail_that_is_lost_along_z_shows_along_z_only():
    truth = white(7, (64, 48, 48))
    spectrum = np.fft.fft(truth, axis=0)
    spectrum[np.abs(np.fft.fftfreq(64, 1.0)) > 0.25] = 0
    estimate = np.fft.ifft(spectrum, axis=0).real + 1e-3 * white(8, truth.shape)
    found = resolutions_um(correlate(estimate, truth))
    assert found["resolution_z"] == pytest.approx(4.0, rel=0.1)
    assert found["resolution_x"] == found["resolution_y"] == pytest.approx(1.0)


def test_blocks_cover_volumes_that_are_larger_than_one(monkeypatch):
    monkeypatch.setattr("besselflow.metrics.fourier._EDGE", 24)
    truth = white(9, (30, 60, 24))
    estimate = truth + white(10, truth.shape)
    # An error in the last block alone is seen.
    spoilt = estimate.copy()
    spoilt[20:24, 46:52, 8:16] += 50
    before, after = (correlate(each, truth)["correlation"].mean() for each in (estimate, spoilt))
    assert before == pytest.approx(np.sqrt(0.5), abs=0.03)
    assert after < before - 0.1


def test_only_scored_slices_are_correlated_and_thin_axes_are_left_out():
    truth = white(11)
    scored = np.zeros(24, bool)
    scored[4:18] = True
    spoilt = np.where(scored[:, None, None], truth, 1e3)
    assert correlate(spoilt, truth, scored)["correlation"].to_numpy() == pytest.approx(1)
    scored[10:] = False
    assert set(correlate(truth, truth, scored)["axis"]) == {"y", "x"}
