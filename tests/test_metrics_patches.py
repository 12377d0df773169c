"""Slices are filtered in patches, with the result of filtering them whole."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import structural_similarity

from besselflow.metrics import patches
from besselflow.metrics.micro_ssim import local_moments
from besselflow.metrics.scores import slice_ssim


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
    whole, moments = slice_ssim(guess, true, 7, 1.0), local_moments(guess, true, 7)
    assert whole == pytest.approx(
        structural_similarity(guess, true, win_size=7, data_range=1.0), abs=1e-12
    )
    monkeypatch.setattr(patches, "PATCH_EDGE", edge)
    assert slice_ssim(guess, true, 7, 1.0) == pytest.approx(whole, abs=1e-12)
    for name, values in vars(local_moments(guess, true, 7)).items():
        np.testing.assert_allclose(values, getattr(moments, name), atol=1e-12)
