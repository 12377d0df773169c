"""Bruker Prairie View: an XML of sequences and frames, and one TIFF per plane and channel.

Every frame names its files and those parts of the microscope's state that differ from the state at
the head of the XML. The depth has several parts, the focus drive and piezos; the one that moves
within a sequence gives the stage positions. A stack may hold several frames of each depth, one
after the other, or go through all its depths repeatedly.

The type of a sequence says what its frames are: depths of a stack in ``ZSeries`` and ``TSeries
ZSeries Element``, in whichever order the stage went through them, and time points in ``TSeries
Timed Element`` and others. Fields that lie beside each other are sequences as time points are, and
differ from these only in the lateral position of the stage.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from besselflow.acquisition.model import Acquisition, Frames, regular_spacing
from besselflow.acquisition.planes import natural_key, stack_planes
from besselflow.acquisition.units import size_um
from besselflow.acquisition.xml_files import iterate_xml, root_tag
from besselflow.errors import InputError

FORMAT = "Bruker Prairie View"
_ROOT = "PVScan"
_SOURCE = "positionCurrent ZAxis"
# A drive that is held still moves by its noise: relative to the range of the one that moves.
_STILL = 0.05
_SMALLEST_STEP_UM = 0.05
_SMALLEST_RANGE_UM = 0.5
# How closely a stage finds a depth again.
_SAME_DEPTH_UM = 0.2
# More than a stage drifts, and less than the distance of two fields.
_LARGEST_DRIFT_UM = 10.0
_STACK = "ZSeries"
_DATES = ("%m/%d/%Y %I:%M:%S %p", "%m/%d/%Y %H:%M:%S")


@dataclass(frozen=True)
class _Frame:
    """One frame: its files by channel, when it was taken, and where, by axis and drive.

    The mean of several frames has as many files in each channel.
    """

    files: dict[str, tuple[tuple[Path, int], ...]]
    seconds: float
    positions: dict[str, dict[str, float]]

    @property
    def depths(self) -> dict[str, float]:
        return self.positions.get("ZAxis", {})

    @property
    def lateral(self) -> tuple[float, ...]:
        return tuple(sum(self.positions.get(axis, {}).values()) for axis in ("YAxis", "XAxis"))


def is_bruker(path: Path) -> bool:
    """Return whether a folder holds the XML of a Prairie View scan, or a file is one."""
    return _find_xml(path) is not None


def _find_xml(path: Path) -> Path | None:
    if path.is_file():
        return path if path.suffix.lower() == ".xml" and root_tag(path) == _ROOT else None
    candidates = sorted(path.glob("*.xml"), key=lambda file: (file.stem != path.name, file.name))
    return next((file for file in candidates if root_tag(file) == _ROOT), None)


def read_bruker(path: Path, frames: Frames = "average") -> Acquisition:
    """Read a scan of Prairie View.

    Projections are the frames of each sequence that is a stack, and else what differs in depth: the
    frames of each sequence, or the sequences. Where the stage stands still, all frames are time
    points.

    Parameters
    ----------
    path : pathlib.Path
        The folder, or its XML.
    frames : str
        What becomes of frames that a stack repeats at each depth: their mean (``average``, in
        float32) or time points of their own (``time``).

    Raises
    ------
    InputError
        The XML is damaged, files are missing, or the sequences don't see the same field and depths.
    """
    xml = _find_xml(path)
    scan = _read_scan(xml)
    state, names = scan.state, dict(sorted(scan.channels.items(), key=_by_number))
    sequences = [taken for taken in scan.sequences if taken]
    if not sequences:
        raise InputError(f"{xml}: it names no images; give the folder of a TSeries or ZSeries")
    sequences, notes = _whole_sequences(sequences, list(names), xml)
    _check_field(sequences, xml)
    if scan.stacks and len(sequences[0]) > 1:
        repeats = _repeats(sequences, xml)
        if repeats > 1:
            what = "averaged" if frames == "average" else "kept as time points"
            notes = (*notes, f"the {repeats} frames at each depth are {what}")
        sequences, drive, unknown = _stacks(sequences, repeats, frames, xml)
    else:
        sequences, drive, unknown = _volumes(sequences)
    sequences, positions = _aligned(sequences, drive, xml)
    if unknown:
        positions = None
    channels, averaged = list(names), len(next(iter(sequences[0][0].files.values())))
    table = np.empty((len(sequences), len(names), len(sequences[0]), averaged), object)
    for t, c, p, r in np.ndindex(*table.shape):
        table[t, c, p, r] = sequences[t][p].files[channels[c]][r]
    pixels = tuple(size_um(state.shared(("micronsPerPixel", axis)), "um") for axis in "YX")
    sources = {}
    if positions is not None:
        sources["stage positions"] = f"{_SOURCE} ({state.drive_name(drive)}) in {xml.name}"
    if None not in pixels:
        sources["pixel size"] = f"micronsPerPixel in {xml.name}"
    times = tuple(min(frame.seconds for frame in volume) for volume in sequences)
    return Acquisition(
        stack_planes(table, path),
        path,
        FORMAT,
        (None if positions is None else regular_spacing(positions), *pixels),
        positions,
        tuple(names.values()),
        tuple(t - times[0] for t in times) if len(times) > 1 else (),
        _date(scan.head),
        f"Prairie View {scan.head.get('version', '')}".strip(),
        (xml, *dict.fromkeys(file for file, _ in table.flat)),
        sources,
        {"stage positions": unknown} if unknown else {},
        notes,
    )


@dataclass
class _Scan:
    """What the XML says: attributes of its root, state, channels by number, and all frames.

    `stacks` tells whether the frames of every sequence are a stack by its type.
    """

    head: dict[str, str]
    state: _State
    channels: dict[str, str]
    sequences: list[list[_Frame]]
    stacks: bool = True


def _read_scan(xml: Path) -> _Scan:
    """Read one sequence after the other: the XML of a long series has hundreds of megabytes."""
    scan = _Scan({}, _State(), {}, [])
    depth = 0
    for event, node in iterate_xml(xml):
        if event == "start":
            depth += 1
            if depth == 1:
                scan.head = dict(node.attrib)
            continue
        depth -= 1
        if depth != 1:
            continue
        if node.tag == "PVStateShard":
            scan.state.add_head(node)
        elif node.tag == "Sequence":
            scan.state.add_first(node)
            scan.sequences.append(_frames(node, xml.parent, scan.state))
            scan.stacks &= _STACK in node.get("type", "")
            for file in node.iter("File"):
                channel = file.get("channel", "1")
                scan.channels.setdefault(channel, file.get("channelName") or f"Ch{channel}")
        node.clear()
    return scan


def _by_number(item: tuple[str, str]) -> list[tuple[int, int, str]]:
    return natural_key(item[0])


class _State:
    """The state at the head of the XML, and what frames have changed of it.

    Prairie View 5 nests `PVStateValue`, `IndexedValue` and `SubindexedValue`; version 4 has flat
    `Key` elements such as ``positionCurrent_ZAxis_1`` in every frame.
    """

    def __init__(self):
        self._head: dict[tuple[str, ...], str] = {}
        self._first: dict[tuple[str, ...], str] = {}
        self._names: dict[str, str] = {}

    def add_head(self, shard: ElementTree.Element) -> None:
        self._head |= _values(shard)
        self._add_names(shard)

    def add_first(self, sequence: ElementTree.Element) -> None:
        """Take from the first sequence what the head does not say."""
        if not self._first:
            self._first = _values(sequence.find("Frame/PVStateShard"))
            self._add_names(sequence)

    def _add_names(self, node: ElementTree.Element) -> None:
        for axis in node.iter("SubindexedValues"):
            for value in axis if axis.get("index") == "ZAxis" else ():
                if value.get("description"):
                    self._names.setdefault(value.get("subindex"), value.get("description"))

    def drive_name(self, drive: str) -> str:
        return self._names.get(drive, f"subindex {drive}")

    def shared(self, key: tuple[str, str]) -> str | None:
        """Return a value that is the same for the scan: from its head or its first frame."""
        return self._find(self._first | self._head, key)

    @staticmethod
    def _find(values: dict[tuple[str, ...], str], key: tuple[str, str]) -> str | None:
        name, axis = key
        return values.get((name, f"{axis}Axis"), values.get((f"{name}_{axis}Axis",)))

    def positions(self, *shards: ElementTree.Element | None) -> dict[str, dict[str, float]]:
        """Return the position by axis and drive, of which later shards overrule earlier ones."""
        values = dict(self._head)
        for shard in shards:
            values |= _values(shard)
        found: dict[str, dict[str, float]] = {}
        for key, value in values.items():
            path = key if len(key) > 1 else tuple(key[0].split("_"))
            if path[0] == "positionCurrent" and path[1:2] in (("XAxis",), ("YAxis",), ("ZAxis",)):
                drive = path[2] if len(path) > 2 else "0"
                found.setdefault(path[1], {})[drive] = float(value)
        return found


def _values(shard: ElementTree.Element | None) -> dict[tuple[str, ...], str]:
    """Return the values of a PVStateShard by key, index and subindex."""
    found: dict[tuple[str, ...], str] = {}
    for node in shard if shard is not None else ():
        key = node.get("key")
        if node.get("value") is not None:
            found[(key,)] = node.get("value")
        for indexed in node.findall("IndexedValue"):
            found[(key, indexed.get("index"))] = indexed.get("value")
        for group in node.findall("SubindexedValues"):
            for inner in group.findall("SubindexedValue"):
                found[(key, group.get("index"), inner.get("subindex"))] = inner.get("value")
    return found


def _frames(sequence: ElementTree.Element, folder: Path, state: _State) -> list[_Frame]:
    shard = sequence.find("PVStateShard")
    frames = []
    for node in sequence.findall("Frame"):
        files = {
            file.get("channel", "1"): (
                (folder / file.get("filename"), int(file.get("page", 1)) - 1),
            )
            for file in node.findall("File")
            if file.get("filename")
        }
        seconds = float(node.get("absoluteTime", node.get("relativeTime", "0")))
        if files:
            positions = state.positions(shard, node.find("PVStateShard"))
            frames.append(_Frame(files, seconds, positions))
    return frames


def _whole_sequences(
    sequences: list[list[_Frame]], channels: list[str], xml: Path
) -> tuple[list[list[_Frame]], tuple[str, ...]]:
    """Return the sequences without one at the end that was stopped early."""
    count, notes = len(sequences[0]), ()
    if len(sequences) > 1 and len(sequences[-1]) < count:
        notes = (
            f"the last sequence was stopped after {len(sequences[-1])} of {count} frames, and is "
            f"left out",
        )
        sequences = sequences[:-1]
    for number, frames in enumerate(sequences):
        if len(frames) != count:
            raise InputError(
                f"{xml}: sequence {number + 1} has {len(frames)} frames, but the first has {count}"
                f"; give one scan of equal sequences"
            )
        for place, frame in enumerate(frames):
            lacking = [channel for channel in channels if channel not in frame.files]
            if lacking:
                raise InputError(
                    f"{xml}: frame {place + 1} of sequence {number + 1} lacks channel {lacking[0]}"
                    f"; copy the whole folder again from the microscope"
                )
    return sequences, notes


def _check_field(sequences: list[list[_Frame]], xml: Path) -> None:
    """Refuse fields beside each other, which would pass for time points."""
    places = np.array([frames[0].lateral for frames in sequences])
    moved = float(np.ptp(places, axis=0).max())
    if moved > _LARGEST_DRIFT_UM:
        raise InputError(
            f"{xml}: the stage moved sideways by up to {moved:g} um between sequences, and so they "
            f"are several fields rather than time points; export each field as a scan of its own"
        )


def _volumes(
    sequences: list[list[_Frame]],
) -> tuple[list[list[_Frame]], str | None, str | None]:
    """Return the frames by time point and depth, the drive that moves, and what is unclear."""
    drive, unknown = _moving_drive(sequences[0], _steps_through)
    if drive is not None:
        return sequences, drive, unknown
    drive, unknown = _moving_drive([frames[0] for frames in sequences], _steps_through)
    if drive is not None:
        # One sequence per depth, with the time points within it.
        return [list(frames) for frames in zip(*sequences, strict=True)], drive, unknown
    return [[frame] for frames in sequences for frame in frames], None, None


def _stacks(
    sequences: list[list[_Frame]], repeats: int, frames: Frames, xml: Path
) -> tuple[list[list[_Frame]], str | None, str | None]:
    """Return stacks by time point and depth: a sequence may go through its depths repeatedly.

    Frames that are repeated at each depth become one, or as many stacks.
    """
    drive, unknown = _moving_drive(sequences[0], _moves)
    if drive is None:
        return sequences, None, f"{_SOURCE} states one depth for all frames of a {_STACK}"
    depths = _depths(sequences[0], drive).reshape(-1, repeats).mean(axis=1)
    count = _period(depths)
    gaps = np.diff(np.sort(depths[:count]))
    if gaps.min() < _SMALLEST_STEP_UM:
        twice = np.sort(depths[:count])[gaps.argmin()]
        raise InputError(
            f"{xml}: several frames of a stack were taken at {twice:g} um, but neither as many "
            f"after each other at every depth, nor in rounds through the same depths; average "
            f"repeated projections, and give the stack as OME-TIFF"
        )
    rounds = [
        taken[start : start + count * repeats]
        for taken in sequences
        for start in range(0, len(taken), count * repeats)
    ]
    if frames == "time":
        return [taken[r::repeats] for taken in rounds for r in range(repeats)], drive, unknown
    starts = range(0, count * repeats, repeats)
    volumes = [[_mean(taken[start : start + repeats]) for start in starts] for taken in rounds]
    return volumes, drive, unknown


def _depths(frames: Sequence[_Frame], drive: str) -> np.ndarray:
    return np.array([frame.depths[drive] for frame in frames])


def _repeats(sequences: list[list[_Frame]], xml: Path) -> int:
    """Return how many frames follow each other at each depth of the stacks."""
    drive, _ = _moving_drive(sequences[0], _moves)
    if drive is None:
        return 1
    counts = [_run_length(_depths(frames, drive)) for frames in sequences]
    for number, count in enumerate(counts, start=1):
        if count != counts[0]:
            raise InputError(
                f"{xml}: the number of frames that follow each other at each depth is {count} in "
                f"sequence {number}, but {counts[0]} in the first; give one scan of equal sequences"
            )
    return counts[0]


def _run_length(depths: np.ndarray) -> int:
    """Return how many frames follow each other at each depth; 1 where it isn't the same number."""
    starts = np.flatnonzero(np.abs(np.diff(depths, prepend=np.inf)) > _SAME_DEPTH_UM)
    count = len(depths) // len(starts)
    if count == 1 or len(starts) == 1 or (starts != count * np.arange(len(starts))).any():
        return 1
    runs = depths.reshape(-1, count)
    apart = np.abs(np.diff(runs.mean(axis=1))).min()
    alike = np.ptp(runs, axis=1).max() <= _SAME_DEPTH_UM
    return count if alike and apart > 2 * _SAME_DEPTH_UM else 1


def _mean(frames: Sequence[_Frame]) -> _Frame:
    """Return frames of one depth as one."""
    first = frames[0]
    if len(frames) == 1:
        return first
    files = {channel: sum((f.files[channel] for f in frames), ()) for channel in first.files}
    drives = set.intersection(*(set(frame.depths) for frame in frames))
    depths = {drive: float(_depths(frames, drive).mean()) for drive in drives}
    return _Frame(files, first.seconds, first.positions | {"ZAxis": depths})


def _period(depths: np.ndarray) -> int:
    """Return after how many frames the same depths follow in the same order."""
    for count in range(2, len(depths) // 2 + 1):
        if len(depths) % count:
            continue
        rounds = depths.reshape(-1, count)
        apart = np.diff(np.sort(rounds[0])).min()
        if apart > 2 * _SAME_DEPTH_UM and np.abs(rounds - rounds[0]).max() <= _SAME_DEPTH_UM:
            return count
    return len(depths)


def _moving_drive(
    frames: list[_Frame], moves: Callable[[list[float]], bool]
) -> tuple[str | None, str | None]:
    """Return the drive that moves from frame to frame, and why its motion does not suffice."""
    drives = set.intersection(*(set(frame.depths) for frame in frames))
    ranges = {drive: float(np.ptp([f.depths[drive] for f in frames])) for drive in sorted(drives)}
    moving = max(ranges, key=ranges.get, default=None)
    if moving is None or not moves([frame.depths[moving] for frame in frames]):
        return None, None
    widest = ranges.pop(moving)
    if max(ranges.values(), default=0) > _STILL * widest:
        return moving, ("focus and piezo both move, and whether their motions add up is not stated")
    return moving, None


def _steps_through(depths: list[float]) -> bool:
    """Tell a stage that steps, evenly or not, from the noise of one that is held."""
    steps = np.diff(depths)
    one_way = (steps > 0).all() or (steps < 0).all()
    return bool(len(steps) and one_way and np.median(np.abs(steps)) > _SMALLEST_STEP_UM)


def _moves(depths: list[float]) -> bool:
    """Tell a stage that moves, in whichever order, from the noise of one that is held."""
    return bool(np.ptp(depths) > _SMALLEST_RANGE_UM)


def _aligned(
    sequences: list[list[_Frame]], drive: str | None, xml: Path
) -> tuple[list[list[_Frame]], np.ndarray | None]:
    """Bring the frames of all sequences into the order of the first: a stage may go to and fro."""
    if drive is None:
        return sequences, None
    depths = np.array([[frame.depths[drive] for frame in frames] for frames in sequences])
    step = float(np.median(np.diff(np.sort(depths[0]))))
    turned = np.abs(depths - depths[0]).max(axis=1) > step / 2
    depths[turned] = depths[turned, ::-1]
    sequences = [
        frames[::-1] if back else frames for frames, back in zip(sequences, turned, strict=True)
    ]
    away = np.abs(depths - depths[0]).max(axis=1)
    if away.max() > step / 2:
        worst = int(away.argmax())
        raise InputError(
            f"{xml}: the depths of sequence {worst + 1} differ by up to {away.max():g} um from "
            f"those of the first; give one scan of equal sequences"
        )
    mean = depths.mean(axis=0)
    return sequences, np.array([float(f"{z:.9g}") for z in mean])


def _date(head: dict[str, str]) -> datetime | None:
    for form in _DATES:
        try:
            return datetime.strptime(head.get("date", ""), form)
        except ValueError:
            continue
    return None
