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
    folder = write_bruker(tmp_path / "still", DATA, 0.0, 3.0, "TSeries Timed Element")
    still = open_acquisition(folder)
    assert still.data.shape == (12, 2, 1, 18, 20) and still.positions_um is None


UNORDERED = [113.0, 101.0, 109.0, 105.0]


@pytest.mark.parametrize("turn", [False, True])
@pytest.mark.parametrize("kind", ["ZSeries", "TSeries ZSeries Element"])
def test_depths_of_a_stack_in_any_order(tmp_path, kind, turn):
    noisy = [937.33, 937.35, 937.31, 937.33]
    folder = write_bruker(tmp_path / "scan", DATA, noisy, UNORDERED, kind, turn=turn)
    found = open_acquisition(folder)
    np.testing.assert_array_equal(found.data.compute(), DATA)
    assert found.positions_um.tolist() == UNORDERED
    assert found.times_s == pytest.approx((0, 10, 20))


def test_frames_of_a_time_series_are_time_points_wherever_the_stage_was(tmp_path):
    folder = write_bruker(tmp_path / "scan", DATA[:1], 0.0, UNORDERED, "TSeries Timed Element")
    found = open_acquisition(folder)
    assert found.data.shape == (4, 2, 1, 18, 20) and found.positions_um is None


def test_stack_that_goes_through_its_depths_repeatedly(tmp_path):
    rounds = DATA.swapaxes(0, 1).reshape(1, 2, 12, 18, 20)
    depths = np.tile(UNORDERED, 3) + np.linspace(0, 0.2, 12)
    found = open_acquisition(write_bruker(tmp_path / "scan", rounds, 0.0, depths, "ZSeries"))
    np.testing.assert_array_equal(found.data.compute(), DATA)
    np.testing.assert_allclose(found.positions_um, UNORDERED, atol=0.2)
    assert found.times_s == pytest.approx((0, 0.4, 0.8))


def repeated_frames(data, repeats, rounds=1):
    """Return what a stack records: repetition r of a frame is brighter by r, round by round.

    Time points are joined to as many rounds.
    """
    frames = np.repeat(data, repeats, axis=2) + np.tile(np.arange(repeats), data.shape[2])[
        :, None, None
    ].astype(data.dtype)
    times, channels, planes, *size = frames.shape
    frames = frames.reshape(times // rounds, rounds, channels, planes, *size).swapaxes(1, 2)
    return frames.reshape(times // rounds, channels, rounds * planes, *size)


@pytest.mark.parametrize("turn", [False, True])
@pytest.mark.parametrize("rounds", [1, 3])
def test_frames_at_each_depth_are_averaged_or_kept(tmp_path, rounds, turn):
    frames = repeated_frames(DATA, 2, rounds)
    # A stage that is held is still moved by noise.
    depths = np.tile(np.repeat(UNORDERED, 2), rounds) + np.resize([0, 0.1], 8 * rounds)
    folder = write_bruker(tmp_path / "scan", frames, 937.3, depths, "ZSeries", turn=turn)
    averaged = open_acquisition(folder)
    assert averaged.data.dtype == np.float32
    np.testing.assert_allclose(averaged.data.compute(), DATA + 0.5)
    kept = open_acquisition(folder, "time")
    assert kept.data.shape == (6, 2, 4, 18, 20) and kept.data.dtype == np.uint16
    for found, word in ((averaged, "averaged"), (kept, "kept as time points")):
        np.testing.assert_allclose(found.positions_um, UNORDERED, atol=0.1001)
        assert found.notes == (f"the 2 frames at each depth are {word}",)
    # With a stage that turns, the second stack is recorded from its last frame on.
    order = [0, 1, 1, 0, 0, 1] if turn and rounds == 1 else [0, 1] * 3
    expected = np.repeat(DATA, 2, axis=0) + np.reshape(order, (6, 1, 1, 1, 1))
    np.testing.assert_array_equal(kept.data.compute(), expected)
    # A sequence is 10 s after the other, a frame 0.1 s.
    starts = (0, 10, 20) if rounds == 1 else (0, 0.8, 1.6)
    assert averaged.times_s == pytest.approx(starts)
    assert kept.times_s == pytest.approx([t + 0.1 * r for t in starts for r in (0, 1)])


@pytest.mark.parametrize(
    "depths",
    [
        # To and fro within a sequence, and a depth without its second frame.
        np.repeat([0.0, 5, 10, 10, 5, 0], 2),
        [0.0, 0, 5, 5, 10, 10, 15, 15, 20, 20, 25, 30],
    ],
    ids=["to and fro", "uneven"],
)
def test_frames_that_are_repeated_in_another_order_are_refused(tmp_path, depths):
    frames = counts((1, 1, 12, 18, 20))
    folder = write_bruker(tmp_path / "scan", frames, 0.0, depths, "ZSeries")
    with pytest.raises(InputError, match=r"several frames of a stack .* um, but neither"):
        open_acquisition(folder)


def test_sequences_that_repeat_their_depths_differently_are_refused(tmp_path):
    frames = counts((2, 1, 6, 18, 20))
    depths = np.repeat([0.0, 5, 10], 2)
    folder = write_bruker(tmp_path / "scan", frames, 0.0, depths, "ZSeries")
    path = folder / "scan.xml"
    head, mark, tail = path.read_text(encoding="utf-8").partition('cycle="2"')
    for found, other in ((0.0, 0.5), (5.0, 5.5), (10.0, 10.5)):
        tail = tail.replace(f'subindex="1" value="{found}"', f'subindex="1" value="{other}"', 1)
    path.write_text(head + mark + tail, encoding="utf-8")
    with pytest.raises(InputError, match="is 1 in sequence 2, but 2 in the first; give one scan"):
        open_acquisition(folder)


def test_fine_steps_are_no_repetition(tmp_path):
    depths = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    frames = counts((1, 1, 8, 18, 20))
    found = open_acquisition(write_bruker(tmp_path / "scan", frames, 0.0, depths, "ZSeries"))
    assert found.positions_um.tolist() == depths and found.notes == ()


def test_stack_whose_depths_are_not_recorded_takes_a_stage_file(tmp_path):
    found = open_acquisition(write_bruker(tmp_path / "scan", DATA, 0.0, [3, 3.02, 3.01, 3]))
    np.testing.assert_array_equal(found.data.compute(), DATA)
    assert found.positions_um is None
    assert "states one depth for all frames of a ZSeries" in found.unknown["stage positions"]


def test_fields_beside_each_other_are_no_time_points(tmp_path):
    folder = write_bruker(tmp_path / "scan", DATA, 0.0, MOVING)
    spoil_place(folder, "331.2")
    np.testing.assert_array_equal(open_acquisition(folder).data.compute(), DATA)
    spoil_place(folder, "730.78")
    with pytest.raises(InputError, match="moved sideways by up to 400 um between sequences"):
        open_acquisition(folder)


def spoil_place(folder, x):
    """Let the second sequence lie at another x, as a scan of several fields does."""
    path = folder / "scan.xml"
    head, mark, tail = path.read_text(encoding="utf-8").partition('cycle="2"')
    tail = tail.replace("330.78", x).replace("331.2", x)
    path.write_text(head + mark + tail, encoding="utf-8")


def test_drives_that_both_move_are_unclear(tmp_path):
    found = open_acquisition(write_bruker(tmp_path / "scan", DATA, [0, 1, 2, 3], MOVING))
    np.testing.assert_array_equal(found.data.compute(), DATA)
    assert found.positions_um is None
    assert "focus and piezo both move" in found.unknown["stage positions"]


def test_sequence_that_was_stopped_is_left_out(tmp_path):
    found = open_acquisition(write_bruker(tmp_path / "scan", DATA, 0.0, MOVING, last=2))
    np.testing.assert_array_equal(found.data.compute(), DATA[:2])
    assert "stopped after 2 of 4 frames" in found.notes[0]


@pytest.mark.parametrize("character", ["\x01", "&#x1;", "&#31;", "&#x0B;"])
def test_control_characters_in_notes(tmp_path, character, monkeypatch):
    monkeypatch.setattr("besselflow.acquisition.xml_files._BLOCK_BYTES", 7)
    folder = write_bruker(tmp_path / "scan", DATA[:1, :1], 0.0, MOVING)
    path = folder / "scan.xml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('notes=""', f'notes="a{character}&#xb5;&amp;"'), encoding="utf-8")
    found = open_acquisition(folder)
    assert found.positions_um.tolist() == MOVING and found.channels == ("Ch1 Grün",)


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
