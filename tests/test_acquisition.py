"""Readers: every layout of a TIFF gives the same array, and no broken file passes for a whole."""

import os
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
import tifffile

from besselflow.acquisition import open_acquisition, read_stage_positions
from besselflow.errors import InputError
from lab import without_privileges

RNG = np.random.default_rng(0)
CANONICAL = RNG.integers(0, 60000, (2, 3, 5, 20, 24)).astype(np.uint16)


def in_layout(axes):
    """Return the canonical array with the axes asked for, and what it is canonically."""
    keep = tuple(slice(None) if axis in axes else slice(0, 1) for axis in "TCZYX")
    canonical = CANONICAL[keep]
    order = ["TCZYX".index(axis) for axis in axes]
    rest = [i for i in range(5) if i not in order]
    return canonical.transpose(*rest, *order)[(0,) * len(rest)], canonical


@pytest.mark.parametrize(
    "axes", ["YX", "ZYX", "TYX", "CYX", "CZYX", "ZCYX", "TZYX", "ZTYX", "TZCYX", "CTZYX", "TCZYX"]
)
def test_axes_are_brought_into_order(tmp_path, axes):
    data, canonical = in_layout(axes)
    tifffile.imwrite(tmp_path / "a.tif", data, metadata={"axes": axes}, photometric="minisblack")
    stack = open_acquisition(tmp_path / "a.tif")
    np.testing.assert_array_equal(stack.data.compute(), canonical)
    assert stack.data.dtype == np.uint16


def test_pages_without_axes_are_slices(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", CANONICAL[0, 0], metadata=None)
    assert open_acquisition(tmp_path / "a.tif").data.shape == (1, 1, 5, 20, 24)


@pytest.mark.parametrize(
    "options",
    [
        {"bigtiff": True},
        {"byteorder": ">"},
        {"bigtiff": True, "byteorder": ">"},
        {"compression": "zlib", "predictor": True},
        {"compression": "lzw"},
        {"compression": "zstd"},
        {"tile": (16, 16)},
        {"rowsperstrip": 7},
        {"ome": True},
    ],
    ids=str,
)
def test_encodings_give_the_same_pixels(tmp_path, options):
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, CANONICAL, metadata={"axes": "TCZYX"}, photometric="minisblack", **options
    )
    np.testing.assert_array_equal(open_acquisition(path).data.compute(), CANONICAL)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_types_are_kept(tmp_path, dtype):
    tifffile.imwrite(tmp_path / "a.tif", CANONICAL[0, 0].astype(dtype), metadata={"axes": "ZYX"})
    assert open_acquisition(tmp_path / "a.tif").data.dtype == dtype


def test_imagej_hyperstack_with_calibration(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path,
        CANONICAL.swapaxes(1, 2),
        imagej=True,
        resolution=(1 / 0.25, 1 / 0.5),
        metadata={"axes": "TZCYX", "unit": "um"},
    )
    stack = open_acquisition(path)
    np.testing.assert_array_equal(stack.data.compute(), CANONICAL)
    assert stack.pixel_size_um == pytest.approx((0.5, 0.25))


@pytest.mark.parametrize(
    ("unit", "size"), [("nm", 400), ("µm", 0.4), ("mm", 4e-4), ("pixel", None), (None, 0.4)]
)
def test_ome_pixel_size_is_in_micrometres(tmp_path, unit, size):
    path = tmp_path / "a.ome.tif"
    sizes = {"Z": 3 * (size or 1), "Y": size or 1, "X": 2 * (size or 1)}
    metadata = {"axes": "ZYX"} | {f"PhysicalSize{axis}": value for axis, value in sizes.items()}
    if unit is not None:
        metadata |= {f"PhysicalSize{axis}Unit": unit for axis in sizes}
    tifffile.imwrite(path, CANONICAL[0, 0], metadata=metadata)
    expected = (None, None) if size is None else (pytest.approx(0.4), pytest.approx(0.8))
    stack = open_acquisition(path)
    assert stack.pixel_size_um == expected
    assert stack.spacing_um == (None if size is None else pytest.approx(1.2))


def test_pixel_size_is_unknown_without_metadata(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", CANONICAL[0, 0], metadata={"axes": "ZYX"})
    stack = open_acquisition(tmp_path / "a.tif")
    assert stack.pixel_size_um == (None, None) and stack.spacing_um is None


@pytest.mark.parametrize("share", [0.005, 0.02, 0.3, 0.7, 0.999])
@pytest.mark.parametrize(
    "options",
    [
        {"metadata": None},
        {"metadata": {"axes": "ZYX"}},
        {"metadata": {"axes": "ZYX"}, "compression": "zlib"},
        {"metadata": {"axes": "ZYX"}, "imagej": True},
        {"metadata": {"axes": "ZYX"}, "ome": True},
        {"metadata": {"axes": "ZYX"}, "ome": True, "compression": "zlib"},
        {"metadata": {"axes": "ZYX"}, "bigtiff": True},
    ],
    ids=str,
)
def test_truncated_files_are_refused(tmp_path, options, share):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, RNG.integers(0, 999, (6, 40, 50)).astype(np.uint16), **options)
    os.truncate(path, int(path.stat().st_size * share))
    with pytest.raises(InputError, match=r"truncated|not a readable TIFF") as caught:
        open_acquisition(path)
    assert str(path) in str(caught.value)


def test_truncated_imagej_stack_of_one_page(tmp_path):
    path = tmp_path / "a.tif"
    data = np.ones((5, 40, 50), np.uint16)
    tifffile.imwrite(path, data, imagej=True, metadata={"axes": "ZYX"})
    raw = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tif:
        first, count = tif.pages[0].offset, len(tif.pages[0].tags)
        order = tif.byteorder
        end_of_data = tif.series[0].dataoffset + data.nbytes
    # Above 4 GB ImageJ leaves out all directories but the first; this is such a file, but small.
    at = first + 2 + 12 * count
    raw[at : at + 4] = struct.pack(order + "I", 0)
    path.write_bytes(raw[:end_of_data])
    assert open_acquisition(path).data.shape == (1, 1, 5, 40, 50)
    path.write_bytes(raw[: end_of_data - 10])
    with pytest.raises(InputError, match="truncated"):
        open_acquisition(path)


def test_directories_in_a_loop(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, CANONICAL[0, 0, 0], metadata=None)
    raw = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tif:
        first, count = tif.pages[0].offset, len(tif.pages[0].tags)
    at = first + 2 + 12 * count
    raw[at : at + 4] = struct.pack("<I", first)
    path.write_bytes(raw)
    with pytest.raises(InputError, match="loop"):
        open_acquisition(path)


def test_colour_complex_and_several_stacks(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((4, 20, 24, 3), np.uint8), photometric="rgb")
    with pytest.raises(InputError, match="colour"):
        open_acquisition(path)
    tifffile.imwrite(path, np.zeros((5, 20, 24), np.complex64), metadata={"axes": "ZYX"})
    with pytest.raises(InputError, match="not intensities"):
        open_acquisition(path)
    with tifffile.TiffWriter(path) as tif:
        tif.write(np.zeros((5, 20, 24), np.uint8))
        tif.write(np.zeros((5, 10, 12), np.uint8))
    with pytest.raises(InputError, match="2 separate stacks"):
        open_acquisition(path)


def test_missing_file_of_an_ome_set(tmp_path):
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, CANONICAL[0, 0], metadata={"axes": "ZYX"})
    with tifffile.TiffFile(path) as tif:
        xml = tif.ome_metadata
    # The second half of the planes is said to stand in a file that is not there.
    other = '<UUID FileName="b.ome.tif">urn:uuid:00000000-0000-0000-0000-000000000001</UUID>'
    planes = "".join(
        f'<TiffData IFD="{z % 2}" FirstZ="{z}" PlaneCount="1">{other if z > 1 else ""}</TiffData>'
        for z in range(5)
    )
    head, _, tail = xml.partition("<TiffData")
    xml = head + planes + tail.partition("/>" if "</TiffData>" not in tail else "</TiffData>")[2]
    tifffile.imwrite(path, CANONICAL[0, 0, :2], metadata=None, description=xml.encode())
    with pytest.raises(InputError, match=r"1 of 2 files are missing \(b\.ome\.tif\)"):
        open_acquisition(path)


def test_not_a_tiff(tmp_path):
    path = tmp_path / "a.tif"
    with pytest.raises(InputError, match="no such file"):
        open_acquisition(path)
    with pytest.raises(InputError, match="folder"):
        open_acquisition(tmp_path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="0 bytes"):
        open_acquisition(path)
    path.write_text("projection,z_um\n0,1\n")
    with pytest.raises(InputError, match="not a readable TIFF"):
        open_acquisition(path)


def test_permission_denied():
    # Unlike pytest's, this folder can be made one that all users may enter.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        path = Path(folder) / "a.tif"
        tifffile.imwrite(path, CANONICAL[0, 0])
        assert open_acquisition(path).data.shape[2:] == CANONICAL.shape[2:]
        path.chmod(0)
        with without_privileges(), pytest.raises(InputError, match="permission denied"):
            open_acquisition(path)


def test_stage_positions_follow_the_stack(tmp_path):
    path = tmp_path / "stage.csv"
    path.write_text("z_um,projection\n5,1\n9,2\n\n2.5,0\n")
    assert read_stage_positions(path).tolist() == [2.5, 5, 9]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("projection,z\n0,1\n", 'the column "z_um" is missing'),
        ("projection,z_um\n", "no rows"),
        ("projection,z_um\n1,0\n2,6\n", ':2, column "projection", value "1"'),
        ("projection,z_um\n0,0\n0,6\n", ':3, column "projection", value "0"'),
        ("projection,z_um\n0,0\n2,6\n", ':3, column "projection", value "2"'),
        ("projection,z_um\n0,0\n0.5,6\n", ':3, column "projection", value "0.5"'),
        ("projection,z_um\n0,0\n\n1,0\n", ':4, column "z_um", value "0": two projections'),
        ("projection,z_um\n0,0,5\n1,6,5\n", ":2: the row has 3 cells"),
        ('projection,z_um\n0,"0,5"\n', 'value "0,5": not a finite number'),
        ("projection,z_um\n0,\n", 'value "": not a finite number'),
        ("projection\tz_um\n0\t1\n", "separate the columns by commas"),
    ],
)
def test_wrong_stage_positions(tmp_path, text, message):
    path = tmp_path / "stage.csv"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_stage_positions(path)
    assert message in str(caught.value)
