"""Point scans of a known volume: how much light each slice gets, and what denoising leaves."""

import numpy as np
import pytest

from besselflow.phantoms import draw_phantom
from besselflow.point_scan import POINT_SCANS, READ_NOISE_PHOTONS, scan_points
from besselflow.projection import AxialGrid

VOXEL = (1.0, 1.0, 1.0)
SHAPE = (24, 32, 28)
POSITIONS = np.arange(2.5, 24, 6.0)
GRID = AxialGrid(0.0, 1.0, SHAPE[0])


@pytest.fixture(scope="module")
def truth():
    return (200 * draw_phantom("vessels", SHAPE, 3, VOXEL)).astype(np.float32)


@pytest.fixture(scope="module")
def scans(truth):
    return scan_points(truth, POSITIONS, GRID, VOXEL, 0)


def test_every_way_to_scan_gives_a_volume(scans, truth):
    assert list(scans) == list(POINT_SCANS)
    for scan in scans.values():
        assert scan.shape == truth.shape and np.isfinite(scan).all()


@pytest.mark.parametrize("level", [0.0, 3.0, 90.0])
def test_the_exposure_of_a_slice_is_its_share_of_the_time(level):
    """Of 4 projections in place of 24 slices: a sixth of the photons, and the noise of so many."""
    raw = scan_points(np.full(SHAPE, level), POSITIONS, GRID, VOXEL, 0)["point-scan"]
    share = len(POSITIONS) / SHAPE[0]
    assert raw.mean() == pytest.approx(level, abs=0.15)
    expected = (share * level + READ_NOISE_PHOTONS**2) / share**2
    assert raw.var() == pytest.approx(expected, rel=0.05)


def test_thin_slices_are_exposed_fully_and_interpolated(truth):
    flat = np.broadcast_to(np.arange(SHAPE[0], dtype=float)[:, None, None] * 10, SHAPE)
    thin = scan_points(flat, POSITIONS, GRID, VOXEL, 0)["thin-slices"]
    # Linear between the slices at 2, 8, 14 and 20 (rounded half to even), constant beyond.
    means = thin.mean(axis=(1, 2))
    np.testing.assert_allclose(means[2:21], 10 * np.arange(2, 21), rtol=0.02)
    np.testing.assert_allclose(means[:2], means[2], rtol=1e-6)
    assert thin[8].var() == pytest.approx(80 + READ_NOISE_PHOTONS**2, rel=0.15)


def test_denoising_lowers_the_error(scans, truth):
    error = {name: float(np.mean((scan - truth) ** 2)) for name, scan in scans.items()}
    assert error["point-scan-denoised"] < 0.4 * error["point-scan"]
    assert scans["point-scan-denoised"].min() >= 0 > scans["point-scan"].min()


def test_scans_are_determined_by_the_seed(scans, truth):
    again, other = (scan_points(truth, POSITIONS, GRID, VOXEL, seed) for seed in (0, 1))
    for name, scan in scans.items():
        np.testing.assert_array_equal(again[name], scan)
        assert not np.array_equal(other[name], scan)


def test_more_exposures_than_slices_are_no_more_than_all_of_them():
    positions = np.linspace(0, 23, 60)
    found = scan_points(np.full(SHAPE, 50.0), positions, GRID, VOXEL, 0)
    assert found["point-scan"].var() == pytest.approx(50 + READ_NOISE_PHOTONS**2, rel=0.05)
    assert found["thin-slices"].shape == SHAPE
