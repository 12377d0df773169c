"""TIFF, BigTIFF and ImageJ stacks, read lazily and checked for being whole."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import tifffile
import zarr

from besselflow.acquisition.model import Acquisition
from besselflow.acquisition.units import is_length, size_um, time_s
from besselflow.decoding import COPY_AGAIN, open_explained
from besselflow.errors import InputError

FORMAT = "TIFF stack"
_TO_CANONICAL = {"T": "T", "C": "C", "Y": "Y", "X": "X", "Z": "Z", "Q": "Z", "I": "Z", "P": "Z"}
_SUBSAMPLED = tifffile.PHOTOMETRIC.YCBCR
_INVERTED = tifffile.PHOTOMETRIC.MINISWHITE
_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
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


def is_tiff(path: Path) -> bool:
    """Return whether a file begins like a TIFF."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) in _MAGIC


@contextmanager
def opened_tiff(path: Path, **flags: Any) -> Iterator[tifffile.TiffFile]:
    """Open a TIFF, and turn what goes wrong with it into an InputError."""
    try:
        with tifffile.TiffFile(path, **flags) as tif:
            yield tif
    except InputError:
        raise
    except PermissionError as error:
        raise InputError(f"{path}: permission denied; make the file readable") from error
    except Exception as error:
        raise InputError(
            f"{path}: not a readable TIFF ({error}); export the stack as TIFF again"
        ) from error


def read_tiff(path: Path) -> Acquisition:
    """Open a TIFF stack.

    The axes Y and X are needed, and any of T, C, and one of Z, Q, I (which counts projections in an
    acquisition, slices in a ground truth) may be there.

    Raises
    ------
    InputError
        The file is not a TIFF, truncated, in colour, inverted, or complex, or it holds several
        stacks.
    """
    with opened_tiff(path) as tif:
        _refuse_interleaved(tif, path)
        data = read_series(tif, path)
        voxel, unknown = _imagej_voxel_size(tif)
        software = tif.pages[0].software or None
        times = _imagej_times(tif, data.shape[0])
    found = Acquisition(data, path, FORMAT, voxel, times_s=times, software=software, files=(path,))
    if unknown:
        found = replace(found, unknown={"voxel size": unknown})
    return with_regular_positions(found, "spacing in the ImageJ metadata")


def _refuse_interleaved(tif: tifffile.TiffFile, path: Path) -> None:
    """Refuse channels that follow each other as the pages of ScanImage before 2016 do."""
    text = (tif.pages[0].description or "") if tif.is_scanimage else ""
    saved = re.search(r"channelSave = \[?([\d; ]+)|numberOfChannelsSave=(\d+)", text)
    if saved is None:
        return
    count = int(saved[2]) if saved[2] else len(re.findall(r"\d+", saved[1]))
    if count > 1:
        raise InputError(
            f"{path}: the pages of {count} channels follow each other, as in files of ScanImage "
            f"before 2016, which are not read as such; export it as OME-TIFF"
        )


def with_regular_positions(found: Acquisition, source: str) -> Acquisition:
    """Add the positions that follow from the distance of the planes, counted from the first."""
    step, count = found.spacing_um, found.data.shape[2]
    if step is None or count < 2:
        return found
    sources = {"stage positions": f"{source}, counted from the first plane"}
    return replace(found, positions_um=step * np.arange(count), sources=found.sources | sources)


def read_series(tif: tifffile.TiffFile, path: Path) -> da.Array:
    """Return the only stack of a TIFF lazily, after checking that it is whole.

    Returns
    -------
    dask.array.Array, shape (T, C, Z, Y, X)
    """
    check_directories(tif, path)
    if not tif.series:
        raise InputError(f"{path}: the TIFF holds no image; export it again")
    if len(tif.series) > 1:
        shapes = ", ".join(str(series.shape) for series in tif.series[:3])
        raise InputError(
            f"{path}: the TIFF holds {len(tif.series)} separate stacks (shapes {shapes}"
            f"{', ...' if len(tif.series) > 3 else ''}); export each stack as its own file"
        )
    series = tif.series[0]
    check_pages(tif, path)
    _check_series(tif, path)
    names = _canonical_names(series.axes, series.shape, series.dtype, path)
    store = series.aszarr(level=0, chunkmode=None if _is_uniform(series) else "page")
    data = open_explained(zarr.open_array(store, mode="r"), path, names, COPY_AGAIN)
    data = data[tuple(slice(None) if axis in names else None for axis in "TCZYX")]
    return data.transpose(*_order(names))


def _is_uniform(series: tifffile.TiffPageSeries) -> bool:
    """Return whether all pages are cut into strips or tiles as the first one says."""
    chunks, count = series.keyframe.chunks, math.prod(series.keyframe.chunked)
    return all(
        page.keyframe.chunks == chunks and len(page.dataoffsets) == count for page in series.pages
    )


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


def check_directories(tif: tifffile.TiffFile, path: Path) -> None:
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


def check_pages(tif: tifffile.TiffFile, path: Path) -> None:
    """Compare where the image data should end with the size of the file, without reading it."""
    size = tif.filehandle.size
    for number, page in enumerate(tif.pages):
        offsets = getattr(page, "dataoffsets", ()) or ()
        lengths = getattr(page, "databytecounts", ()) or ()
        end = max((o + n for o, n in zip(offsets, lengths, strict=False)), default=0)
        if end > size:
            raise _truncated(path, f"page {number}", end, size)
        key = page.keyframe or tif.pages.first.keyframe
        refuse_inverted(key, path)
        # They would be read as zeros.
        wanted = max(len(lengths), 0 if _is_plain(key) else math.prod(key.chunked))
        absent = wanted - sum(map(bool, map(min, zip(offsets, lengths, strict=False))))
        if absent:
            raise InputError(
                f"{path}: {absent} of {wanted} tiles or strips of page {number} were never "
                f"written; export the stack again"
            )
        if _is_plain(key) and sum(lengths) < _page_bytes(key):
            raise InputError(
                f"{path}: page {number} states {sum(lengths)} bytes, but its {key.shape} pixels "
                f"have {_page_bytes(key)}; export the stack again"
            )


def refuse_inverted(page: tifffile.TiffPage, path: Path) -> None:
    """Refuse an image of which zero is white: nothing inverts it, nor says whether light is white.

    Raises
    ------
    InputError
        Names the file.
    """
    # Without the tag, tifffile takes zero for white.
    if "PhotometricInterpretation" in page.tags and page.photometric == _INVERTED:
        raise InputError(
            f"{path}: zero is white in this TIFF (photometric MinIsWhite), so that bright may be "
            f"dark; export it with black as zero (in ImageJ: Image > Lookup Tables > Grays)"
        )


def _is_plain(page: tifffile.TiffPage) -> bool:
    """Return whether the pixels of a page are stored one by one."""
    return page.compression == 1 and page.photometric != _SUBSAMPLED


def _page_bytes(page: tifffile.TiffPage) -> int:
    line = math.ceil(page.imagewidth * page.samplesperpixel * page.bitspersample / 8)
    return page.imagedepth * page.imagelength * line


def _check_series(tif: tifffile.TiffFile, path: Path) -> None:
    """Look for planes that are announced but not there."""
    size, series = tif.filehandle.size, tif.series[0]
    if tif.is_ome and series.kind == "generic":
        raise InputError(
            f"{path}: its OME-XML does not fit its images of shape {series.keyframe.shape}; export "
            f"it again"
        )
    missing = [number for number, page in enumerate(series.pages) if page is None]
    if missing:
        raise InputError(
            f"{path}: {len(missing)} of {len(series.pages)} planes are missing "
            f"({_place(series, missing[0])}): its OME-XML names no page for them; copy all files "
            f"again from the microscope, or export them again"
        )
    # ImageJ writes stacks above 4 GB as one page with the other planes behind it.
    announced = int((tif.imagej_metadata or {}).get("images", 1)) if tif.is_imagej else 1
    planes = math.prod(series.shape) // math.prod(series.keyframe.shape)
    if planes < announced <= len(tif.pages):
        raise InputError(
            f"{path}: its ImageJ metadata announce {announced} planes, but its channels, slices, "
            f"and frames are {planes}; save the stack again"
        )
    if planes < announced:
        raise InputError(
            f"{path}: truncated: its metadata announce {announced} planes, but the file has "
            f"{planes}; copy it again from the microscope"
        )
    if not tif.is_ome and series.dataoffset is not None:
        end = series.dataoffset + math.prod(series.shape) * series.dtype.itemsize
        if end > size:
            raise _truncated(path, "the last plane", end, size)


def _place(series: tifffile.TiffPageSeries, number: int) -> str:
    """Say in words where a page lies in its series."""
    axes, shape = series.get_axes(squeeze=False), series.get_shape(squeeze=False)
    outer = axes[: axes.index("Y")]
    place = np.unravel_index(number, shape[: len(outer)])
    return "the first at " + ", ".join(
        f"{axis} {int(i)}" for axis, i in zip(outer, place, strict=True)
    )


def _truncated(path: Path, what: str, end: int, size: int) -> InputError:
    return InputError(
        f"{path}: truncated: {what} should end at byte {end}, but the file has {size}; "
        f"copy it again from the microscope"
    )


def _imagej_voxel_size(
    tif: tifffile.TiffFile,
) -> tuple[tuple[float | None, float | None, float | None], str | None]:
    """Return (z, y, x) in micrometres, None where it is not stated, and why it is not clear."""
    # ImageJ gives pixels per unit as the resolution tags and names the unit in its description.
    described = tif.imagej_metadata or {}
    unit = described.get("unit")
    tags, sizes = tif.pages[0].tags, [described.get("spacing")]
    for name in ("YResolution", "XResolution"):
        pixels, units = tags[name].value if name in tags else (0, 1)
        sizes.append(units / pixels if pixels else None)
    if is_length(unit):
        # Units of other axes are named where they differ.
        units = [described.get(name, unit) for name in ("zunit", "yunit")] + [unit]
        return tuple(map(size_um, sizes, units)), None
    stated = any(size not in (None, 1) for size in sizes) and tif.is_imagej
    named = f'the unit "{unit}", which is no length' if unit else "no unit"
    return (None, None, None), f"the ImageJ metadata have {named}" if stated else None


def _imagej_times(tif: tifffile.TiffFile, count: int) -> tuple[float, ...]:
    """Return the begin of every time point in seconds; nothing where it is not stated."""
    described = tif.imagej_metadata or {}
    # The unit is written only where it is another.
    interval = time_s(described.get("finterval"), str(described.get("tunit", "sec")))
    if count < 2 or interval is None or interval <= 0:
        return ()
    return tuple(interval * t for t in range(count))
