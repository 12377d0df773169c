"""Thorlabs ThorImage: Experiment.xml with headerless raw images, or with one TIFF per plane.

There is no public specification. What is read follows what users of the format found out: the XML
holds the settings of the panel, so that a number of slices may be left over from an earlier scan.
`Streaming` decides: when it is enabled, the stage moves only with `zFastEnable`, and then every
volume ends with `flybackFrames` that see the stage return. The raw file has 16-bit numbers without
a header, the channels of a frame one after the other.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from xml.etree import ElementTree

import dask.array as da
import numpy as np

from besselflow.acquisition.model import Acquisition
from besselflow.acquisition.planes import natural_key, stack_planes
from besselflow.acquisition.units import size_um
from besselflow.acquisition.xml_files import attribute, parse_xml, root_tag
from besselflow.errors import InputError

FORMAT = "Thorlabs ThorImage"
_XML = "Experiment.xml"
_ROOT = "ThorImageExperiment"
_PLANE = re.compile(r"Chan([A-D])_(\d+)_(\d+)_(\d+)_(\d+)\.tiff?", re.IGNORECASE)


@dataclass(frozen=True)
class _Layout:
    times: int
    slices: int
    flyback: int


def is_thorlabs(path: Path) -> bool:
    """Return whether a folder is one of ThorImage, or a file its XML or raw file."""
    named = path.is_dir() or path.name == _XML or path.suffix.lower() == ".raw"
    return named and root_tag(_folder(path) / _XML) == _ROOT


def _folder(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def read_thorlabs(path: Path) -> Acquisition:
    """Read a folder of ThorImage.

    Raises
    ------
    InputError
        The XML lacks something, or the images don't have the size that it states.
    """
    folder = _folder(path)
    xml = folder / _XML
    root = parse_xml(xml)
    lsm = root.find("LSM")
    if lsm is None:
        raise InputError(f"{xml}: it has no element LSM; copy it again from the microscope")
    layout, channels = _layout(root, xml), _channels(root)
    raws = sorted(folder.glob("Image_*.raw"), key=lambda file: natural_key(file.name))
    if len(raws) > 1:
        raise InputError(
            f"{folder}: there are {len(raws)} raw files ({raws[0].name}, {raws[1].name}, ...); put "
            f"each into a folder of its own with its {_XML}"
        )
    if raws:
        size = (attribute(lsm, "pixelY", int, xml), attribute(lsm, "pixelX", int, xml))
        data, files = _read_raw(raws[0], size, layout, max(1, len(channels))), (raws[0],)
        notes = () if not layout.flyback else (_flyback_note(layout),)
    else:
        data, files, channels = _read_tiffs(folder)
        notes = ()
    positions, sources = _positions(root, data.shape[2], xml)
    pixels, source = _pixel_size(lsm, data.shape[3:])
    if source:
        sources["pixel size"] = source
    step = abs(float(positions[1] - positions[0])) if positions is not None else None
    return Acquisition(
        data,
        path,
        FORMAT,
        (step, *pixels),
        positions,
        channels,
        _times(root, data.shape[0], xml),
        _date(root),
        _software(root),
        (xml, *files),
        sources,
        notes=notes,
    )


def _layout(root: ElementTree.Element, xml: Path) -> _Layout:
    """Return the numbers of time points, slices and flyback frames per volume."""
    streaming, stage, lapse = root.find("Streaming"), root.find("ZStage"), root.find("Timelapse")
    steps = attribute(stage, "steps", int, xml, 1)
    if streaming is not None and attribute(streaming, "enable", int, xml, 0):
        frames = attribute(streaming, "frames", int, xml)
        if not attribute(streaming, "zFastEnable", int, xml, 0):
            return _Layout(frames, 1, 0)
        flyback = attribute(streaming, "flybackFrames", int, xml, 0) if steps > 1 else 0
        volumes = frames // (steps + flyback)
        if volumes == 0:
            raise InputError(
                f"{xml}: {frames} frames are fewer than one volume of {steps} slices and {flyback} "
                f"flyback frames; record at least one whole volume"
            )
        return _Layout(volumes, steps, flyback)
    if not attribute(stage, "enable", int, xml, 1):
        steps = 1
    return _Layout(max(1, attribute(lapse, "timepoints", int, xml, 1)), max(1, steps), 0)


def _channels(root: ElementTree.Element) -> tuple[str, ...]:
    """Return the names of the channels that were saved."""
    wavelengths = root.find("Wavelengths")
    if wavelengths is None:
        return ()
    names = [node.get("name", "") for node in wavelengths.findall("Wavelength")]
    enabled = wavelengths.find("ChannelEnable")
    # Bit n of the mask stands for the n-th detector, ChanA, ChanB, ...
    mask = int(enabled.get("Set", "0")) if enabled is not None else 0
    bits = {letter: mask >> bit & 1 for bit, letter in enumerate("ABCD")}
    chosen = [name for name in names if bits.get(name[-1:])]
    return tuple(chosen or names)


def _read_raw(raw: Path, size: tuple[int, int], layout: _Layout, channels: int) -> da.Array:
    slots = layout.slices + layout.flyback
    shape = (layout.times, slots, channels, *size)
    expected, found = 2 * math.prod(shape), raw.stat().st_size
    frame = 2 * math.prod(size)
    # The last volume of a stream may be unfinished. More than that are channels or slices that the
    # XML does not tell of, and all frames would be taken for others.
    if not 0 <= found - expected < slots * channels * frame or (found - expected) % frame:
        raise InputError(
            f"{raw}: it holds {found / frame:g} images of {size[0]} x {size[1]} pixels, but {_XML} "
            f"states {expected // frame} ({layout.times} time points x {slots} slices x "
            f"{channels} channels); copy the file again, or correct {_XML} where the scan was "
            f"stopped early or other channels were saved"
        )
    data = np.memmap(raw, dtype="<u2", mode="r", shape=shape)
    lazy = da.from_array(
        data, chunks=(1, 1, 1, *size), name=f"thorlabs-{raw}-{raw.stat().st_mtime_ns}"
    )
    return lazy[:, : layout.slices].transpose(0, 2, 1, 3, 4)


def _flyback_note(layout: _Layout) -> str:
    return f"{layout.flyback} flyback frames at the end of each of {layout.times} volumes left out"


def _read_tiffs(folder: Path) -> tuple[da.Array, tuple[Path, ...], tuple[str, ...]]:
    """Read files such as ChanA_001_001_003_002.tif: channel, tile (x, y), slice, time point."""
    found = {}
    for file in folder.iterdir():
        match = _PLANE.fullmatch(file.name)
        if match:
            channel, *numbers = match.groups()
            found[(channel.upper(), *map(int, numbers))] = file
    if not found:
        raise InputError(
            f"{folder}: there are neither Image_*.raw nor Chan*_001_001_001_001.tif files beside "
            f"{_XML}; copy the whole folder from the microscope"
        )
    channels, xs, ys, slices, times = (sorted({key[i] for key in found}) for i in range(5))
    if len(xs) * len(ys) > 1:
        raise InputError(
            f"{folder}: it holds {len(xs)} x {len(ys)} tiles; give one tile per folder"
        )
    table = np.empty((len(times), len(channels), len(slices)), object)
    for t, c, z in np.ndindex(*table.shape):
        name = f"Chan{channels[c]}_{xs[0]:03d}_{ys[0]:03d}_{slices[z]:03d}_{times[t]:03d}.tif"
        file = found.get((channels[c], xs[0], ys[0], slices[z], times[t]), folder / name)
        table[t, c, z] = (file, 0)
    names = tuple(f"Chan{channel}" for channel in channels)
    return stack_planes(table, folder), tuple(found.values()), names


def _positions(
    root: ElementTree.Element, count: int, xml: Path
) -> tuple[np.ndarray | None, dict[str, str]]:
    """Return the positions relative to the first, whose absolute unit is not documented."""
    stage = root.find("ZStage")
    step = attribute(stage, "stepSizeUM", float, xml, 0.0)
    if count < 2 or not step:
        return None, {}
    start, stop = (attribute(stage, name, float, xml, math.nan) for name in ("startPos", "stopPos"))
    down = start > stop and step > 0
    source = f"ZStage stepSizeUM in {_XML}, counted from the first slice"
    # Adding zero turns the negative one into the usual one.
    return np.arange(count) * (-step if down else step) + 0.0, {"stage positions": source}


def _pixel_size(
    lsm: ElementTree.Element, size: tuple[int, int]
) -> tuple[tuple[float | None, float | None], str | None]:
    """Return (y, x) and where it was found.

    Newer versions state a `pixelSizeUM` that is not the pixel size, so that it counts only where
    the width of the field is not stated.
    """
    field = [size_um(lsm.get(name), "um") for name in ("heightUM", "widthUM")]
    if None not in field:
        sizes = tuple(float(f"{f / n:.6g}") for f, n in zip(field, size, strict=True))
        return sizes, f"LSM widthUM and heightUM in {_XML}"
    names = ("pixelHeightUM", "pixelWidthUM")
    if None not in (sizes := tuple(size_um(lsm.get(name), "um") for name in names)):
        return sizes, f"LSM pixelWidthUM and pixelHeightUM in {_XML}"
    size = size_um(lsm.get("pixelSizeUM"), "um")
    return (size, size), f"LSM pixelSizeUM in {_XML}" if size else None


def _times(root: ElementTree.Element, count: int, xml: Path) -> tuple[float, ...]:
    """Return the times of a time lapse; a stream states none that can be relied on."""
    streaming, lapse = root.find("Streaming"), root.find("Timelapse")
    streams = streaming is not None and streaming.get("enable") == "1"
    interval = attribute(lapse, "intervalSec", float, xml, 0.0)
    if streams or interval <= 0 or count < 2:
        return ()
    return tuple(interval * t for t in range(count))


def _date(root: ElementTree.Element) -> datetime | None:
    date = root.find("Date")
    try:
        return datetime.strptime(date.get("date"), "%m/%d/%Y %H:%M:%S")
    except (AttributeError, TypeError, ValueError):
        return None


def _software(root: ElementTree.Element) -> str:
    software = root.find("Software")
    version = software.get("version") if software is not None else None
    return f"ThorImage {version}" if version else "ThorImage"
