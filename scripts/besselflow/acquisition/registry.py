"""Which format a file or folder has, by its content, and its reader."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from besselflow.acquisition import (
    bruker,
    npy,
    ome_tiff,
    ome_zarr,
    scanimage,
    thorlabs,
    tiff,
    tiff_folder,
)
from besselflow.acquisition.model import Acquisition, Frames, check_acquisition
from besselflow.errors import InputError


@dataclass(frozen=True)
class Reader:
    """A format: its name, how it is recognised, and how it is read.

    Attributes
    ----------
    name : str
        Name of the format.
    recognises : callable
        Path -> whether it is of this format, from its content.
    read : callable
        Path, what becomes of repeated frames -> Acquisition.
    """

    name: str
    recognises: Callable[[Path], bool]
    read: Callable[[Path, Frames], Acquisition]


READERS = (
    Reader(ome_zarr.FORMAT, ome_zarr.is_ome_zarr, lambda path, _: ome_zarr.read_ome_zarr(path)),
    Reader(thorlabs.FORMAT, thorlabs.is_thorlabs, lambda path, _: thorlabs.read_thorlabs(path)),
    Reader(bruker.FORMAT, bruker.is_bruker, bruker.read_bruker),
    Reader(scanimage.FORMAT, scanimage.is_scanimage, scanimage.read_scanimage),
    Reader(ome_tiff.FORMAT, ome_tiff.is_ome_tiff, lambda path, _: ome_tiff.read_ome_tiff(path)),
    Reader(tiff.FORMAT, tiff.is_tiff, lambda path, _: tiff.read_tiff(path)),
    Reader(npy.FORMAT, npy.is_npy, lambda path, _: npy.read_npy(path)),
    Reader(
        tiff_folder.FORMAT,
        tiff_folder.is_tiff_folder,
        lambda path, _: tiff_folder.read_tiff_folder(path),
    ),
)
"""All formats; the first that recognises a path reads it, so the more special ones come first."""


def recognise(path: Path | str) -> Reader | None:
    """Return the reader of a file or folder, None where its content is of no known format.

    Raises
    ------
    InputError
        The path does not exist, is empty, or is not readable.
    """
    path = Path(path)
    try:
        if not path.exists():
            raise InputError(f"{path}: no such file; correct the path")
        if path.is_file() and path.stat().st_size == 0:
            raise InputError(
                f"{path}: the file is empty (0 bytes); copy it again from the microscope"
            )
        return next((reader for reader in READERS if reader.recognises(path)), None)
    except PermissionError as error:
        raise InputError(f"{path}: permission denied; make the file readable") from error


def open_acquisition(path: Path | str, frames: Frames = "average") -> Acquisition:
    """Open images of any known format lazily: an acquisition, a ground truth, beads.

    Parameters
    ----------
    path : path
        File or folder.
    frames : str
        What becomes of frames that were repeated at one stage position: ``average`` or ``time``.

    Returns
    -------
    Acquisition

    Raises
    ------
    InputError
        It is not there, of no known format, or damaged.
    """
    path = Path(path)
    reader = recognise(path)
    if reader is None and path.is_dir():
        raise InputError(
            f"{path}: this folder holds no acquisition that is known (Bruker or Thorlabs XML, "
            f"OME-Zarr, TIFF files); give the path of a file, or of the folder of one acquisition"
        )
    if reader is None:
        raise InputError(
            f"{path}: not a readable TIFF, and of no other known format; export it as OME-TIFF"
        )
    try:
        return check_acquisition(reader.read(path, frames))
    except InputError:
        raise
    except PermissionError as error:
        raise InputError(f"{path}: permission denied; make it readable") from error
    except Exception as error:
        raise InputError(
            f"{path}: not readable as {reader.name} ({type(error).__name__}: {error}); copy it "
            f"again from the microscope, or export it as OME-TIFF"
        ) from error
