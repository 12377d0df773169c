"""Checks of the samples' files: each broken file is named, and excludes its own sample only."""

import os
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
import tifffile

from besselflow.checks import check_samples, describe_rejections
from besselflow.sample_sheet import read_sheet
from lab import POSITIONS, Lab, Z, volume, without_privileges, write_tiff


@pytest.fixture
def lab(tmp_path):
    return Lab(tmp_path)


def test_good_samples_pass(lab):
    checked = lab.check(lab.test, lab.train)
    assert checked.rejected == {}
    assert [sample.name for sample in checked.tests] == ["a"]
    assert [sample.name for sample in checked.trains] == ["t"]
    assert describe_rejections(checked) == (
        "2 of 2 samples pass the checks: 1 to reconstruct, 1 to train on"
    )


def test_ground_truth_is_optional(lab):
    assert len(lab.check(lab.test | {"ground_truth": ""}).tests) == 1


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (truncate, "truncated"),
        (lambda path: path.write_text("not an image"), "not a readable TIFF"),
        (lambda path: path.write_bytes(b""), "0 bytes"),
        (lambda path: tifffile.imwrite(path, np.ones((3, 32, 36, 3), np.uint8)), "colour"),
    ],
    ids=["truncated", "text", "empty", "colour"],
)
@pytest.mark.parametrize("column", ["acquisition", "ground_truth"])
def test_broken_images(lab, column, spoil, message):
    path = lab.folder / lab.test[column]
    spoil(path)
    problem = lab.problem()
    assert problem.column == column
    assert problem.value == str(path)
    assert message in problem.message
    # The path is the value; it need not be repeated in the message.
    assert str(path) not in problem.message


def test_permission_denied():
    # Unlike pytest's, this folder can be made one that all users may enter.
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder))
        lab.folder.chmod(0o755)
        sheet = read_sheet(lab.write_sheet(lab.test, lab.train))
        assert check_samples(sheet).rejected == {}
        (lab.folder / "a.tif").chmod(0)
        with without_privileges():
            checked = check_samples(sheet)
    (problem,) = checked.rejected["a"]
    assert problem.column == "acquisition" and "permission denied" in problem.message
    assert [sample.name for sample in checked.trains] == ["t"]


def test_undecodable_plane(lab):
    path = lab.folder / "a.tif"
    write_tiff(path, volume(0, (3, 32, 36)), compression="zlib")
    with tifffile.TiffFile(path) as tif:
        offset, count = tif.pages[2].dataoffsets[0], tif.pages[2].databytecounts[0]
    raw = bytearray(path.read_bytes())
    raw[offset : offset + count] = bytes(count)
    path.write_bytes(raw)
    problem = lab.problem()
    assert "the image at z 2 can't be decoded (DeflateError: " in problem.message


def test_single_projection(lab):
    write_tiff(lab.folder / "a.tif", volume(0, (32, 36)))
    lab.write_stage([2.5])
    problem = lab.problem()
    assert (problem.column, problem.message) == ("acquisition", "the stack holds one projection")


def test_projections_stored_as_time_points(lab):
    write_tiff(lab.folder / "a.tif", volume(0, (3, 32, 36)), metadata={"axes": "TYX"})
    found = lab.check(lab.test, lab.test | {"sample": "b", "ground_truth": ""}).rejected["b"]
    assert "but 3 time points and 1 channels" in found[0].message
    assert "along the axis Z" in found[0].remedy


def test_small_images(lab):
    write_tiff(lab.folder / "a.tif", volume(0, (3, 15, 36)))
    problem = lab.problem(ground_truth="")
    assert "15 x 36 pixels" in problem.message


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.full((3, 32, 36), 100, np.uint16), "constant (100 everywhere"),
        (np.full((3, 32, 36), np.nan, np.float32), "100 % of the pixels"),
    ],
)
def test_images_without_content(lab, data, message):
    write_tiff(lab.folder / "a.tif", data)
    problem = lab.problem()
    assert problem.column == "acquisition"
    assert message in problem.message


def test_an_offset_above_all_light(lab):
    problem = lab.problem(offset="4000")
    assert problem.column == "offset" and problem.value == "4000"
    assert "the brightest has 3999 counts" in problem.message
    assert lab.check(lab.test | {"offset": "89"}).rejected == {}


def test_number_of_positions(lab):
    lab.write_stage([2.5, 8.5])
    problem = lab.problem()
    assert problem.column == "stage_positions"
    assert "2 positions, but the acquisition has 3 projections" in problem.message


def test_stage_positions_missing_or_wrong(lab):
    problem = lab.problem(stage_positions="")
    assert problem.column == "stage_positions"
    assert "projection,z_um" in problem.remedy
    (lab.folder / "a.csv").write_text("projection,z_um\n0,2.5\n1,x\n2,14.5\n")
    problem = lab.problem()
    assert problem.message == 'line 3, column "z_um", value "x": not a finite number'


def test_positions_in_millimetres_and_nanometres(lab):
    lab.write_stage(POSITIONS / 1e3)
    problem = lab.problem()
    assert "look like millimetres" in problem.message
    lab.write_stage(POSITIONS * 1e3)
    assert "1000 times the length of the beam" in lab.problem(ground_truth="").message


def test_default_slices_pass_and_are_compared_with_the_beam(lab):
    free = lab.test | {"ground_truth": "", "voxel_size_z_um": ""}
    assert lab.check(free).tests[0].voxel_size_um == (None, 0.5, 0.5)
    # A step of 6 um makes slices of 0.75 um.
    problem = lab.problem(ground_truth="", voxel_size_z_um="", beam_profile="box:0.7um")
    assert "does not cover a slice of 0.75 um" in problem.message
    lab.write_stage(POSITIONS / 1e3)
    assert "look like millimetres" in lab.problem(ground_truth="", voxel_size_z_um="").message
    (lab.folder / "a.csv").write_text("projection,z\n")
    assert lab.problem(ground_truth="", voxel_size_z_um="").column == "stage_positions"


@pytest.mark.parametrize("positions", [[2.5, 8.5, 40], [-30, 2.5, 8.5]])
def test_positions_outside_the_ground_truth(lab, positions):
    lab.write_stage(positions)
    problem = lab.problem()
    assert problem.column == "stage_positions"
    assert "1 of 3 projections" in problem.message
    assert "20 slices reach from -0.5 to 19.5 um" in problem.message


def test_position_at_the_edge_is_seen(lab):
    lab.write_stage([-2, 8.5, 21])
    assert len(lab.check(lab.test).tests) == 1


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ("boks:6um", 'model "boks" is unknown'),
        ("box:6mm", "unit must be micrometres"),
        ("box:0.5um", "does not cover a slice"),
        ("beam.csv", 'line 3, column "weight", value "-1"'),
    ],
)
def test_wrong_beam(lab, profile, message):
    (lab.folder / "beam.csv").write_text("dz_um,weight\n0,1\n1,-1\n")
    problem = lab.problem(beam_profile=profile)
    assert problem.column == "beam_profile"
    assert message in problem.message


@pytest.mark.parametrize(
    ("psf", "message"),
    [
        ("beam", 'the beam profile "box:6um" has no lateral part'),
        ("gaussian:0.6mm", 'the full width at half maximum "0.6mm" has the unit "mm"'),
        ("psf.tif", "do not state the pixel size"),
        ("text.tif", "not a readable TIFF"),
    ],
)
def test_wrong_lateral_blur(lab, psf, message):
    image = np.zeros((21, 21), np.float32)
    image[8:13, 8:13] = 1
    write_tiff(lab.folder / "psf.tif", image)
    (lab.folder / "text.tif").write_text("text")
    problem = lab.problem(lateral_psf=psf)
    assert problem.column == "lateral_psf"
    assert message in problem.message


def test_wrong_beam_is_reported_once(lab):
    wrong = "bessel:NA=0.43-0.40,wavelength=0.94um"
    assert lab.problem(beam_profile=wrong, lateral_psf="beam").column == "beam_profile"
    right = "bessel:NA=0.30-0.60,wavelength=0.94um"
    assert len(lab.check(lab.test | {"beam_profile": right, "lateral_psf": "beam"}).tests) == 1


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((Z, 32, 30), "X: 30 instead of 36"),
        ((Z, 36, 32), "Y: 36 instead of 32, X: 32 instead of 36"),
        ((2, Z, 32, 36), "C: 2 instead of 1"),
    ],
)
def test_shape_of_the_ground_truth(lab, shape, message):
    write_tiff(lab.folder / "a_truth.tif", volume(1, shape))
    problem = lab.problem()
    assert problem.column == "ground_truth"
    assert message in problem.message


@pytest.mark.parametrize(("stated", "passes"), [(0.49, True), (0.51, True), (0.6, False)])
def test_pixel_size_of_the_metadata(lab, stated, passes):
    metadata = {
        "axes": "ZYX",
        "PhysicalSizeX": 1000 * stated,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 0.5,
    }
    write_tiff(lab.folder / "a.tif", volume(0, (3, 32, 36)), metadata=metadata, ome=True)
    if passes:
        assert len(lab.check(lab.test).tests) == 1
        return
    problem = lab.problem()
    assert (problem.column, problem.value) == ("voxel_size_x_um", "0.5")
    assert "state 0.6 um" in problem.message


def test_small_training_volume(lab):
    write_tiff(lab.folder / "t.tif", volume(2, (15, 32, 36)))
    (problem,) = lab.check(lab.test, lab.train).rejected["t"]
    assert "15 x 32 x 36 voxels" in problem.message
    assert "16 x 32 x 32" in problem.remedy


@pytest.mark.parametrize(
    "options", [{}, {"compression": "zlib"}, {"bigtiff": True, "byteorder": ">"}], ids=str
)
def test_training_on_a_copy_of_the_tested_voxels(lab, options):
    write_tiff(lab.folder / "t.tif", volume(1), **options)
    checked = lab.check(lab.test, lab.train)
    (problem,) = checked.rejected["t"]
    assert (problem.column, problem.row) == ("ground_truth", 3)
    assert 'voxels equal the ground truth of the test sample "a"' in problem.message
    assert [sample.name for sample in checked.tests] == ["a"]
    assert checked.trains == ()


def test_copy_in_another_type_is_found(lab):
    write_tiff(lab.folder / "t.tif", volume(1).astype(np.float32))
    assert set(lab.check(lab.test, lab.train).rejected) == {"t"}


def test_copy_of_a_left_out_sample_is_found(lab):
    write_tiff(lab.folder / "t.tif", volume(1))
    truncate(lab.folder / "a.tif")
    assert set(lab.check(lab.test, lab.train).rejected) == {"a", "t"}


PARTS = {
    "almost all": lambda v: np.where(np.arange(v.size).reshape(v.shape) == 0, 1, v),
    "some slices": lambda v: v[2:18],
    "turned to another type": lambda v: v[3:].astype(np.float32) - 90,
    "larger": lambda v: np.pad(v, ((1, 3), (5, 2), (11, 0))),
    "beside it": lambda v: np.concatenate([v[:, :, -20:], volume(5)], axis=2),
    "some channels": lambda v: np.stack([volume(5), v]),
}


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_training_on_a_part_of_the_tested_voxels(lab, part):
    changed = part(volume(1)).astype(np.float32)
    write_tiff(lab.folder / "t.tif", changed, metadata={"axes": "CZYX"[-changed.ndim :]})
    checked = lab.check(lab.test, lab.train)
    (problem,) = checked.rejected["t"]
    assert (problem.column, problem.row) == ("ground_truth", 3)
    assert 'shares voxels with the ground truth of the test sample "a"' in problem.message
    assert "a part of this one that does not overlap it" in problem.remedy
    assert [sample.name for sample in checked.tests] == ["a"] and not checked.compared


def test_training_on_neighbouring_voxels(lab):
    """What was cut out of the same stack may be learnt from, unless both hold the same voxels."""
    stack = volume(1, (Z, 32, 72))
    write_tiff(lab.folder / "a_truth.tif", stack[:, :, :36])
    write_tiff(lab.folder / "t.tif", stack[:, :, 36:])
    checked = lab.check(lab.test, lab.train)
    assert checked.rejected == {} and len(checked.compared) == 1


def test_samples_of_almost_nothing_are_no_parts_of_each_other(lab):
    """Single photons, and saturated or empty slices, look alike everywhere."""
    rng = np.random.default_rng(0)
    for name in ("a_truth.tif", "t.tif"):
        few = rng.poisson(0.2, (Z, 32, 36)).astype(np.uint16)
        few[5:9] = 65535
        write_tiff(lab.folder / name, few)
    assert lab.check(lab.test, lab.train).rejected == {}


def test_training_on_a_link_to_the_tested_file(lab):
    (lab.folder / "t.tif").unlink()
    (lab.folder / "t.tif").symlink_to("a_truth.tif")
    checked = lab.check(lab.test, lab.train)
    (problem,) = checked.rejected["t"]
    assert "the same file is the ground_truth" in problem.message


def test_everything_wrong_with_a_sample_at_once(lab):
    truncate(lab.folder / "a.tif")
    write_tiff(lab.folder / "a_truth.tif", np.zeros((Z, 32, 36), np.uint16))
    (lab.folder / "a.csv").write_text("projection,z\n")
    checked = lab.check(lab.test | {"beam_profile": "boks:6um"}, lab.test | {"role": ""})
    found = [problem.column for problem in checked.rejected["a"]]
    # Names are doubled as well, so that the files are not even looked at.
    assert found == ["sample", "sample", "role"]
    checked = lab.check(lab.test | {"beam_profile": "boks:6um"})
    assert [problem.column for problem in checked.rejected["a"]] == [
        "acquisition",
        "stage_positions",
        "beam_profile",
        "ground_truth",
    ]


def test_description_for_the_terminal(lab):
    truncate(lab.folder / "a.tif")
    rows = [lab.test, lab.test | {"sample": ""}, lab.train]
    text = describe_rejections(lab.check(*rows))
    lines = text.splitlines()
    assert lines[0] == 'sample "a" is left out:'
    assert re.match(r'  - .*samples.tsv:2, column "acquisition", value ".*a.tif": trunc', lines[1])
    assert lines[2] == "row 3 is left out:"
    assert 'column "sample"' in lines[3]
    assert lines[4] == "1 of 3 samples pass the checks: 0 to reconstruct, 1 to train on"
    assert lines[5].startswith("nothing to reconstruct; correct the problems above in ")
