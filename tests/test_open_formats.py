"""OME-TIFF, OME-Zarr, NumPy arrays and folders of TIFFs: pixels, positions, sizes, and units."""

import datetime
import re
import shutil

import numpy as np
import pytest
import tifffile

from besselflow.acquisition import open_acquisition, recognise
from besselflow.errors import InputError
from vendor_files import counts, write_bioformats2raw, write_ome_zarr

DATA = counts()
POSITIONS = [10.0, 15.5, 20.0, 24.0]


def write_ome_tiff(path, data=DATA, positions=POSITIONS, unit="µm", **more):
    times, channels, planes = data.shape[:3]
    metadata = {
        "axes": "TCZYX",
        "PhysicalSizeY": 600.0,
        "PhysicalSizeYUnit": "nm",
        "PhysicalSizeX": 0.0005,
        "PhysicalSizeXUnit": "mm",
        "Channel": {"Name": [f"GCaMP {c}" for c in range(channels)]},
        "AcquisitionDate": "2026-11-25T14:03:22",
    } | more
    if positions is not None:
        order = list(np.ndindex(times, channels, planes))
        metadata["Plane"] = {
            "PositionZ": [positions[z] for _, _, z in order],
            "PositionZUnit": [unit] * len(order),
            "DeltaT": [30.0 * t + z for t, _, z in order],
            "DeltaTUnit": ["s"] * len(order),
        }
        if unit is None:
            del metadata["Plane"]["PositionZUnit"]
    tifffile.imwrite(path, data, ome=True, photometric="minisblack", metadata=metadata)
    return path


def test_ome_tiff_states_everything(tmp_path):
    found = open_acquisition(write_ome_tiff(tmp_path / "any name"))
    assert found.format == "OME-TIFF"
    np.testing.assert_array_equal(found.data.compute(), DATA)
    assert found.positions_um.tolist() == POSITIONS
    assert found.voxel_size_um == (None, pytest.approx(0.6), pytest.approx(0.5))
    assert found.channels == ("GCaMP 0", "GCaMP 1")
    assert found.times_s == (0, 30, 60)
    assert found.date == datetime.datetime(2026, 11, 25, 14, 3, 22)
    assert found.sources["stage positions"] == "PositionZ of the planes"


@pytest.mark.parametrize(
    ("positions", "unit", "expected"),
    [
        ([0.01, 0.015, 0.02, 0.03], "mm", [10, 15, 20, 30]),
        ([4, 3, 2, 1], "µm", [4, 3, 2, 1]),
        # Distances of the planes alone, counted from the first.
        (None, None, [0, 5, 10, 15]),
        ([7, 7, 7, 7], "µm", [0, 5, 10, 15]),
    ],
)
def test_positions_of_ome_tiff(tmp_path, positions, unit, expected):
    path = write_ome_tiff(tmp_path / "a.tif", positions=positions, unit=unit, PhysicalSizeZ=5.0)
    found = open_acquisition(path)
    np.testing.assert_allclose(found.positions_um, expected)
    assert found.voxel_size_um[0] == 5


@pytest.mark.parametrize("unit", ["reference frame", "pixel", None])
def test_positions_without_a_length_are_unclear(tmp_path, unit):
    found = open_acquisition(write_ome_tiff(tmp_path / "a.tif", unit=unit))
    assert found.positions_um is None
    shown = unit or "reference frame"
    assert f'the unit "{shown}", which is no length' in found.unknown["stage positions"]


def test_pixel_size_without_a_length_is_unclear(tmp_path):
    path = write_ome_tiff(tmp_path / "a.tif", PhysicalSizeXUnit="pixel")
    found = open_acquisition(path)
    assert found.pixel_size_um == (pytest.approx(0.6), None)
    assert 'PhysicalSizeX has the unit "pixel"' in found.unknown["voxel size"]


def split_ome_tiff(folder, names):
    """Spread the time points of an OME-TIFF over files, each with the XML of the whole set."""
    whole = write_ome_tiff(folder / "whole.ome.tif")
    with tifffile.TiffFile(whole) as tif:
        xml = tif.ome_metadata
    whole.unlink()
    planes = DATA.shape[1] * DATA.shape[2]
    identities = [f"urn:uuid:00000000-0000-0000-0000-{i:012d}" for i in range(len(names))]
    parts = "".join(
        f'<TiffData IFD="{i % planes}" FirstT="{i // planes}" FirstC="{i // 4 % 2}" '
        f'FirstZ="{i % 4}" PlaneCount="1"><UUID FileName="{names[i // planes]}">'
        f"{identities[i // planes]}</UUID></TiffData>"
        for i in range(len(names) * planes)
    )
    xml = re.sub(r"<TiffData.*?(/>|</TiffData>)", "", xml, flags=re.DOTALL)
    xml = re.sub(r"(<Plane )", parts.replace("\\", r"\\") + r"\1", xml, count=1)
    for name, identity, data in zip(names, identities, DATA, strict=True):
        own = re.sub(r' UUID="[^"]*"', f' UUID="{identity}"', xml)
        tifffile.imwrite(
            folder / name,
            data.reshape(-1, *data.shape[-2:]),
            photometric="minisblack",
            description=own.encode(),
            metadata=None,
        )


def test_ome_tiff_in_several_files(tmp_path):
    names = [f"t{i}.ome.tif" for i in range(3)]
    split_ome_tiff(tmp_path, names)
    found = open_acquisition(tmp_path / "t0.ome.tif")
    np.testing.assert_array_equal(found.data.compute(), DATA)
    assert found.positions_um.tolist() == POSITIONS
    assert found.files == tuple(tmp_path / name for name in names)
    (tmp_path / "t1.ome.tif").unlink()
    with pytest.raises(InputError, match=r"1 of 3 files are missing \(t1\.ome\.tif\)"):
        open_acquisition(tmp_path / "t0.ome.tif")


def test_ome_tiff_whose_metadata_lie_elsewhere(tmp_path):
    xml = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        '<BinaryOnly MetadataFile="set.companion.ome" UUID="urn:uuid:1"/></OME>'
    )
    path = tmp_path / "part.ome.tif"
    tifffile.imwrite(path, DATA[0, 0], photometric="minisblack", description=xml, metadata=None)
    with pytest.raises(InputError, match=r"in another file, set\.companion\.ome, which is not"):
        open_acquisition(path)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr(tmp_path, version):
    found = open_acquisition(write_ome_zarr(tmp_path / "a.zarr", DATA, version))
    assert found.format == f"OME-Zarr {version}"
    np.testing.assert_array_equal(found.data.compute(), DATA)
    assert found.positions_um.tolist() == [2.5, 7.5, 12.5, 17.5]
    assert found.voxel_size_um == pytest.approx((5, 0.6, 0.5))
    assert found.channels == ("GCaMP 0", "GCaMP 1")
    assert found.times_s == (0, 30, 60)


def test_ome_zarr_without_unit_or_image(tmp_path):
    found = open_acquisition(write_ome_zarr(tmp_path / "a.zarr", DATA, unit=None))
    assert found.positions_um is None and found.voxel_size_um[0] is None
    assert "the axis z has no unit" in found.unknown["stage positions"]
    with pytest.raises(InputError, match="not a readable group"):
        open_acquisition(tmp_path / "a.zarr" / "0")


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_folder_of_bioformats2raw_with_one_image_is_that_image(tmp_path, version):
    path = write_bioformats2raw(tmp_path / "a.zarr", [DATA], version)
    around, image = open_acquisition(path), open_acquisition(path / "0")
    np.testing.assert_array_equal(around.data.compute(), DATA)
    assert (around.path, around.format) == (path, f"OME-Zarr {version}")
    assert around.positions_um.tolist() == image.positions_um.tolist()
    assert (around.voxel_size_um, around.channels) == (image.voxel_size_um, image.channels)
    # Older versions of it write no list.
    shutil.rmtree(path / "OME")
    np.testing.assert_array_equal(open_acquisition(path).data.compute(), DATA)


def test_several_images_of_bioformats2raw_are_named(tmp_path):
    path = write_bioformats2raw(tmp_path / "a.zarr", [DATA] * 2, names=["A/1/0", "A/2/0"])
    both = re.escape(f"holds 2 images; give the folder of one of them: {path}/A/1/0, {path}/A/2/0")
    with pytest.raises(InputError, match=both):
        open_acquisition(path)
    shutil.rmtree(path / "OME")
    with pytest.raises(InputError, match="without an image"):
        open_acquisition(path)
    many = write_bioformats2raw(tmp_path / "b.zarr", [DATA[:1, :1]] * 11)
    shutil.rmtree(many / "OME")
    with pytest.raises(InputError, match=r"11 images; .*b\.zarr/4 and 6 more"):
        open_acquisition(many)
    single = write_bioformats2raw(tmp_path / "c.zarr", [DATA])
    shutil.rmtree(single / "0")
    with pytest.raises(InputError, match="the image 0 that its metadata name is not there"):
        open_acquisition(single)


def test_own_volumes_are_read(tmp_path):
    import dask.array as da

    from besselflow.store import write_volume

    data = DATA.astype(np.float32)
    write_volume(tmp_path / "v", da.from_array(data), (1.0, 0.6, 0.5), (3.0, 0, 0), "v", {})
    found = open_acquisition(tmp_path / "v")
    np.testing.assert_array_equal(found.data.compute(), data)
    assert found.voxel_size_um == (1, 0.6, 0.5) and found.positions_um.tolist() == [3, 4, 5, 6]
    assert found.gaps is None


@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("dtype", ["<u2", ">u2", "<f4"])
def test_published_arrays(tmp_path, order, dtype):
    volume = np.moveaxis(DATA[0, 0], 0, -1)
    np.save(tmp_path / "a.npy", np.asarray(volume, dtype, order=order))
    found = open_acquisition(tmp_path / "a.npy")
    np.testing.assert_array_equal(found.data.compute(), DATA[:1, :1])
    assert found.data.dtype.isnative
    assert found.positions_um is None and found.voxel_size_um == (None,) * 3


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 5)), "three axes"),
        (np.zeros((4, 5, 6), complex), "not intensities"),
        (np.array([[["a"]]]), "not intensities"),
        (np.zeros((4, 0, 6)), "no pixels"),
    ],
)
def test_arrays_that_are_no_volumes(tmp_path, array, message):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(InputError, match=message):
        open_acquisition(tmp_path / "a.npy")


def test_damaged_arrays(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((4, 5, 6)))
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(InputError, match="truncated"):
        open_acquisition(path)
    np.save(path, np.array([{}], object), allow_pickle=True)
    with pytest.raises(InputError, match="plain numbers"):
        open_acquisition(path)


def test_folder_of_tiffs_in_natural_order(tmp_path):
    folder = tmp_path / "Maus ü 1"
    folder.mkdir()
    planes = counts((12, 18, 20))
    for i, plane in enumerate(planes):
        tifffile.imwrite(folder / f"Z{i}.TIF", plane, resolution=(2, 2))
    (folder / "._Z0.tif").write_bytes(b"copied from a Mac")
    (folder / "notes.txt").write_text("x")
    found = open_acquisition(folder)
    assert found.format == "folder of TIFFs"
    np.testing.assert_array_equal(found.data[0, 0].compute(), planes)
    tifffile.imwrite(folder / "Z3.TIF", planes[3].astype(np.uint8))
    with pytest.raises(InputError, match=r"Z3\.TIF holds .* of type uint8, but Z0\.TIF"):
        open_acquisition(folder)
    tifffile.imwrite(folder / "Z3.TIF", planes[:2])
    with pytest.raises(InputError, match=r"Z3\.TIF holds 2 pages"):
        open_acquisition(folder)


def test_content_decides_rather_than_the_name(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((4, 5, 6)))
    (tmp_path / "a.npy").rename(tmp_path / "a.tif")
    assert recognise(tmp_path / "a.tif").name == "NumPy array"
    (tmp_path / "b.npy").write_text("text")
    assert recognise(tmp_path / "b.npy") is None
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="this folder holds no acquisition"):
        open_acquisition(tmp_path / "folder")
