"""Train the published diffusion model on one sample's own projections.

The network learns to denoise projections that are mixed with those of the INR, and is told which
projection is near and which depths it sees. All time points and channels of a sample share it.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from besselflow.config import Microdiffusion, Tiling
from besselflow.device import select_device
from besselflow.job import logger, run_script
from besselflow.microdiffusion.images import smooth_neighbours, to_range
from besselflow.microdiffusion.training import (
    TrainingImages,
    save_network,
    spread_out,
    train_network,
)
from besselflow.store import Projections, open_projections, open_units, remove
from besselflow.tiling import list_units

# Bounds the memory of long time series, whose time points resemble each other.
_MOST_UNITS = 32


def main(
    projections: Path,
    inr_units: Sequence[Path],
    settings: Microdiffusion,
    tiling: Tiling,
    seed: int,
    threads: int,
    network_path: Path,
) -> None:
    """Write the trained network.

    Parameters
    ----------
    projections : path
        Projection store.
    inr_units : sequence of path
        Unit stores of the INR, of all shards.
    settings : Microdiffusion
        Network and optimiser.
    tiling : Tiling
        How the sample is cut.
    seed : int
        Seed of the run.
    threads : int
        Threads on the CPU.
    network_path : path
        Weights to write. A checkpoint lies beside them until they are there.
    """
    measured = open_projections(projections)
    device = select_device(threads)
    images = load_images(measured, inr_units, settings, tiling)
    logger.info("training on %d projections of this sample", len(images.projections))
    checkpoint = Path(network_path).with_suffix(".checkpoint.pt")
    trained = train_network(images, settings, seed, checkpoint, device)
    save_network(network_path, trained, settings)
    remove(checkpoint)


def load_images(
    measured: Projections, inr_units: Sequence[Path], settings: Microdiffusion, tiling: Tiling
) -> TrainingImages:
    """Read the projections of work units, and image the INR of the same units through the beam."""
    units = list_units(measured.data.shape, tiling.tile, tiling.halo)
    inr = open_units(inr_units).arrays["volume"]
    operator = measured.operator
    seen, shown = [], []
    for unit in spread_out(units, _MOST_UNITS):
        scale = measured.attributes["scale"][unit.t][unit.c]
        seen.append(to_range(measured.unit_data(unit), scale))
        volume = np.asarray(inr[unit.index])
        if settings.neighbour_average:
            volume = smooth_neighbours(volume)
        shown.append(to_range(operator.forward(volume), scale))
    weights = operator.matrix / operator.matrix.sum(axis=1, keepdims=True)
    return TrainingImages(
        np.concatenate(seen), np.concatenate(shown), np.tile(weights, (len(seen), 1))
    )


if __name__ == "__main__":
    snakemake = globals()["snakemake"]
    run_script(
        snakemake,
        main,
        projections=snakemake.input.projections,
        inr_units=snakemake.input.inr,
        settings=Microdiffusion(**snakemake.params.settings),
        tiling=Tiling(**snakemake.params.tiling),
        seed=snakemake.params.seed,
        threads=snakemake.threads,
        network_path=snakemake.output.network,
    )
