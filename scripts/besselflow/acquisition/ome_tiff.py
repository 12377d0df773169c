"""OME-TIFF, in one file or several: positions of the planes, sizes with units, channels, times."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import tifffile

from besselflow.acquisition.model import Acquisition, regular_spacing
from besselflow.acquisition.ome_set import (
    check_set,
    children,
    companion_of,
    descendants,
    find_set,
    ome_xml,
)
from besselflow.acquisition.tiff import is_tiff, opened_tiff, read_series, with_regular_positions
from besselflow.acquisition.units import is_length, position_um, size_um, time_s

FORMAT = "OME-TIFF"
# The unit of positions where none is stated, by the OME schema.
_NO_UNIT = "reference frame"


def is_ome_tiff(path: Path) -> bool:
    """Return whether a path is a TIFF with OME-XML, or the companion of such files, or its folder.

    The folder of a set is one with a single companion.
    """
    if not is_tiff(path):
        return companion_of(path) is not None
    try:
        with tifffile.TiffFile(path) as tif:
            return bool(ome_xml(tif))
    except Exception:
        # What is wrong with it is found by the reader of plain TIFFs.
        return False


def read_ome_tiff(path: Path) -> Acquisition:
    """Open an OME-TIFF with all files of its set.

    Parameters
    ----------
    path : pathlib.Path
        One of its TIFFs, its companion, or a folder with a single companion.

    Raises
    ------
    InputError
        As for a plain TIFF; files of the set are missing or from another set, or the OME-XML is
        damaged or does not describe one image.
    """
    found = find_set(path)
    check_set(found, path)
    # TIFFs of which a companion tells need no metadata, and those that they have don't count.
    plain = {} if found.source in found.tiffs else {"is_shaped": False, "is_mmstack": False}
    with opened_tiff(found.first, omexml=found.xml(), **plain) as tif:
        data = read_series(tif, path)
    root, pixels = found.root, descendants(found.root, "Pixels")[0]
    voxel, unknown = _voxel_size(pixels)
    sources = {"pixel size": "PhysicalSizeY and PhysicalSizeX"} if None not in voxel[1:] else {}
    positions, reason = _positions(pixels, data.shape[2])
    if positions is not None:
        sources["stage positions"] = "PositionZ of the planes"
        voxel = (voxel[0] or regular_spacing(positions), *voxel[1:])
    elif reason:
        unknown["stage positions"] = reason
    acquisition = Acquisition(
        data,
        path,
        FORMAT,
        voxel,
        positions,
        _channels(pixels, data.shape[1]),
        _times(pixels, data.shape[0]),
        _date(root),
        root.get("Creator"),
        found.files,
        sources,
        unknown,
    )
    if positions is not None or reason:
        return acquisition
    return with_regular_positions(acquisition, "PhysicalSizeZ")


def _voxel_size(
    pixels: ElementTree.Element,
) -> tuple[tuple[float | None, float | None, float | None], dict[str, str]]:
    """Return (z, y, x) in micrometres, None where it is not stated, and why it is not clear."""
    sizes, unclear = [], {}
    for axis in "ZYX":
        size, unit = pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit", "µm")
        sizes.append(size_um(size, unit))
        if size is not None and not is_length(unit):
            unclear["voxel size"] = f'PhysicalSize{axis} has the unit "{unit}", which is no length'
        elif size is not None and sizes[-1] is None:
            unclear["voxel size"] = f'PhysicalSize{axis} is "{size}", which is no positive number'
    return tuple(sizes), unclear


def _positions(pixels: ElementTree.Element, count: int) -> tuple[np.ndarray | None, str | None]:
    """Return the mean PositionZ of the planes at each depth, or why it can't be used."""
    found: dict[int, list[float]] = {}
    for plane in children(pixels, "Plane"):
        value = plane.get("PositionZ")
        if value is None:
            continue
        unit = plane.get("PositionZUnit", _NO_UNIT)
        position = position_um(value, unit)
        if position is None:
            return None, f'PositionZ is "{value}" with the unit "{unit}", which is no length'
        found.setdefault(int(plane.get("TheZ", 0)), []).append(position)
    if count < 2 or not found:
        return None, None
    if set(found) != set(range(count)):
        return None, f"PositionZ is stated for {len(found)} of {count} planes"
    positions = np.array([np.mean(found[z]) for z in range(count)])
    steps = np.abs(np.diff(positions))
    if not steps.any():
        # Some writers state where the stack begins, and nothing of its planes.
        return None, None
    spread = max(float(np.ptp(values)) for values in found.values())
    if spread > np.median(steps) / 2:
        return None, (
            f"PositionZ of one plane differs by {spread:g} um between time points or channels"
        )
    return np.array([float(f"{z:.9g}") for z in positions]), None


def _channels(pixels: ElementTree.Element, count: int) -> tuple[str, ...]:
    names = [node.get("Name") for node in children(pixels, "Channel")]
    return tuple(names) if len(names) == count and all(names) else ()


def _times(pixels: ElementTree.Element, count: int) -> tuple[float, ...]:
    """Return the begin of every time point: DeltaT of its first plane, or TimeIncrement."""
    begins: dict[int, float] = {}
    for plane in children(pixels, "Plane"):
        delta = time_s(plane.get("DeltaT"), plane.get("DeltaTUnit", "s"))
        if delta is not None:
            t = int(plane.get("TheT", 0))
            begins[t] = min(delta, begins.get(t, delta))
    if count < 2:
        return ()
    if set(begins) == set(range(count)):
        return tuple(begins[t] - begins[0] for t in range(count))
    increment = time_s(pixels.get("TimeIncrement"), pixels.get("TimeIncrementUnit", "s"))
    return () if increment is None else tuple(increment * t for t in range(count))


def _date(root: ElementTree.Element) -> datetime | None:
    try:
        return datetime.fromisoformat(descendants(root, "AcquisitionDate")[0].text.strip())
    except (IndexError, AttributeError, ValueError):
        return None
