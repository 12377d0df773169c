"""What the preflight reads of an acquisition: a few lateral crops of all projections."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np

from besselflow.acquisition import Frames, open_acquisition
from besselflow.beam import parse_beam_profile, read_lateral_psf
from besselflow.config import Preflight
from besselflow.corrections import Stated, counts_to_intensity, resolve_detector
from besselflow.corrections.flat_field import fit_to_images, read_flat_field
from besselflow.errors import InputError
from besselflow.projection import AxialGrid
from besselflow.slice_spacing import with_spacing
from besselflow.stated import positions_of
from besselflow.store import Projections

MOST_PROJECTIONS = 32
"""Neighbouring projections at most that the spectral model is fitted to, so that the time of the
fit does not grow with the depth of an acquisition."""


@dataclass(frozen=True)
class Subsample:
    """Crops of the middle time point of an acquisition, with its geometry.

    Attributes
    ----------
    measured : Projections
        The acquisition, opened lazily; projections in the order of their positions.
    counts : numpy.ndarray, shape (C, N, P, y, x)
        Raw counts of N crops, in the type of the file.
    offset, gain : float, numpy.ndarray of shape (C, 1, 1, 1, 1), or None
        Of the detector, as the sheet states them or as estimated from all that was acquired.
    time_point : int
        Which one was read.
    flat : numpy.ndarray, shape (C, N, 1, y, x), or None
        The flat field in the crops.
    """

    measured: Projections
    counts: np.ndarray
    offset: float | np.ndarray | None
    gain: float | np.ndarray | None
    time_point: int
    flat: np.ndarray | None = None

    @property
    def intensity(self) -> np.ndarray:
        """Photons, or counts above the offset, under even light, float32, (C, N, P, y, x)."""
        intensity = counts_to_intensity(self.counts, self.offset, self.gain)
        return intensity if self.flat is None else intensity / self.flat

    @property
    def share(self) -> float:
        """Share of the pixels of a projection that was read."""
        return float(np.prod([self.counts.shape[i] for i in (1, 3, 4)])) / float(
            np.prod(self.measured.data.shape[3:])
        )


def read_subsample(
    acquisition: Path | str,
    stage_positions: Path | str | None,
    ground_truth: Path | str | None,
    beam_profile: str,
    voxel_size_um: tuple[float | None, float, float],
    offset: Stated,
    gain: Stated,
    lateral_psf: str | None = None,
    halo: int = 24,
    frames: Frames = "average",
    overrule: bool = False,
    settings: Preflight | None = None,
    flat_field: str | None = None,
) -> Subsample:
    """Open an acquisition as `scripts/preprocess.py` does, and read crops of it.

    Parameters
    ----------
    acquisition, stage_positions, ground_truth, beam_profile, voxel_size_um, offset, gain
    lateral_psf, halo, frames, overrule
        As in `scripts/preprocess.py`.
    settings : Preflight, optional
        Size and number of the crops.
    flat_field : str or None
        Path of the flat field that the run divides by, if one is given.

    Raises
    ------
    InputError
        The files don't fit each other, or a pixel is not a finite number.
    """
    settings = settings or Preflight()
    stack = open_acquisition(acquisition, frames)
    raw = stack.data
    stage_positions = Path(stage_positions) if stage_positions else None
    positions = positions_of(stack, stage_positions, overrule)
    profile = parse_beam_profile(beam_profile)
    voxel_size_um = with_spacing(voxel_size_um, positions)
    if ground_truth is not None:
        slices = open_acquisition(ground_truth).data.shape[2]
        grid = AxialGrid(0.0, voxel_size_um[0], slices)
    else:
        grid = AxialGrid.covering(profile, positions, voxel_size_um[0])
    kernel = None
    if lateral_psf is not None:
        pixel_size = tuple(voxel_size_um[1:])
        kernel = read_lateral_psf(lateral_psf, beam_profile, pixel_size, halo).kernel
    order = np.argsort(positions)
    measured = Projections(
        data=raw[:, :, order],
        positions_um=positions[order],
        profile=profile,
        grid=grid,
        pixel_size_um=tuple(voxel_size_um[1:]),
        unit="photons" if gain else "counts",
        lateral_kernel=kernel,
    )
    time_point = raw.shape[0] // 2
    counts = read_crops(measured.data[time_point], settings.crop, settings.crops)
    if not np.isfinite(counts).all():
        raise InputError(
            f"{acquisition} holds pixels that are not finite numbers; "
            "export it again as integers, or replace them"
        )
    detector = resolve_detector(measured.data, offset, gain, acquisition)
    if detector.record:
        # Crops have one more axis than projections.
        offset, gain = detector.offset[..., None], detector.gain[..., None]
    flat = None
    if flat_field is not None:
        _, channels, _, *size = raw.shape
        whole = fit_to_images(read_flat_field(flat_field), flat_field, (channels, *size))
        flat = read_crops(da.from_array(whole[:, None], -1), settings.crop, settings.crops)
    return Subsample(measured, counts, offset, gain, time_point, flat)


def crop_starts(length: int, size: int, count: int) -> tuple[np.ndarray, int]:
    """Spread crops that don't overlap evenly along an axis.

    Parameters
    ----------
    length : int
        Pixels along the axis.
    size, count : int
        Pixels of a crop, and crops, at most.

    Returns
    -------
    starts : numpy.ndarray of int, shape (n,)
    size : int
        Pixels of a crop: fewer where the axis is shorter.
    """
    size = min(size, length)
    count = max(1, min(count, length // size))
    centres = (np.arange(count) + 0.5) * length / count
    return np.floor(centres - size / 2).astype(int), size


def read_crops(data: Any, size: int, most: int) -> np.ndarray:
    """Read crops (C, N, P, y, x) of an array (C, P, Y, X), and no chunk of a file twice."""
    along = max(1, int(np.sqrt(most)))
    rows, height = crop_starts(data.shape[2], size, along)
    columns, width = crop_starts(data.shape[3], size, along)
    # A plane in one piece has to be decoded as a whole, whatever is taken from it.
    in_strips = len(data.chunks[2]) > 1
    shape = (data.shape[0], len(rows) * len(columns), data.shape[1], height, width)
    crops = np.empty(shape, data.dtype)
    for c, p in np.ndindex(data.shape[:2]):
        plane = None if in_strips else np.asarray(data[c, p])
        for i, row in enumerate(rows):
            own = slice(row, row + height)
            band = np.asarray(data[c, p, own]) if plane is None else plane[own]
            for j, column in enumerate(columns):
                crops[c, i * len(columns) + j, p] = band[:, column : column + width]
    return crops


def middle_projections(measured: Projections) -> tuple[Projections, slice]:
    """Return at most `MOST_PROJECTIONS` neighbours at the middle of the depth, and which they are.

    What is returned has its own slices: all that these projections see, where some are left out.
    """
    count = len(measured.positions_um)
    if count <= MOST_PROJECTIONS:
        return measured, slice(0, count)
    first = (count - MOST_PROJECTIONS) // 2
    chosen = slice(first, first + MOST_PROJECTIONS)
    positions = measured.positions_um[chosen]
    grid = AxialGrid.covering(measured.profile, positions, measured.grid.spacing_um)
    return replace(
        measured, data=measured.data[:, :, chosen], positions_um=positions, grid=grid
    ), chosen
