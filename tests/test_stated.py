"""Sheet and files: what either leaves open comes from the other, what both state must agree."""

import re

import numpy as np
import pytest
import tifffile

from besselflow.sample_sheet import read_sheet
from besselflow.stated import resolve
from lab import POSITIONS, Lab, volume, write_tiff
from vendor_files import scanimage_header, scanimage_pages, write_bruker, write_scanimage

OPEN = {"voxel_size_y_um": "", "voxel_size_x_um": "", "stage_positions": ""}


@pytest.fixture
def lab(tmp_path):
    return Lab(tmp_path)


def write_stated(path, data, positions=POSITIONS, size=(1.0, 0.5, 0.5), **more):
    """Write an OME-TIFF (Z, Y, X) that knows its positions and its voxel size."""
    metadata = {"axes": "ZYX"}
    for axis, value in zip("ZYX", size, strict=True):
        if value is not None:
            metadata[f"PhysicalSize{axis}"] = value
    if positions is not None:
        metadata["Plane"] = {
            "PositionZ": [float(z) for z in positions],
            "PositionZUnit": ["µm"] * len(positions),
        }
    tifffile.imwrite(path, data, ome=True, photometric="minisblack", metadata=metadata | more)


def test_everything_from_the_files(lab):
    write_stated(lab.folder / "a.tif", volume(0, (3, 32, 36)))
    write_stated(lab.folder / "a_truth.tif", volume(1), None)
    write_stated(lab.folder / "t.tif", volume(2), None, (2.0, 0.4, 0.3))
    train = lab.train | OPEN | {"voxel_size_z_um": ""}
    checked = lab.check(lab.test | OPEN | {"voxel_size_z_um": ""}, train)
    assert checked.rejected == {}
    (test,), (train,) = checked.tests, checked.trains
    assert test.voxel_size_um == (1, 0.5, 0.5)
    assert test.positions_um == tuple(POSITIONS)
    assert test.acquisition_files == (lab.folder / "a.tif",)
    assert train.voxel_size_um == (2, 0.4, 0.3) and train.positions_um is None
    # A job that was not told finds the same.
    sheet = read_sheet(lab.folder / "samples.tsv")
    assert [resolve(sample) for sample in sheet.samples] == [test, train]


def test_positions_of_the_sheet_are_taken_where_the_file_states_none(lab):
    (sample,) = lab.check(lab.test).tests
    assert sample.positions_um == tuple(POSITIONS)


@pytest.mark.parametrize("shift", [0, 900.0])
def test_positions_that_differ_by_a_shift_agree(lab, shift):
    # The stage counts from elsewhere than the ground truth.
    write_stated(lab.folder / "a.tif", volume(0, (3, 32, 36)), POSITIONS + shift)
    (sample,) = lab.check(lab.test).tests
    assert sample.positions_um == tuple(POSITIONS)


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        (POSITIONS * 2, ["5, 17, 29 um"]),
        (-POSITIONS, ["-2.5, -8.5, -14.5 um", "opposite directions"]),
        (np.add(POSITIONS, [0, 0.8, 0]), ["2.5, 9.3, 14.5 um"]),
    ],
)
def test_positions_that_disagree_are_both_shown(lab, stated, words):
    write_stated(lab.folder / "a.tif", volume(0, (3, 32, 36)), stated)
    problem = lab.problem()
    assert problem.column == "stage_positions"
    for word in ["2.5, 8.5, 14.5 um", "PositionZ of the planes", *words]:
        assert word in problem.message
    assert "yes into the column overrule" in problem.remedy
    checked = lab.check(lab.test | {"overrule": "yes"})
    assert checked.tests[0].positions_um == tuple(POSITIONS)


@pytest.mark.parametrize(
    ("slices", "shown"),
    [(np.arange(20) + 4.0, "slices from 4 to 23 um"), (-np.arange(20), "slices from 0 to -19 um")],
)
def test_ground_truth_that_counts_from_elsewhere_is_no_silent_shift(lab, slices, shown):
    write_stated(lab.folder / "a.tif", volume(0, (3, 32, 36)))
    write_stated(lab.folder / "a_truth.tif", volume(1), slices)
    row = {"stage_positions": ""}
    problem = lab.problem(**row)
    assert problem.column == "stage_positions"
    assert shown in problem.message and "positions from 2.5 to 14.5 um" in problem.message
    for known in (row | {"overrule": "yes"}, {"stage_positions": "a.csv"}):
        assert lab.check(lab.test | known).rejected == {}
    write_stated(lab.folder / "a_truth.tif", volume(1), np.arange(20))
    assert lab.check(lab.test | row).rejected == {}


def test_noise_of_the_stage_is_no_disagreement(lab):
    write_stated(lab.folder / "a.tif", volume(0, (3, 32, 36)), np.add(POSITIONS, [0.1, -0.1, 0.2]))
    assert lab.check(lab.test).rejected == {}


@pytest.mark.parametrize(
    ("file", "axis", "column"),
    [("a.tif", 1, "voxel_size_y_um"), ("a_truth.tif", 0, "voxel_size_z_um")],
)
def test_voxel_sizes_that_disagree_are_both_shown(lab, file, axis, column):
    size = [1.0, 0.5, 0.5]
    size[axis] *= 1.2
    planes = 3 if file == "a.tif" else 20
    positions = POSITIONS if file == "a.tif" else None
    write_stated(lab.folder / file, volume(7, (planes, 32, 36)), positions, size)
    problem = lab.problem()
    assert (problem.column, problem.value) == (column, f"{size[axis] / 1.2:g}")
    assert f"state {size[axis]:g} um" in problem.message
    assert "overrule" in problem.remedy
    (sample,) = lab.check(lab.test | {"overrule": "yes"}).tests
    assert sample.voxel_size_um == (1, 0.5, 0.5)


def test_files_that_disagree_with_each_other(lab):
    write_stated(lab.folder / "a.tif", volume(0, (3, 32, 36)))
    write_stated(lab.folder / "a_truth.tif", volume(1), None, (1.0, 0.5, 0.6))
    problem = lab.problem(**OPEN)
    assert (problem.column, problem.value) == ("voxel_size_x_um", "")
    assert "state 0.6 um instead of the 0.5 um of the acquisition" in problem.message


@pytest.mark.parametrize(
    ("cells", "column", "message"),
    [
        ({"stage_positions": ""}, "stage_positions", "not known from the file"),
        ({"voxel_size_y_um": ""}, "voxel_size_y_um", "the acquisition and the ground truth state"),
        ({"voxel_size_z_um": ""}, "voxel_size_z_um", "the voxel size is missing, and the ground"),
    ],
)
def test_what_nobody_states_is_asked_for(lab, cells, column, message):
    problem = lab.problem(**cells)
    assert (problem.column, problem.value) == (column, "")
    assert message in problem.message
    assert problem.remedy.startswith("write ")


def test_reason_why_a_file_does_not_tell(lab):
    write_stated(lab.folder / "a.tif", volume(0, (3, 32, 36)), PhysicalSizeXUnit="pixel")
    problem = lab.problem(voxel_size_x_um="", ground_truth="")
    assert 'PhysicalSizeX has the unit "pixel", which is no length' in problem.message


def test_size_that_can_not_be(lab):
    write_stated(lab.folder / "a.tif", volume(0, (3, 32, 36)), size=(None, 0.5, 500.0))
    problem = lab.problem(**OPEN, ground_truth="")
    assert problem.column == "voxel_size_x_um" and "500 um, which can't be" in problem.message


def test_what_is_unknown_of_a_broken_file_is_not_asked_for(lab):
    (lab.folder / "a.tif").write_text("text")
    assert lab.problem(**OPEN, ground_truth="").column == "acquisition"


def test_frames_of_scanimage_by_the_sheet(lab):
    data = volume(0, (2, 1, 3, 32, 36)) // 4
    header = scanimage_header(3, POSITIONS, 1, 2, repeats=3, flyback=1, fov=18)
    write_scanimage(lab.folder / "s.tif", scanimage_pages(data, 3, 1), header, channels=1)
    row = lab.test | OPEN | {"acquisition": "s.tif", "ground_truth": ""}
    (sample,) = lab.check(row).tests
    assert sample.positions_um == tuple(POSITIONS)
    assert sample.voxel_size_um == pytest.approx((1, 18 / 32, 0.5))
    assert lab.check(row | {"frames": "time"}).tests[0].frames == "time"


def test_folder_in_a_path_with_spaces_and_umlauts(lab):
    data = volume(0, (1, 2, 3, 32, 36))
    write_bruker(lab.folder / "Mäuse µ 1" / "T Series-001", data, 0.0, POSITIONS)
    row = lab.test | OPEN | {"acquisition": "Mäuse µ 1/T Series-001", "ground_truth": ""}
    (sample,) = lab.check(row).tests
    assert sample.positions_um == tuple(POSITIONS)
    assert len(sample.acquisition_files) == 7


def test_planes_of_a_folder_are_decoded_before_anything_runs(lab):
    data = volume(0, (1, 1, 3, 32, 36))
    folder = write_bruker(lab.folder / "b", data, 0.0, POSITIONS, pixel_um=(0.5, 0.5))
    next(folder.glob("*_000003.ome.tif")).write_bytes(b"II*\0 broken")
    problem = lab.problem(acquisition="b", ground_truth="")
    assert problem.column == "acquisition"
    assert re.search(r"_000003\.ome\.tif: page 0 can't be decoded \(", problem.message)


def test_published_arrays_need_the_sheet(lab):
    np.save(lab.folder / "a.npy", np.moveaxis(volume(0, (3, 32, 36)), 0, -1))
    np.save(lab.folder / "a_truth.npy", np.moveaxis(volume(1), 0, -1))
    row = {"acquisition": "a.npy", "ground_truth": "a_truth.npy"}
    assert lab.check(lab.test | row).rejected == {}
    columns = [problem.column for problem in lab.check(lab.test | row | OPEN).rejected["a"]]
    assert columns == ["stage_positions", "voxel_size_y_um", "voxel_size_x_um"]


def test_copy_in_another_format_is_found(lab):
    np.save(lab.folder / "t.npy", np.moveaxis(volume(1), 0, -1))
    assert set(lab.check(lab.test, lab.train | {"ground_truth": "t.npy"}).rejected) == {"t"}


def test_plain_stacks_still_pass(lab):
    write_tiff(lab.folder / "a.tif", volume(0, (3, 32, 36)))
    assert lab.check(lab.test, lab.train).rejected == {}
