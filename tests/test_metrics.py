"""Scores against closed forms, scikit-image, and the degenerate cases."""

import dask.array as da
import numpy as np
import pytest
from skimage.filters import threshold_otsu
from skimage.metrics import structural_similarity

from besselflow.errors import InputError
from besselflow.metrics import (
    PSNR_CAP_DB,
    describe_truth,
    score_volume,
    scored_slices,
)
from besselflow.projection import AxialGrid

SHAPE = (2, 2, 9, 20, 24)
SCORED = np.array([False, True, True, True, True, True, True, True, False])


def lazy(array, chunks=(1, 1, 4, 16, 16)):
    return da.from_array(array, chunks=chunks)


@pytest.fixture
def truth():
    rng = np.random.default_rng(1)
    blobs = rng.random(SHAPE) ** 4
    blobs[:, 1] *= 7
    return (blobs * 50 - 1).astype("float32")


@pytest.fixture
def estimate(truth):
    rng = np.random.default_rng(2)
    return (truth + rng.normal(0, 4, SHAPE)).astype("float32")


def expected_scores(estimate, truth, window):
    """The definitions, written down once more on whole arrays in memory."""
    psnr, ssim, psnr_3d, dice = [], [], [], []
    for channel in range(SHAPE[1]):
        peak = float(truth[:, channel].max())
        clipped = np.clip(truth[:, channel, SCORED], 0, peak)
        threshold = threshold_otsu(clipped)
        for t in range(SHAPE[0]):
            guess = np.clip(estimate[t, channel, SCORED].astype(float), 0, peak)
            true = clipped[t].astype(float)
            squares = ((guess - true) ** 2).mean(axis=(1, 2))
            psnr += list(10 * np.log10(peak**2 / squares))
            psnr_3d.append(10 * np.log10(peak**2 / squares.mean()))
            ssim += [
                structural_similarity(g, s, win_size=window, data_range=peak)
                for g, s in zip(guess, true, strict=True)
            ]
            a, b = guess > threshold, true > threshold
            dice.append(2 * (a & b).sum() / (a.sum() + b.sum()))
    return {
        "psnr": np.mean(psnr),
        "psnr_3d": np.mean(psnr_3d),
        "ssim": np.mean(ssim),
        "dice": np.mean(dice),
    }


def test_scores_equal_the_definitions_on_whole_arrays(estimate, truth):
    scores = score_volume(lazy(estimate), lazy(truth), SCORED, 7)
    expected = expected_scores(estimate, truth, 7)
    assert {name: scores.summary[name] for name in expected} == pytest.approx(expected, rel=1e-6)
    assert len(scores.slices) == 2 * 2 * 7
    assert sorted(scores.slices["z"].unique()) == list(range(1, 8))


@pytest.mark.parametrize("chunks", [(2, 2, 9, 20, 24), (1, 1, 1, 20, 24), (1, 2, 3, 7, 5)])
def test_scores_do_not_depend_on_chunks_or_block_size(estimate, truth, chunks, monkeypatch):
    std = np.full(SHAPE, 4, "float32")
    expected = score_volume(lazy(estimate), lazy(truth), SCORED, 7, lazy(std))
    monkeypatch.setattr("besselflow.metrics.blocks.BLOCK_VOXELS", 1000)
    arrays = (lazy(array, chunks) for array in (estimate, truth))
    found = score_volume(*arrays, SCORED, 7, lazy(std, chunks))
    assert found.summary == pytest.approx(expected.summary, rel=1e-12)


def test_scores_do_not_change_with_the_unit_of_intensity(estimate, truth):
    expected = score_volume(lazy(estimate), lazy(truth), SCORED, 7).summary
    found = score_volume(lazy(estimate * 8), lazy(truth * 8), SCORED, 7).summary
    assert found.pop("scale") == pytest.approx(expected.pop("scale"), rel=1e-5)
    assert found.pop("offset") == pytest.approx(8 * expected.pop("offset"), rel=1e-5)
    assert found == pytest.approx(expected, rel=1e-5)


def test_a_uniform_error_has_the_closed_form_psnr():
    truth = np.zeros((1, 1, 3, 8, 8), "float32")
    truth[..., ::2] = 10
    found = score_volume(lazy(truth * 0.9), lazy(truth), np.ones(3, bool), 7).summary
    assert found["psnr"] == pytest.approx(10 * np.log10(100 / 0.5), rel=1e-5)
    assert found["psnr_3d"] == pytest.approx(found["psnr"])
    assert found["dice"] == 1


def test_a_perfect_volume_reaches_the_cap(truth):
    found = score_volume(lazy(truth), lazy(truth), SCORED, 7).summary
    for name in ("psnr", "psnr_3d"):
        assert found[name] == found[f"{name}_lower"] == found[f"{name}_upper"] == PSNR_CAP_DB
    for name in ("ssim", "dice", "micro_ssim", "dice_best", "scale"):
        assert found[name] == pytest.approx(1, abs=1e-6)


def test_slices_outside_the_scanned_range_do_not_count(estimate, truth):
    expected = score_volume(lazy(estimate), lazy(truth), SCORED, 7).summary
    spoilt = estimate.copy()
    spoilt[:, :, ~SCORED] = 1e3
    assert score_volume(lazy(spoilt), lazy(truth), SCORED, 7).summary == expected


def test_intensity_outside_the_range_of_the_truth_is_clipped(truth):
    clipped = np.clip(truth, 0, truth.max(axis=(0, 2, 3, 4), keepdims=True))
    wild = np.where(clipped == 0, -100.0, clipped).astype("float32")
    assert score_volume(lazy(wild), lazy(truth), SCORED, 7).summary["psnr"] == PSNR_CAP_DB


def test_constant_slices_are_scored():
    truth = np.zeros((1, 1, 3, 8, 8), "float32")
    truth[0, 0, 1] = 5
    found = score_volume(lazy(truth), lazy(truth), np.ones(3, bool), 7)
    assert found.summary["ssim"] == 1
    assert (found.slices["psnr"] == PSNR_CAP_DB).all()


def test_dice_of_empty_masks_is_one_and_of_one_empty_mask_zero():
    truth = np.zeros((1, 1, 3, 8, 8), "float32")
    truth[0, 0, 0, 0, 0] = 10
    inner = np.array([False, True, True])
    assert score_volume(lazy(truth), lazy(truth), inner, 7).summary["dice"] == 1
    brighter = truth.copy()
    brighter[0, 0, 1, 0, 0] = 5
    assert score_volume(lazy(brighter), lazy(truth), inner, 7).summary["dice"] == 0


def test_coverage_counts_voxels_within_the_interval(truth):
    rng = np.random.default_rng(3)
    sigma = rng.uniform(1, 3, SHAPE)
    estimate = (truth + sigma * rng.normal(size=SHAPE)).astype("float32")
    std = lazy(sigma.astype("float32"))
    found = score_volume(lazy(estimate), lazy(truth), SCORED, 7, std).summary
    assert found["coverage_50"] == pytest.approx(0.5, abs=0.02)
    assert found["coverage_90"] == pytest.approx(0.9, abs=0.02)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_named(estimate, truth, value):
    estimate[1, 0, 4, 5, 6] = value
    with pytest.raises(ValueError, match=r"the volume holds .* at t 1, channel 0, slice 4, row 5"):
        score_volume(lazy(estimate), lazy(truth), SCORED, 7)


def test_wrong_input_is_explained(estimate, truth):
    with pytest.raises(InputError, match="on the grid of the volume"):
        score_volume(lazy(estimate[:, :, 1:]), lazy(truth), SCORED, 7)
    with pytest.raises(InputError, match=r"lower evaluate\.ssim_window"):
        score_volume(lazy(estimate), lazy(truth), SCORED, 21)
    with pytest.raises(InputError, match="no intensity above zero"):
        describe_truth(lazy(truth * 0), SCORED)
    with pytest.raises(InputError, match="no slice of the ground truth"):
        describe_truth(lazy(truth), SCORED & False)


def test_slices_between_the_first_and_last_position_are_scored():
    grid = AxialGrid(-1.0, 0.1, 40)
    scored = scored_slices(grid, np.array([0.3, 2.0, 1.1]))
    assert grid.centres_um[scored][[0, -1]] == pytest.approx([0.3, 2.0])
    assert scored.sum() == 18
