"""What every reader gives: pixels lazily, and all that the file knows about them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import dask.array as da
import numpy as np

from besselflow.errors import InputError

Frames = Literal["average", "time"]
"""What becomes of frames that were repeated at one stage position."""


@dataclass(frozen=True)
class Acquisition:
    """Images as they lie on disk, and what is known about them from there.

    Attributes
    ----------
    data : dask.array.Array, shape (T, C, P or Z, Y, X)
        Raw counts in the type of the file.
    path : pathlib.Path
        The file or folder that was asked for.
    format : str
        Name of the format.
    voxel_size_um : tuple of (float or None), (z, y, x)
        Distance of the planes, and pixel size, where they are stated.
    positions_um : numpy.ndarray or None, shape (P,)
        Stage position of every projection (of a ground truth: of every slice), where they are
        stated.
    channels : tuple of str
        Names of the channels; empty where they have none.
    times_s : tuple of float
        Begin of every time point in seconds after the first; empty where it is not stated.
    date : datetime.datetime or None
        Begin of the acquisition.
    software : str or None
        What wrote the file.
    files : tuple of pathlib.Path
        All files that were read.
    sources : dict of str to str
        What was read from where, such as ``stage positions`` -> ``SI.hStackManager.zs``.
    unknown : dict of str to str
        Why something is not known that the file seems to state (``stage positions``, ``voxel
        size``), in words that can follow a colon.
    gaps : str or None
        What is missing from the pixels, which would be read as zeros; None where nothing is.
    notes : tuple of str
        What else a user should know, such as frames that were left out.
    """

    data: da.Array
    path: Path
    format: str
    voxel_size_um: tuple[float | None, float | None, float | None] = (None, None, None)
    positions_um: np.ndarray | None = None
    channels: tuple[str, ...] = ()
    times_s: tuple[float, ...] = ()
    date: datetime | None = None
    software: str | None = None
    files: tuple[Path, ...] = ()
    sources: dict[str, str] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    gaps: str | None = None

    @property
    def pixel_size_um(self) -> tuple[float | None, float | None]:
        """(y, x) in micrometres, None where it is not stated."""
        return self.voxel_size_um[1:]

    @property
    def spacing_um(self) -> float | None:
        """Distance of the planes in micrometres, None where it is not stated."""
        return self.voxel_size_um[0]

    def provenance(self) -> dict[str, Any]:
        """Return what later stages and the report should know, as JSON can hold it."""
        known = {
            "format": self.format,
            "software": self.software,
            "date": self.date.isoformat() if self.date else None,
            "channels": list(self.channels),
            "times_s": list(self.times_s),
            "read from": self.sources,
            "notes": list(self.notes),
        }
        return {key: value for key, value in known.items() if value}


def check_acquisition(found: Acquisition) -> Acquisition:
    """Check what holds for all formats, and return the acquisition.

    Parameters
    ----------
    found : Acquisition
        What a reader gave.

    Raises
    ------
    InputError
        There are no pixels, they are no intensities, or what is known of them does not fit them.
    """
    path, shape, dtype = found.path, found.data.shape, found.data.dtype
    if dtype.kind not in "uif":
        raise InputError(f"{path}: pixels of type {dtype} are not intensities; export grey values")
    if 0 in shape:
        raise InputError(f"{path}: the acquisition has no pixels (shape {shape}); export it again")
    positions = found.positions_um
    if positions is None:
        return found
    source = found.sources.get("stage positions", "its metadata")
    if len(positions) != shape[2]:
        raise InputError(
            f"{path}: {source} lists {len(positions)} stage positions, but there are {shape[2]} "
            f"projections; write a stage CSV, or export the acquisition again"
        )
    if not np.isfinite(positions).all():
        raise InputError(
            f"{path}: {source} holds a stage position that is not a finite number; write a stage "
            f"CSV with overrule in the sheet"
        )
    values, counts = np.unique(positions, return_counts=True)
    if (counts > 1).any():
        raise InputError(
            f"{path}: by {source}, {counts.max()} projections are at {values[counts.argmax()]:g} "
            f"um; average repeated projections, or write a stage CSV with overrule in the sheet"
        )
    return found


def regular_spacing(positions_um: np.ndarray) -> float | None:
    """Return the distance of positions that are evenly spaced, None for others."""
    steps = np.diff(positions_um)
    if not len(steps) or np.ptp(steps) > 0.01 * abs(steps).mean() or steps.mean() == 0:
        return None
    return float(f"{abs(steps.mean()):.6g}")
