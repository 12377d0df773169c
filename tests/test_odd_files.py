"""Files that are odd but right are read right, and those that would be read wrong are refused."""

import re
import struct

import numpy as np
import pytest
import tifffile
import zarr

from besselflow.acquisition import open_acquisition
from besselflow.errors import InputError
from test_open_formats import split_ome_tiff
from vendor_files import (
    counts,
    invert,
    scanimage_header,
    scanimage_pages,
    write_bruker,
    write_handmade_tiff,
    write_ome_zarr,
    write_scanimage,
    write_thorlabs,
)

DATA = counts((3, 18, 20))
SERIES = counts()


def packed(page, bits):
    """Return pixels without gaps between them, in lines of whole bytes, as cameras send them."""
    digits = (page[..., None].astype(int) >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(digits.reshape(len(page), -1).astype(np.uint8), axis=1).tobytes()


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("bits", "width"), [(4, 20), (10, 20), (12, 20), (12, 19), (16, 20)])
def test_bit_depths(tmp_path, order, bits, width):
    data = DATA[..., :width] & (2**bits - 1)
    pack = None if bits == 16 else lambda page: packed(page, bits)
    path = write_handmade_tiff(tmp_path / "a.tif", data, order, {258: (3, bits)}, pack)
    np.testing.assert_array_equal(open_acquisition(path).data[0, 0].compute(), data)


def test_one_strip_where_two_are_announced(tmp_path):
    path = write_handmade_tiff(tmp_path / "a.tif", DATA, tags={278: (4, 9)})
    np.testing.assert_array_equal(open_acquisition(path).data[0, 0].compute(), DATA)


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({279: (4, 100)}, r"page 0 states 100 bytes, but its \(18, 20\) pixels have 720"),
        ({256: (4, 2**31 - 1)}, "page 0 states 720 bytes"),
        ({273: (4, 0)}, "1 of 1 tiles or strips of page 0 were never written"),
        ({259: (3, 8), 278: (4, 9)}, "1 of 2 tiles or strips of page 0 were never written"),
        (
            {270: (2, "ImageJ=1.54f\nimages=3\nchannels=2\nhyperstack=true\n")},
            "announce 3 planes, but its channels, slices, and frames are 2",
        ),
        (
            {270: (2, "scanimage.SI.hChannels.channelSave = [1;2]\nscanimage.SI.x = 1\n")},
            "the pages of 2 channels follow each other",
        ),
        (
            {270: (2, "state.configPath='x'\nstate.acq.numberOfChannelsSave=2\n")},
            "the pages of 2 channels follow each other",
        ),
        ({270: (2, '<?xml version="1.0"?><OME><Image></OME')}, "its OME-XML is damaged"),
    ],
)
def test_what_would_be_read_wrong(tmp_path, tags, message):
    path = write_handmade_tiff(tmp_path / "a.tif", DATA, tags=tags)
    with pytest.raises(InputError, match=message):
        open_acquisition(path)


def plain_stack(folder):
    tifffile.imwrite(folder / "a.tif", DATA, photometric="minisblack")
    return folder / "a.tif", folder / "a.tif"


def imagej_stack(folder):
    tifffile.imwrite(folder / "a.tif", DATA, imagej=True, metadata={"axes": "ZYX"})
    return folder / "a.tif", folder / "a.tif"


def set_of_ome_tiff(folder):
    split_ome_tiff(folder, [f"t{i}.ome.tif" for i in range(3)])
    return folder / "t0.ome.tif", folder / "t2.ome.tif"


def folder_of_planes(folder):
    for i, plane in enumerate(DATA):
        tifffile.imwrite(folder / f"z{i}.tif", plane)
    return folder, folder / "z1.tif"


def planes_of_bruker(folder):
    write_bruker(folder / "scan", SERIES, 0.0, [0.0, 5.0, 10.0, 15.0])
    return folder / "scan", folder / "scan" / "scan_Cycle00001_Ch2_000001.ome.tif"


def planes_of_thorlabs(folder):
    write_thorlabs(folder, SERIES, streaming=False, flyback=0, raw=None)
    for t, c, p in np.ndindex(*SERIES.shape[:3]):
        name = f"Chan{'AB'[c]}_001_001_{p + 1:03d}_{t + 1:03d}.tif"
        tifffile.imwrite(folder / name, SERIES[t, c, p])
    return folder, folder / "ChanA_001_001_001_001.tif"


@pytest.mark.parametrize(
    "write",
    [
        plain_stack,
        imagej_stack,
        set_of_ome_tiff,
        folder_of_planes,
        planes_of_bruker,
        planes_of_thorlabs,
    ],
)
def test_images_of_which_zero_is_white_are_refused(tmp_path, write):
    path, inverted = write(tmp_path)
    open_acquisition(path)
    invert(inverted)
    message = rf"{re.escape(str(inverted))}: zero is white .* export it with black as zero"
    with pytest.raises(InputError, match=message):
        open_acquisition(path)


def test_a_single_page_of_which_zero_is_white(tmp_path):
    path, _ = plain_stack(tmp_path)
    invert(path, 2)
    with pytest.raises(InputError, match="zero is white"):
        open_acquisition(path)


def test_pages_that_do_not_say_what_zero_is(tmp_path):
    path = write_handmade_tiff(tmp_path / "a.tif", DATA)
    # Another number turns the tag into one that nobody reads.
    tag, other = (struct.pack("<HHI", code, 3, 1) for code in (262, 263))
    raw = path.read_bytes()
    assert raw.count(tag) == len(DATA)
    path.write_bytes(raw.replace(tag, other))
    np.testing.assert_array_equal(open_acquisition(path).data[0, 0].compute(), DATA)


@pytest.mark.parametrize(
    ("lines", "step"),
    [
        ("unit=um\nspacing=2.5", 2.5),
        ("unit=\\u00B5m\nspacing=2.5", 2.5),
        ("unit=µm\nspacing=2.5", 2.5),
        ("unit=Microns\nspacing=2.5", 2.5),
        ("unit=micron\nzunit=nm\nspacing=2500", 2.5),
        ("unit=micron\nspacing=-2.5", None),
    ],
)
def test_units_of_imagej(tmp_path, lines, step):
    text = f"ImageJ=1.54f\nimages=3\nslices=3\n{lines}\nloop=false\n"
    tags = {270: (2, text), 282: (5, (4, 1)), 283: (5, (2, 1)), 296: (3, 1)}
    found = open_acquisition(write_handmade_tiff(tmp_path / "a.tif", DATA, ">", tags))
    np.testing.assert_array_equal(found.data[0, 0].compute(), DATA)
    assert found.voxel_size_um == (step, 0.5, 0.25)


@pytest.mark.parametrize(
    ("lines", "times"),
    [
        ("finterval=0.25", (0, 0.25, 0.5)),
        ("finterval=2\ntunit=min", (0, 120, 240)),
        ("finterval=500\ntunit=msec", (0, 0.5, 1)),
        ("finterval=2\ntunit=frames", ()),
        ("finterval=0.0", ()),
        ("finterval=-1", ()),
        ("finterval=NaN", ()),
        ("fps=7.0", ()),
    ],
)
@pytest.mark.parametrize("axis", ["frames", "slices"])
def test_times_of_imagej(tmp_path, lines, times, axis):
    text = f"ImageJ=1.54f\nimages=3\n{axis}=3\nhyperstack=true\n{lines}\nloop=false\n"
    found = open_acquisition(write_handmade_tiff(tmp_path / "a.tif", DATA, tags={270: (2, text)}))
    assert found.data.shape[:3] == ((3, 1, 1) if axis == "frames" else (1, 1, 3))
    assert found.times_s == (times if axis == "frames" else ())


@pytest.mark.parametrize(("value", "unit", "step"), [(0.5, "min", 30.0), ("soon", "s", None)])
def test_time_increment_of_ome_tiff(tmp_path, value, unit, step):
    metadata = {"axes": "TZYX", "TimeIncrement": value, "TimeIncrementUnit": unit}
    path, data = tmp_path / "a.ome.tif", SERIES[:, 0]
    tifffile.imwrite(path, data, photometric="minisblack", metadata=metadata)
    assert open_acquisition(path).times_s == (() if step is None else (0, step, 2 * step))


def test_pixel_size_that_is_no_number(tmp_path):
    path = tmp_path / "a.tif"
    metadata = {"axes": "ZYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    tifffile.imwrite(path, DATA, ome=True, photometric="minisblack", metadata=metadata)
    xml = tifffile.tiffcomment(path).replace('SizeX="0.5"', 'SizeX="0,5"')
    tifffile.tiffcomment(path, xml.encode())
    found = open_acquisition(path)
    assert found.pixel_size_um == (0.5, None)
    assert 'PhysicalSizeX is "0,5", which is no positive number' in found.unknown["voxel size"]


def change_zarr(path, change):
    group = zarr.open_group(str(path), mode="r+")
    attributes = dict(group.attrs)
    image = attributes["multiscales"][0]
    change(image, image["datasets"][0])
    group.attrs.update(attributes)
    return path


def without_scale(image, dataset):
    del image["coordinateTransformations"], dataset["coordinateTransformations"]


def with_scale(values):
    def change(image, dataset):
        dataset["coordinateTransformations"][0]["scale"] = values

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [(without_scale, "is not stated"), (with_scale([1, 1, -5, 600, 500]), "is -5")],
)
def test_scale_of_zarr_that_is_no_distance(tmp_path, change, reason):
    path = change_zarr(write_ome_zarr(tmp_path / "a", SERIES, "0.4"), change)
    found = open_acquisition(path)
    assert found.positions_um is None and found.voxel_size_um[0] is None
    assert found.unknown["stage positions"] == f"the scale of the axis z {reason}"


def test_wrong_scale_or_axes_of_zarr(tmp_path):
    path = change_zarr(write_ome_zarr(tmp_path / "a", SERIES, "0.4"), with_scale([1, 2]))
    with pytest.raises(InputError, match=re.escape("scale [1, 2] has not one number for each")):
        open_acquisition(path)
    twice = write_ome_zarr(tmp_path / "b", SERIES, "0.4")
    change_zarr(twice, lambda image, _: image["axes"][2].update(name="y"))
    with pytest.raises(InputError, match=r"the axes \['t', 'c', 'y', 'y', 'x'\]"):
        open_acquisition(twice)


def test_big_endian_zarr_with_microns_in_another_order_of_axes(tmp_path):
    group = zarr.open_group(str(tmp_path / "a"), mode="w", zarr_format=2)
    array = group.create_array("0", shape=(20, 3, 18), dtype=">u2", chunks=(20, 2, 18))
    array[:] = DATA.transpose(2, 0, 1)
    axes = [{"name": name, "type": "space", "unit": "µm"} for name in "xzy"]
    scale = {"type": "scale", "scale": [0.3, 2, 0.4]}
    dataset = {"path": "0", "coordinateTransformations": [scale]}
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": [dataset]}]
    found = open_acquisition(tmp_path / "a")
    np.testing.assert_array_equal(found.data[0, 0].compute(), DATA)
    assert found.data.dtype.isnative
    assert found.voxel_size_um == (2, 0.4, 0.3) and found.positions_um.tolist() == [0, 2, 4]


@pytest.mark.parametrize("saved", [[1, 3], [[1], [3]]])
def test_first_and_third_channel_of_scanimage_in_any_order_of_depths(tmp_path, saved):
    zs = [10, 0, 15, 5]
    header = scanimage_header(4, zs) | {"SI.hChannels.channelSave": saved}
    write_scanimage(tmp_path / "a.tif", scanimage_pages(SERIES), header)
    found = open_acquisition(tmp_path / "a.tif")
    np.testing.assert_array_equal(found.data.compute(), SERIES)
    assert found.channels == ("Channel 1", "Channel 3") and found.positions_um.tolist() == zs


def test_thorlabs_stage_that_counts_down_and_a_channel_without_a_name(tmp_path):
    xml = write_thorlabs(tmp_path, SERIES, step_um=-5.0, start_stop=(0.3, 0.2)) / "Experiment.xml"
    text = xml.read_text(encoding="utf-8")
    extra = '<Wavelength name="" /><ChannelEnable'
    xml.write_text(text.replace("<ChannelEnable", extra), encoding="utf-8")
    found = open_acquisition(tmp_path)
    np.testing.assert_array_equal(found.data.compute(), SERIES)
    assert [f"{z:g}" for z in found.positions_um] == ["0", "-5", "-10", "-15"]
    assert found.channels == ("ChanA", "ChanB")


def test_folder_with_a_folder_that_is_named_like_a_tiff(tmp_path):
    for number, options in enumerate([{}, {"byteorder": ">"}, {"compression": "zlib"}]):
        tifffile.imwrite(tmp_path / f"z{number}.tif", DATA[number], **options)
    (tmp_path / "old.tif").mkdir()
    np.testing.assert_array_equal(open_acquisition(tmp_path).data[0, 0].compute(), DATA)
