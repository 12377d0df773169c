"""Simulate an acquisition of a training volume, and reconstruct it as the samples are.

The forward model is known, so that pairs of a volume and what the microscope would have measured of
it can be computed from ground-truth stacks of `role: train` samples and from phantoms. No ground
truth of a sample that the prior is applied to takes part.

Where there is neither, a prior learns from the sample itself: what was resolved laterally tells
how the sample may vary along the beam. The INR is turned so that y or x takes the place of z, and
imaged through the beam (after Weigert et al., Isotropic reconstruction of 3D fluorescence
microscopy images using convolutional neural networks, MICCAI 2017).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from scipy.ndimage import gaussian_filter, zoom

from besselflow.acquisition import open_acquisition
from besselflow.config import Inr, Spectral, Tiling
from besselflow.corrections import counts_to_intensity
from besselflow.device import select_device
from besselflow.diffusion.geometry import Geometry
from besselflow.diffusion.names import acquisition_name
from besselflow.diffusion.simulation import simulate_acquisition
from besselflow.fingerprint import fingerprint, seed_of
from besselflow.job import logger, run_script
from besselflow.landmarks import landmarks, some_of
from besselflow.phantoms import PHANTOMS, draw_phantom
from besselflow.store import atomic_path, open_projections, open_units, remove
from besselflow.tiling import list_units

_PHANTOM_SHAPE = (64, 96, 96)
_PHANTOM_SEED = 1_000_000
_SIZE_TOLERANCE = 0.01
# Of a part that is a hundredth of a volume, a few of so many landmarks are found.
_LANDMARKS = 1024
# For a prior of any beam: voxel sizes of its phantoms, and standard deviations of a lateral blur.
_ANY_VOXEL_UM = (0.5, 1.2)
_LARGEST_BLUR, _BLUR_ALONG_Z = 1.2, 1.5


@dataclass(frozen=True)
class TrainingStack:
    """A ground-truth stack to learn from.

    Attributes
    ----------
    name : str
        Name of the sample.
    path : path
        TIFF stack.
    voxel_size_um : tuple of float
        (z, y, x).
    offset : float or None
        Counts of an unlit pixel.
    number : int
        Which acquisition of the stack is simulated, counted from 1.
    """

    name: str
    path: Path
    voxel_size_um: tuple[float, float, float]
    offset: float | None
    number: int = 1


@dataclass(frozen=True)
class Origin:
    """What tells where a training volume is from, whatever became of its voxels.

    Attributes
    ----------
    digest : str
        Identifies the voxels in the file; empty where there is none.
    landmarks : numpy.ndarray of uint64, shape (n,)
        Some of its landmarks.
    """

    digest: str = ""
    landmarks: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))

    @classmethod
    def of(cls, counts: np.ndarray) -> Self:
        """Describe the voxels (Z, Y, X) of a file."""
        return cls(
            fingerprint(counts.astype(np.float32)), some_of(map(landmarks, counts), _LANDMARKS)
        )


@dataclass(frozen=True)
class OwnVolume:
    """The INR of a sample, to be seen along another axis.

    Attributes
    ----------
    name : str
        Name of the sample.
    axis : str
        Lateral axis, ``y`` or ``x``, that takes the place of z.
    projections : path
        Projection store.
    units : sequence of path
        Unit stores of the INR, of all shards.
    tiling : Tiling
        How the sample is cut.
    """

    name: str
    axis: Literal["y", "x"]
    projections: Path
    units: tuple[Path, ...]
    tiling: Tiling


def main(
    source: TrainingStack | OwnVolume | int,
    geometry: Geometry | None,
    spectral: Spectral,
    inr: Inr,
    seed: int,
    threads: int,
    folder: Path,
) -> None:
    """Write one simulated acquisition per channel of a stack, or one of a phantom.

    Parameters
    ----------
    source : TrainingStack, OwnVolume or int
        What to image, or the number of a phantom.
    geometry : Geometry or None
        Beam, step and voxels; None draws a beam for each volume, for a prior of any beam.
    spectral : Spectral
        Settings of the spectral reconstruction.
    inr : Inr
        Settings of the INR.
    seed : int
        Seed of the run.
    threads : int
        Threads on the CPU.
    folder : path
        Folder to write ``NAME.npz`` to. A checkpoint lies beside it until it is complete.
    """
    device, folder = select_device(threads), Path(folder)
    checkpoint = folder.with_name(f"{folder.name}.checkpoint.pt")
    with atomic_path(folder) as temporary:
        Path(temporary).mkdir()
        for name, (volume, origin) in training_volumes(source, geometry, seed).items():
            own = seed_of(seed, name)
            beam = geometry or Geometry.any(np.random.default_rng(own))
            logger.info("imaging %s with a beam of %.3g um", name, beam.profile.fwhm_um)
            found = simulate_acquisition(
                volume, beam, own, spectral, inr, checkpoint, device, f"fit of {name}"
            )
            found = replace(found, digest=origin.digest, landmarks=origin.landmarks)
            found.save(Path(temporary) / f"{name}.npz")
    remove(checkpoint)


def training_volumes(
    source: TrainingStack | OwnVolume | int, geometry: Geometry | None, seed: int
) -> dict[str, tuple[np.ndarray, Origin]]:
    """Read one volume per channel, on the voxels of the geometry; or draw a phantom.

    Returns
    -------
    dict
        Name -> (Z, Y, X) float32 intensities above background, and where they are from. Of a time
        series, the first time point of a stack, and the middle one of a sample's own volume.
    """
    if isinstance(source, int):
        kind, number = list(PHANTOMS)[source % len(PHANTOMS)], _PHANTOM_SEED + 1000 * seed + source
        return {f"phantom {kind} {number}": (_phantom(kind, number, geometry), Origin())}
    if isinstance(source, OwnVolume):
        return _own_volumes(source, geometry.voxel_size_um)
    data = open_acquisition(source.path).data[0]
    volumes = {}
    for channel in range(data.shape[0]):
        counts = np.asarray(data[channel])
        volume = np.asarray(counts_to_intensity(counts, source.offset, None))
        name = source.name if data.shape[0] == 1 else f"{source.name} channel {channel}"
        volumes[acquisition_name(name, source.number)] = (
            _resampled(volume, source.voxel_size_um, geometry.voxel_size_um),
            Origin.of(counts),
        )
    return volumes


def _own_volumes(
    source: OwnVolume, voxel_size_um: tuple[float, float, float]
) -> dict[str, tuple[np.ndarray, Origin]]:
    """Read the middle tile of every channel, and turn it so that a lateral axis becomes z."""
    measured = open_projections(source.projections)
    times, channels = measured.data.shape[:2]
    units = list_units(measured.data.shape, source.tiling.tile, source.tiling.halo)
    inr = open_units(source.units).arrays["volume"]
    turn, own = ["z", "y", "x"].index(source.axis), list(measured.voxel_size_um)
    own[0], own[turn] = own[turn], own[0]
    volumes = {}
    for channel in range(channels):
        tiles = [unit for unit in units if (unit.t, unit.c) == (times // 2, channel)]
        volume = np.asarray(inr[tiles[len(tiles) // 2].index])
        name = f"{source.name} (its own INR along {source.axis})"
        if channels > 1:
            name += f" channel {channel}"
        volumes[name] = _resampled(np.swapaxes(volume, 0, turn), own, voxel_size_um), Origin()
    return volumes


def _resampled(volume: np.ndarray, own_um: Sequence[float], wanted_um: Sequence[float]):
    """Bring a volume to other voxels, unless they differ by no more than rounding."""
    factors = [own / wanted for own, wanted in zip(own_um, wanted_um, strict=True)]
    if any(abs(factor - 1) > _SIZE_TOLERANCE for factor in factors):
        volume = zoom(volume, factors, order=1)
    return np.ascontiguousarray(volume)


def _phantom(kind: str, number: int, geometry: Geometry | None) -> np.ndarray:
    """Draw a phantom; for a prior of any beam also of any size, and as blurred as a microscope's.

    A ground truth that was itself acquired has the resolution of its microscope, lower along z.
    """
    if geometry is not None:
        return draw_phantom(kind, _PHANTOM_SHAPE, number, geometry.voxel_size_um)
    rng = np.random.default_rng(number)
    volume = draw_phantom(kind, _PHANTOM_SHAPE, number, (rng.uniform(*_ANY_VOXEL_UM),) * 3)
    blur = rng.uniform(0, _LARGEST_BLUR)
    return gaussian_filter(volume, (_BLUR_ALONG_Z * blur, blur, blur))


def source_of(row: dict | int, inputs: Mapping[str, Any]) -> TrainingStack | OwnVolume | int:
    """Pair what the rule says of a volume with its input files."""
    if isinstance(row, int):
        return row
    if "axis" in row:
        units = tuple(Path(path) for path in inputs["units"])
        tiling = Tiling(**row["tiling"])
        return OwnVolume(row["name"], row["axis"], Path(inputs["projections"]), units, tiling)
    path, voxel_size_um = Path(inputs["volume"]), tuple(row["voxel_size_um"])
    return TrainingStack(row["name"], path, voxel_size_um, row["offset"], row.get("number", 1))


if __name__ == "__main__":
    snakemake = globals()["snakemake"]
    geometry = snakemake.params.geometry
    run_script(
        snakemake,
        main,
        source=source_of(snakemake.params.source, snakemake.input),
        geometry=Geometry.from_dict(geometry) if geometry else None,
        spectral=Spectral(**snakemake.params.spectral),
        inr=Inr(**snakemake.params.inr),
        seed=snakemake.params.seed,
        threads=snakemake.threads,
        folder=snakemake.output[0],
    )
