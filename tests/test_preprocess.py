"""Preprocessing on its own: the lateral kernel that it samples and the grid that it chooses."""

import logging

import numpy as np
import pytest
import tifffile

import preprocess
from besselflow.beam import read_lateral_psf
from besselflow.store import open_projections

BESSEL = "bessel:NA=0.40-0.60,wavelength=0.94um"
POSITIONS = (2.5, 8.5, 14.5)


@pytest.fixture
def acquisition(tmp_path):
    counts = np.random.default_rng(0).integers(100, 900, (3, 20, 24)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", counts, photometric="minisblack", metadata={"axes": "ZYX"})
    rows = [f"{i},{z:g}" for i, z in enumerate(POSITIONS)]
    (tmp_path / "a.csv").write_text("\n".join(["projection,z_um", *rows]))
    return tmp_path


def run(folder, voxel_size_um=(1.0, 0.5, 0.4), beam="box:6um", **options):
    preprocess.main(
        folder / "a.tif",
        folder / "a.csv",
        None,
        beam,
        voxel_size_um,
        100.0,
        2.0,
        "a",
        folder / "p.zarr",
        **options,
    )
    return open_projections(folder / "p.zarr")


def test_lateral_kernel_is_stored(acquisition, caplog):
    caplog.set_level(logging.INFO)
    stored = run(acquisition, beam=BESSEL, lateral_psf="beam", halo=9)
    expected = read_lateral_psf(BESSEL, None, (0.5, 0.4), 9)
    np.testing.assert_array_equal(stored.lateral_kernel, expected.kernel)
    assert stored.attributes["lateral_psf"] == {"source": BESSEL, "outside": expected.outside}
    assert "lateral blur of" in caplog.text and "are not accounted for" not in caplog.text


def test_light_beyond_the_halo_is_warned_about(acquisition, caplog):
    stored = run(acquisition, lateral_psf="gaussian:10um", halo=9)
    assert stored.lateral_kernel.shape == (19, 19)
    assert "more than 9 pixels" in caplog.text and "larger tiling.halo" in caplog.text


def test_without_a_lateral_blur_there_is_no_kernel(acquisition):
    stored = run(acquisition)
    assert stored.lateral_kernel is None
    assert "lateral_psf" not in stored.attributes
