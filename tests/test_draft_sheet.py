"""The drafted sheet: all formats of a tree, pairs by name, and marks where a person must write."""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import tifffile

import draft_sheet
from besselflow.checks import check_samples
from besselflow.config_docs import sheet_template
from besselflow.draft import core_of, find_all, is_beads, is_truth, sample_name
from besselflow.errors import InputError
from besselflow.sample_sheet import read_sheet
from lab import without_privileges
from test_open_formats import split_ome_tiff, write_ome_tiff
from tiny_runs import ROOT
from vendor_files import (
    counts,
    scanimage_header,
    scanimage_pages,
    write_bioformats2raw,
    write_bruker,
    write_ome_zarr,
    write_scanimage,
    write_thorlabs,
)

ZS = [0.0, 5.0, 10.0, 15.0]
STAGE = "projection,z_um\n0,2.5\n1,8.5\n2,14.5\n3,20.5\n"
BEAM = "dz_um,weight\n-2,1\n0,2\n2,1\n"
DATA = counts((2, 2, 4, 32, 36))


def write_stack(path, planes=4, seed=0, **more):
    data = counts((planes, 32, 36), seed)
    tifffile.imwrite(
        path, data, photometric="minisblack", metadata={"axes": "ZYX"} | more, ome=bool(more)
    )


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """All formats, in folders with spaces, umlauts and what microscopes leave behind."""
    root = tmp_path_factory.mktemp("Sitzung 7 µ")
    (root / "Mäuse").mkdir()
    (root / "beam.csv").write_text(BEAM)
    # A plain stack with everything beside it, and one that knows nothing.
    size = {"PhysicalSizeZ": 1.0, "PhysicalSizeY": 0.5, "PhysicalSizeX": 0.4}
    write_stack(root / "Mäuse" / "Maus 1.tif")
    (root / "Mäuse" / "Maus 1_stage.csv").write_text(STAGE)
    (root / "Mäuse" / "Maus_1-beam.csv").write_text(BEAM)
    write_stack(root / "Mäuse" / "maus-1_ground_truth.ome.tif", 24, 1, **size)
    write_stack(root / "Mäuse" / "Maus 2.tif")
    # A ground truth that belongs to none.
    write_stack(root / "Mäuse" / "other mouse_gt.tif", 20, 2, **size)
    # The vendors.
    write_bruker(root / "Bruker" / "TSeries-001", DATA, 937.0, ZS)
    (root / "Bruker" / "TSeries-001" / "References").mkdir()
    write_thorlabs(root / "Thor ü" / "Untitled_001", DATA, field_um=(16.0, 18.0))
    pages, header = scanimage_pages(DATA), scanimage_header(4, ZS, 2, 2, fov=18)
    (root / "SI").mkdir()
    for number, (start, stop) in enumerate(((0, 10), (10, 16)), start=1):
        path = root / "SI" / f"mouse9_00001_{number:05d}.tif"
        write_scanimage(path, pages[start:stop], header, first=start // 2 + 1)
    write_ome_zarr(root / "zarr" / "cell.ome.zarr", DATA, "0.4")
    write_bioformats2raw(root / "zarr" / "converted.zarr", [DATA], "0.4")
    write_bioformats2raw(root / "zarr" / "slide.zarr", [DATA[:1, :1]] * 2, "0.4")
    write_ome_tiff(root / "ome stack.ome.tif", DATA, ZS)
    np.save(root / "published.npy", np.moveaxis(DATA[0, 0], 0, -1))
    (root / "planes").mkdir()
    for i in range(12):
        tifffile.imwrite(root / "planes" / f"z{i}.tif", DATA[0, 0, i % 4])
    # What is no acquisition.
    write_stack(root / "beads of June.tif", 30)
    (root / "broken.tif").write_text("text")
    (root / "empty.tif").write_bytes(b"")
    tifffile.imwrite(root / "snapshot.tif", DATA[0, 0, 0])
    (root / ".trash").mkdir()
    write_stack(root / ".trash" / "old.tif")
    (root / "results").mkdir()
    for name in ("report.html", "metrics.tsv"):
        (root / "results" / name).write_text("x")
    write_stack(root / "results" / "volume.tif")
    return root


@pytest.fixture(scope="module")
def drafted(tree):
    text = draft_sheet.main(tree, tree / "samples.tsv")
    lines = (tree / "samples.tsv").read_text(encoding="utf-8").splitlines()
    header, *rows = (line.split("\t") for line in lines)
    return text, {row[0]: dict(zip(header, row, strict=True)) for row in rows}


def test_every_format_is_recognised(drafted):
    _, rows = drafted
    assert {name: row["format"] for name, row in rows.items()} == {
        "Maus-1": "TIFF stack",
        "Maus-2": "TIFF stack",
        "TSeries-001": "Bruker Prairie View",
        "Untitled_001": "Thorlabs ThorImage",
        "mouse9_00001_00001": "ScanImage BigTIFF",
        "cell": "OME-Zarr 0.4",
        "converted": "OME-Zarr 0.4",
        "ome-stack": "OME-TIFF",
        "published": "NumPy array",
        "planes": "folder of TIFFs",
        "other-mouse": "OME-TIFF",
    }


def test_pairs_by_name(drafted):
    _, rows = drafted
    row = rows["Maus-1"]
    assert row["acquisition"] == "Mäuse/Maus 1.tif"
    assert row["stage_positions"] == "Mäuse/Maus 1_stage.csv"
    assert row["beam_profile"] == "Mäuse/Maus_1-beam.csv"
    assert row["ground_truth"] == "Mäuse/maus-1_ground_truth.ome.tif"
    sizes = [row[f"voxel_size_{axis}_um"] for axis in "zyx"]
    assert sizes == ["1", "0.5", "0.4"]
    # A ground truth of no acquisition is trained on, and the beam of the session serves the rest.
    other = rows["other-mouse"]
    assert (other["role"], other["acquisition"], other["beam_profile"]) == ("train", "", "")
    assert rows["TSeries-001"]["beam_profile"] == "beam.csv"


def test_what_the_files_know_is_filled_in_and_the_rest_is_marked(drafted):
    text, rows = drafted
    bruker = rows["TSeries-001"]
    assert bruker["stage_positions"] == "" and bruker["voxel_size_y_um"] == "0.6"
    assert bruker["recorded"] == "2026-11-25 14:03:22"
    marked = {
        (name, column) for name, row in rows.items() for column, cell in row.items() if cell == "?"
    }
    sizes = ("voxel_size_y_um", "voxel_size_x_um")
    assert marked == {
        (name, column)
        for name in ("Maus-2", "published", "planes")
        for column in ("stage_positions", *sizes)
    }
    for number, (name, row) in enumerate(rows.items(), start=2):
        for column, cell in row.items():
            said = f'samples.tsv:{number}, column "{column}", value "?"' in text
            assert said == (cell == "?"), (name, column)
    assert f"{len(marked)} cells to fill in or correct" in text


def test_what_can_not_be_used_is_named_with_its_reason(drafted, tree):
    text, _ = drafted
    for name, reason in (
        ("broken.tif", "not a readable TIFF"),
        ("zarr/slide.zarr", "holds 2 images; give the folder of one of them"),
        ("empty.tif", "0 bytes"),
        ("snapshot.tif", "a single plane, not a stack"),
    ):
        assert any(name in line and reason in line for line in text.splitlines()), name
    assert "old.tif" not in text and "volume.tif" not in text
    assert [path.name for path in find_all(tree).beads] == ["beads of June.tif"]


def test_filled_in_sheet_passes_all_checks(drafted, tree):
    (tree / "stage.csv").write_text(STAGE)
    (tree / "planes.csv").write_text(
        "projection,z_um\n" + "".join(f"{i},{5 * i}\n" for i in range(12))
    )
    lines = (tree / "samples.tsv").read_text(encoding="utf-8").splitlines()
    header = lines[0].split("\t")
    place, filled = header.index("stage_positions"), [lines[0]]
    for line in lines[1:]:
        cells = line.split("\t")
        if cells[place] == "?":
            cells[place] = "planes.csv" if cells[0] == "planes" else "stage.csv"
        filled.append("\t".join("0.5" if cell == "?" else cell for cell in cells))
    path = tree / "filled.tsv"
    path.write_text("\n".join(filled) + "\n", encoding="utf-8")
    checked = check_samples(read_sheet(path))
    assert checked.rejected == {}
    assert len(checked.tests) == 10 and len(checked.trains) == 1


def test_command_line(tree, tmp_path):
    command = [sys.executable, str(ROOT / "scripts" / "draft_sheet.py"), str(tree / "Mäuse")]
    command += ["--out", str(tmp_path / "s.tsv")]
    # The template that comes with BesselFlow is no sheet yet.
    (tmp_path / "s.tsv").write_text(sheet_template(), encoding="utf-8")
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("3 samples in ")
    assert str(tree / "Mäuse" / "Maus 1.tif") in (tmp_path / "s.tsv").read_text(encoding="utf-8")
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 2 and "the sheet is there already" in again.stderr
    assert subprocess.run([*command, "--force"]).returncode == 0


def test_nothing_there(tmp_path):
    (tmp_path / "a.tif").write_text("text")
    with pytest.raises(InputError, match=r"no acquisition was found.*\n.*\n.*a\.tif: not a read"):
        draft_sheet.main(tmp_path, tmp_path / "s.tsv")
    assert not (tmp_path / "s.tsv").exists()
    with pytest.raises(InputError, match="no such directory"):
        draft_sheet.main(tmp_path / "x", tmp_path / "s.tsv")


@pytest.mark.parametrize("separator", [";", "\t"])
def test_tables_of_other_spreadsheets_are_named(tmp_path, separator):
    write_stack(tmp_path / "m.tif")
    text = STAGE.replace(",", separator).replace(".", ",").replace("\n", "\r\n")
    (tmp_path / "m_stage.csv").write_text(text, encoding="utf-8-sig")
    said = draft_sheet.main(tmp_path, tmp_path / "s.tsv")
    assert re.search(r"m_stage\.csv: its columns are not separated by commas; save it as", said)
    (tmp_path / "m_stage.csv").write_text(STAGE.replace("\n", "\r\n"), encoding="utf-8-sig")
    said = draft_sheet.main(tmp_path, tmp_path / "s.tsv", force=True)
    assert "stage positions: m_stage.csv" in said and "left out" not in said


def test_what_may_not_be_read_is_named():
    # Nobody else may enter the folders of pytest.
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        place.chmod(0o755)
        write_stack(place / "m.tif")
        (place / "m_stage.csv").write_text(STAGE)
        (place / "theirs").mkdir()
        find_all(place)
        for locked in ("m_stage.csv", "theirs"):
            (place / locked).chmod(0)
        with without_privileges():
            found = find_all(place)
        (place / "theirs").chmod(0o755)
    assert [image.path.name for image in found.images] == ["m.tif"]
    assert {path.name for path in found.left_out} == {"m_stage.csv", "theirs"}
    assert all("permission denied" in reason for reason in found.left_out.values())


def test_images_of_unfinished_rows_are_looked_at(tmp_path):
    dark = np.zeros((4, 32, 36), np.uint16)
    tifffile.imwrite(tmp_path / "dark.tif", dark, photometric="minisblack")
    text = draft_sheet.main(tmp_path, tmp_path / "s.tsv")
    assert re.search(r'column "acquisition", .*dark\.tif": the images are constant', text)


def test_directory_of_one_acquisition(tmp_path):
    folder = write_bruker(tmp_path / "scan", DATA, 0.0, ZS)
    assert [image.path for image in find_all(folder).images] == [folder]


@pytest.mark.parametrize(
    ("names", "core"),
    [
        (["Mouse 1.tif", "mouse-1_stage.csv", "mouse_1_bessel.ome.tif"], ("mouse", "1")),
        (["mouse1_00002.tif", "mouse1_gt.tif", "mouse1 ground truth.tif"], ("mouse1",)),
        (["m_stage_positions.csv", "m_beam_profile.csv", "m_beads.tif"], ("m",)),
    ],
)
def test_core_of_names(tmp_path, names, core):
    assert {core_of(tmp_path / name) for name in names} == {core}


def test_kinds_by_name(tmp_path):
    assert is_truth(tmp_path / "a_point-scan.tif") and not is_truth(tmp_path / "a_scan.tif")
    assert is_beads(tmp_path / "PSF 1.tif") and not is_beads(tmp_path / "beadless.tif")


def test_long_names_are_cut_and_stay_unique(tmp_path):
    taken = set()
    names = [sample_name(tmp_path / f"{'x' * 100}_{i}.tif", taken) for i in range(12)]
    assert len(taken) == 12 and max(map(len, names)) == 100


@pytest.mark.parametrize("place", [".", "session", "link"])
def test_links_and_relative_paths_show_everything_once(tmp_path, monkeypatch, place):
    (tmp_path / "session").mkdir()
    split_ome_tiff(tmp_path / "session", [f"t{i}.ome.tif" for i in range(3)])
    (tmp_path / "session" / "latest").symlink_to("..")
    (tmp_path / "link").symlink_to("session")
    (tmp_path / "session" / "lost.csv").symlink_to("nowhere.csv")
    monkeypatch.chdir(tmp_path)
    write_bruker(tmp_path / "session" / "scan", DATA, 0.0, ZS)
    (tmp_path / "session" / "best").symlink_to("scan")
    scan, series = find_all(place).images
    assert (scan.path.name, series.path.name) == ("scan", "t0.ome.tif")
    assert series.data.shape[0] == 3


def test_names_of_samples_are_unique_and_plain(tmp_path):
    taken = {"logs"}
    paths = ["a/Mäuse µ 1.tif", "b/mause-u-1.tif", "b/Mause u 1.npy", "c/логи.tif", "d/logs.tif"]
    names = [sample_name(tmp_path / path, taken) for path in paths]
    assert names == ["Mause-u-1", "b-mause-u-1", "b-Mause-u-1-2", "sample", "d-logs"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Maus 3_ground_truth.ome.tif", "Maus-3"),
        ("m.3 point-scan.tif", "m.3"),
        ("m3-GT.tif", "m3"),
        ("m3_groundtruth.tif", "m3"),
        # A sample is not nameless, and words elsewhere tell one from another.
        ("ground_truth.tif", "ground_truth"),
        ("gt.tif", "gt"),
        ("gt_m3.tif", "gt_m3"),
        ("m3_gt_2.tif", "m3_gt_2"),
        ("m3_scan.tif", "m3_scan"),
    ],
)
def test_ground_truths_are_named_after_what_they_show(tmp_path, name, expected):
    assert sample_name(tmp_path / name, set()) == expected


def test_a_ground_truth_keeps_its_whole_name_where_the_short_one_is_taken(tmp_path):
    # One of two for the same acquisition is no pair.
    for name in ("m1.tif", "m1_gt.tif", "m1_truth.tif"):
        write_stack(tmp_path / name)
    draft_sheet.main(tmp_path, tmp_path / "s.tsv")
    lines = (tmp_path / "s.tsv").read_text(encoding="utf-8").splitlines()
    assert [line.split("\t")[0] for line in lines] == ["sample", "m1", "m1_gt", "m1_truth"]
