"""Broken inputs of all formats: each ends before compute in one message, and spoils no other.

What goes wrong with plain stacks, tables and cells stands in `test_bad_input`. `Lab.problem` checks
that a good test sample and a training sample of the same sheet go on.
"""

import gzip
import os
import re
import shutil

import numpy as np
import pytest
import tifffile

from lab import POSITIONS, Lab, volume
from test_open_formats import split_ome_tiff, write_ome_tiff
from test_stated import write_stated
from vendor_files import (
    scanimage_header,
    scanimage_pages,
    write_bioformats2raw,
    write_bruker,
    write_ome_zarr,
    write_scanimage,
    write_thorlabs,
)

DATA = volume(0, (3, 32, 36))
SERIES = DATA[None, None]
NO_TRUTH = {"ground_truth": ""}
SCAN = NO_TRUTH | {"acquisition": "scan"}


def cut(path, share=0.5):
    os.truncate(path, int(path.stat().st_size * share))


def on(name, spoil, **cells):
    """Return a case that spoils one file of the good sample."""

    def make(lab):
        spoil(lab.folder / name)
        return cells

    return make


def cells(**values):
    return lambda lab: values


def planes(lab, change):
    folder = lab.folder / "scan"
    folder.mkdir()
    for i, plane in enumerate(DATA):
        tifffile.imwrite(folder / f"z{i}.tif", plane)
    change(folder / "z1.tif")
    return SCAN


def bruker(lab, change):
    folder = write_bruker(lab.folder / "scan", SERIES, 0.0, POSITIONS, pixel_um=(0.5, 0.5))
    change(folder)
    return SCAN


def thorlabs(lab, change):
    folder = write_thorlabs(lab.folder / "scan", SERIES, step_um=6.0, field_um=(16.0, 18.0))
    change(folder)
    return SCAN


def scanimage(lab, pages=None, first=1, name="scan", **settings):
    header = scanimage_header(3, POSITIONS, 1, 1, fov=18) | settings
    pages = scanimage_pages(SERIES) if pages is None else pages
    write_scanimage(lab.folder / name, pages, header, first, channels=1)
    return SCAN | {"acquisition": name, "voxel_size_y_um": ""}


def ome_zarr(lab, change):
    path = write_ome_zarr(lab.folder / "scan", SERIES, step=6.0, pixel=(500.0, 500.0))
    change(path)
    return SCAN


def ome_zarr_truth(lab, change):
    data, pixel = volume(1)[None, None], (500.0, 500.0)
    change(write_ome_zarr(lab.folder / "truth", data, step=1.0, first=0.0, pixel=pixel))
    return {"ground_truth": "truth"}


def array(lab, change):
    path = lab.folder / "scan"
    with path.open("wb") as file:
        np.save(file, np.moveaxis(DATA, 0, -1))
    change(path)
    return SCAN


def replace_in(name, old, new):
    def change(folder):
        path = folder / name
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")

    return change


def first_of(pattern, action):
    return lambda folder: action(sorted(folder.glob(pattern))[0])


def no_unit(lab):
    data = np.broadcast_to(SERIES, (2, 1, *DATA.shape))
    write_ome_tiff(lab.folder / "a.tif", data, [0, 6, 12], unit=None)
    return NO_TRUTH | {
        "stage_positions": "",
        "voxel_size_y_um": "",
        "voxel_size_x_um": "",
    }


def missing_of_set(lab):
    split_ome_tiff(lab.folder, ["t0.ome.tif", "t1.ome.tif", "t2.ome.tif"])
    (lab.folder / "t1.ome.tif").unlink()
    return NO_TRUTH | {"acquisition": "t0.ome.tif"}


def stated(**more):
    return on("a.tif", lambda path: write_stated(path, DATA, **more), **NO_TRUTH)


def link(path):
    path.unlink()
    path.symlink_to("nowhere.tif")


CASES = {
    "packed": (
        on("a.tif", lambda path: path.write_bytes(gzip.compress(path.read_bytes()))),
        "acquisition",
        "not a readable TIFF",
    ),
    "broken link": (on("a.tif", link), "acquisition", "no such file"),
    "pixel size": (stated(size=(None, 0.5, 0.6)), "voxel_size_x_um", "state 0.6 um"),
    "positions": (stated(positions=POSITIONS * 2), "stage_positions", "5, 17, 29 um"),
    "folder as table": (cells(stage_positions="."), "stage_positions", "folder"),
    "no unit": (no_unit, "stage_positions", "which is no length"),
    "unfilled": (cells(beam_profile="?"), "beam_profile", "still to be filled in"),
    "folder without images": (
        lambda lab: (lab.folder / "scan").mkdir() or SCAN,
        "acquisition",
        "holds no acquisition",
    ),
    "mixed types": (
        lambda lab: planes(lab, lambda path: tifffile.imwrite(path, DATA[1].astype(np.uint8))),
        "acquisition",
        "of type uint8",
    ),
    "mixed sizes": (
        lambda lab: planes(lab, lambda path: tifffile.imwrite(path, DATA[1, :20])),
        "acquisition",
        r"\(20, 36\)",
    ),
    "truncated plane": (lambda lab: planes(lab, cut), "acquisition", "truncated"),
    "empty plane": (
        lambda lab: planes(lab, lambda path: path.write_bytes(b"")),
        "acquisition",
        "0 bytes: z1.tif",
    ),
    "OME set": (missing_of_set, "acquisition", r"1 of 3 files are missing \(t1"),
    "Bruker plane": (
        lambda lab: bruker(lab, first_of("*.tif", os.unlink)),
        "acquisition",
        '": 1 of 3 files are missing',
    ),
    "Bruker XML": (
        lambda lab: bruker(lab, replace_in("scan.xml", "</PVScan>", "")),
        "acquisition",
        "the XML is damaged",
    ),
    "Bruker number": (
        lambda lab: bruker(lab, replace_in("scan.xml", f'value="{POSITIONS[1]}"', 'value="x"')),
        "acquisition",
        "not readable as Bruker",
    ),
    "Thorlabs raw": (
        lambda lab: thorlabs(lab, first_of("*.raw", cut)),
        "acquisition",
        "it holds 2 images .* states 4",
    ),
    "Thorlabs without raw": (
        lambda lab: thorlabs(lab, first_of("*.raw", os.unlink)),
        "acquisition",
        "there are neither",
    ),
    "Thorlabs XML": (
        lambda lab: thorlabs(lab, replace_in("Experiment.xml", 'pixelX="36"', "")),
        "acquisition",
        "pixelX of LSM is missing",
    ),
    "ScanImage continued": (
        lambda lab: scanimage(lab, first=9),
        "acquisition",
        "continues another file",
    ),
    "ScanImage stopped": (
        lambda lab: scanimage(lab, scanimage_pages(SERIES)[:2]),
        "acquisition",
        "fewer than one volume",
    ),
    "ScanImage sizes": (
        lambda lab: scanimage(lab, [DATA[0], DATA[1], DATA[2, :20]]),
        "acquisition",
        r"page 2 has \(20, 36\)",
    ),
    "ScanImage slices": (
        lambda lab: scanimage(lab, **{"SI.hStackManager.zs": [1, 2]}),
        "acquisition",
        "lists 2 positions, but 3 slices",
    ),
    "Zarr chunk": (
        lambda lab: ome_zarr(lab, lambda path: shutil.rmtree(path / "0" / "c" / "0" / "0" / "1")),
        "acquisition",
        "chunks are missing",
    ),
    "Zarr chunk of a ground truth": (
        lambda lab: ome_zarr_truth(
            lab, lambda path: shutil.rmtree(path / "0" / "c" / "0" / "0" / "1")
        ),
        "ground_truth",
        "6 of 60 chunks are missing, and would be read as zeros",
    ),
    "Zarr images": (
        lambda lab: (
            SCAN | {"acquisition": write_bioformats2raw(lab.folder / "two", [SERIES] * 2).name}
        ),
        "acquisition",
        "holds 2 images; give the folder of one of them: .*/two/0, .*/two/1",
    ),
    "Zarr axes": (
        lambda lab: ome_zarr(lab, replace_in("zarr.json", '"name": "z"', '"name": "depth"')),
        "acquisition",
        "the axes .*depth",
    ),
    "Zarr metadata": (
        lambda lab: ome_zarr(lab, replace_in("zarr.json", '"multiscales"', '"other"')),
        "acquisition",
        "describe no image",
    ),
    "Zarr text": (
        lambda lab: ome_zarr(lab, lambda path: (path / "zarr.json").write_text("{")),
        "acquisition",
        "not a readable group",
    ),
    "array cut": (lambda lab: array(lab, cut), "acquisition", "truncated"),
    "array of one plane": (
        lambda lab: array(lab, lambda path: np.save(path.open("wb"), DATA[0])),
        "acquisition",
        "three axes",
    ),
    "array of objects": (
        lambda lab: array(
            lab, lambda path: np.save(path.open("wb"), np.array([{}]), allow_pickle=True)
        ),
        "acquisition",
        "plain numbers",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_one_clear_message(tmp_path, name):
    folder = tmp_path / "Mäuse µ 1"
    folder.mkdir()
    lab = Lab(folder)
    make, column, message = CASES[name]
    row = make(lab)
    problem = lab.problem(**row)
    assert problem.column == column
    assert len(problem.message.splitlines()) == 1
    text = str(problem)
    assert re.search(message, text), text
    named = problem.value if column in ("acquisition", "ground_truth") else "samples.tsv"
    assert named and named in text
    assert "Error(" not in text and "Traceback" not in text
