"""Preprocessing on its own: the lateral kernel that it samples and the grid that it chooses."""

import logging

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

import preprocess
from besselflow.beam import read_lateral_psf
from besselflow.errors import InputError
from besselflow.slice_spacing import SLICES_PER_STEP, default_spacing_um, with_spacing
from besselflow.store import open_projections
from vendor_files import counts, scanimage_header, scanimage_pages, write_scanimage

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


@pytest.mark.parametrize(
    ("voxel_size_um", "spacing"),
    # Steps of 6 um support slices of 0.75 um.
    [((None, 0.5, 0.4), 0.75), ((None, 1.0, 1.2), 1.1), ((0.3, 0.5, 0.4), 0.3)],
)
def test_default_slices(acquisition, caplog, voxel_size_um, spacing):
    caplog.set_level(logging.INFO)
    stored = run(acquisition, voxel_size_um)
    assert stored.voxel_size_um == (spacing, *voxel_size_um[1:])
    by_default = voxel_size_um[0] is None
    assert stored.attributes["spacing_by_default"] is by_default
    assert (f"slices of {spacing:g} um, by default" in caplog.text) is by_default
    matrix = stored.operator.matrix
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-5)
    assert stored.operator.seen.all()


def test_slices_that_no_projection_sees_are_known(acquisition, caplog):
    stored = run(acquisition, (None, 0.5, 0.4), beam="box:3um")
    dark = ~stored.operator.seen
    centres = stored.grid.centres_um
    distance = np.abs(centres[:, None] - np.array(POSITIONS)).min(axis=1)
    np.testing.assert_array_equal(dark, distance >= 1.5 + 0.75 / 2)
    assert dark.any() and f"{dark.sum()} of {len(centres)} slices are seen by no" in caplog.text


@given(
    st.lists(st.floats(0.1, 30), min_size=1, max_size=8),
    st.floats(0.05, 3),
    st.floats(0.05, 3),
    st.randoms(use_true_random=False),
)
def test_default_spacing_is_between_its_bounds(steps, y, x, random):
    positions = np.cumsum([0.0, *steps])
    spacing = default_spacing_um(positions, (y, x))
    finest = np.median(steps) / SLICES_PER_STEP
    assert spacing == pytest.approx(max((y + x) / 2, finest), rel=1e-3)
    shuffled = list(positions)
    random.shuffle(shuffled)
    assert default_spacing_um(np.array(shuffled), (y, x)) == spacing
    assert with_spacing((0.7, y, x), positions) == (0.7, y, x)
    assert with_spacing((None, y, x), positions) == (spacing, y, x)


@pytest.mark.parametrize(("frames", "times"), [("average", 2), ("time", 6)])
def test_positions_and_frames_of_the_acquisition(tmp_path, caplog, frames, times):
    caplog.set_level(logging.INFO)
    data = counts((2, 2, 3, 20, 24))
    header = scanimage_header(3, [14.5, 8.5, 2.5], 2, 2, repeats=3, flyback=1)
    write_scanimage(tmp_path / "a_00001.tif", scanimage_pages(data, 3, 1), header)
    preprocess.main(
        tmp_path / "a_00001.tif",
        None,
        None,
        "box:6um",
        (1.0, 0.5, 0.4),
        None,
        None,
        "a",
        tmp_path / "p.zarr",
        frames=frames,
    )
    stored = open_projections(tmp_path / "p.zarr")
    assert stored.data.shape == (times, 2, 3, 20, 24)
    assert stored.positions_um.tolist() == [2.5, 8.5, 14.5]
    first = stored.data[0].compute()
    np.testing.assert_allclose(first, data[0, :, ::-1] + (1.0 if frames == "average" else 0.0))
    known = stored.attributes["acquisition"]
    assert known["format"] == "ScanImage BigTIFF" and known["date"] == "2026-11-25T14:03:22.500000"
    assert known["channels"] == ["Channel 1", "Channel 2"]
    assert known["read from"]["stage positions"] == "SI.hStackManager.zs"
    assert "stage positions: SI.hStackManager.zs" in caplog.text


def test_positions_that_disagree_are_refused_unless_overruled(tmp_path):
    header = scanimage_header(3, [0, 5, 10], 1, 1)
    data = counts((1, 1, 3, 20, 24))
    write_scanimage(tmp_path / "a.tif", scanimage_pages(data), header, channels=1)
    (tmp_path / "a.csv").write_text("projection,z_um\n0,2.5\n1,8.5\n2,14.5\n")
    with pytest.raises(InputError, match=r"2\.5, 8\.5, 14\.5 um, .* at 0, 5, 10 um"):
        run(tmp_path)
    assert run(tmp_path, overrule=True).positions_um.tolist() == list(POSITIONS)
