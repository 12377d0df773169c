"""Thorlabs ThorImage: the XML gives the size of the raw file, flyback frames are dropped."""

import datetime

import numpy as np
import pytest
import tifffile

from besselflow.acquisition import open_acquisition
from besselflow.errors import InputError
from vendor_files import counts, write_thorlabs

DATA = counts()


@pytest.mark.parametrize("raw", ["Image_0001_0001.raw", "Image_001_001.raw"])
@pytest.mark.parametrize("flyback", [0, 2])
def test_stream_of_volumes(tmp_path, raw, flyback):
    folder = write_thorlabs(tmp_path / "a", DATA, raw=raw, flyback=flyback)
    found = open_acquisition(folder)
    assert found.format == "Thorlabs ThorImage"
    np.testing.assert_array_equal(found.data.compute(), DATA)
    assert found.positions_um.tolist() == [0, 5, 10, 15]
    assert found.voxel_size_um == (5, 0.5, 0.5)
    assert found.channels == ("ChanA", "ChanB")
    assert found.date == datetime.datetime(2026, 11, 25, 14, 3, 22)
    assert found.software == "ThorImage 4.1.2021.9131"
    assert any("flyback" in note for note in found.notes) == bool(flyback)
    for name in ("Experiment.xml", raw):
        assert open_acquisition(folder / name).data.shape == DATA.shape


def test_time_lapse_of_stacks(tmp_path):
    found = open_acquisition(write_thorlabs(tmp_path, DATA, streaming=False, flyback=0))
    np.testing.assert_array_equal(found.data.compute(), DATA)
    assert found.times_s == (0, 30, 60)


def test_slices_that_are_left_over_from_an_earlier_scan(tmp_path):
    data = DATA[:, :, :1]
    folder = write_thorlabs(tmp_path, data, fast_z=False, flyback=0, steps=61)
    found = open_acquisition(folder)
    np.testing.assert_array_equal(found.data.compute(), data)
    assert found.positions_um is None


def test_stage_that_moves_down(tmp_path):
    folder = write_thorlabs(tmp_path, DATA, start_stop=(0.215, 0.2))
    assert open_acquisition(folder).positions_um.tolist() == [0, -5, -10, -15]


def test_pixel_size_of_older_versions(tmp_path):
    xml = write_thorlabs(tmp_path, DATA) / "Experiment.xml"
    text = xml.read_text().replace('widthUM="10.0" heightUM="9.0"', "")
    assert text != xml.read_text()
    xml.write_text(text.replace('pixelSizeUM="2.93"', 'pixelSizeUM="0.6"'))
    assert open_acquisition(tmp_path).pixel_size_um == (0.6, 0.6)


def test_one_of_two_channels_was_saved(tmp_path):
    xml = write_thorlabs(tmp_path, DATA[:, 1:]) / "Experiment.xml"
    both = '<Wavelength name="ChanA" exposuretimeMS="0" /><Wavelength name="ChanB" />'
    text = xml.read_text().replace('<Wavelength name="ChanA" exposuretimeMS="0" />', both)
    xml.write_text(text.replace('Set="1"', 'Set="2"'))
    found = open_acquisition(tmp_path)
    np.testing.assert_array_equal(found.data.compute(), DATA[:, 1:])
    assert found.channels == ("ChanB",)


def test_one_tiff_per_plane(tmp_path):
    folder = write_thorlabs(tmp_path, DATA, streaming=False, flyback=0, raw=None)
    for t, c, p in np.ndindex(*DATA.shape[:3]):
        name = f"Chan{'AB'[c]}_001_001_{p + 1:03d}_{t + 1:03d}.tif"
        tifffile.imwrite(folder / name, DATA[t, c, p])
    found = open_acquisition(folder)
    np.testing.assert_array_equal(found.data.compute(), DATA)
    assert found.channels == ("ChanA", "ChanB") and found.positions_um.tolist() == [0, 5, 10, 15]
    (folder / "ChanB_001_001_002_003.tif").unlink()
    with pytest.raises(InputError, match=r"1 of 24 files are missing \(ChanB_001_001_002_003"):
        open_acquisition(folder)


def test_raw_file_of_another_size(tmp_path):
    raw = write_thorlabs(tmp_path, DATA) / "Image_0001_0001.raw"
    whole = raw.read_bytes()
    raw.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"it holds 15 images of 18 x 20 pixels, but .* states 30"):
        open_acquisition(tmp_path)


def test_channels_that_the_xml_does_not_tell_of(tmp_path):
    xml = write_thorlabs(tmp_path, DATA) / "Experiment.xml"
    xml.write_text(xml.read_text().replace('Set="3"', 'Set="1"'))
    with pytest.raises(InputError, match=r"it holds 30 images .* states 15 .* other channels"):
        open_acquisition(tmp_path)


def test_last_volume_of_a_stream_that_was_stopped(tmp_path):
    xml = write_thorlabs(tmp_path, DATA) / "Experiment.xml"
    raw = xml.with_name("Image_0001_0001.raw")
    # Two slices of two channels of a fourth volume.
    raw.write_bytes(raw.read_bytes() + bytes(2 * 2 * 2 * 18 * 20))
    xml.write_text(xml.read_text().replace('frames="15"', 'frames="17"'))
    np.testing.assert_array_equal(open_acquisition(tmp_path).data.compute(), DATA)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('pixelX="20"', "", "the attribute pixelX of LSM is missing"),
        ('steps="4"', 'steps="four"', 'the attribute steps of ZStage is "four", not a number'),
        ("</ThorImageExperiment>", "", "the XML is damaged"),
        ('frames="15"', 'frames="3"', "3 frames are fewer than one volume"),
    ],
)
def test_wrong_xml(tmp_path, old, new, message):
    xml = write_thorlabs(tmp_path, DATA) / "Experiment.xml"
    assert old in xml.read_text()
    xml.write_text(xml.read_text().replace(old, new))
    with pytest.raises(InputError, match=message):
        open_acquisition(tmp_path)


def test_folder_without_images(tmp_path):
    (write_thorlabs(tmp_path, DATA) / "Image_0001_0001.raw").unlink()
    with pytest.raises(InputError, match=r"neither Image_\*.raw nor Chan"):
        open_acquisition(tmp_path)
