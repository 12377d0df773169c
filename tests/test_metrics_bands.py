"""Slices are filtered in bands of rows, with the result of filtering them whole."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import structural_similarity

from besselflow.metrics import bands
from besselflow.metrics.micro_ssim import local_moments
from besselflow.metrics.scores import slice_ssim


@given(st.integers(3, 300), st.integers(1, 5000), st.integers(1, 3))
def test_every_window_lies_in_exactly_one_band(rows, columns, edge):
    window = 2 * edge + 1
    rows = max(rows, window)
    found = []
    for band in bands.iterate_bands(rows, columns, window):
        assert 0 <= band.start and band.stop <= rows
        found += range(band.start, band.stop - window + 1)
    assert found == list(range(rows - window + 1))


@pytest.mark.parametrize("pixels", [1, 100, 700])
def test_bands_do_not_change_a_score(monkeypatch, pixels):
    rng = np.random.default_rng(0)
    true, guess = rng.random((2, 40, 50))
    whole, moments = slice_ssim(guess, true, 7, 1.0), local_moments(guess, true, 7)
    assert whole == pytest.approx(
        structural_similarity(guess, true, win_size=7, data_range=1.0), abs=1e-12
    )
    monkeypatch.setattr(bands, "BAND_PIXELS", pixels)
    assert slice_ssim(guess, true, 7, 1.0) == pytest.approx(whole, abs=1e-12)
    for name, values in vars(local_moments(guess, true, 7)).items():
        np.testing.assert_allclose(values, getattr(moments, name), atol=1e-12)
