"""Pixels that can't be decoded: a sentence with file, place and remedy, whatever the format."""

import re

import dask.array as da
import numpy as np
import pytest
import tifffile
import zarr

from besselflow.acquisition import open_acquisition
from besselflow.decoding import open_explained
from besselflow.errors import InputError
from besselflow.store import UnitWriter, open_units, open_volume, write_volume
from besselflow.tiling import list_units
from vendor_files import counts, write_ome_zarr

DATA = counts((2, 1, 4, 32, 36))


def overwrite(path, offset, count):
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * count)


def spoil_page(path, number):
    with tifffile.TiffFile(path) as tif:
        page = tif.pages[number]
        offset, count = page.dataoffsets[0], page.databytecounts[0]
    overwrite(path, offset, count)


def damaged_tiff(folder):
    grey = {"photometric": "minisblack", "compression": "zlib"}
    tifffile.imwrite(folder / "a.tif", DATA[0, 0], metadata={"axes": "ZYX"}, **grey)
    spoil_page(folder / "a.tif", 2)
    return folder / "a.tif", "z 2"


def damaged_ome_tiff(folder):
    path = folder / "a.ome.tif"
    tiles = {"photometric": "minisblack", "tile": (16, 16), "compression": "lzw"}
    tifffile.imwrite(path, DATA[:, 0], metadata={"axes": "TZYX"}, **tiles)
    spoil_page(path, 5)
    return path, "t 1, z 1"


def damaged_ome_zarr(folder):
    path = write_ome_zarr(folder / "a.zarr", DATA)
    chunk = path / "0" / "c" / "1" / "0" / "1" / "0" / "0"
    overwrite(chunk, 0, chunk.stat().st_size)
    return path, "t 1, c 0, z 2 to 3"


DAMAGED = [damaged_tiff, damaged_ome_tiff, damaged_ome_zarr]


@pytest.mark.parametrize("damaged", DAMAGED)
def test_a_damaged_image_names_file_place_and_remedy(tmp_path, damaged):
    path, place = damaged(tmp_path)
    stack = open_acquisition(path)
    # What is whole can still be read, and is right.
    np.testing.assert_array_equal(stack.data[0, 0, 0], DATA[0, 0, 0])
    with pytest.raises(InputError) as caught:
        stack.data.compute()
    message = str(caught.value)
    assert message.startswith(f"{path}: the image at {place} can't be decoded ("), message
    assert message.endswith("); copy it again from the microscope") and "\n" not in message
    # By name, since some codecs say nothing else.
    assert re.search(r"decoded \(\w+", message)


def test_a_damaged_image_in_a_folder_names_its_own_file(tmp_path):
    for number, plane in enumerate(DATA[0, 0]):
        tifffile.imwrite(tmp_path / f"z{number}.tif", plane, compression="zlib")
    spoil_page(tmp_path / "z2.tif", 0)
    with pytest.raises(InputError, match=r"z2\.tif: page 0 can't be decoded .*copy it again"):
        open_acquisition(tmp_path).data.compute()


@pytest.mark.parametrize(
    ("name", "shard"), [("volume.ozx", ""), ("volume.ome.zarr", "0/c/0/0/0/0/0")]
)
def test_a_damaged_volume_is_to_be_computed_again(tmp_path, name, shard):
    path = tmp_path / name
    values = np.random.default_rng(0).normal(size=(1, 1, 4, 30, 20)).astype("float32")
    write_volume(path, da.from_array(values), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), "a", {})
    overwrite(path / shard, 0 if shard else 500, 200)
    with pytest.raises(InputError) as caught:
        open_volume(path).data.compute()
    message = str(caught.value)
    assert message.startswith(f"{path}: the image at t 0, c 0, z 0 to 3 can't be decoded (")
    assert message.endswith("; delete it and run the same command again")


def test_a_damaged_unit_is_to_be_computed_again(tmp_path):
    path = tmp_path / "spectral-0.zip"
    units = list_units((1, 1, 4, 12, 12), 12, 2)
    with UnitWriter(path, units, (4, 12, 12)) as writer:
        values = np.random.default_rng(1).normal(size=(4, 12, 12)).astype("float32")
        writer.write(units[0], {}, volume=values)
    np.testing.assert_array_equal(open_units([path]).arrays["volume"][0], values)
    overwrite(path, 500, 300)
    with pytest.raises(InputError, match=r"spectral-0\.zip: the image at u 0, z .*delete it and"):
        open_units([path]).arrays["volume"][0].compute()


def test_what_is_read_is_what_zarr_reads(tmp_path):
    array = zarr.create_array(tmp_path / "a", shape=(5, 6, 7), chunks=(2, 4, 7), dtype="int16")
    array[:] = np.arange(210).reshape(5, 6, 7)
    lazy = open_explained(array, tmp_path / "a", "ZYX", "copy it")
    assert lazy.chunks == ((2, 2, 1), (4, 2), (7,)) and lazy.dtype == array.dtype
    for index in (np.s_[:], np.s_[1], np.s_[-1, ::2], np.s_[[0, 3], :, 1:5], np.s_[2:, 5, 6]):
        np.testing.assert_array_equal(np.asarray(lazy[index]), array[:][index])
