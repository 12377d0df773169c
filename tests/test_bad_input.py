"""A table of broken inputs: each is refused before anything is computed, and alone.

What single checks say is asserted beside them; here, that nothing that a microscope, a copy over
the network or a spreadsheet does to a sample gets past all of them, and that all say what to do.
"""

import os
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
import tifffile

from besselflow.checks import check_samples, describe_rejections
from besselflow.sample_sheet import read_sheet
from lab import without_privileges
from test_checks import POSITIONS, Lab, Z, truncate, volume, write_tiff
from vendor_files import invert

SHAPE = (3, 32, 36)


@pytest.fixture
def lab(tmp_path):
    return Lab(tmp_path)


def cells(**changes):
    """Return a way to spoil the sample's row of the sheet."""
    return lambda lab: changes


def image(write):
    """Return a way to spoil the acquisition."""

    def spoil(lab):
        write(lab.folder / "a.tif")
        return {}

    return spoil


def stage(text):
    """Return a way to spoil the stage positions."""

    def spoil(lab):
        content = text if isinstance(text, bytes) else text.encode()
        (lab.folder / "a.csv").write_bytes(content)
        return {}

    return spoil


def positions(values):
    return stage("projection,z_um\n" + "".join(f"{i},{z}\n" for i, z in enumerate(values)))


def beam(text):
    def spoil(lab):
        (lab.folder / "beam.csv").write_text(text, encoding="utf-8")
        return {"beam_profile": "beam.csv"}

    return spoil


def truth(data, **options):
    def spoil(lab):
        write_tiff(lab.folder / "a_truth.tif", data, **options)
        return {}

    return spoil


def flip_byte_order(path):
    """Claim that little-endian numbers are big-endian."""
    raw = bytearray(path.read_bytes())
    raw[:2] = b"MM"
    path.write_bytes(raw)


def lose_tiles(path):
    """Write a tiled image, as a scanner does that was stopped: the last tiles are not there."""
    write_tiff(path, volume(0, SHAPE), tile=(16, 16))
    with tifffile.TiffFile(path) as tif:
        tags = [tif.pages[2].tags[name] for name in ("TileOffsets", "TileByteCounts")]
    with open(path, "r+b") as file:
        for tag in tags:
            file.seek(tag.valueoffset)
            file.write(bytes(tag.valuebytecount))


def mix_types(path):
    with tifffile.TiffWriter(path) as tif:
        for number, dtype in enumerate((np.uint16, np.uint8, np.uint16)):
            tif.write(volume(number, SHAPE[1:]).astype(dtype), photometric="minisblack")


def mix_shapes(path):
    with tifffile.TiffWriter(path) as tif:
        for width in (36, 36, 30):
            tif.write(volume(0, (32, width)), photometric="minisblack")


def write_folder(path):
    path.unlink()
    path.mkdir()


def with_values(value, dtype=np.float32):
    def write(path):
        data = volume(0, SHAPE).astype(dtype)
        data[1] = value
        write_tiff(path, data)

    return write


def rename(name):
    """Return a way to give the acquisition another name."""

    def spoil(lab):
        (lab.folder / "a.tif").rename(lab.folder / name)
        return {"acquisition": name}

    return spoil


BROKEN = {
    # The acquisition.
    "file is missing": (cells(acquisition="elsewhere.tif"), "acquisition"),
    "folder without images": (image(write_folder), "acquisition"),
    "0 bytes": (image(lambda path: path.write_bytes(b"")), "acquisition"),
    "name with a wildcard": (rename("a{date}.tif"), "acquisition"),
    "name with a variable": (rename("<results>.tif"), "acquisition"),
    "text named .tif": (image(lambda path: path.write_text("z,y,x\n")), "acquisition"),
    "picture named .tif": (
        image(lambda p: p.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(99))),
        "acquisition",
    ),
    "header alone": (image(lambda path: os.truncate(path, 8)), "acquisition"),
    "truncated in the middle": (image(truncate), "acquisition"),
    "truncated by a few bytes": (
        image(lambda path: os.truncate(path, path.stat().st_size - 20)),
        "acquisition",
    ),
    "wrong byte order": (image(flip_byte_order), "acquisition"),
    "mixed types": (image(mix_types), "acquisition"),
    "mixed sizes": (image(mix_shapes), "acquisition"),
    "missing tiles": (image(lose_tiles), "acquisition"),
    "colours": (
        image(lambda path: tifffile.imwrite(path, np.ones((*SHAPE, 3), np.uint8))),
        "acquisition",
    ),
    "zero is white": (image(invert), "acquisition"),
    "complex numbers": (
        image(
            lambda path: tifffile.imwrite(
                path, np.ones(SHAPE, np.complex64), photometric="minisblack"
            )
        ),
        "acquisition",
    ),
    "projections stored as time": (
        image(lambda path: write_tiff(path, volume(0, SHAPE), metadata={"axes": "TYX"})),
        "acquisition",
    ),
    "projections stored as channels": (
        image(lambda path: write_tiff(path, volume(0, SHAPE), metadata={"axes": "CYX"})),
        "acquisition",
    ),
    "one projection": (image(lambda path: write_tiff(path, volume(0, SHAPE[1:]))), "acquisition"),
    "images of a few pixels": (
        image(lambda path: write_tiff(path, volume(0, (3, 8, 8)))),
        "acquisition",
    ),
    "not a number": (image(with_values(np.nan)), "acquisition"),
    "infinite": (image(with_values(np.inf)), "acquisition"),
    "constant": (
        image(lambda path: write_tiff(path, np.full(SHAPE, 7, np.uint16))),
        "acquisition",
    ),
    # Stage positions.
    "no stage positions": (cells(stage_positions=""), "stage_positions"),
    "stage file is missing": (cells(stage_positions="b.csv"), "stage_positions"),
    "stage file is empty": (stage(""), "stage_positions"),
    "stage file without rows": (stage("projection,z_um\n"), "stage_positions"),
    "stage file without header": (stage("0,2.5\n1,8.5\n2,14.5\n"), "stage_positions"),
    "stage file by semicolons": (
        stage("projection;z_um\n0;2.5\n1;8.5\n2;14.5\n"),
        "stage_positions",
    ),
    "decimal commas": (
        stage("projection,z_um\n0,2,5\n1,8,5\n2,14,5\n"),
        "stage_positions",
    ),
    "stage file is an image": (stage(b"II*\x00\xff\xfe\x00\x80" * 20), "stage_positions"),
    "positions with a unit": (positions(["2.5um", "8.5um", "14.5um"]), "stage_positions"),
    "two equal positions": (positions([2.5, 8.5, 8.5]), "stage_positions"),
    "position that is no number": (positions([2.5, "nan", 14.5]), "stage_positions"),
    "too few positions": (positions([2.5, 8.5]), "stage_positions"),
    "too many positions": (positions([2.5, 8.5, 14.5, 20.5]), "stage_positions"),
    "projections numbered from 1": (
        stage("projection,z_um\n1,2.5\n2,8.5\n3,14.5\n"),
        "stage_positions",
    ),
    "positions in millimetres": (positions(POSITIONS / 1e3), "stage_positions"),
    "positions in nanometres": (positions(POSITIONS * 1e3), "stage_positions"),
    "positions from elsewhere": (positions(POSITIONS + 500), "stage_positions"),
    # The beam.
    "no beam": (cells(beam_profile=""), "beam_profile"),
    "beam of an unknown model": (cells(beam_profile="besel:6um"), "beam_profile"),
    "beam without unit": (cells(beam_profile="box:6"), "beam_profile"),
    "beam in millimetres": (cells(beam_profile="box:6mm"), "beam_profile"),
    "beam of negative length": (cells(beam_profile="box:-6um"), "beam_profile"),
    "beam with negative weights": (beam("dz_um,weight\n-1,1\n0,-2\n1,1\n"), "beam_profile"),
    "beam without light": (beam("dz_um,weight\n-1,0\n0,0\n1,0\n"), "beam_profile"),
    "beam of uneven bins": (beam("dz_um,weight\n-1,1\n0,2\n3,1\n"), "beam_profile"),
    # Voxels, detector, role.
    "no pixel size": (cells(voxel_size_x_um=""), "voxel_size_x_um"),
    "pixel size with a unit": (cells(voxel_size_x_um="500 nm"), "voxel_size_x_um"),
    "pixel size of zero": (cells(voxel_size_y_um="0"), "voxel_size_y_um"),
    "pixel size in metres": (cells(voxel_size_y_um="5e-7"), "voxel_size_y_um"),
    "decimal comma in the sheet": (cells(voxel_size_z_um="1,0"), "voxel_size_z_um"),
    "gain of zero": (cells(gain="0"), "gain"),
    "offset as a word": (cells(offset="dark"), "offset"),
    "unknown role": (cells(role="exam"), "role"),
    "name that leaves the folder": (cells(sample="../a"), "sample"),
    "name with markup": (cells(sample="<b>a</b>"), "sample"),
    "name with a command": (cells(sample="a;rm -r ~"), "sample"),
    # The ground truth.
    "ground truth is missing": (cells(ground_truth="elsewhere.tif"), "ground_truth"),
    "ground truth of another field": (truth(volume(1, (Z, 32, 30))), "ground_truth"),
    "ground truth with other channels": (truth(volume(1, (2, Z, 32, 36))), "ground_truth"),
    "ground truth is constant": (truth(np.zeros((Z, 32, 36), np.uint16)), "ground_truth"),
    "ground truth holds no number": (
        truth(np.full((Z, 32, 36), np.nan, np.float32)),
        "ground_truth",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_input_is_refused_with_a_remedy_and_alone(lab, kind):
    spoil, column = BROKEN[kind]
    good = lab.test | {"sample": "good", "ground_truth": ""}
    for name in ("acquisition", "stage_positions"):
        source = lab.folder / lab.test[name]
        copy = source.with_name(f"good{source.suffix}")
        copy.write_bytes(source.read_bytes())
        good[name] = copy.name
    row = lab.test | spoil(lab)
    checked = lab.check(good, row, lab.train)
    assert [sample.name for sample in checked.tests] == ["good"]
    assert [sample.name for sample in checked.trains] == ["t"]
    (problems,) = checked.rejected.values()
    # What follows from it may be named as well.
    assert column in {problem.column for problem in problems}
    lines = [line for line in describe_rejections(checked).splitlines() if line.startswith("  - ")]
    assert len(lines) == len(problems)
    for problem, line in zip(problems, lines, strict=True):
        assert problem.row == 3
        # One line for each: sheet, row, column, value, what is wrong, and what to do.
        assert re.fullmatch(r'  - .*samples\.tsv:3, column ".+?", value ".*": .+; .+', line)
        assert "Traceback" not in line


@pytest.mark.parametrize("place", ["file", "folder"])
@pytest.mark.parametrize(
    ("column", "name"),
    [
        ("acquisition", "b.tif"),
        ("stage_positions", "b.csv"),
        ("ground_truth", "b.tif"),
        ("beam_profile", "b.csv"),
    ],
)
def test_what_may_not_be_read_leaves_the_other_samples_alone(column, name, place):
    # Nobody else may enter the folders of pytest.
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder))
        lab.folder.chmod(0o755)
        locked = lab.folder / "theirs" / name
        locked.parent.mkdir()
        locked.write_bytes(b"II*\0")
        (locked if place == "file" else locked.parent).chmod(0)
        row = lab.test | {"sample": "b", "ground_truth": "", column: f"theirs/{name}"}
        # What Python loads only now may be as locked as the rest.
        assert lab.check(lab.test).rejected == {}
        sheet = lab.write_sheet(lab.test, row)
        with without_privileges():
            checked = check_samples(read_sheet(sheet))
        locked.parent.chmod(0o755)
    assert [sample.name for sample in checked.tests] == ["a"]
    (problem,) = checked.rejected["b"]
    assert problem.column == column and "permission denied" in problem.message
    assert "readable" in problem.remedy


def test_unusual_but_sound_input_passes(lab):
    """Spaces and letters of any alphabet in paths, rows in any order, big-endian numbers."""
    folder = lab.folder / "Mäuse 3 (Kortex)" / "δοκιμή"
    folder.mkdir(parents=True)
    write_tiff(folder / "stapel 1.tif", volume(0, SHAPE), byteorder=">")
    rows = [f"{i},{POSITIONS[i]}" for i in (2, 0, 1)]
    (folder / "lage, µm.csv").write_text("\n".join(["projection,z_um", *rows]), encoding="utf-8")
    paths = {
        "acquisition": str((folder / "stapel 1.tif").relative_to(lab.folder)),
        "stage_positions": str((folder / "lage, µm.csv").relative_to(lab.folder)),
    }
    checked = lab.check(lab.test | paths)
    assert checked.rejected == {} and len(checked.tests) == 1
