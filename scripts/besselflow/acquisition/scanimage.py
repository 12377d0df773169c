"""ScanImage BigTIFF: stacks of frames, repeated per slice and per volume, with flyback frames.

The header holds the settings of the scan (`SI.hStackManager`, `SI.hChannels`, `SI.hRoiManager`).
Pages follow each other by channel, by repetition at one slice, by slice, and by volume; a fast
stack has flyback frames at the end of each volume. `numSlices` may be left over from an earlier
scan, `actualNumSlices` is what was recorded. A long acquisition is split into several files, whose
frame numbers go on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from besselflow.acquisition.model import Acquisition, Frames, regular_spacing
from besselflow.acquisition.planes import lazy_planes
from besselflow.acquisition.tiff import check_directories, check_pages, opened_tiff
from besselflow.errors import InputError

FORMAT = "ScanImage BigTIFF"
_NUMBERED = re.compile(r"(?P<stem>.*_)(?P<number>\d{5})(?P<suffix>\.tiff?)", re.IGNORECASE)
_STACK = "SI.hStackManager."


@dataclass(frozen=True)
class _Layout:
    """How the pages follow each other; numbers per channel."""

    slices: int
    repeats: int
    flyback: int

    @property
    def frames(self) -> int:
        return self.slices * self.repeats + self.flyback


@dataclass(frozen=True)
class _File:
    """One file of a series, and what is noted at its first and last page."""

    path: Path
    offsets: list[int]
    shape: tuple[int, int]
    dtype: np.dtype
    first: dict[str, str]
    last: dict[str, str]

    def page(self, number: int) -> np.ndarray:
        count, offset = self.shape[0] * self.shape[1], self.offsets[number]
        return np.fromfile(self.path, self.dtype, count, offset=offset).reshape(self.shape)


def is_scanimage(path: Path) -> bool:
    """Return whether a file is a BigTIFF with the header of ScanImage."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            tifffile.read_scanimage_metadata(file)
    except (OSError, ValueError, UnicodeDecodeError):
        return False
    return True


def read_scanimage(path: Path, frames: Frames = "average") -> Acquisition:
    """Read a file of ScanImage, and those that continue it.

    Parameters
    ----------
    path : pathlib.Path
        The first file.
    frames : str
        What becomes of frames that were repeated at one slice: their mean (``average``, in float32)
        or time points of their own (``time``).

    Raises
    ------
    InputError
        A file is truncated or missing from the series, several regions of interest were scanned,
        or there is not a single whole volume.
    """
    with path.open("rb") as file:
        header, rois, _ = tifffile.read_scanimage_metadata(file)
    if header.get("SI.hRoiManager.mroiEnable") and len(_regions(rois)) > 1:
        raise InputError(
            f"{path}: {len(_regions(rois))} regions of interest lie in strips below each other; "
            f"export each region as a stack of its own"
        )
    averaged = _integer(header.get("SI.hScan2D.logAverageFactor"), 1)
    series = list(_series(path, averaged))
    channels = _channels(header)
    layout, positions, sources = _layout(header, averaged, path)
    starts = np.cumsum([0, *(len(file.offsets) for file in series)])
    table, notes = _arrange(int(starts[-1]), len(channels), layout, frames, path)

    def read(page: int) -> np.ndarray:
        number = int(np.searchsorted(starts, page, side="right")) - 1
        return series[number].page(page - starts[number])

    data = lazy_planes(table, read, series[0].shape, series[0].dtype)
    voxel, pixel_source = _pixel_size(header, data.shape[3:])
    if pixel_source:
        sources["pixel size"] = pixel_source
    interval = _interval(header, layout)
    times = tuple(interval * t for t in range(data.shape[0])) if interval else ()
    if frames == "time" and layout.repeats > 1:
        times = ()
    return Acquisition(
        data,
        path,
        FORMAT,
        (None if positions is None else regular_spacing(positions), *voxel),
        positions,
        channels,
        times if len(times) > 1 else (),
        _date(series[0].first),
        _software(header),
        tuple(file.path for file in series),
        sources,
        notes=notes,
    )


def _series(path: Path, step: int) -> Iterator[_File]:
    """Open the file and all that continue it, as their frame numbers say.

    Numbers go up by `step`, the number of frames that were averaged while they were recorded.
    """
    current = _open(path)
    if _number(current.first) > step:
        raise InputError(
            f"{path}: it begins with frame {_number(current.first)} and so continues another file; "
            f"give the first file of the series"
        )
    yield current
    while match := _NUMBERED.fullmatch(current.path.name):
        following = f"{match['stem']}{int(match['number']) + 1:05d}{match['suffix']}"
        after = current.path.with_name(following)
        if not after.is_file() or not is_scanimage(after):
            return
        last, current = current, _open(after)
        begin, end = _number(current.first), _number(last.last)
        if begin <= step:
            # An acquisition of its own.
            return
        if not end < begin <= end + step:
            raise InputError(
                f"{after}: it begins with frame {begin}, but {last.path.name} ends with frame "
                f"{end}; a file of the series is missing or truncated, so copy all of them again"
            )
        yield current


def _number(description: dict[str, str]) -> int:
    """Return the number of a frame within its acquisition."""
    for key in ("frameNumberAcquisition", "frameNumbers", "Frame Number"):
        if description.get(key, "").isdigit():
            return int(description[key])
    return 1


def _open(path: Path) -> _File:
    with opened_tiff(path, is_scanimage=False) as tif:
        check_directories(tif, path)
        check_pages(tif, path)
        pages = list(tif.pages)
        keyframe, dtype = pages[0], pages[0].dtype.newbyteorder(tif.byteorder)
        for number, page in enumerate(pages):
            if page.shape != keyframe.shape:
                raise InputError(
                    f"{path}: page {number} has {page.shape} pixels (y, x), but the first has "
                    f"{keyframe.shape}; export pages of one size as their own file"
                )
            if not page.is_contiguous:
                raise InputError(
                    f"{path}: page {number} is compressed, which ScanImage does not do; export the "
                    f"stack as OME-TIFF"
                )
        offsets = [page.dataoffsets[0] for page in pages]
        first, last = (_description(pages[i].description) for i in (0, -1))
    return _File(path, offsets, keyframe.shape, dtype, first, last)


def _description(text: str) -> dict[str, str]:
    """Read the lines ``frameNumbers = 1`` of a page."""
    lines = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {name.strip(): value.strip() for name, _, value in lines}


def _layout(
    header: dict[str, Any], averaged: int, path: Path
) -> tuple[_Layout, np.ndarray | None, dict[str, str]]:
    """Return how the pages follow each other, and the positions of the slices."""
    fast = bool(header.get("SI.hFastZ.enable"))
    if not (header.get(_STACK + "enable", fast) or fast):
        return _Layout(1, 1, 0), None, {}
    positions, name = _positions(header)
    repeats = _integer(header.get(_STACK + "framesPerSlice"), 1)
    # Frames that were averaged while they were recorded are one page.
    repeats = max(1, repeats // averaged)
    slices = _integer(
        header.get(_STACK + "actualNumSlices", header.get(_STACK + "numSlices")),
        1 if positions is None else len(positions),
    )
    runs = [len(list(run)) for _, run in groupby([] if positions is None else positions)]
    if len(runs) == slices and len(set(runs)) == 1 and runs[0] == repeats > 1:
        positions = positions[::repeats]
    if positions is not None and len(positions) != slices:
        raise InputError(
            f"{path}: {name} lists {len(positions)} positions, but {slices} slices were recorded; "
            f"export the stack as TIFF and write a stage CSV"
        )
    flyback = _flyback(header, fast, slices * repeats)
    sources = {} if positions is None else {"stage positions": name}
    return _Layout(slices, repeats, flyback), positions, sources


def _flyback(header: dict[str, Any], fast: bool, frames: int) -> int:
    """Return how many frames after those of its slices end each volume.

    `discardFlybackFrames` comes last: some versions say that they discard what they have written.
    """
    whole = header.get(_STACK + "numFramesPerVolume")
    with_flyback = header.get(_STACK + "numFramesPerVolumeWithFlyback")
    if whole is not None and with_flyback is not None:
        return max(0, int(with_flyback) - int(whole))
    if not fast:
        return 0
    # Older versions state the frames of a volume, those of the flyback included, elsewhere.
    older = _integer(header.get("SI.hFastZ.numFramesPerVolume"), 0)
    if older >= frames:
        return older - frames
    if header.get("SI.hFastZ.discardFlybackFrames"):
        return _integer(header.get("SI.hFastZ.numDiscardFlybackFrames"), 0)
    return 0


def _positions(header: dict[str, Any]) -> tuple[np.ndarray | None, str]:
    """Return the first list of positions that moves; with two actuators, the sum of both."""
    name = ""
    for key in ("zs", "zsRelative", "zsAllActuators"):
        name = _STACK + key
        values = header.get(name)
        if values is None or values == []:
            continue
        try:
            z = np.atleast_1d(np.asarray(values, float))
        except (TypeError, ValueError):
            continue
        # Matlab writes one row per slice, and one column per actuator.
        z = z.sum(axis=1) if z.ndim == 2 and z.shape[0] > 1 else z.ravel()
        if len(z) > 1 and np.ptp(z) > 0:
            return z, name
    return None, name


def _arrange(
    count: int, channels: int, layout: _Layout, frames: Frames, path: Path
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the numbers of the pages as (T, C, P, those to average), and what is left out."""
    per_volume = layout.frames * channels
    volumes, rest = divmod(count, per_volume)
    if rest >= layout.slices * layout.repeats * channels:
        # A stack that ends without its flyback frames is whole.
        volumes, rest = volumes + 1, 0
    if volumes == 0:
        raise InputError(
            f"{path}: the {count} pages are fewer than one volume of {layout.slices} slices x "
            f"{layout.repeats} frames x {channels} channels; a file of the series is missing, or "
            f"the scan was stopped"
        )
    notes = []
    if rest:
        notes.append(f"the last {rest} pages belong to an unfinished volume, and are left out")
    if layout.flyback:
        notes.append(f"{layout.flyback} flyback frames at the end of each volume are left out")
    pages = np.arange(volumes * per_volume).reshape(volumes, layout.frames, channels)
    pages = pages[:, : layout.slices * layout.repeats]
    pages = pages.reshape(volumes, layout.slices, layout.repeats, channels)
    if layout.repeats > 1:
        what = "averaged" if frames == "average" else "kept as time points"
        notes.append(f"the {layout.repeats} frames of each slice are {what}")
    if frames == "average":
        return pages.transpose(0, 3, 1, 2), tuple(notes)
    return pages.transpose(0, 2, 3, 1).reshape(-1, channels, layout.slices, 1), tuple(notes)


def _channels(header: dict[str, Any]) -> tuple[str, ...]:
    saved = np.ravel(header.get("SI.hChannels.channelSave", 1)).astype(int).tolist()
    names = header.get("SI.hChannels.channelName", [])
    names = [names] if isinstance(names, str) else names
    return tuple(
        str(names[number - 1]) if number <= len(names) else f"Channel {number}" for number in saved
    )


def _pixel_size(
    header: dict[str, Any], size: tuple[int, int]
) -> tuple[tuple[float | None, float | None], str | None]:
    """Return (y, x) from the corners of the field of view in micrometres."""
    name = "SI.hRoiManager.imagingFovUm"
    try:
        corners = np.asarray(header[name], float).reshape(4, 2)
    except (KeyError, TypeError, ValueError):
        return (None, None), None
    width, height = np.ptp(corners, axis=0)
    if not (np.isfinite([width, height]).all() and width > 0 and height > 0):
        return (None, None), None
    sizes = (height / size[0], width / size[1])
    return tuple(float(f"{value:.6g}") for value in sizes), name


def _interval(header: dict[str, Any], layout: _Layout) -> float | None:
    """Return the seconds from volume to volume."""
    key = "scanVolumeRate" if layout.slices > 1 else "scanFrameRate"
    try:
        return 1 / float(header[f"SI.hRoiManager.{key}"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None


def _date(first: dict[str, Any]) -> datetime | None:
    """Read ``epoch = [2026 11 25 14 3 22.5]``."""
    numbers = re.findall(r"[\d.]+", first.get("epoch", ""))
    try:
        *whole, seconds = (float(number) for number in numbers)
        return datetime(*map(int, whole)) + timedelta(seconds=seconds)
    except (TypeError, ValueError):
        return None


def _software(header: dict[str, Any]) -> str:
    parts = [header.get(f"SI.VERSION_{part}") for part in ("MAJOR", "MINOR")]
    return " ".join(
        ["ScanImage", ".".join(str(part) for part in parts if part is not None)]
    ).strip()


def _regions(rois: dict[str, Any]) -> list[Any]:
    found = rois.get("RoiGroups", {}).get("imagingRoiGroup", {}).get("rois", [])
    return found if isinstance(found, list) else [found]


def _integer(value: Any, default: int) -> int:
    try:
        return max(1, int(value))
    except (TypeError, ValueError, OverflowError):
        return default
