"""Rows of the sample sheet: what is understood, and a message with a remedy for each mistake."""

import os
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from besselflow.beam.spec import file_of
from besselflow.errors import ProblemsError
from besselflow.sample_sheet import RESERVED_NAMES, read_sheet
from sheets import HEADER, TEST, TRAIN, with_files, write_sheet


@pytest.fixture
def folder(tmp_path):
    return with_files(tmp_path)


def test_good_sheet(folder):
    sheet = read_sheet(write_sheet(folder, TEST | {"ground_truth": "a_truth.tif"}, TRAIN))
    assert sheet.problems == ()
    assert sheet.rejected == {}
    (a,), (t,) = sheet.tests, sheet.trains
    assert (a.name, a.row, a.role, a.beam_profile) == ("a", 2, "test", "box:6um")
    assert a.acquisition == folder / "a.tif"
    assert a.stage_positions == folder / "a.csv"
    assert a.ground_truth == folder / "a_truth.tif"
    assert a.voxel_size_um == (1, 0.5, 0.4)
    assert (a.offset, a.gain, a.extra) == (100, None, {})
    assert (t.acquisition, t.stage_positions, t.beam_profile) == (None, None, None)


def test_paths_start_from_the_sheet_or_else_from_here(folder, tmp_path_factory, monkeypatch):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for name in ("here.tif", "a.csv"):
        (elsewhere / name).write_text("x")
    monkeypatch.chdir(elsewhere)
    row = TEST | {"acquisition": "here.tif", "beam_profile": "beam.csv"}
    (sample,) = read_sheet(write_sheet(folder, row)).samples
    assert sample.acquisition == elsewhere / "here.tif"
    assert sample.stage_positions == folder / "a.csv"
    assert sample.beam_profile == str(folder / "beam.csv")


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("beads.tif", "{folder}/beads.tif"),
        ("beads.tif:0.5um", "{folder}/beads.tif:0.5um"),
        ("beads.tif: z=0.5um,xy=0.1um", "{folder}/beads.tif:z=0.5um,xy=0.1um"),
        ("bessel:NA=0.4-0.43,wavelength=0.94um", "bessel:NA=0.4-0.43,wavelength=0.94um"),
    ],
)
def test_beams_from_files_and_models(folder, cell, expected):
    (folder / "beads.tif").write_text("beads")
    (sample,) = read_sheet(write_sheet(folder, TEST | {"beam_profile": cell})).samples
    assert sample.beam_profile == expected.format(folder=folder)
    path = file_of(sample.beam_profile)
    assert path == (folder / "beads.tif" if "beads" in cell else None)


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("", None),
        ("beam", "beam"),
        ("Beam", "beam"),
        ("gaussian:0.6um", "gaussian:0.6um"),
        ("beads.tif:xy=0.1um", "{folder}/beads.tif:xy=0.1um"),
    ],
)
def test_lateral_blur(folder, cell, expected):
    (folder / "beads.tif").write_text("beads")
    (sample,) = read_sheet(write_sheet(folder, TEST | {"lateral_psf": cell})).samples
    assert sample.lateral_psf == (expected and expected.format(folder=folder))


@pytest.mark.parametrize(("cell", "expected"), [("", False), ("no", False), ("Yes", True)])
def test_simulated_acquisition(folder, cell, expected):
    known = TEST | {"ground_truth": "a_truth.tif", "gain": "10", "simulated": cell}
    assert read_sheet(write_sheet(folder, known)).samples[0].simulated == expected
    assert not read_sheet(write_sheet(folder, TEST, header=HEADER[:-1])).samples[0].simulated


def test_simulated_acquisition_needs_the_number_of_photons(folder):
    row = TEST | {"ground_truth": "a_truth.tif", "simulated": "yes"}
    (problem,) = read_sheet(write_sheet(folder, row)).problems
    assert problem.column == "simulated" and "gain is missing" in problem.message


@pytest.mark.parametrize(
    ("column", "value", "message", "remedy"),
    [
        ("sample", "", "no name", "unique name"),
        ("sample", "a b", "folder name", 'such as "a-b"'),
        ("sample", "../a", "folder name", 'such as "a"'),
        ("sample", "-a", "folder name", "beginning with a letter"),
        ("sample", "mäuschen", "folder name", "letters, digits"),
        ("sample", "x" * 101, "101 characters", "at most 100"),
        *[("sample", name, "reserved", "other than") for name in RESERVED_NAMES],
        ("role", "", "missing", "write test or train"),
        ("role", "Test", "unknown role", 'did you mean "test"?'),
        ("role", "trian", "unknown role", 'did you mean "train"?'),
        ("role", "xyz", "unknown role", "write test or train"),
        ("voxel_size_y_um", "?", "still to be filled in", "Pixel size along y"),
        ("stage_positions", "?", "still to be filled in", "such as data/mouse-1_stage.csv"),
        ("beam_profile", "?", "still to be filled in", "such as gaussian:12um"),
        ("ground_truth", "?", "still to be filled in", "point-scanned stack"),
        ("frames", "averag", "unknown treatment", 'did you mean "average"?'),
        ("frames", "2", "unknown treatment", "write average or time"),
        ("overrule", "maybe", "neither yes nor no", "write yes, or leave"),
        ("voxel_size_z_um", "one", "not a finite number", "such as 0.5"),
        ("voxel_size_z_um", "nan", "not a finite number", "such as 0.5"),
        ("voxel_size_y_um", "inf", "not a finite number", "such as 0.5"),
        ("voxel_size_y_um", "1e999", "not a finite number", "such as 0.5"),
        ("voxel_size_y_um", "0", "not positive", "micrometres"),
        ("voxel_size_y_um", "-0.5", "not positive", "micrometres"),
        ("voxel_size_x_um", "0,5", "decimal comma", '"0.5"'),
        ("voxel_size_x_um", "0.5um", "unit", 'micrometres: "0.5"'),
        ("voxel_size_x_um", "500 nm", "unit", 'micrometres: "0.5"'),
        ("voxel_size_x_um", "0,5 µm", "unit", 'micrometres: "0.5"'),
        ("voxel_size_x_um", "5 px", "unit", "the number alone"),
        ("voxel_size_x_um", "500", "looks like nanometres", '"0.5"'),
        ("voxel_size_x_um", "0.0005", "looks like millimetres", '"0.5"'),
        ("voxel_size_x_um", "5e-7", "looks like metres", '"0.5"'),
        ("offset", "dark", "not a finite number", "in counts"),
        ("offset", "1,5", "decimal comma", '"1.5"'),
        ("gain", "0", "not positive", "counts per photon"),
        ("gain", "-2", "not positive", "leave the cell empty"),
        ("gain", "2 e/ADU", "not a finite number", "counts per photon"),
        ("acquisition", "", "a test sample needs it", "path of the file"),
        ("acquisition", "b.tif", "no such file", "folder of the sheet"),
        ("acquisition", "~no-such-user/a.tif", "no such file", "folder of the sheet"),
        ("acquisition", "x" * 300, "no such file", "folder of the sheet"),
        ("stage_positions", ".", "folder", "path of a file"),
        ("stage_positions", "b.csv", "no such file", "correct the path"),
        ("ground_truth", "b.tif", "no such file", "correct the path"),
        ("beam_profile", "", "a test sample needs it", "box:6um"),
        ("beam_profile", "~no-such-user/b.csv", "neither a model nor an existing file", "box:6um"),
        ("beam_profile", "b.csv", "neither a model nor an existing file", "box:6um"),
        ("lateral_psf", "b.tif", "neither a model nor an existing file", "gaussian:0.6um"),
        ("lateral_psf", "x" * 300, "neither a model nor an existing file", "gaussian:0.6um"),
        ("lateral_psf", "yes", "neither a model nor an existing file", "write beam, or"),
        ("simulated", "maybe", "neither yes nor no", "write yes, or leave"),
        ("simulated", "yes", "without the volume that it was computed from", "as ground_truth"),
        ("beam_profile", "b.tif:0.5um", "neither a model nor an existing file", "bead stack"),
    ],
)
def test_wrong_cell_excludes_its_row_only(folder, column, value, message, remedy):
    good = TEST | {"sample": "good"}
    sheet = read_sheet(write_sheet(folder, good, TEST | {column: value}))
    (problem,) = sheet.problems
    assert (problem.row, problem.column, problem.value) == (3, column, value)
    assert message in problem.message
    assert remedy in problem.remedy
    assert problem.file == str(folder / "samples.tsv")
    name = value if column == "sample" else "a"
    assert problem.sample == (name or None)
    assert list(sheet.rejected) == [name or "row 3"]
    assert [sample.name for sample in sheet.samples] == ["good"]


@pytest.mark.parametrize("column", ["voxel_size_z_um", "voxel_size_y_um", "stage_positions"])
def test_what_the_files_may_know_can_be_left_open(folder, column):
    row = TEST | {"ground_truth": "a_truth.tif", column: ""}
    (sample,) = read_sheet(write_sheet(folder, row)).samples
    expected = {"voxel_size_z_um": (None, 0.5, 0.4), "voxel_size_y_um": (1, None, 0.4)}
    assert sample.voxel_size_um == expected.get(column, (1, 0.5, 0.4))
    assert (sample.stage_positions is None) == (column == "stage_positions")


def test_acquisition_and_ground_truth_may_be_folders(folder):
    (folder / "scan").mkdir()
    (sample,) = read_sheet(
        write_sheet(folder, TEST | {"acquisition": "scan", "ground_truth": "scan"})
    ).samples
    assert sample.acquisition == sample.ground_truth == folder / "scan"


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ({}, ("average", False)),
        ({"frames": "Time", "overrule": "Yes"}, ("time", True)),
        ({"frames": "average", "overrule": "no"}, ("average", False)),
    ],
)
def test_choices_about_the_files(folder, cells, expected):
    (sample,) = read_sheet(write_sheet(folder, TEST | cells)).samples
    assert (sample.frames, sample.overrule) == expected


def test_distance_of_the_slices_may_be_left_open(folder):
    (sample,) = read_sheet(write_sheet(folder, TEST | {"voxel_size_z_um": ""})).samples
    assert sample.voxel_size_um == (None, 0.5, 0.4)


def test_offset_and_gain_may_be_left_to_the_data(folder):
    (sample,) = read_sheet(write_sheet(folder, TEST | {"offset": "auto", "gain": "AUTO"})).samples
    assert (sample.offset, sample.gain) == ("auto", "auto")
    (sample,) = read_sheet(write_sheet(folder, TEST | {"offset": "90", "gain": "auto"})).samples
    assert (sample.offset, sample.gain) == (90, "auto")


@pytest.mark.parametrize(
    ("row", "column", "message"),
    [
        (TEST | {"offset": "auto", "gain": "10"}, "offset", "only along with the gain"),
        (TEST | {"offset": "auto", "gain": ""}, "offset", "only along with the gain"),
        (TEST | {"offset": "", "gain": "auto"}, "gain", "the offset is empty"),
        (TRAIN | {"offset": "90", "gain": "auto"}, "gain", "for training"),
        (
            TEST
            | {"ground_truth": "a_truth.tif", "offset": "90", "gain": "auto", "simulated": "yes"},
            "simulated",
            "gain is missing",
        ),
    ],
)
def test_what_the_data_can_not_tell_is_refused(folder, row, column, message):
    refused = read_sheet(write_sheet(folder, row, TEST | {"sample": "b"}))
    (problem,) = refused.problems
    assert problem.column == column and message in problem.message


def test_negative_offset_is_fine(folder):
    assert read_sheet(write_sheet(folder, TEST | {"offset": "-3.5"})).samples[0].offset == -3.5


def test_train_sample_needs_its_ground_truth(folder):
    (problem,) = read_sheet(write_sheet(folder, TEST, TRAIN | {"ground_truth": ""})).problems
    assert (problem.row, problem.column, problem.sample) == (3, "ground_truth", "t")
    assert "train sample needs it" in problem.message


@pytest.mark.parametrize(("other", "message"), [("a", "row 4"), ("A", "apart from capitals")])
def test_duplicate_names_exclude_all_their_rows(folder, other, message):
    sheet = read_sheet(write_sheet(folder, TEST, TEST | {"sample": "b"}, TEST | {"sample": other}))
    assert [problem.row for problem in sheet.problems] == [2, 4]
    assert message in sheet.problems[0].message
    assert "row 2" in sheet.problems[1].message
    assert set(sheet.rejected) == {"a", other}
    assert [sample.name for sample in sheet.samples] == ["b"]


def test_all_problems_of_all_rows_at_once(folder):
    bad = TEST | {"gain": "x", "offset": "y", "role": "z", "voxel_size_y_um": "?"}
    sheet = read_sheet(write_sheet(folder, TEST, bad | {"sample": "b"}, bad | {"sample": "c"}))
    assert {name: len(found) for name, found in sheet.rejected.items()} == {"b": 4, "c": 4}


@pytest.mark.parametrize("column", ["ground_truth", "acquisition"])
@pytest.mark.parametrize("link", [None, os.symlink, os.link], ids=["same", "symlink", "hard link"])
def test_training_on_a_tested_file_is_refused(folder, column, link):
    test = TEST | {"ground_truth": "a_truth.tif"}
    name = test[column]
    if link is not None:
        link(folder / name, folder / "linked.tif")
        name = "linked.tif"
    train = TRAIN | {"ground_truth": name}
    sheet = read_sheet(write_sheet(folder, train, test, TRAIN | {"sample": "u"}))
    (problem,) = sheet.problems
    assert (problem.row, problem.column, problem.sample) == (2, "ground_truth", "t")
    assert f'is the {column} of the test sample "a" (row 3)' in problem.message
    assert "another sample" in problem.remedy
    assert [sample.name for sample in sheet.samples] == ["a", "u"]


def test_a_left_out_test_sample_still_is_no_training_data(folder):
    test = TEST | {"ground_truth": "a_truth.tif", "gain": "x"}
    train = TRAIN | {"ground_truth": "a_truth.tif"}
    rejected = read_sheet(write_sheet(folder, test, train, TEST | {"sample": "b"})).rejected
    assert set(rejected) == {"a", "t"}


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=120))
@example("mouse-1.a_B")
@example("../x")
@example("/tmp/x")
@example("a/b")
@example("a\\b")
@example("$(touch x)")
@example("a;b")
@example("<script>")
@example("{wildcard}")
@example("a\nb")
@example(".hidden")
@example("-rf")
@example("\u202eabc")
@example("Report.HTML")
@example("LOGS")
def test_every_accepted_name_stays_inside_the_results_folder(name):
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place).resolve()
        for file in ("a.tif", "a.csv"):
            (folder / file).write_text(file)
        try:
            samples = read_sheet(write_sheet(folder, TEST | {"sample": name})).samples
        except ProblemsError:
            samples = ()
        for sample in samples:
            assert (folder / "results" / sample.name).resolve().parent == folder / "results"
            assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", sample.name, re.ASCII)
            assert sample.name.lower() not in RESERVED_NAMES
        if re.fullmatch(r"mouse-[0-9]\.[a-zA-Z_]+", name, re.ASCII):
            assert [sample.name for sample in samples] == [name]
