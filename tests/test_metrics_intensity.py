"""Scores that forgive scale and background, and those of the published evaluation."""

import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity

from besselflow.metrics import PSNR_CAP_DB, score_volume

ALL = np.ones(6, bool)
AFFINE = ("psnr_affine", "micro_ssim")


def stacks(seed=0, noise=2.0):
    rng = np.random.default_rng(seed)
    truth = gaussian_filter((rng.random((6, 26, 30)) > 0.98) * 900.0, (1, 1.5, 1.5)) + 3
    return truth + rng.normal(0, noise, truth.shape), truth


def score(estimate, truth, window=7):
    arrays = (
        da.from_array(stack[None, None], chunks=(1, 1, 3, 26, 30)) for stack in (estimate, truth)
    )
    return score_volume(*arrays, ALL, window).summary


def test_affine_psnr_scale_and_offset_are_those_of_least_squares():
    estimate, truth = stacks()
    estimate = 0.3 * estimate + 40
    found = score(estimate, truth)
    scale, offset = np.polyfit(estimate.ravel(), truth.ravel(), 1)
    assert (found["scale"], found["offset"]) == pytest.approx((scale, offset), rel=1e-6)
    squares = ((scale * estimate + offset - truth) ** 2).mean(axis=(1, 2))
    expected = np.mean(10 * np.log10(truth.max() ** 2 / squares))
    assert found["psnr_affine"] == pytest.approx(expected, rel=1e-6)
    assert found["psnr_affine"] > found["psnr"] + 10


@settings(max_examples=15, deadline=None)
@given(st.floats(0.01, 100), st.floats(-1000, 1000), st.integers(0, 99))
def test_scale_and_background_change_no_affine_score(scale, offset, seed):
    estimate, truth = stacks(seed)
    before, after = score(estimate, truth), score(scale * estimate + offset, truth)
    for name in AFFINE:
        assert after[name] == pytest.approx(before[name], rel=1e-3)
    assert after["scale"] * scale == pytest.approx(before["scale"], rel=1e-5)


def test_a_scaled_and_shifted_truth_is_perfect_to_affine_scores():
    truth = stacks()[1]
    found = score(0.25 * truth + 17, truth)
    assert found["psnr_affine"] == pytest.approx(PSNR_CAP_DB)
    assert (found["scale"], found["offset"]) == pytest.approx((4, -68))
    assert found["micro_ssim"] == pytest.approx(1, abs=1e-6)
    assert found["psnr"] < 40


@pytest.mark.parametrize("level", [0.0, 1e4])
def test_a_constant_estimate_has_scale_zero_and_the_error_of_the_mean(level):
    truth = stacks()[1]
    found = score(np.full(truth.shape, level), truth)
    assert found["scale"] == 0 and found["offset"] == pytest.approx(truth.mean())
    squares = ((truth - truth.mean()) ** 2).mean(axis=(1, 2))
    expected = np.mean(10 * np.log10(truth.max() ** 2 / squares))
    assert found["psnr_affine"] == pytest.approx(expected)
    assert 0 <= found["micro_ssim"] < 0.9


def test_a_constant_truth_leaves_micro_ssim_out():
    truth = np.full((6, 26, 30), 5.0)
    found = score(stacks()[0], truth)
    assert "micro_ssim" not in found
    assert all(np.isfinite(list(found.values())))


def similarity_at(alpha, estimate, truth, window=7):
    """MicroSSIM as the paper defines it, on whole arrays and with scikit-image's SSIM."""
    background = np.percentile(truth, 3)
    peak = truth.max() - background
    true = (truth - background) / peak
    guess = alpha * (estimate - np.percentile(estimate, 3)) / peak
    span = float(true.max() - true.min())
    return np.mean(
        [
            structural_similarity(a, b, win_size=window, data_range=span)
            for a, b in zip(true, guess, strict=True)
        ]
    )


@pytest.mark.parametrize("window", [3, 7])
def test_micro_ssim_is_the_best_similarity_over_all_factors(window):
    estimate, truth = stacks(noise=6.0)
    estimate = 5 * estimate + 100
    factors = np.exp(np.linspace(np.log(0.02), np.log(2), 400))
    brute = max(similarity_at(alpha, estimate, truth, window) for alpha in factors)
    found = score(estimate, truth, window)["micro_ssim"]
    assert found == pytest.approx(brute, abs=2e-5)
    assert found >= brute - 1e-9
    assert found > similarity_at(1.0, estimate, truth, window) + 0.01


def otsu(image):
    """Otsu's threshold of an 8-bit image, by trying every one."""
    best, chosen = -1.0, 0
    for level in range(255):
        low, high = image[image <= level], image[image > level]
        if low.size and high.size:
            between = low.size * high.size * (low.mean() - high.mean()) ** 2
            if between > best:
                best, chosen = between, level
    return chosen


def published(estimate, truth):
    """The released evaluation, written down once more on whole arrays."""

    def stretch(volume):
        return 255 * (volume - volume.min()) / (volume.max() - volume.min())

    stored = np.floor(stretch(estimate) + 0.5).astype(np.uint8)
    exact = stretch(truth)
    squares = ((stored - exact) ** 2).mean(axis=(1, 2))
    masks = [
        np.array([image > otsu(image) for image in volume])
        for volume in (stored, exact.astype(np.uint8))
    ]
    overlap, sizes = (masks[0] & masks[1]).sum(), masks[0].sum() + masks[1].sum()
    return np.mean(20 * np.log10(255 / np.sqrt(squares))), 2 * overlap / sizes


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 999), st.floats(0.5, 20))
def test_published_scores_are_those_of_the_released_code(seed, noise):
    estimate, truth = stacks(seed, noise)
    found = score(estimate, truth)
    expected = published(estimate, truth)
    assert (found["published_psnr"], found["published_dice"]) == pytest.approx(expected, rel=1e-6)


def test_published_scores_of_constant_volumes_are_finite():
    truth = stacks()[1]
    found = score(np.zeros_like(truth), truth)
    assert found["published_dice"] == 0 and 0 < found["published_psnr"] < 40
    both = score(np.zeros_like(truth), np.full_like(truth, 2.0))
    assert both["published_dice"] == 1 and both["published_psnr"] == PSNR_CAP_DB
