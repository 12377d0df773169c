"""Images that lie on disk one plane after another, in one file or in many, as one lazy array."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import tifffile

from besselflow.acquisition.tiff import opened_tiff, refuse_inverted
from besselflow.decoding import COPY_AGAIN
from besselflow.errors import InputError

_SOME = 3


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Return a key that sorts ``z9`` before ``z10``."""
    parts = re.split(r"(\d+)", name.casefold())
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts]


def lazy_planes(
    table: np.ndarray,
    read: Callable[[Any], np.ndarray],
    shape: tuple[int, int],
    dtype: np.dtype,
) -> da.Array:
    """Return planes as an array with one chunk per plane.

    Parameters
    ----------
    table : numpy.ndarray, shape (T, C, P, R)
        Where each plane lies, in terms of `read`; more than one (R) are averaged, in float32.
    read : callable
        Returns the plane that an entry of the table stands for.
    shape : tuple of int
        (Y, X).
    dtype : numpy.dtype
        Type of the planes.

    Returns
    -------
    dask.array.Array, shape (T, C, P, Y, X)
    """
    dtype = np.dtype("float32") if table.shape[3] > 1 else np.dtype(dtype).newbyteorder("=")
    return da.map_blocks(
        _read_block,
        table=table,
        read=read,
        shape=shape,
        dtype=dtype,
        chunks=(*((1,) * n for n in table.shape[:3]), *((n,) for n in shape)),
        meta=np.empty((0,) * 5, dtype),
    )


def _read_block(
    table: np.ndarray,
    read: Callable[[Any], np.ndarray],
    shape: tuple[int, int],
    block_id: tuple[int, ...],
) -> np.ndarray:
    planes = [read(entry) for entry in table[block_id[:3]]]
    for plane in planes:
        if plane.shape != shape:
            raise InputError(
                f"a plane has {plane.shape} pixels (y, x), but the first has {shape}; put stacks "
                f"of different sizes into different folders"
            )
    plane = planes[0] if len(planes) == 1 else np.mean(planes, axis=0, dtype="float32")
    return plane.astype(plane.dtype.newbyteorder("="), copy=False)[None, None, None]


def stack_planes(table: np.ndarray, path: Path) -> da.Array:
    """Return planes of TIFF files as one array, of which the first of each channel is opened now.

    Parameters
    ----------
    table : numpy.ndarray of object, shape (T, C, P) or (T, C, P, R)
        (file, page) of each plane; more than one (R) are averaged, in float32.
    path : pathlib.Path
        What the planes belong to, for messages.

    Returns
    -------
    dask.array.Array, shape (T, C, P, Y, X)

    Raises
    ------
    InputError
        A file is missing or empty, or the first can't be read or is inverted.
    """
    check_files([file for file, _ in table.flat], path)
    table = table if table.ndim > 3 else table[..., None]
    first = read_plane(table.flat[0])
    for file, page in table[0, :, 0, 0]:
        with opened_tiff(file) as tif:
            refuse_inverted(tif.pages[page], file)
    if first.ndim != 2:
        raise InputError(
            f"{table.flat[0][0]}: its planes have the shape {first.shape}, not (y, x); export "
            f"grey values"
        )
    return lazy_planes(table, read_plane, first.shape, first.dtype)


def read_plane(place: tuple[Path, int]) -> np.ndarray:
    """Read one page of a TIFF, given its file and number.

    Raises
    ------
    InputError
        The file is no TIFF, or has fewer pages.
    """
    path, page = place
    try:
        with tifffile.TiffFile(path) as tif:
            return tif.pages[page].asarray()
    except PermissionError as error:
        raise InputError(f"{path}: permission denied; make the file readable") from error
    except Exception as error:
        raise InputError(f"{path}: page {page} can't be decoded ({error}); {COPY_AGAIN}") from error


def check_files(files: Sequence[Path], path: Path) -> None:
    """Complain about files that are missing or empty.

    Raises
    ------
    InputError
        Names the first of them.
    """
    unique = list(dict.fromkeys(files))
    missing = [file for file in unique if not file.is_file()]
    if missing:
        raise InputError(
            f"{path}: {len(missing)} of {len(unique)} files are missing ({_names(missing)}); copy "
            f"the whole folder again from the microscope"
        )
    empty = [file for file in unique if file.stat().st_size == 0]
    if empty:
        raise InputError(
            f"{path}: {len(empty)} of {len(unique)} files are empty (0 bytes: {_names(empty)}); "
            f"copy the whole folder again from the microscope"
        )


def _names(files: list[Path]) -> str:
    more = ", ..." if len(files) > _SOME else ""
    return ", ".join(file.name for file in files[:_SOME]) + more
