"""Train the diffusion prior of one geometry on simulated acquisitions of training volumes.

The forward model is known, so that pairs of a volume and what the microscope would have measured of
it can be simulated from ground-truth stacks of `role: train` samples and from phantoms. No sample
that the prior is applied to takes part.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import zoom

from besselflow.acquisition import read_tiff_stack
from besselflow.config import Prior, Spectral
from besselflow.corrections import counts_to_intensity
from besselflow.device import select_device
from besselflow.diffusion.geometry import Geometry
from besselflow.diffusion.training import save_prior, train_prior
from besselflow.job import logger, run_script
from besselflow.phantoms import PHANTOMS, draw_phantom
from besselflow.store import remove, write_json

_PHANTOM_SHAPE = (64, 96, 96)
_FEWEST_PHANTOMS = 6
_PHANTOM_SEED = 1_000_000
_SIZE_TOLERANCE = 0.01


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
    stacks: Sequence[TrainingStack],
    geometry: Geometry,
    settings: Prior,
    seed: int,
    threads: int,
    prior_path: Path,
    info_path: Path,
    spectral: Spectral | None = None,
) -> None:
    """Write the trained prior.

    Parameters
    ----------
    stacks : sequence of TrainingStack
        Ground truth of the training samples; may be empty.
    geometry : Geometry
        Beam, step and voxels.
    settings : Prior
        Network and optimiser.
    seed : int
        Seed of the run.
    threads : int
        Threads on the CPU.
    prior_path, info_path : path
        Weights, and facts about the training. A checkpoint lies beside them until they are there.
    spectral : Spectral or None
        Settings of the spectral reconstruction, which the prior is conditioned on.
    """
    device = select_device(threads)
    volumes: dict[str, np.ndarray] = {}
    for stack in stacks:
        volumes.update(load_training_volumes(stack, geometry.voxel_size_um))
    wanted = settings.phantoms if volumes else max(settings.phantoms, _FEWEST_PHANTOMS)
    for number in range(wanted):
        kind = list(PHANTOMS)[number % len(PHANTOMS)]
        phantom_seed = _PHANTOM_SEED + 1000 * seed + number
        volumes[f"phantom {kind} {phantom_seed}"] = draw_phantom(
            kind, _PHANTOM_SHAPE, phantom_seed, geometry.voxel_size_um
        )
    logger.info("training on %s", ", ".join(volumes))
    checkpoint = Path(prior_path).with_suffix(".checkpoint.pt")
    prior = train_prior(volumes, geometry, settings, seed, checkpoint, device, spectral)
    save_prior(prior_path, prior)
    write_json(info_path, prior.info)
    remove(checkpoint)


def load_training_volumes(
    stack: TrainingStack, voxel_size_um: tuple[float, float, float]
) -> dict[str, np.ndarray]:
    """Read a stack, one volume per channel, on the voxels of the geometry.

    Parameters
    ----------
    stack : TrainingStack
        What to read; of a time series, the first time point.
    voxel_size_um : tuple of float
        (z, y, x) to resample to, where it differs by more than 1 %.

    Returns
    -------
    dict
        Name -> (Z, Y, X) float32 intensities above the offset.
    """
    data = read_tiff_stack(stack.path).data[0]
    factors = [own / wanted for own, wanted in zip(stack.voxel_size_um, voxel_size_um, strict=True)]
    volumes = {}
    for channel in range(data.shape[0]):
        volume = np.asarray(counts_to_intensity(data[channel], stack.offset, None))
        if any(abs(factor - 1) > _SIZE_TOLERANCE for factor in factors):
            volume = zoom(volume, factors, order=1)
        name = stack.name if data.shape[0] == 1 else f"{stack.name} channel {channel}"
        volumes[name] = volume
    return volumes


def stacks_of(rows: list[dict[str, Any]], paths: Sequence[str]) -> list[TrainingStack]:
    """Pair the rows of the sheet with the input files of the rule."""
    return [
        TrainingStack(row["name"], Path(path), tuple(row["voxel_size_um"]), row["offset"])
        for row, path in zip(rows, paths, strict=True)
    ]


if __name__ == "__main__":
    snakemake = globals()["snakemake"]
    run_script(
        snakemake,
        main,
        stacks=stacks_of(snakemake.params.rows, snakemake.input.get("volumes", [])),
        geometry=Geometry.from_dict(snakemake.params.geometry),
        settings=Prior(**snakemake.params.settings),
        spectral=Spectral(**snakemake.params.spectral),
        seed=snakemake.params.seed,
        threads=snakemake.threads,
        prior_path=snakemake.output.prior,
        info_path=snakemake.output.info,
    )
