"""OME-TIFF, in one file or several: positions of the planes, sizes with units, channels, times."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import tifffile

from besselflow.acquisition.model import Acquisition, regular_spacing
from besselflow.acquisition.tiff import is_tiff, opened_tiff, read_series, with_regular_positions
from besselflow.acquisition.units import is_length, position_um, size_um
from besselflow.errors import InputError

FORMAT = "OME-TIFF"
# The unit of positions where none is stated, by the OME schema.
_NO_UNIT = "reference frame"
_SECONDS = {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "min": 60.0, "h": 3600.0}


def is_ome_tiff(path: Path) -> bool:
    """Return whether a file is a TIFF whose first page holds OME-XML."""
    if not is_tiff(path):
        return False
    try:
        with tifffile.TiffFile(path) as tif:
            return tif.is_ome
    except Exception:
        # What is wrong with it is found by the reader of plain TIFFs.
        return False


def read_ome_tiff(path: Path) -> Acquisition:
    """Open an OME-TIFF with all files of its set.

    Raises
    ------
    InputError
        As for a plain TIFF; files of the set are missing, or the OME-XML is damaged.
    """
    with opened_tiff(path) as tif:
        data = read_series(tif, path)
        root = ElementTree.fromstring(tif.ome_metadata)
        parts = {part.filehandle.path for part in _parents(tif)} or {str(path)}
    pixels = _first(root, "Pixels")
    if pixels is None:
        elsewhere = _first(root, "BinaryOnly")
        if elsewhere is not None:
            raise InputError(
                f"{path}: its OME-XML lies in another file, {elsewhere.get('MetadataFile')}; give "
                f"that one where it is a TIFF, or export the set as one OME-TIFF"
            )
        raise InputError(f"{path}: its OME-XML describes no pixels; export it again")
    voxel, unknown = _voxel_size(pixels)
    sources = {"pixel size": "PhysicalSizeY and PhysicalSizeX"} if None not in voxel[1:] else {}
    positions, reason = _positions(pixels, data.shape[2])
    if positions is not None:
        sources["stage positions"] = "PositionZ of the planes"
        voxel = (voxel[0] or regular_spacing(positions), *voxel[1:])
    elif reason:
        unknown["stage positions"] = reason
    found = Acquisition(
        data,
        path,
        FORMAT,
        voxel,
        positions,
        _channels(pixels, data.shape[1]),
        _times(pixels, data.shape[0]),
        _date(root),
        root.get("Creator"),
        tuple(sorted(map(Path, parts))),
        sources,
        unknown,
    )
    if positions is not None or reason:
        return found
    return with_regular_positions(found, "PhysicalSizeZ")


def _parents(tif: tifffile.TiffFile) -> list[tifffile.TiffFile]:
    return [page.parent for page in tif.series[0].pages if page is not None]


def _first(root: ElementTree.Element, name: str) -> ElementTree.Element | None:
    return next((node for node in root.iter() if node.tag.rpartition("}")[2] == name), None)


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
    return tuple(sizes), unclear


def _positions(pixels: ElementTree.Element, count: int) -> tuple[np.ndarray | None, str | None]:
    """Return the mean PositionZ of the planes at each depth, or why it can't be used."""
    found: dict[int, list[float]] = {}
    for plane in (node for node in pixels if node.tag.rpartition("}")[2] == "Plane"):
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
    nodes = [node for node in pixels if node.tag.rpartition("}")[2] == "Channel"]
    names = [node.get("Name") for node in nodes]
    return tuple(names) if len(names) == count and all(names) else ()


def _times(pixels: ElementTree.Element, count: int) -> tuple[float, ...]:
    """Return the begin of every time point: DeltaT of its first plane, or TimeIncrement."""
    begins: dict[int, float] = {}
    for plane in (node for node in pixels if node.tag.rpartition("}")[2] == "Plane"):
        factor = _SECONDS.get(plane.get("DeltaTUnit", "s"))
        if factor is not None and plane.get("DeltaT") is not None:
            t, delta = int(plane.get("TheT", 0)), factor * float(plane.get("DeltaT"))
            begins[t] = min(delta, begins.get(t, delta))
    if count < 2:
        return ()
    if set(begins) == set(range(count)):
        return tuple(begins[t] - begins[0] for t in range(count))
    factor = _SECONDS.get(pixels.get("TimeIncrementUnit", "s"))
    increment = pixels.get("TimeIncrement")
    if factor is None or increment is None:
        return ()
    return tuple(factor * float(increment) * t for t in range(count))


def _date(root: ElementTree.Element) -> datetime | None:
    node = _first(root, "AcquisitionDate")
    try:
        return datetime.fromisoformat(node.text.strip())
    except (AttributeError, ValueError):
        return None
