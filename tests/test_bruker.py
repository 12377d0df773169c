"""Bruker Prairie View: the drive that moves gives the positions, sequences give the time points."""

import datetime

import numpy as np
import pytest
import tifffile

from besselflow.acquisition import open_acquisition
from besselflow.errors import InputError
from vendor_files import counts, write_bruker

DATA = counts()
MOVING = [100.0, 105.0, 110.0, 116.0]


@pytest.mark.parametrize(
    ("focus", "piezo", "name"),
    [
        (937.33, MOVING, "Bruker 400 μm Piezo"),
        (MOVING, -125.0, "Z Focus"),
        (MOVING, None, "Z Focus"),
        # The readings of a drive that is held are noisy.
        ([937.33, 937.35, 937.31, 937.33], MOVING, "Bruker 400 μm Piezo"),
    ],
)
def test_whichever_drive_moves(tmp_path, focus, piezo, name):
    folder = write_bruker(tmp_path / "TSeries-11252026-001", DATA, focus, piezo)
    found = open_acquisition(folder)
    assert found.format == "Bruker Prairie View"
    np.testing.assert_array_equal(found.data.compute(), DATA)
    assert found.positions_um.tolist() == MOVING
    assert name in found.sources["stage positions"]
    assert found.voxel_size_um == (None, 0.6, 0.5)
    assert found.channels == ("Ch1 Grün", "Ch2 Grün")
    assert found.times_s == pytest.approx((0, 10, 20))
    assert found.date == datetime.datetime(2026, 11, 25, 14, 3, 22)
    assert found.software == "Prairie View 5.5.64.100"
    # The XML may stand for the folder.
    by_xml = open_acquisition(folder / f"{folder.name}.xml")
    np.testing.assert_array_equal(by_xml.data[1, 1, 2].compute(), DATA[1, 1, 2])


def test_stage_that_goes_to_and_fro(tmp_path):
    found = open_acquisition(write_bruker(tmp_path / "scan", DATA, 5.0, MOVING, turn=True))
    np.testing.assert_array_equal(found.data.compute(), DATA)
    assert found.positions_um.tolist() == MOVING


def test_one_sequence_per_depth(tmp_path):
    found = open_acquisition(
        write_bruker(tmp_path / "scan", DATA, MOVING, 4.0, "TSeries Timed Element", per_depth=True)
    )
    np.testing.assert_array_equal(found.data.compute(), DATA)
    assert found.positions_um.tolist() == MOVING


def test_single_stack_and_stage_that_stands_still(tmp_path):
    stack = open_acquisition(write_bruker(tmp_path / "stack", DATA[:1], 0.0, MOVING, "ZSeries"))
    assert stack.data.shape == (1, 2, 4, 18, 20) and stack.times_s == ()
    still = open_acquisition(write_bruker(tmp_path / "still", DATA, 0.0, 3.0))
    assert still.data.shape == (12, 2, 1, 18, 20) and still.positions_um is None


def test_drives_that_both_move_are_unclear(tmp_path):
    found = open_acquisition(write_bruker(tmp_path / "scan", DATA, [0, 1, 2, 3], MOVING))
    np.testing.assert_array_equal(found.data.compute(), DATA)
    assert found.positions_um is None
    assert "focus and piezo both move" in found.unknown["stage positions"]


def test_sequence_that_was_stopped_is_left_out(tmp_path):
    found = open_acquisition(write_bruker(tmp_path / "scan", DATA, 0.0, MOVING, last=2))
    np.testing.assert_array_equal(found.data.compute(), DATA[:2])
    assert "stopped after 2 of 4 frames" in found.notes[0]


def test_flat_keys_of_version_4(tmp_path):
    folder = tmp_path / "old"
    folder.mkdir()
    frames = []
    for i, z in enumerate(MOVING):
        tifffile.imwrite(folder / f"{i}.tif", DATA[0, 0, i])
        frames.append(
            f'<Frame relativeTime="0" absoluteTime="{i}" index="{i + 1}" label="CurrentSettings">'
            f'<File channel="1" channelName="Ch1" preAmpID="0" filename="{i}.tif" /><PVStateShard>'
            f'<Key key="positionCurrent_XAxis" permissions="Read, Write, Save" value="1.5" />'
            f'<Key key="positionCurrent_ZAxis" permissions="Read, Write, Save" value="{z}" />'
            f'<Key key="micronsPerPixel_XAxis" permissions="Read, Write, Save" value="0.5" />'
            f'<Key key="micronsPerPixel_YAxis" permissions="Read, Write, Save" value="0.6" />'
            f"</PVStateShard></Frame>"
        )
    (folder / "old.xml").write_text(
        '<?xml version="1.0" encoding="utf-8"?><PVScan version="4.0.0.53" '
        'date="3/23/2012 9:47:15 AM" notes=""><Sequence type="ZSeries" cycle="0">'
        f"{''.join(frames)}</Sequence></PVScan>"
    )
    found = open_acquisition(folder)
    assert found.positions_um.tolist() == MOVING
    assert found.pixel_size_um == (0.6, 0.5)
    np.testing.assert_array_equal(found.data[0, 0].compute(), DATA[0, 0])


def spoil_missing(folder):
    next(folder.glob("*Cycle00002_Ch2*3.ome.tif")).unlink()


def spoil_empty(folder):
    next(folder.glob("*Cycle00002_Ch2*3.ome.tif")).write_bytes(b"")


def spoil_xml(folder):
    path = folder / "scan.xml"
    path.write_text(path.read_text(encoding="utf-8")[:-200], encoding="utf-8")


def spoil_depths(folder):
    path = folder / "scan.xml"
    text = path.read_text(encoding="utf-8")
    head, mark, tail = text.partition('cycle="2"')
    path.write_text(head + mark + tail.replace('value="110.0"', 'value="120"', 1), encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_missing, r"1 of 24 files are missing \(scan_Cycle00002_Ch2_000003"),
        (spoil_empty, "1 of 24 files are empty"),
        (spoil_xml, "the XML is damaged"),
        (spoil_depths, r"depths of sequence 2 differ by up to \d+ um"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, spoil, message):
    folder = write_bruker(tmp_path / "scan", DATA, 0.0, MOVING)
    spoil(folder)
    with pytest.raises(InputError, match=message):
        open_acquisition(folder)
