"""Slices are filtered in patches, with the result of filtering them whole."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.filters import threshold_otsu
from skimage.metrics import structural_similarity

from besselflow.metrics import micro_ssim, patches
from besselflow.metrics.affine import slice_moments
from besselflow.metrics.micro_ssim import Scaling, sampled_moments, slice_similarity
from besselflow.metrics.overlap import SWEEP, slice_overlap
from besselflow.metrics.published import slice_published
from besselflow.metrics.scores import slice_square, slice_ssim


@given(st.integers(3, 600), st.integers(3, 1100), st.integers(1, 3))
def test_every_window_lies_in_exactly_one_patch(rows, columns, edge):
    window = 2 * edge + 1
    shape = max(rows, window), max(columns, window)
    found = np.zeros([length - window + 1 for length in shape], int)
    for pixels, windows in patches.iterate_patches(shape, window):
        found[windows] += 1
        for own, inside, length in zip(pixels, windows, shape, strict=True):
            assert own.start == inside.start and own.stop == inside.stop + window - 1 <= length
    assert (found == 1).all()


@pytest.mark.parametrize("edge", [1, 10, 26])
def test_patches_do_not_change_a_score(monkeypatch, edge):
    rng = np.random.default_rng(0)
    true, guess = rng.random((2, 40, 50))
    scaling = Scaling(0.1, 0.2, 0.9, 1.1, 1.0)
    whole, scaled = slice_ssim(guess, true, 7, 1.0), slice_similarity(guess, true, 7, scaling)
    assert whole == pytest.approx(
        structural_similarity(guess, true, win_size=7, data_range=1.0), abs=1e-12
    )
    monkeypatch.setattr(patches, "PATCH_EDGE", edge)
    assert slice_ssim(guess, true, 7, 1.0) == pytest.approx(whole, abs=1e-12)
    assert slice_similarity(guess, true, 7, scaling) == pytest.approx(scaled, abs=1e-12)


@pytest.mark.parametrize("pixels", [1, 130, 10_000])
def test_bands_do_not_change_a_score(monkeypatch, pixels):
    rng = np.random.default_rng(2)
    true, guess = rng.uniform(-0.2, 1.2, (2, 40, 50)).astype(np.float32)
    monkeypatch.setattr(patches, "BAND_PIXELS", pixels)
    one, other = guess.astype(float).clip(0, 1), true.astype(float).clip(0, 1)
    assert slice_square(guess, true, 1.0) == pytest.approx(np.mean((one - other) ** 2))
    counts = slice_overlap(guess, true, 0.4, 1.0)
    for factor in SWEEP:
        masks = one > factor * 0.4, other > factor * 0.4
        assert counts[f"overlap_{factor:g}"] == np.count_nonzero(masks[0] & masks[1])
        assert counts[f"sizes_{factor:g}"] == sum(map(np.count_nonzero, masks))
    moments = slice_moments(guess, true)
    table = np.cov(guess.astype(float).ravel(), true.astype(float).ravel(), ddof=0)
    found = [moments[name] for name in ("guess_guess", "guess_true", "true_true")]
    assert found == pytest.approx([table[0, 0], table[0, 1], table[1, 1]])
    assert (moments["mean_guess"], moments["mean_true"]) == pytest.approx(
        (guess.mean(dtype=float), true.mean(dtype=float))
    )
    published = slice_published(guess, true, (-0.2, 1.2), (-0.2, 1.2))
    stretch = lambda image: (image.astype(float) + 0.2) / 1.4 * 255  # noqa: E731
    stored = np.floor(stretch(guess) + 0.5)
    assert published["published_square"] == pytest.approx(
        np.mean((stored - stretch(true)) ** 2) / 255**2, rel=1e-6
    )
    stored = [image.astype(np.uint8) for image in (stored, stretch(true))]
    masks = [image > threshold_otsu(image) for image in stored]
    assert published["published_sizes"] == sum(map(np.count_nonzero, masks))
    assert published["published_overlap"] == np.count_nonzero(masks[0] & masks[1])


@pytest.mark.parametrize("step", [1, 3, 7])
def test_sampled_moments_are_those_of_their_windows(monkeypatch, step):
    monkeypatch.setattr(micro_ssim, "_VALUES_AT_ONCE", 1000)
    rng = np.random.default_rng(1)
    true, guess = 1e4 + rng.random((2, 20, 33))
    found = sampled_moments(guess, true, 5, step)
    corners = list(np.ndindex(16, 29))[::step]
    windows = [(slice(y, y + 5), slice(x, x + 5)) for y, x in corners]
    tables = [np.cov(true[place].ravel(), guess[place].ravel()) for place in windows]
    np.testing.assert_allclose(found.true, [true[place].mean() for place in windows])
    np.testing.assert_allclose(found.guess, [guess[place].mean() for place in windows])
    for name, place in (("true_true", (0, 0)), ("guess_guess", (1, 1)), ("guess_true", (0, 1))):
        expected = [table[place] for table in tables]
        np.testing.assert_allclose(getattr(found, name), expected, atol=1e-9)
