"""Walk through a directory tree and recognise acquisitions, stage files and beams by content."""

from __future__ import annotations

import csv
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import tifffile

from besselflow.acquisition import Acquisition, ome_tiff, open_acquisition, recognise
from besselflow.acquisition import tiff_folder as folders
from besselflow.acquisition.ome_set import companions_in, find_set
from besselflow.acquisition.planes import natural_key
from besselflow.draft.names import is_beads
from besselflow.errors import InputError

_FORMATS_OF_FOLDERS = ("OME-Zarr", "Thorlabs ThorImage", "Bruker Prairie View")
_TABLE_BYTES = 10_000_000


@dataclass
class Found:
    """What lies in a directory tree.

    Attributes
    ----------
    images : list of Acquisition
        Stacks of at least two planes: acquisitions and ground truths.
    beads : list of pathlib.Path
        Stacks that are named as such.
    stages, beams : list of pathlib.Path
        CSV files with the columns of stage positions, and of beam profiles.
    left_out : dict of pathlib.Path to str
        What looks like images but can't be used -> why.
    """

    images: list[Acquisition] = field(default_factory=list)
    beads: list[Path] = field(default_factory=list)
    stages: list[Path] = field(default_factory=list)
    beams: list[Path] = field(default_factory=list)
    left_out: dict[Path, str] = field(default_factory=dict)


def find_all(directory: Path | str) -> Found:
    """Find everything that a sample sheet can name, below a directory.

    Folders whose name begins with a dot, and the results of BesselFlow, are not looked into.

    Parameters
    ----------
    directory : path

    Raises
    ------
    InputError
        There is no such directory.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise InputError(f"{directory}: no such directory; correct the path")
    found, members, named, seen = Found(), set(), set(), set()
    if _take_folder(directory, found):
        return found
    for place, names, files in os.walk(directory, followlinks=True):
        folder = Path(place)
        # A link may lead back to where it came from, or to what is found without it.
        if folder.resolve() in seen:
            names.clear()
            continue
        seen.add(folder.resolve())
        names.sort(key=lambda name: ((folder / name).is_symlink(), name))
        if {"report.html", "metrics.tsv"} <= set(files):
            names.clear()
            continue
        names[:] = [
            name
            for name in names
            if not name.startswith(".") and not _take_once(folder / name, found, seen)
        ]
        # A companion is named after the set rather than after one of its files.
        companions = {companion.name for companion in companions_in(folder)}
        for name in sorted(files, key=lambda name: (name not in companions, natural_key(name))):
            path = folder / name
            if not name.startswith(".") and path.resolve() not in members:
                parts = _take_file(path, found)
                members.update(part.resolve() for part in parts)
                named.update(part.resolve() for part in parts if part != path)
    found.images.sort(key=lambda image: natural_key(str(image.path)))
    # A companion of several images, each of which was found by its TIFFs.
    for path in [path for path in found.left_out if path.resolve() in named]:
        del found.left_out[path]
    return found


def _take_once(folder: Path, found: Found, seen: set[Path]) -> bool:
    """Note a folder that is one acquisition, unless it was seen; return whether that is all."""
    if folder.resolve() in seen:
        return True
    whole = _take_folder(folder, found)
    if whole:
        seen.add(folder.resolve())
    return whole


def _take_folder(folder: Path, found: Found) -> bool:
    """Note a folder that is one acquisition as a whole; return whether it is."""
    try:
        reader = recognise(folder)
    except InputError as error:
        found.left_out[folder] = _reason(error, folder)
        return True
    if reader is None:
        return False
    if reader.name == folders.FORMAT and not _is_series(folder):
        return False
    if reader.name in (*_FORMATS_OF_FOLDERS, folders.FORMAT):
        _take_images(folder, found)
        if reader.name != "OME-Zarr":
            for table in sorted(folder.glob("*.csv")):
                _take_table(table, found)
        return True
    return False


def _is_series(folder: Path) -> bool:
    """Tell a folder with one plane per file from one with a stack in each."""
    if companions_in(folder):
        return False
    files = folders.list_tiffs(folder)
    stems = {re.sub(r"\d+", "#", file.name) for file in files}
    if len(files) < 2 or len(stems) > 1:
        return False
    try:
        for file in (files[0], files[len(files) // 2], files[-1]):
            with tifffile.TiffFile(file) as tif:
                if len(tif.pages) > 1 or tif.is_ome:
                    return False
    except Exception:
        # Each file is named with what is wrong with it.
        return False
    return True


def _take_file(path: Path, found: Found) -> tuple[Path, ...]:
    """Note a file; return all files that belong to it."""
    if path.suffix.lower() == ".csv":
        _take_table(path, found)
        return ()
    try:
        reader = recognise(path)
    except InputError as error:
        if path.suffix.lower() in (".tif", ".tiff", ".npy", ".ome"):
            found.left_out[path] = _reason(error, path)
        return ()
    if reader is None:
        if path.suffix.lower() in (".tif", ".tiff", ".npy", ".ome"):
            found.left_out[path] = "not a readable TIFF, and of no other known format"
        return ()
    if is_beads(path):
        found.beads.append(path)
        return ()
    files = _take_images(path, found)
    return files or (_rest_of_set(path) if reader.name == ome_tiff.FORMAT else ())


def _rest_of_set(path: Path) -> tuple[Path, ...]:
    """Return the other files of a set that can't be read: what is wrong is said once."""
    try:
        return tuple(file for file in find_set(path).files if file != path)
    except InputError:
        return ()


def _take_images(path: Path, found: Found) -> tuple[Path, ...]:
    try:
        image = open_acquisition(path)
    except InputError as error:
        found.left_out[path] = _reason(error, path)
        return ()
    times, _, planes = image.data.shape[:3]
    if planes < 2:
        many = f", at {times} time points" if times > 1 else ""
        found.left_out[path] = f"a single plane{many}, not a stack"
    else:
        found.images.append(image)
    return image.files


def _take_table(path: Path, found: Found) -> None:
    try:
        if path.stat().st_size > _TABLE_BYTES:
            return
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = (row for row in csv.reader(file) if row and not row[0].startswith("#"))
            first = next(rows, [])
    except PermissionError:
        found.left_out[path] = "permission denied; make the file readable"
        return
    except (OSError, UnicodeDecodeError, csv.Error):
        return
    header = {cell.strip() for cell in first}
    otherwise = {cell.strip(' "') for cell in re.split(r"[;|\t]", ",".join(first))}
    for columns, place in (
        ({"projection", "z_um"}, found.stages),
        ({"dz_um", "weight"}, found.beams),
    ):
        if columns <= header:
            place.append(path)
        elif columns <= otherwise:
            found.left_out[path] = (
                "its columns are not separated by commas; save it as comma-separated text, with "
                "decimal points"
            )


def _reason(error: InputError, path: Path) -> str:
    return str(error).removeprefix(f"{path}: ")
