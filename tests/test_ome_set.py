"""OME-TIFF whose metadata lie in a companion: read by any of its files, complete, or not at all."""

import datetime
import shutil
import unicodedata

import numpy as np
import pytest
import tifffile

from besselflow.acquisition import open_acquisition
from besselflow.draft import find_all, sample_name
from besselflow.errors import InputError
from lab import POSITIONS, Lab, volume
from test_open_formats import split_ome_tiff
from vendor_files import counts, write_companion

DATA = counts()
ZS = [10.0, 15.5, 20.0, 24.0]


def replace_in(path, old, new, count=-1):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, count), encoding="utf-8")


@pytest.mark.parametrize("asked", ["set.companion.ome", "set_t0.ome.tif", "set_t2.ome.tif", ""])
def test_set_is_read_by_any_of_its_files(tmp_path, asked):
    companion = write_companion(tmp_path / "Mäuse 1", DATA, positions=ZS)
    path = companion.parent / asked
    found = open_acquisition(path)
    assert (found.format, found.path) == ("OME-TIFF", path)
    np.testing.assert_array_equal(found.data.compute(), DATA)
    assert found.data.chunksize == (1, 1, 1, 18, 20)
    assert found.positions_um.tolist() == ZS
    assert found.voxel_size_um == (None, pytest.approx(0.6), pytest.approx(0.5))
    assert found.channels == ("Ch 0", "Ch 1") and found.times_s == (0, 30, 60)
    assert found.date == datetime.datetime(2026, 11, 25, 14, 3, 22)
    assert found.software == "A microscope 1.2"
    assert found.files == (companion, *(companion.parent / f"set_t{t}.ome.tif" for t in range(3)))


@pytest.mark.parametrize(
    "options",
    [
        {"stub": False},
        {"uuid": False},
        {"named": lambda name: f"D:\\data\\Mouse 1\\{name}"},
        {"named": lambda name: f"/mnt/microscope/{name}"},
        {"named": lambda name: unicodedata.normalize("NFD", name.upper()), "stub": False},
        {"byteorder": ">", "bigtiff": True, "compression": "zlib", "tile": (16, 16)},
    ],
    ids=["plain TIFFs", "no UUIDs", "Windows", "absolute", "spelt otherwise", "encoded"],
)
def test_how_sets_are_written(tmp_path, options):
    found = open_acquisition(write_companion(tmp_path, DATA, "Mäuse", **options))
    np.testing.assert_array_equal(found.data.compute(), DATA)


def test_files_of_different_encodings(tmp_path):
    companion = write_companion(tmp_path, DATA, stub=False)
    for t, options in enumerate(
        [{"byteorder": ">"}, {"rowsperstrip": 5}, {"tile": (16, 16), "compression": "lzw"}]
    ):
        tifffile.imwrite(
            tmp_path / f"set_t{t}.ome.tif",
            DATA[t].reshape(-1, 18, 20),
            metadata=None,
            ome=False,
            **options,
        )
    np.testing.assert_array_equal(open_acquisition(companion).data.compute(), DATA)


def test_copies_links_and_renamed_files(tmp_path, monkeypatch):
    write_companion(tmp_path / "a", DATA)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    shutil.rmtree(tmp_path / "a")
    (tmp_path / "b" / "set_t1.ome.tif").rename(tmp_path / "b" / "copy of t1.tif")
    (tmp_path / "link").symlink_to(tmp_path / "b" / "set.companion.ome")
    monkeypatch.chdir(tmp_path / "b")
    for path in ("set.companion.ome", "set_t2.ome.tif", tmp_path / "link"):
        np.testing.assert_array_equal(open_acquisition(path).data.compute(), DATA)


def test_master_among_the_tiffs(tmp_path):
    """One TIFF has the OME-XML, and the others name it."""
    split_ome_tiff(tmp_path, [f"set_t{i}.ome.tif" for i in range(3)])
    stubs = tmp_path / "stubs"
    write_companion(stubs, DATA)
    for t in (1, 2):
        stub = tifffile.tiffcomment(stubs / f"set_t{t}.ome.tif")
        stub = stub.replace("set.companion.ome", "set_t0.ome.tif")
        own = f"00000000-0000-0000-0000-{t:012d}"
        stub = stub.replace(f"00000000-0000-0000-0000-{t + 1:012d}", own)
        tifffile.tiffcomment(tmp_path / f"set_t{t}.ome.tif", stub)
    for t in range(3):
        found = open_acquisition(tmp_path / f"set_t{t}.ome.tif")
        np.testing.assert_array_equal(found.data.compute(), DATA)


def test_one_of_several_images_by_its_tiffs(tmp_path):
    companion = write_companion(tmp_path, DATA[:1], images=2)
    for number in range(2):
        path = tmp_path / f"set_t{number}.ome.tif"
        found = open_acquisition(path)
        np.testing.assert_array_equal(found.data.compute(), DATA[:1])
        assert found.files == (companion, path)
    with pytest.raises(InputError, match=r"describes 2 images \(field 0, field 1\); give one of"):
        open_acquisition(companion)


def lose(name):
    return lambda folder: (folder / name).unlink()


def in_xml(old, new, count=-1):
    return lambda folder: replace_in(folder / "set.companion.ome", old, new, count)


def take_from_other_set(folder):
    write_companion(folder / "other", DATA + 1, "other", images=2)
    shutil.copy(folder / "other" / "other_t4.ome.tif", folder / "set_t1.ome.tif")


def cut(folder):
    path = folder / "set_t1.ome.tif"
    path.write_bytes(path.read_bytes()[:-400])


def smaller(folder):
    half = DATA[1].reshape(-1, 18, 20)[:, :9]
    tifffile.imwrite(folder / "set_t1.ome.tif", half, metadata=None, ome=False)


def fewer(folder):
    pages = {"metadata": None, "ome": False, "photometric": "minisblack"}
    tifffile.imwrite(folder / "set_t1.ome.tif", DATA[1, 0], **pages)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lose("set_t1.ome.tif"), r"1 of 3 files are missing \(set_t1\.ome\.tif\); copy the whole"),
        (take_from_other_set, r"set_t1\.ome\.tif belongs to another set \(it states the UUID .*5 "),
        (cut, r"set_t1\.ome\.tif: truncated"),
        (fewer, r"set_t1\.ome\.tif has 4 pages, but the OME-XML names 8 of it"),
        (smaller, r"set_t1\.ome\.tif holds \(9, 20\) pixels .* set_t0\.ome\.tif \(18, 20\)"),
        (lambda folder: (folder / "set_t1.ome.tif").write_text("text"), "not a readable TIFF"),
        (lambda folder: (folder / "set_t1.ome.tif").write_bytes(b""), "1 of 3 files are empty"),
        (in_xml('PlaneCount="8"', 'PlaneCount="7"'), r"3 of 24 planes .*T 0, C 1, Z 3.*no page"),
        (in_xml('FirstT="1"', 'FirstT="0"'), r"8 of 24 planes are missing \(the first at T 1"),
        (in_xml('SizeX="20"', 'SizeX="21"'), r"its OME-XML does not fit its images"),
        (in_xml("</Image>", ""), "the XML is damaged"),
        (in_xml("Pixels", "Other"), "describes no pixels"),
        (in_xml("TiffData", "BinData"), "names no TIFFs that hold its pixels"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, spoil, message):
    companion = write_companion(tmp_path, DATA)
    spoil(tmp_path)
    for path in (companion, tmp_path / "set_t0.ome.tif"):
        with pytest.raises(InputError, match=message) as caught:
            open_acquisition(path)
        assert "Error" not in str(caught.value)


def test_companion_without_names_is_matched_by_identity(tmp_path):
    companion = write_companion(tmp_path, DATA)
    replace_in(companion, " FileName=", " Name=")
    np.testing.assert_array_equal(open_acquisition(companion).data.compute(), DATA)
    (tmp_path / "set_t1.ome.tif").unlink()
    with pytest.raises(InputError, match=r"no TIFF beside it has the UUID .*2 that its OME-XML"):
        open_acquisition(companion)


def test_draft_takes_a_set_for_one_acquisition(tmp_path):
    companion = write_companion(tmp_path / "one", DATA, "zebra")
    plain = write_companion(tmp_path / "plain", DATA, "a", stub=False)
    fields = write_companion(tmp_path / "two", DATA[:1], images=2)
    broken = write_companion(tmp_path / "broken", DATA)
    (broken.parent / "set_t0.ome.tif").unlink()
    found = find_all(tmp_path)
    tiffs = [fields.parent / f"set_t{number}.ome.tif" for number in range(2)]
    assert [image.path for image in found.images] == [companion, plain, *tiffs]
    assert list(found.left_out) == [broken]
    assert "1 of 3 files are missing" in found.left_out[broken]
    assert sample_name(companion, set()) == "zebra"


def test_folder_of_single_planes_of_a_set_is_no_plain_folder(tmp_path):
    for name in ("a", "b"):
        write_companion(tmp_path / "two", DATA[:, :1, :1], name)
    with pytest.raises(InputError, match=r"holds 2 sets of OME-TIFF; .* such as a\.companion"):
        open_acquisition(tmp_path / "two")
    (tmp_path / "embedded").mkdir()
    write_companion(tmp_path / "embedded", DATA[:, :1, :1], "c").rename(tmp_path / "c.xml")
    xml = (tmp_path / "c.xml").read_text(encoding="utf-8")
    for t in range(3):
        tifffile.tiffcomment(tmp_path / "embedded" / f"c_t{t}.ome.tif", xml.encode())
    with pytest.raises(InputError, match="the files are a set of OME-TIFF, whose OME-XML says"):
        open_acquisition(tmp_path / "embedded")


def test_all_files_of_a_set_are_inputs_of_its_sample(tmp_path, monkeypatch):
    lab = Lab(tmp_path)
    write_companion(tmp_path / "scan", volume(0, (2, 1, 3, 32, 36)), positions=POSITIONS)
    row = lab.test | {"ground_truth": "", "stage_positions": "", "voxel_size_y_um": "0.6"}
    for asked in ("scan/set.companion.ome", "scan/set_t1.ome.tif"):
        (sample,) = lab.check(row | {"acquisition": asked}).tests
        assert sample.positions_um == tuple(POSITIONS)
        assert {file.name for file in sample.acquisition_files} == {
            *("set.companion.ome", "set_t0.ome.tif", "set_t1.ome.tif")
        }
    monkeypatch.setattr("besselflow.stated._MOST_FILES", 2)
    (sample,) = lab.check(row | {"acquisition": asked}).tests
    assert [file.name for file in sample.acquisition_files] == [
        *("set.companion.ome", "set_t0.ome.tif")
    ]
    # A ground truth in several files, of which the sheet names one.
    write_companion(tmp_path / "truth", volume(9, (2, 1, 20, 32, 36)), name="gt")
    truth = {"ground_truth": "truth/gt_t0.ome.tif", "voxel_size_y_um": "0.6"}
    checked = lab.check(lab.test, lab.train | truth)
    (sample,) = checked.trains
    assert sample.ground_truth_files == (tmp_path / "truth" / "gt.companion.ome",)
    assert checked.tests[0].ground_truth_files == ()
