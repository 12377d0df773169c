"""The sample sheet as a text: separators, header, encoding, and rows of the wrong length."""

import pytest

from besselflow.errors import ProblemsError
from besselflow.sample_sheet import read_sheet
from sheets import HEADER, TEST, TRAIN, with_files, write_sheet


@pytest.fixture
def folder(tmp_path):
    return with_files(tmp_path)


def refusal(path):
    with pytest.raises(ProblemsError) as caught:
        read_sheet(path)
    return caught.value.problems


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_marks_and_line_ends(folder, encoding, newline):
    path = write_sheet(folder, TEST, encoding=encoding, newline=newline)
    assert [sample.name for sample in read_sheet(path).samples] == ["a"]


def test_comments_and_blank_lines_keep_the_row_numbers(folder):
    path = write_sheet(folder, TEST)
    header, row = path.read_text().splitlines()
    path.write_text(f"# facility\n\n{header}\n# {row}\n\t\t\n{row}\n")
    assert read_sheet(path).samples[0].row == 6


def test_further_columns_are_kept(folder):
    path = write_sheet(folder, TEST | {"mouse line": "Thy1"}, header=[*HEADER, "mouse line"])
    assert read_sheet(path).samples[0].extra == {"mouse line": "Thy1"}


def test_optional_columns_may_be_missing(folder):
    (sample,) = read_sheet(write_sheet(folder, TEST, header=HEADER[:9])).samples
    assert (sample.offset, sample.gain) == (None, None)


def test_padding_and_quotes_of_spreadsheets(folder):
    path = write_sheet(folder, TEST)
    header, row = path.read_text().splitlines()
    path.write_text(f"{header}\t\t\n{row.replace('a.tif', chr(34) + 'a.tif' + chr(34))}\t\t\n")
    assert read_sheet(path).samples[0].acquisition == folder / "a.tif"


@pytest.mark.parametrize(
    ("separator", "name"), [(";", "semicolons"), (",", "commas"), ("    ", "spaces"), ("|", "bars")]
)
def test_wrong_separator_is_named(folder, separator, name):
    path = write_sheet(folder, TEST)
    path.write_text(path.read_text().replace("\t", separator))
    (problem,) = refusal(path)
    assert name in problem.message
    assert "tabs" in problem.remedy
    assert problem.row == 1


def test_wrong_separator_of_one_row(folder):
    path = write_sheet(folder, TEST, TEST)
    header, good, bad = path.read_text().splitlines()
    path.write_text("\n".join([header, good, bad.replace("\t", ";")]))
    sheet = read_sheet(path)
    (problem,) = sheet.problems
    assert problem.row == 3 and set(sheet.rejected) == {"row 3"}
    # Of a line without a tab, the beginning is enough.
    assert '"a;a.tif;a.csv;box:6um;1;0.5;0.4;;test;10...",' in problem.message
    assert f"has 1 cells, but the header has {len(HEADER)}" in problem.message
    assert "semicolons" in problem.remedy
    assert [sample.row for sample in sheet.samples] == [2]


def test_columns_missing_doubled_and_misspelt(folder):
    header = [*HEADER[1:8], "Role", "ofset", "acquisition", "", "x", "x", "y"]
    problems = refusal(write_sheet(folder, TEST, header=header))
    found = {problem.column: problem for problem in problems}
    assert set(found) == {"sample", "acquisition", "role", "offset", None, "x"}
    assert "missing" in found["sample"].message
    assert "2 times" in found["acquisition"].message
    assert 'by "Role"' in found["role"].remedy
    assert 'by "ofset"' in found["offset"].remedy
    assert "no name" in found[None].message


def spoil(path, rows):
    """Take the last tab out of rows, or add one, by the number of their line."""
    lines = path.read_text().splitlines()
    for row, change in rows.items():
        shorter = "".join(lines[row - 1].rpartition("\t")[::2])
        lines[row - 1] = shorter if change < 0 else f"{lines[row - 1]}\tmore"
    path.write_text("\n".join(lines))
    return path


def test_rows_of_wrong_length_are_left_out_alone(folder):
    names = ("a", "b", "no name!", "d", "e")
    rows = [TEST | {"sample": name} for name in names]
    rows[4] |= {"gain": "x"}
    sheet = read_sheet(spoil(write_sheet(folder, *rows), {2: -1, 3: 1, 4: -1}))
    assert [sample.name for sample in sheet.samples] == ["d"]
    assert [problem.row for problem in sheet.problems] == [2, 3, 4, 6]
    assert list(sheet.rejected) == ["a", "b", "row 4", "e"]
    short, long, unnamed, other = map(str, sheet.problems)
    begin = f'{folder}/samples.tsv:2: the row, which begins with "a", has {len(HEADER) - 1} cells'
    assert short.startswith(begin) and "separate the cells by single tabs" in short
    assert f'"b", has {len(HEADER) + 1} cells' in long and 'with "no name!",' in unnamed
    assert 'column "gain"' in other


def test_a_sheet_without_a_whole_row_is_refused(folder):
    path = write_sheet(folder, TEST, TEST | {"sample": "b"})
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header, *(row.replace("\t", ",") for row in rows)]))
    found = refusal(path)
    assert [problem.row for problem in found] == [2, 3]
    assert all("separated by commas" in problem.remedy for problem in found)


def test_a_row_of_wrong_length_keeps_its_name_and_its_files(folder):
    cut = TEST | {"ground_truth": "a_truth.tif"}
    train = TRAIN | {"ground_truth": "a_truth.tif"}
    rows = [cut, train, TEST | {"sample": "A"}, TEST | {"sample": "b"}]
    sheet = read_sheet(spoil(write_sheet(folder, *rows), {2: -1}))
    assert [sample.name for sample in sheet.samples] == ["b"]
    assert "stands in row 2, which has the wrong number of cells" in sheet.rejected["t"][0].message
    assert "used again in row 2" in sheet.rejected["A"][0].message
    mended = read_sheet(spoil(write_sheet(folder, train, TEST | {"sample": "b"}), {2: -1}))
    assert set(mended.rejected) == {"t"} and [s.name for s in mended.samples] == ["b"]


def test_training_alone_is_no_reason_while_a_row_is_to_be_mended(folder):
    sheet = read_sheet(spoil(write_sheet(folder, TEST, TRAIN), {2: 1}))
    assert set(sheet.rejected) == {"a"} and [s.name for s in sheet.trains] == ["t"]


def test_no_test_sample(folder):
    (problem,) = refusal(write_sheet(folder, TRAIN, TRAIN | {"sample": "u"}))
    assert "no test sample" in problem.message
    assert problem.column == "role"


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n"])
def test_empty_sheet(folder, text):
    (folder / "samples.tsv").write_text(text)
    (problem,) = refusal(folder / "samples.tsv")
    assert "empty" in problem.message
    assert "voxel_size_z_um" in problem.remedy


def test_header_only(folder):
    (problem,) = refusal(write_sheet(folder))
    assert "no samples" in problem.message


@pytest.mark.parametrize(
    ("content", "message", "row"),
    [
        ("sample\trole\n".encode("utf-16"), "UTF-16", None),
        ("sample\trole\n".encode("utf-16-le"), "UTF-16", None),
        ("sample\nm\xe4use\n".encode("latin-1"), "byte 0xe4 is not UTF-8", 2),
        (b"PK\x03\x04 xlsx", "spreadsheet document", None),
    ],
)
def test_not_utf8_text(folder, content, message, row):
    (folder / "samples.tsv").write_bytes(content)
    (problem,) = refusal(folder / "samples.tsv")
    assert message in problem.message
    assert "tab-separated text" in problem.remedy
    assert problem.row == row


def test_missing_sheet_and_folder(folder):
    (problem,) = refusal(folder / "nowhere.tsv")
    assert "--config samples=PATH" in problem.remedy
    (problem,) = refusal(folder)
    assert "folder" in problem.message
