"""Simulate an acquisition of a training volume, and reconstruct it as the samples are.

The forward model is known, so that pairs of a volume and what the microscope would have measured of
it can be computed from ground-truth stacks of `role: train` samples and from phantoms. No sample
that the prior is applied to takes part.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter, zoom

from besselflow.acquisition import open_acquisition
from besselflow.config import Inr, Spectral
from besselflow.corrections import counts_to_intensity
from besselflow.device import select_device
from besselflow.diffusion.geometry import Geometry
from besselflow.diffusion.simulation import simulate_acquisition
from besselflow.fingerprint import fingerprint, seed_of
from besselflow.job import logger, run_script
from besselflow.phantoms import PHANTOMS, draw_phantom
from besselflow.store import atomic_path, remove

_PHANTOM_SHAPE = (64, 96, 96)
_PHANTOM_SEED = 1_000_000
_SIZE_TOLERANCE = 0.01
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
    """

    name: str
    path: Path
    voxel_size_um: tuple[float, float, float]
    offset: float | None


def main(
    source: TrainingStack | int,
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
    source : TrainingStack or int
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
        for name, (volume, digest) in training_volumes(source, geometry, seed).items():
            own = seed_of(seed, name)
            beam = geometry or Geometry.any(np.random.default_rng(own))
            logger.info("imaging %s with a beam of %.3g um", name, beam.profile.fwhm_um)
            found = simulate_acquisition(
                volume, beam, own, spectral, inr, checkpoint, device, f"fit of {name}"
            )
            replace(found, digest=digest).save(Path(temporary) / f"{name}.npz")
    remove(checkpoint)


def training_volumes(
    source: TrainingStack | int, geometry: Geometry | None, seed: int
) -> dict[str, tuple[np.ndarray, str]]:
    """Read a stack, one volume per channel, on the voxels of the geometry; or draw a phantom.

    Returns
    -------
    dict
        Name -> (Z, Y, X) float32 intensities above background, and what identifies the voxels in
        the file. Of a time series, the first time point.
    """
    if isinstance(source, int):
        kind, number = list(PHANTOMS)[source % len(PHANTOMS)], _PHANTOM_SEED + 1000 * seed + source
        return {f"phantom {kind} {number}": (_phantom(kind, number, geometry), "")}
    voxel = geometry.voxel_size_um
    data = open_acquisition(source.path).data[0]
    factors = [own / wanted for own, wanted in zip(source.voxel_size_um, voxel, strict=True)]
    volumes = {}
    for channel in range(data.shape[0]):
        volume = np.asarray(counts_to_intensity(data[channel], source.offset, None))
        if any(abs(factor - 1) > _SIZE_TOLERANCE for factor in factors):
            volume = zoom(volume, factors, order=1)
        name = source.name if data.shape[0] == 1 else f"{source.name} channel {channel}"
        volumes[name] = volume, fingerprint(np.asarray(data[channel], np.float32))
    return volumes


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


def source_of(row: dict | int, volume: str | None) -> TrainingStack | int:
    """Pair a row of the sheet with the input file of the rule."""
    if isinstance(row, int):
        return row
    return TrainingStack(row["name"], Path(volume), tuple(row["voxel_size_um"]), row["offset"])


if __name__ == "__main__":
    snakemake = globals()["snakemake"]
    geometry = snakemake.params.geometry
    run_script(
        snakemake,
        main,
        source=source_of(snakemake.params.source, snakemake.input.get("volume")),
        geometry=Geometry.from_dict(geometry) if geometry else None,
        spectral=Spectral(**snakemake.params.spectral),
        inr=Inr(**snakemake.params.inr),
        seed=snakemake.params.seed,
        threads=snakemake.threads,
        folder=snakemake.output[0],
    )
