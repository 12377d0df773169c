"""Refine the INR of one shard's work units by guided sampling from the diffusion prior.

Sampling starts from the INR, and after every step the estimate is made to agree with the measured
projections within their noise, exactly. The result is the mean of several posterior samples; their
spread is the uncertainty.
"""

import math
import time
from pathlib import Path

import numpy as np

from besselflow.config import Refine, Tiling
from besselflow.device import select_device
from besselflow.diffusion.sampling import RefinementProblem, sample_posterior
from besselflow.diffusion.training import load_prior
from besselflow.job import run_script
from besselflow.store import UnitWriter, open_projections, open_units
from besselflow.tiling import list_units, unit_shape, units_of_shard


def main(
    projections: Path,
    spectral_units: Path,
    inr_units: Path,
    prior_path: Path,
    settings: Refine,
    tiling: Tiling,
    seed: int,
    shard: int,
    threads: int,
    units_path: Path,
) -> None:
    """Write the refined units of one shard: posterior mean and standard deviation.

    Parameters
    ----------
    projections : path
        Projection store.
    spectral_units, inr_units : path
        Unit stores of the same shard.
    prior_path : path
        Prior trained for the geometry of the acquisition.
    settings : Refine
        Sampler.
    tiling : Tiling
        How the sample is cut.
    seed : int
        Seed of the run.
    shard : int
        Which of the shards.
    threads : int
        Threads on the CPU.
    units_path : path
        Unit store to write.
    """
    measured = open_projections(projections)
    spectral, inr = open_units([spectral_units]), open_units([inr_units])
    units = list_units(measured.data.shape, tiling.tile, tiling.halo)
    mine = units_of_shard(units, shard, tiling.shards, tiling.chain)
    device = select_device(threads)
    prior = load_prior(prior_path, device)
    size = unit_shape(units, measured.grid.n_slices)
    with UnitWriter(units_path, mine, size, names=("volume", "std")) as writer:
        for number, unit in enumerate(mine, start=1):
            started = time.monotonic()
            scale = measured.attributes["scale"][unit.t][unit.c]
            noise_variance = spectral.records[unit.index]["noise_variance"]
            relative = lambda array, by=scale: np.asarray(array) / np.float32(by)  # noqa: E731
            problem = RefinementProblem(
                inr=relative(inr.arrays["volume"][unit.index]),
                spectral=relative(spectral.arrays["volume"][unit.index]),
                projections=relative(measured.unit_data(unit)),
                operator=measured.operator,
                positions_um=measured.positions_um,
                centres_um=measured.grid.centres_um,
                noise=math.sqrt(noise_variance) / scale,
            )
            label = "sampling" if len(mine) == 1 else f"sampling unit {number} of {len(mine)}"
            mean, std, record = sample_posterior(
                problem, prior, settings, seed + unit.index, device, label
            )
            record["seconds"] = time.monotonic() - started
            writer.write(unit, record, volume=mean * scale, std=std * scale)


if __name__ == "__main__":
    snakemake = globals()["snakemake"]
    run_script(
        snakemake,
        main,
        projections=snakemake.input.projections,
        spectral_units=snakemake.input.spectral,
        inr_units=snakemake.input.inr,
        prior_path=snakemake.input.prior,
        settings=Refine(**snakemake.params.settings),
        tiling=Tiling(**snakemake.params.tiling),
        seed=snakemake.params.seed,
        shard=int(snakemake.wildcards.shard),
        threads=snakemake.threads,
        units_path=snakemake.output.units,
    )
