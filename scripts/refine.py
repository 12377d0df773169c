"""Refine the INR of one shard's work units by sampling from the diffusion prior.

Sampling starts from the INR, and after every step the estimate is made to agree with the measured
projections within their noise, exactly. The result is the posterior mean; the spread of several
samples is the uncertainty. How far it is followed, `safeguard.py` decides.
"""

import math
from pathlib import Path

import numpy as np

from besselflow.baselines.spectral import SpectralModel
from besselflow.config import Refine, Tiling
from besselflow.device import compile_network, describe_device, select_device
from besselflow.diffusion.prior import load_prior
from besselflow.diffusion.sampling import RefinementProblem, sample_posterior
from besselflow.job import run_script
from besselflow.noise import pixel_variance, unknown
from besselflow.store import UnitWriter, open_projections, open_units, remove
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
    compiled: bool = False,
    precision: str = "auto",
) -> None:
    """Write the refined units of one shard: posterior mean, standard deviation, and a sample.

    Parameters
    ----------
    projections : path
        Projection store.
    spectral_units, inr_units : path
        Unit stores of the same shard.
    prior_path : path
        The prior.
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
        Unit store to write. Checkpoints lie beside it until it is complete.
    compiled : bool
        Whether to compile the network.
    precision : str
        Of the network: `auto`, `float32` or `bfloat16`.
    """
    measured = open_projections(projections)
    spectral, inr = open_units([spectral_units]), open_units([inr_units])
    units = list_units(measured.data.shape, tiling.tile, tiling.halo)
    mine = units_of_shard(units, shard, tiling.shards, tiling.chain)
    device = select_device(threads)
    prior = load_prior(prior_path, device, precision)
    if compiled:
        compile_network(prior.denoiser.unet)
    size = unit_shape(units, measured.grid.n_slices)
    checkpoints = Path(units_path).with_suffix(".checkpoints")
    with UnitWriter(units_path, mine, size, names=("volume", "std", "sample")) as writer:
        for number, unit in enumerate(mine, start=1):
            scale = measured.attributes["scale"][unit.t][unit.c]
            model = SpectralModel.from_record(spectral.records[unit.index])
            mean = np.asarray(spectral.arrays["volume"][unit.index])
            expected = measured.operator.forward(mean)
            data, masked = measured.unit_data(unit), measured.unit_masked(unit)
            factors = measured.operator.noise_factors
            saturated = measured.unit_saturated(unit)
            left_out = unknown(masked, saturated)
            variance = pixel_variance(expected, model.noise_variance, model.mean, left_out, factors)
            shown = data
            if masked is not None:
                shown = np.where(masked, expected, data)
                data = np.where(left_out, expected, data)
            relative = lambda array, by=scale: np.asarray(array) / np.float32(by)  # noqa: E731
            problem = RefinementProblem(
                inr=relative(inr.arrays["volume"][unit.index]),
                spectral=relative(mean),
                projections=relative(data),
                operator=measured.operator,
                positions_um=measured.positions_um,
                centres_um=measured.grid.centres_um,
                noise=math.sqrt(model.noise_variance) / scale,
                variance=relative(variance, scale**2),
                masked=masked,
                saturated=saturated,
                shown=relative(shown),
            )
            label = "sampling" if len(mine) == 1 else f"sampling unit {number} of {len(mine)}"
            checkpoint = checkpoints / f"unit-{unit.index}.pt"
            found = sample_posterior(
                problem, prior, settings, seed + unit.index, device, label, checkpoint
            )
            record = found.record | {"hardware": describe_device(device)}
            arrays = {name: getattr(found, name) * scale for name in ("std", "sample")}
            writer.write(unit, record, volume=found.mean * scale, **arrays)
    remove(checkpoints)


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
        compiled=snakemake.params.compiled,
        precision=snakemake.params.get("precision", "auto"),
    )
