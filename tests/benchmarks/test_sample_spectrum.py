"""Checks the rings of spatial frequency on volumes of known power."""

import numpy as np
import pytest
import sample_spectrum
from sample_spectrum import RINGS, decibels, ring_power

SHAPE = (32, 40, 36)


def wave(cycles_per_voxel):
    z, _, x = np.meshgrid(*map(np.arange, SHAPE), indexing="ij")
    return np.cos(2 * np.pi * cycles_per_voxel * (0.6 * z + 0.8 * x))


@pytest.mark.parametrize("frequency", [0.075, 0.225, 0.425])
def test_a_wave_lies_in_its_ring(frequency):
    power = ring_power(wave(frequency))
    ring = np.digitize(frequency, RINGS) - 1
    # A Hann window spreads a wave over two bins of 1/32 on either side.
    assert power[max(ring - 2, 0) : ring + 3].sum() > 0.99 * power.sum()
    assert np.argmax(power) in (ring - 1, ring, ring + 1)


def test_twice_the_amplitude_is_6_db_more_in_every_ring():
    noise = np.random.default_rng(0).normal(size=SHAPE)
    np.testing.assert_allclose(decibels(2 * noise + 5, noise), 6.0206, atol=1e-3)


def test_smoothing_takes_power_off_the_outer_rings_only():
    rng = np.random.default_rng(1)
    coarse, fine = wave(0.04), rng.normal(size=SHAPE)
    found = decibels(10 * coarse + 0.5 * fine, 10 * coarse + fine)
    assert abs(found[0]) < 0.2
    np.testing.assert_allclose(found[4:], -6.02, atol=0.1)


def test_the_text_says_how_far_a_sample_is_alike():
    values = np.zeros(10)
    values[6] = -1.5
    text = sample_spectrum.format_spectra("a", {"sample": values, "inr": values - 3})
    assert "within 1 dB up to 0.30 cycles per voxel" in text
    alike = sample_spectrum.format_spectra("a", {"sample": np.zeros(10)})
    assert "up to 0.50 cycles per voxel" in alike


def test_missing_results_are_said(tmp_path, capsys):
    assert sample_spectrum.main(tmp_path) == 1
    assert "run make bench first" in capsys.readouterr().out
