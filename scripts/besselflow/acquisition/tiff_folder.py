"""A folder of TIFFs, one per projection, in the natural order of their names."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from besselflow.acquisition.model import Acquisition
from besselflow.acquisition.ome_set import companions_in, find_set
from besselflow.acquisition.planes import natural_key, stack_planes
from besselflow.acquisition.tiff import check_pages, opened_tiff, read_tiff
from besselflow.errors import InputError

FORMAT = "folder of TIFFs"
_SUFFIXES = (".tif", ".tiff")


def is_tiff_folder(path: Path) -> bool:
    """Return whether a folder holds files that are named like TIFFs."""
    return path.is_dir() and bool(list_tiffs(path))


def list_tiffs(path: Path) -> list[Path]:
    """Return the files of a folder that are named like TIFFs, in natural order."""
    found = [
        file
        for file in path.iterdir()
        # Names with a leading dot are remains of copying from a Mac.
        if file.suffix.lower() in _SUFFIXES and not file.name.startswith(".") and not file.is_dir()
    ]
    return sorted(found, key=lambda file: natural_key(file.name))


def read_tiff_folder(path: Path) -> Acquisition:
    """Read one image per file.

    Raises
    ------
    InputError
        A file holds several pages, is truncated, or differs in size or type from the first, or
        OME-XML says where each plane belongs.
    """
    files = list_tiffs(path)
    _refuse_sets(path, files[0])
    table = np.empty((1, 1, len(files)), object)
    for place, file in enumerate(files):
        table[0, 0, place] = (file, 0)
    data = stack_planes(table, path)
    for file in files:
        with opened_tiff(file) as tif:
            check_pages(tif, file)
            if len(tif.pages) > 1:
                raise InputError(
                    f"{path}: {file.name} holds {len(tif.pages)} pages, but a folder is read as "
                    f"one image per file; give the path of that file, or split it"
                )
            page = tif.pages[0]
            if (page.shape, page.dtype) != (data.shape[3:], data.dtype):
                raise InputError(
                    f"{path}: {file.name} holds {page.shape} pixels (y, x) of type {page.dtype}, "
                    f"but {files[0].name} {data.shape[3:]} of type {data.dtype}; keep other images "
                    f"out of the folder"
                )
    first = read_tiff(files[0])
    return Acquisition(
        data,
        path,
        FORMAT,
        (None, *first.pixel_size_um),
        software=first.software,
        files=tuple(files),
        unknown=first.unknown,
        notes=(f"{len(files)} files from {files[0].name} to {files[-1].name}",),
    )


def _refuse_sets(path: Path, first: Path) -> None:
    """Leave to their own reader what OME-XML describes: names say nothing of channels and times."""
    companions = companions_in(path)
    if companions:
        raise InputError(
            f"{path}: this folder holds {len(companions)} sets of OME-TIFF; give the companion of "
            f"one of them, such as {companions[0].name}"
        )
    try:
        tiffs = find_set(first).tiffs
    except InputError:
        # A single page without the others of its set.
        return
    if sum(file.is_file() for file in tiffs) > 1:
        raise InputError(
            f"{path}: the files are a set of OME-TIFF, whose OME-XML says where each belongs; give "
            f"the path of one of them, such as {first.name}"
        )
