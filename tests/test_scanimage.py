"""ScanImage: pages find their place, positions and sizes come from the header."""

import datetime

import numpy as np
import pytest
import tifffile

from besselflow.acquisition import open_acquisition
from besselflow.errors import InputError
from vendor_files import counts, scanimage_header, scanimage_pages, write_scanimage

DATA = counts()
ZS = [0, 5, 10, 15]


def write(path, data=DATA, zs=ZS, repeats=1, flyback=0, pages=None, first=1, **settings):
    volumes, channels, slices = data.shape[:3]
    header = scanimage_header(slices, zs, channels, volumes, repeats, flyback, **settings)
    if pages is None:
        pages = scanimage_pages(data, repeats, flyback)
    write_scanimage(path, pages, header, first, channels)
    return path


def test_file_is_what_tifffile_calls_scanimage(tmp_path):
    path = write(tmp_path / "a.tif")
    with tifffile.TiffFile(path) as tif:
        assert tif.is_scanimage and tif.is_bigtiff
        assert tif.scanimage_metadata["FrameData"]["SI.hStackManager.zs"] == ZS
        assert len(tif.pages) == 24


@pytest.mark.parametrize("flyback", [0, 2])
def test_volumes_slices_and_channels(tmp_path, flyback):
    found = open_acquisition(write(tmp_path / "a.tif", flyback=flyback, fov=100))
    assert found.format == "ScanImage BigTIFF"
    np.testing.assert_array_equal(found.data.compute(), DATA)
    assert found.data.dtype == np.int16 and found.data.chunksize == (1, 1, 1, 18, 20)
    assert found.positions_um.tolist() == ZS
    assert found.voxel_size_um == pytest.approx((5, 100 / 18, 100 / 20), rel=1e-5)
    assert found.channels == ("Channel 1", "Channel 2")
    assert found.times_s == pytest.approx((0, 0.4, 0.8))
    assert found.date == datetime.datetime(2026, 11, 25, 14, 3, 22, 500000)
    assert found.software == "ScanImage 2020.1"
    assert found.sources["stage positions"] == "SI.hStackManager.zs"
    assert any("flyback" in note for note in found.notes) == bool(flyback)


@pytest.mark.parametrize("flyback", [0, 2])
def test_volumes_of_older_versions(tmp_path, flyback):
    header = scanimage_header(4, ZS, 2, 3, flyback=flyback)
    newer = ("numFramesPerVolume", "actualNum")
    header = {key: value for key, value in header.items() if not any(n in key for n in newer)}
    header |= {
        "SI.hStackManager.numSlices": 4,
        "SI.hFastZ.numFramesPerVolume": 4 + flyback,
        "SI.hFastZ.discardFlybackFrames": flyback == 0,
        "SI.hFastZ.numDiscardFlybackFrames": 2,
    }
    write_scanimage(tmp_path / "a.tif", scanimage_pages(DATA, flyback=flyback), header)
    found = open_acquisition(tmp_path / "a.tif")
    np.testing.assert_array_equal(found.data.compute(), DATA)


@pytest.mark.parametrize("flyback", [0, 1])
def test_frames_per_slice_are_averaged_or_kept(tmp_path, flyback):
    path = write(tmp_path / "a.tif", repeats=3, flyback=flyback)
    averaged = open_acquisition(path)
    assert averaged.data.dtype == np.float32
    # Repetitions are brighter by 0, 1 and 2.
    np.testing.assert_allclose(averaged.data.compute(), DATA + 1.0)
    kept = open_acquisition(path, "time")
    assert kept.data.shape == (9, 2, 4, 18, 20)
    np.testing.assert_array_equal(
        kept.data[3:6].compute(), DATA[[1, 1, 1]] + np.arange(3).reshape(3, 1, 1, 1, 1)
    )
    for found, word in ((averaged, "averaged"), (kept, "kept as time points")):
        assert found.positions_um.tolist() == ZS
        assert any(word in note for note in found.notes)


def test_positions_that_are_listed_once_per_frame(tmp_path):
    found = open_acquisition(write(tmp_path / "a.tif", zs=np.repeat(ZS, 3), repeats=3))
    assert found.positions_um.tolist() == ZS
    np.testing.assert_allclose(found.data.compute(), DATA + 1.0)


def test_frames_that_were_averaged_while_they_were_recorded(tmp_path):
    more = {"SI.hScan2D.logAverageFactor": 3, "SI.hStackManager.framesPerSlice": 3}
    found = open_acquisition(write(tmp_path / "a.tif", **more))
    np.testing.assert_array_equal(found.data.compute(), DATA)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"SI.hStackManager.zs": 7, "SI.hStackManager.zsRelative": [0, 2, 4, 6]}, [0, 2, 4, 6]),
        # Two actuators, of which one is held.
        ({"SI.hStackManager.zs": [[1, 9], [2, 9], [3, 9], [5, 9]]}, [10, 11, 12, 14]),
    ],
)
def test_where_positions_stand(tmp_path, more, expected):
    assert open_acquisition(write(tmp_path / "a.tif", **more)).positions_um.tolist() == expected


def test_without_a_stack_frames_are_time_points(tmp_path):
    more = {"SI.hStackManager.enable": False, "SI.hFastZ.enable": False}
    found = open_acquisition(write(tmp_path / "a.tif", **more))
    assert found.data.shape == (12, 2, 1, 18, 20) and found.positions_um is None


def test_one_channel_and_one_volume_without_its_last_flyback(tmp_path):
    data = DATA[:1, :1]
    pages = scanimage_pages(data, flyback=2)[:-2]
    found = open_acquisition(write(tmp_path / "a.tif", data, flyback=2, pages=pages))
    np.testing.assert_array_equal(found.data.compute(), data)


def test_unfinished_volume_is_left_out(tmp_path):
    found = open_acquisition(write(tmp_path / "a.tif", pages=scanimage_pages(DATA)[:-3]))
    np.testing.assert_array_equal(found.data.compute(), DATA[:2])
    assert "the last 5 pages belong to an unfinished volume, and are left out" in found.notes
    with pytest.raises(InputError, match="fewer than one volume of 4 slices x 1 frames x 2"):
        open_acquisition(write(tmp_path / "a.tif", pages=scanimage_pages(DATA)[:6]))


@pytest.mark.parametrize("cuts", [(10,), (8, 16)])
def test_split_series(tmp_path, cuts):
    pages = scanimage_pages(DATA)
    paths = []
    for number, (start, stop) in enumerate(zip((0, *cuts), (*cuts, 24), strict=True), start=1):
        path = tmp_path / f"mouse 1_00001_{number:05d}.tif"
        paths.append(write(path, pages=pages[start:stop], first=start // 2 + 1))
    # The next acquisition begins anew, and another file lies beside.
    write(tmp_path / f"mouse 1_00001_{len(paths) + 1:05d}.tif")
    found = open_acquisition(paths[0])
    np.testing.assert_array_equal(found.data.compute(), DATA)
    assert found.files == tuple(paths)
    with pytest.raises(InputError, match="continues another file; give the first file"):
        open_acquisition(paths[1])
    if len(paths) > 2:
        paths[1].rename(tmp_path / "elsewhere")
        paths[2].rename(paths[1])
        with pytest.raises(InputError, match=r"begins with frame 9, but .* ends with frame 4"):
            open_acquisition(paths[0])


def test_truncated_file(tmp_path):
    path = write(tmp_path / "a.tif")
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match="truncated"):
        open_acquisition(path)


def test_positions_that_do_not_fit_and_several_regions(tmp_path):
    with pytest.raises(InputError, match="lists 3 positions, but 4 slices were recorded"):
        open_acquisition(write(tmp_path / "a.tif", zs=[0, 1, 2]))
    header = scanimage_header(4, ZS) | {"SI.hRoiManager.mroiEnable": True}
    write_scanimage(tmp_path / "a.tif", scanimage_pages(DATA), header, regions=2)
    with pytest.raises(InputError, match="2 regions of interest"):
        open_acquisition(tmp_path / "a.tif")
