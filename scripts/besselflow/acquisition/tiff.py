"""TIFF, BigTIFF, ImageJ and OME-TIFF stacks, read lazily and checked for being whole."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import dask.array as da
import numpy as np
import tifffile
import zarr

from besselflow.errors import InputError

_TO_CANONICAL = {"T": "T", "C": "C", "Y": "Y", "X": "X", "Z": "Z", "Q": "Z", "I": "Z", "P": "Z"}
_MICROMETRES = {
    "µm": 1.0,
    "μm": 1.0,
    "um": 1.0,
    "\\u00B5m": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "pm": 1e-6,
    "Å": 1e-4,
    "nm": 1e-3,
    "mm": 1e3,
    "cm": 1e4,
    "m": 1e6,
}
# Bytes per value of the field types of TIFF 6.0 and BigTIFF.
_FIELD_BYTES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}


@dataclass(frozen=True)
class Stack:
    """A stack of images as it lies on disk.

    Attributes
    ----------
    data : dask.array.Array, shape (T, C, P or Z, Y, X)
        Raw counts in the type of the file.
    path : pathlib.Path
        The file.
    pixel_size_um : tuple of (float or None), (y, x)
        Where the file's OME or ImageJ metadata state it.
    spacing_um : float or None
        Distance of the slices, where the metadata state it.
    """

    data: da.Array
    path: Path
    pixel_size_um: tuple[float | None, float | None]
    spacing_um: float | None = None


def read_tiff_stack(path: Path | str) -> Stack:
    """Open a TIFF stack lazily.

    Parameters
    ----------
    path : path
        TIFF, BigTIFF, ImageJ hyperstack or OME-TIFF with the axes Y, X and any of T, C, and one of
        Z, Q, I (which counts projections in an acquisition, slices in a ground truth).

    Returns
    -------
    Stack

    Raises
    ------
    InputError
        The file is missing, not a TIFF, truncated, in colour, or complex, or it holds several
        stacks.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: this is a folder; give the path of a TIFF file")
    if not path.is_file():
        raise InputError(f"{path}: no such file; correct the path")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty (0 bytes); copy it again from the microscope")
    try:
        with tifffile.TiffFile(path) as tif:
            _check_directories(tif, path)
            if not tif.series:
                raise InputError(f"{path}: the TIFF holds no image; export it again")
            if len(tif.series) > 1:
                shapes = ", ".join(str(series.shape) for series in tif.series[:3])
                raise InputError(
                    f"{path}: the TIFF holds {len(tif.series)} separate stacks (shapes {shapes}"
                    f"{', ...' if len(tif.series) > 3 else ''}); export each stack as its own file"
                )
            series = tif.series[0]
            axes, shape, dtype = series.axes, series.shape, series.dtype
            _check_whole(tif, path)
            names = _canonical_names(axes, shape, dtype, path)
            spacing, *pixel_size = _ome_voxel_size(tif) if tif.is_ome else _imagej_voxel_size(tif)
        store = tifffile.imread(path, aszarr=True, series=0, level=0)
        data = da.from_zarr(zarr.open_array(store, mode="r"))
    except PermissionError as error:
        raise InputError(f"{path}: permission denied; make the file readable") from error
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{path}: not a readable TIFF ({error}); export the stack as TIFF again"
        ) from error
    data = data[tuple(slice(None) if axis in names else None for axis in "TCZYX")].transpose(
        *_order(names)
    )
    return Stack(data, path, tuple(pixel_size), spacing)


def _canonical_names(axes: str, shape: tuple[int, ...], dtype: np.dtype, path: Path) -> str:
    """Return the axes of the file by their canonical letters, or say why that can't be done."""
    if dtype is None or dtype.kind not in "uif":
        raise InputError(f"{path}: pixels of type {dtype} are not intensities; export grey values")
    unknown = [axis for axis in axes if axis not in _TO_CANONICAL]
    if unknown:
        what = "colour samples (RGB)" if unknown[0] == "S" else f'an axis "{unknown[0]}"'
        raise InputError(
            f"{path}: the stack has {what} (axes {axes}); export it in grey with the axes TCZYX"
        )
    names = "".join(_TO_CANONICAL[axis] for axis in axes)
    if len(set(names)) != len(names) or not names.endswith("YX"):
        raise InputError(
            f"{path}: axes {axes} with shape {shape} can't be read as (T, C, Z, Y, X); "
            f"export the stack with the axes TCZYX"
        )
    return names


def _order(names: str) -> list[int]:
    """Return the transposition that brings the axes, with the missing ones added, to TCZYX."""
    # New axes are inserted at their TCZYX place; those of the file keep their own order.
    present = iter(names)
    layout = [axis if axis not in names else next(present) for axis in "TCZYX"]
    return [layout.index(axis) for axis in "TCZYX"]


def _check_directories(tif: tifffile.TiffFile, path: Path) -> None:
    """Follow the chain of image directories to its end.

    tifffile stops silently where the chain leaves the file, so that a truncated stack would look
    like a shorter one, and it drops metadata that lie beyond the end.
    """
    form, handle, size = tif.tiff, tif.filehandle, tif.filehandle.size
    if form.is_ndpi:
        return
    header = 8 if form.is_bigtiff else 4
    handle.seek(header)
    (offset,) = struct.unpack(form.offsetformat, handle.read(form.offsetsize))
    seen: set[int] = set()
    while offset:
        if offset in seen:
            raise InputError(f"{path}: its image directories form a loop; export the stack again")
        seen.add(offset)
        end = offset + form.tagnosize
        if end <= size:
            handle.seek(offset)
            (count,) = struct.unpack(form.tagnoformat, handle.read(form.tagnosize))
            end += count * form.tagsize + form.offsetsize
        if end > size:
            raise _truncated(path, f"image directory {len(seen) - 1}", end, size)
        block = handle.read(count * form.tagsize + form.offsetsize)
        for start in range(0, count * form.tagsize, form.tagsize):
            _check_tag(form, block[start : start + form.tagsize], size, path)
        (offset,) = struct.unpack(form.offsetformat, block[-form.offsetsize :])


def _check_tag(form, entry: bytes, size: int, path: Path) -> None:
    code, field_type = struct.unpack(form.byteorder + "HH", entry[:4])
    (count,) = struct.unpack(form.offsetformat, entry[4 : 4 + form.offsetsize])
    length = count * _FIELD_BYTES.get(field_type, 0)
    if length <= form.offsetsize:
        return
    (start,) = struct.unpack(form.offsetformat, entry[-form.offsetsize :])
    if start + length > size:
        raise _truncated(path, f"the metadata of tag {code}", start + length, size)


def _check_whole(tif: tifffile.TiffFile, path: Path) -> None:
    """Compare where the image data should end with the size of the file, without reading it."""
    size = tif.filehandle.size
    for number, page in enumerate(tif.pages):
        offsets = getattr(page, "dataoffsets", ()) or ()
        lengths = getattr(page, "databytecounts", ()) or ()
        end = max((o + n for o, n in zip(offsets, lengths, strict=False)), default=0)
        if end > size:
            raise _truncated(path, f"page {number}", end, size)
        # They would be read as zeros.
        absent = sum(count == 0 for count in lengths)
        if absent:
            raise InputError(
                f"{path}: {absent} of {len(lengths)} tiles or strips of page {number} were never "
                f"written; export the stack again"
            )
    series = tif.series[0]
    missing = sum(page is None for page in series.pages)
    if missing:
        raise InputError(
            f"{path}: {missing} of {len(series.pages)} planes are missing (an OME-TIFF may be "
            f"spread over several files); put all files of the set into one folder"
        )
    # ImageJ writes stacks above 4 GB as one page with the other planes behind it.
    announced = int((tif.imagej_metadata or {}).get("images", 1)) if tif.is_imagej else 1
    planes = math.prod(series.shape) // math.prod(series.keyframe.shape)
    if planes < announced:
        raise InputError(
            f"{path}: truncated: its metadata announce {announced} planes, but the file has "
            f"{planes}; copy it again from the microscope"
        )
    if not tif.is_ome and series.dataoffset is not None:
        end = series.dataoffset + math.prod(series.shape) * series.dtype.itemsize
        if end > size:
            raise _truncated(path, "the last plane", end, size)


def _truncated(path: Path, what: str, end: int, size: int) -> InputError:
    return InputError(
        f"{path}: truncated: {what} should end at byte {end}, but the file has {size}; "
        f"copy it again from the microscope"
    )


def _ome_voxel_size(tif: tifffile.TiffFile) -> tuple[float | None, ...]:
    """Return (z, y, x) in micrometres, None where it is not stated."""
    root = ElementTree.fromstring(tif.ome_metadata)
    pixels = next((node for node in root.iter() if node.tag.endswith("}Pixels")), None)
    if pixels is None:
        return (None, None, None)
    return tuple(
        _in_micrometres(
            pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit", "µm")
        )
        for axis in "ZYX"
    )


def _imagej_voxel_size(tif: tifffile.TiffFile) -> tuple[float | None, ...]:
    """Return (z, y, x) in micrometres, None where it is not stated."""
    # ImageJ gives pixels per unit as the resolution tags and names the unit in its description.
    described = tif.imagej_metadata or {}
    unit = described.get("unit")
    if unit is None:
        return (None, None, None)
    tags, sizes = tif.pages[0].tags, [_in_micrometres(described.get("spacing"), unit)]
    for name in ("YResolution", "XResolution"):
        pixels, units = tags[name].value if name in tags else (0, 1)
        sizes.append(_in_micrometres(units / pixels, unit) if pixels else None)
    return tuple(sizes)


def _in_micrometres(size: str | float | None, unit: str) -> float | None:
    try:
        value = float(size) * _MICROMETRES[unit]
    except (TypeError, ValueError, KeyError):
        return None
    return value if math.isfinite(value) and value > 0 else None
