r"""Acquisitions of a known volume under any beam and detector, as a microscope would save them.

The model of a recorded count is

.. math:: c_p = \mathrm{offset} + \mathrm{gain} \cdot \mathrm{Poisson}(b_p \, K [A g v_p])
          + \mathrm{Normal}(0, \mathrm{read\ noise}),

with the axial projection A, the lateral blur K of the beam (none by default), the volume
:math:`v_p` displaced by the drift so far, the share g(z) of the light that attenuation leaves at a
depth, and the share :math:`b_p` of the fluorophores that are not bleached yet.
"""

from __future__ import annotations

import csv
import hashlib
import os
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from scipy.ndimage import shift

from besselflow.beam import AxialProfile, blur
from besselflow.disturbance import (
    Disturbance,
    check_range,
    dark_photons,
    displacements,
    line_brightness,
    remaining_brightness,
    remaining_light,
    uneven_light,
)
from besselflow.projection import AxialGrid, AxialProjection

_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Detector:
    """A camera or photomultiplier that counts photons.

    Attributes
    ----------
    photons : float
        Photons per pixel of a projection that sees relative brightness 1 over the whole beam.
    gain : float
        Counts per photon.
    offset : float
        Counts without light.
    read_noise : float
        Standard deviation of the read noise in counts.
    bit_depth : int
        Counts saturate at ``2**bit_depth - 1``; 1 to 16.

    Raises
    ------
    ValueError
        A value is outside its range.
    """

    photons: float = 300.0
    gain: float = 10.0
    offset: float = 100.0
    read_noise: float = 5.0
    bit_depth: int = 16

    def __post_init__(self) -> None:
        """Refuse values that no detector has."""
        check_range("photons", self.photons, 0, np.inf, above=True)
        check_range("gain", self.gain, 0, np.inf, above=True)
        check_range("offset", self.offset, 0, np.inf)
        check_range("read_noise", self.read_noise, 0, np.inf)
        if self.bit_depth not in range(1, 17):
            raise ValueError(f"bit_depth must be a whole number from 1 to 16, not {self.bit_depth}")

    @property
    def saturation(self) -> int:
        """The largest count."""
        return 2**self.bit_depth - 1

    def expose(self, photons_image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return noisy counts for expected photons.

        Parameters
        ----------
        photons_image : numpy.ndarray
            Expected photons per pixel, not negative, any shape.
        rng : numpy.random.Generator

        Returns
        -------
        numpy.ndarray, same shape, uint16
            Rounded counts, clipped to 0..`saturation`.

        Raises
        ------
        ValueError
            Expected photons are negative or not finite.
        """
        photons_image = np.asarray(photons_image, float)
        if not np.all(np.isfinite(photons_image)) or np.any(photons_image < 0):
            raise ValueError("expected photons must be finite and not negative")
        counts = self.offset + self.gain * rng.poisson(photons_image)
        counts = counts + rng.normal(0.0, self.read_noise, photons_image.shape)
        return self._digitise(counts)

    def noise_free_counts(self, volume: np.ndarray) -> np.ndarray:
        """Return the counts (uint16) that stand for relative brightness, without noise."""
        return self._digitise(self.offset + self.gain * self.photons * np.asarray(volume, float))

    def _digitise(self, counts: np.ndarray) -> np.ndarray:
        return np.clip(np.rint(counts), 0, self.saturation).astype(np.uint16)


@dataclass(frozen=True)
class SimulatedAcquisition:
    """An acquisition and what is hidden from a user of a real one.

    Attributes
    ----------
    counts : numpy.ndarray, shape (P, Y, X), uint16
        What the detector recorded.
    positions_um : numpy.ndarray, shape (P,)
        Stage positions; 0 is the centre of the volume's first slice.
    photons : numpy.ndarray, shape (P, Y, X), float64
        Expected photons from the sample, with drift and bleaching, without hot pixels and noise.
    seen : numpy.ndarray, shape (Z,), bool
        Slices that at least one projection collects light from.
    truth : dict of str to numpy.ndarray
        ``drift_um`` (P, 2), displacement (y, x) of the sample; ``brightness`` (P,), share that is
        not bleached; ``line_brightness`` (P, Y), the laser's at every line; ``attenuation`` (Z,),
        share of the light that is left in a slice; ``flat_field`` (Y, X), with the mean 1;
        ``hot_pixels`` (Y, X), bool; ``hot_photons`` (Y, X), expected dark photons.
    """

    counts: np.ndarray
    positions_um: np.ndarray
    photons: np.ndarray
    seen: np.ndarray
    truth: dict[str, np.ndarray]


@dataclass(frozen=True)
class AcquisitionFiles:
    """Where an acquisition lies; None for what a sample does not have."""

    acquisition: Path | None
    stage_positions: Path | None
    beam_profile: Path | None
    ground_truth: Path | None


def stage_positions(
    n_slices: int, spacing_um: float, profile: AxialProfile, step_um: float
) -> np.ndarray:
    """Return regular stage positions whose windows all lie within a volume.

    Parameters
    ----------
    n_slices : int
        Slices Z of the volume.
    spacing_um : float
        Distance of the slices in micrometres.
    profile : AxialProfile
        Axial profile of the beam; its support is the window.
    step_um : float
        Distance of the stage positions in micrometres.

    Returns
    -------
    numpy.ndarray, shape (P,)
        Positions in micrometres; 0 is the centre of the first slice. The first window starts at
        the volume's upper edge, half a slice above 0.

    Raises
    ------
    ValueError
        A length is not positive, or the volume is thinner than the beam's support.
    """
    check_range("spacing_um", spacing_um, 0, np.inf, above=True)
    check_range("step_um", step_um, 0, np.inf, above=True)
    if n_slices < 1:
        raise ValueError(f"the volume must have at least one slice, not {n_slices}")
    low, high = profile.support_um
    thickness = n_slices * spacing_um
    slack = thickness - (high - low)
    if slack < -_TOLERANCE * thickness:
        raise ValueError(
            f"the volume is {thickness:g} um thick ({n_slices} slices of {spacing_um:g} um), "
            f"thinner than the {high - low:g} um that the beam {profile.source} reaches; "
            f"use a thicker volume or a shorter beam"
        )
    count = int(np.floor(max(slack, 0) / step_um + _TOLERANCE)) + 1
    # Rounded so that 2.5 + 6 + 6 reads 14.5 in a table, far below what a stage can resolve.
    return np.round(-spacing_um / 2 - low + step_um * np.arange(count), 9)


def simulate_acquisition(
    volume: np.ndarray,
    profile: AxialProfile,
    positions_um: np.ndarray,
    voxel_size_um: Sequence[float],
    detector: Detector | None = None,
    disturbance: Disturbance | None = None,
    seed: int = 0,
    lateral_kernel: np.ndarray | None = None,
) -> SimulatedAcquisition:
    """Record a volume with a stepped beam.

    Parameters
    ----------
    volume : numpy.ndarray, shape (Z, Y, X)
        Relative brightness, not negative.
    profile : AxialProfile
        Axial profile of the beam.
    positions_um : numpy.ndarray, shape (P,)
        Stage positions in micrometres; 0 is the centre of the first slice.
    voxel_size_um : sequence of float
        (z, y, x) in micrometres.
    detector : Detector, optional
    disturbance : Disturbance, optional
        None by default.
    seed : int
        Of the noise and the disturbance.
    lateral_kernel : numpy.ndarray, shape (n, m), optional
        Lateral blur of the beam: odd sizes, not negative, sum 1.

    Returns
    -------
    SimulatedAcquisition

    Raises
    ------
    ValueError
        The volume is not three-dimensional, negative or not finite, a voxel size is not positive,
        or a projection sees no slice.
    """
    detector = Detector() if detector is None else detector
    disturbance = Disturbance() if disturbance is None else disturbance
    volume = np.asarray(volume)
    voxel = _checked_voxel_size(voxel_size_um)
    if volume.ndim != 3:
        raise ValueError(f"the volume must have the axes (Z, Y, X), not {volume.ndim} axes")
    if not np.all(np.isfinite(volume)) or volume.min() < 0:
        raise ValueError("the volume's relative brightness must be finite and not negative")
    positions = np.atleast_1d(np.asarray(positions_um, float))
    grid = AxialGrid(first_um=0.0, spacing_um=float(voxel[0]), n_slices=len(volume))
    operator = AxialProjection.from_geometry(profile, positions, grid)

    rng = np.random.default_rng(seed)
    # What came later draws from a stream of its own, so that a seed still gives what it gave.
    later = np.random.default_rng([seed, 1])
    drift_um = displacements(rng, later, len(positions), disturbance)
    brightness = remaining_brightness(later, len(positions), disturbance)
    lines = line_brightness(later, (len(positions), volume.shape[1]), disturbance)
    hot, hot_photons = dark_photons(rng, volume.shape[1:], disturbance.hot_pixels, detector.photons)

    # A lateral displacement commutes with a projection along z, and here it is cheaper after it.
    light = remaining_light(grid.centres_um, positions, disturbance)
    photons = detector.photons * operator.forward(volume * light[:, None, None])
    if lateral_kernel is not None:
        photons = blur(photons, lateral_kernel)
    if drift_um.any():
        pixels = drift_um / voxel[1:]
        photons = np.stack(
            [shift(p, d, order=3, mode="nearest") for p, d in zip(photons, pixels, strict=True)]
        )
    if disturbance.scan_phase:
        odd = (0, 0, disturbance.scan_phase)
        photons[:, 1::2] = shift(photons[:, 1::2], odd, order=3, mode="nearest")
    flat = uneven_light(volume.shape[1:], disturbance.vignetting)
    photons = np.maximum(photons, 0.0) * brightness[:, None, None]
    if disturbance.vignetting:
        photons *= flat
    if disturbance.lines:
        photons *= lines[:, :, None]
    counts = detector.expose(photons + hot_photons, rng)
    truth = {
        "drift_um": drift_um,
        "brightness": brightness,
        "attenuation": light,
        "line_brightness": lines,
        "flat_field": flat,
        "hot_pixels": hot,
        "hot_photons": hot_photons,
    }
    return SimulatedAcquisition(counts, positions, photons, operator.seen, truth)


def write_acquisition(
    directory: Path | str,
    name: str,
    acquisition: SimulatedAcquisition,
    profile: AxialProfile,
    voxel_size_um: Sequence[float],
    detector: Detector | None = None,
    ground_truth: np.ndarray | None = None,
) -> AcquisitionFiles:
    """Write an acquisition as an OME-TIFF with its stage positions and its beam profile.

    A file appears under its final name only when it is complete, and one that would not change
    is left alone.

    Parameters
    ----------
    directory : path
        Created if it is missing.
    name : str
        Stem of the file names.
    acquisition : SimulatedAcquisition
    profile : AxialProfile
        Axial profile of the beam.
    voxel_size_um : sequence of float
        (z, y, x) of the volume in micrometres; z is the width of the bins of the beam's CSV where
        the profile allows it.
    detector : Detector, optional
        What the ground truth's counts are scaled with.
    ground_truth : numpy.ndarray, shape (Z, Y, X), optional
        Relative brightness; written in noise-free counts if given.

    Returns
    -------
    AcquisitionFiles

    Raises
    ------
    ValueError
        A voxel size is not positive or the name is not a plain file name.
    """
    directory = Path(directory)
    voxel = _checked_voxel_size(voxel_size_um)
    _check_name(name)
    files = AcquisitionFiles(
        acquisition=directory / f"{name}.ome.tif",
        stage_positions=directory / f"{name}_stage.csv",
        beam_profile=directory / f"{name}_beam.csv",
        ground_truth=None if ground_truth is None else directory / f"{name}_ground_truth.ome.tif",
    )
    positions = acquisition.positions_um
    step = float(np.mean(np.diff(positions))) if len(positions) > 1 else profile.extent_um
    write_volume(files.acquisition, acquisition.counts, (step, *voxel[1:]))
    write_table(
        files.stage_positions,
        ["projection", "z_um"],
        [(i, f"{z:.9g}") for i, z in enumerate(positions)],
    )
    centres, weights = beam_bins(profile, float(voxel[0]))
    write_table(
        files.beam_profile,
        ["dz_um", "weight"],
        [(f"{z:.9g}", f"{w:.9g}") for z, w in zip(centres, weights, strict=True)],
    )
    if files.ground_truth is not None:
        detector = Detector() if detector is None else detector
        write_volume(files.ground_truth, detector.noise_free_counts(ground_truth), voxel)
    return files


def beam_bins(profile: AxialProfile, spacing_um: float) -> tuple[np.ndarray, np.ndarray]:
    """Return a profile as evenly spaced bins for a CSV.

    Parameters
    ----------
    profile : AxialProfile
        Axial profile of the beam.
    spacing_um : float
        Greatest width of a bin in micrometres. It is narrowed until a whole number of bins, at
        least two, fills the support, so that a box stays a box.

    Returns
    -------
    centres_um : numpy.ndarray, shape (n,)
    weights : numpy.ndarray, shape (n,)
        Sum 1.
    """
    low, high = profile.support_um
    count = max(2, int(np.ceil((high - low) / spacing_um - _TOLERANCE)))
    edges = np.linspace(low, high, count + 1)
    weights = profile.collected(edges[:-1], edges[1:])
    return (edges[:-1] + edges[1:]) / 2, weights / weights.sum()


def write_volume(path: Path | str, volume: np.ndarray, voxel_size_um: Sequence[float]) -> None:
    """Write a stack as a zlib-compressed OME-TIFF with its voxel size.

    Parameters
    ----------
    path : path
        Ends in ``.ome.tif``; appears only when it is complete.
    volume : numpy.ndarray, shape (Z, Y, X) or (P, Y, X)
    voxel_size_um : sequence of float
        (z, y, x) in micrometres; z is the step for projections.
    """
    size = {
        f"PhysicalSize{axis}": float(f"{value:.9g}")
        for axis, value in zip("ZYX", voxel_size_um, strict=True)
    }
    units = {f"PhysicalSize{axis}Unit": "µm" for axis in "ZYX"}
    # An identifier made from the content, so that the same stack is the same file, byte for byte.
    content = hashlib.sha256(np.ascontiguousarray(volume)).hexdigest()
    identity = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, f'{content} {volume.shape} {size}')}"

    def write(partial: Path) -> None:
        tifffile.imwrite(
            partial,
            volume,
            ome=True,
            photometric="minisblack",
            compression="zlib",
            metadata={"axes": "ZYX", "UUID": identity, **size, **units},
        )

    write_complete(path, write)


def write_table(
    path: Path | str, header: Sequence[str], rows: Sequence[Sequence], separator: str = ","
) -> None:
    """Write a small text table with a header; it appears only when it is complete."""

    def write(partial: Path) -> None:
        with open(partial, "w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, delimiter=separator, lineterminator="\n")
            table.writerow(header)
            table.writerows(rows)

    write_complete(path, write)


def write_complete(path: Path | str, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file, then move it to its final name.

    Parameters
    ----------
    path : path
        Final name; its directory is created. A file there with the same bytes is kept, so that a
        workflow sees no newer input.
    write : callable
        Called with the temporary path.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        write(partial)
        if not (path.is_file() and path.read_bytes() == partial.read_bytes()):
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _checked_voxel_size(voxel_size_um: Sequence[float]) -> np.ndarray:
    voxel = np.asarray(voxel_size_um, float)
    if voxel.shape != (3,) or not np.all(np.isfinite(voxel) & (voxel > 0)):
        raise ValueError(
            f"voxel size must be three positive numbers (z, y, x) in um, not {voxel_size_um}"
        )
    return voxel


def _check_name(name: str) -> None:
    if not name or name.startswith(".") or any(mark in name for mark in "/\\\t\n"):
        raise ValueError(f'name "{name}" must be a plain file name without folders')
