"""How large a sample is, and what is made of it, from the headers of its files."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from besselflow.acquisition import Frames, open_acquisition
from besselflow.beam import parse_beam_profile
from besselflow.errors import InputError
from besselflow.projection import AxialGrid
from besselflow.sample_sheet import Sample
from besselflow.slice_spacing import with_spacing

_PHANTOM_SHAPE = (64, 96, 96)


@dataclass(frozen=True)
class Extent:
    """How large a sample is.

    Attributes
    ----------
    times, channels, projections, slices, rows, columns : int
        Of its acquisition, and of the volume that it becomes.
    """

    times: int
    channels: int
    projections: int
    slices: int
    rows: int
    columns: int

    @property
    def frame(self) -> int:
        """Voxels of one time point and channel, of projections or slices, whichever are more."""
        return max(self.projections, self.slices) * self.rows * self.columns

    @property
    def frames(self) -> int:
        """Number of time points and channels."""
        return self.times * self.channels


UNKNOWN = Extent(1, 1, 64, 256, 1024, 1024)
"""Stands for a sample that can't be read, whose job needs some resources until it says so."""


def extent_of(sample: Sample) -> Extent:
    """Return the size of a sample from the headers of its files; no pixel is read.

    Parameters
    ----------
    sample : Sample
        Row of the sheet, after the check of its files.
    """
    return _extent(
        sample.acquisition,
        sample.frames,
        tuple(sample.positions_um or ()),
        sample.ground_truth,
        sample.beam_profile,
        tuple(sample.voxel_size_um),
    )


@cache
def _extent(
    acquisition: Path,
    frames: Frames,
    positions_um: tuple[float, ...],
    ground_truth: Path | None,
    beam_profile: str,
    voxel_size_um: tuple[float | None, float, float],
) -> Extent:
    try:
        times, channels, projections, rows, columns = _shape(acquisition, frames)
        if ground_truth is not None:
            slices = _shape(ground_truth)[2]
        elif positions_um:
            spacing_um = with_spacing(voxel_size_um, np.array(positions_um))[0]
            profile = parse_beam_profile(beam_profile)
            slices = AxialGrid.covering(profile, positions_um, spacing_um).n_slices
        else:
            return UNKNOWN
    except (InputError, OSError):
        return UNKNOWN
    return Extent(times, channels, projections, slices, rows, columns)


@cache
def _shape(path: Path, frames: Frames = "average") -> tuple[int, ...]:
    return open_acquisition(path, frames).data.shape


@cache
def extent_of_volume(path: Path | None) -> Extent:
    """Return the size of the volume of a training sample, or of a phantom where there is no file.

    Parameters
    ----------
    path : path or None
        Stack of slices.
    """
    if path is None:
        slices, rows, columns = _PHANTOM_SHAPE
        return Extent(1, 1, slices, slices, rows, columns)
    try:
        times, channels, slices, rows, columns = _shape(path)
    except (InputError, OSError):
        return UNKNOWN
    return Extent(times, channels, slices, slices, rows, columns)


def within_region(extent: Extent, region: int) -> Extent:
    """Return the size of what is left of a sample when projections are withheld.

    Parameters
    ----------
    extent : Extent
        Of the sample.
    region : int
        Largest edge length of the lateral region, in pixels.
    """
    rows, columns = min(extent.rows, region), min(extent.columns, region)
    return Extent(1, extent.channels, extent.projections, extent.slices, rows, columns)


def joined(extents: Iterable[Extent]) -> Extent:
    """Return the size of a stack of all images that tell of the light, as large as the largest.

    Parameters
    ----------
    extents : iterable of Extent
        Of all samples.
    """
    # Most runs ask for no flat field, and need not wait for scikit-image.
    from besselflow.mean_images import times_read

    extents = list(extents)
    rows, columns = (max(getattr(each, n) for each in extents) for n in ("rows", "columns"))
    pixels = sum(
        times_read(each.times, each.projections)
        * each.channels
        * each.projections
        * each.rows
        * each.columns
        for each in extents
    )
    return Extent(1, 1, math.ceil(pixels / (rows * columns)), 1, rows, columns)
