"""Sample the slices of one shard's work units from the published diffusion model.

Every slice is sampled by itself, from noise that is mixed with the INR before every step, on the
condition of the nearest acquired projection and of its depth. Nothing makes the slices agree with
the projections, or with each other.
"""

from pathlib import Path

import numpy as np

from besselflow.config import Microdiffusion, Tiling
from besselflow.device import describe_device, select_device
from besselflow.job import run_script
from besselflow.microdiffusion.images import smooth_neighbours, to_intensity, to_range
from besselflow.microdiffusion.sampling import SlicesProblem, sample_slices
from besselflow.microdiffusion.training import load_network
from besselflow.store import UnitWriter, open_projections, open_units, remove
from besselflow.tiling import list_units, unit_shape, units_of_shard


def main(
    projections: Path,
    inr_units: Path,
    network_path: Path,
    settings: Microdiffusion,
    tiling: Tiling,
    seed: int,
    shard: int,
    threads: int,
    units_path: Path,
) -> None:
    """Write the sampled units of one shard.

    Parameters
    ----------
    projections : path
        Projection store.
    inr_units : path
        Unit store of the INR for the same shard, or for all where it was fitted jointly.
    network_path : path
        Network that was trained on this sample.
    settings : Microdiffusion
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
    """
    measured = open_projections(projections)
    inr = open_units([inr_units])
    units = list_units(measured.data.shape, tiling.tile, tiling.halo)
    mine = units_of_shard(units, shard, tiling.shards, tiling.chain)
    device = select_device(threads)
    trained = load_network(network_path, device, settings.precision)
    size = unit_shape(units, measured.grid.n_slices)
    checkpoints = Path(units_path).with_suffix(".checkpoints")
    with UnitWriter(units_path, mine, size) as writer:
        for number, unit in enumerate(mine, start=1):
            scale = measured.attributes["scale"][unit.t][unit.c]
            volume = np.asarray(inr.arrays["volume"][unit.index])
            if settings.neighbour_average:
                volume = smooth_neighbours(volume)
            problem = SlicesProblem(
                inr=to_range(volume, scale),
                projections=to_range(measured.unit_data(unit), scale),
                positions_um=measured.positions_um,
                centres_um=measured.grid.centres_um,
            )
            label = "sampling" if len(mine) == 1 else f"sampling unit {number} of {len(mine)}"
            slices, record = sample_slices(
                problem,
                trained.network,
                settings,
                seed + unit.index,
                device,
                label,
                checkpoints / f"unit-{unit.index}.pt",
            )
            record["trained_on"] = trained.info["projections"]
            record["training_steps"] = trained.info["steps"]
            if unit.index == 0:
                record["curve"] = trained.info["curve"]
            record["hardware"] = describe_device(device)
            writer.write(unit, record, volume=to_intensity(slices, scale))
    remove(checkpoints)


if __name__ == "__main__":
    snakemake = globals()["snakemake"]
    run_script(
        snakemake,
        main,
        projections=snakemake.input.projections,
        inr_units=snakemake.input.inr,
        network_path=snakemake.input.network,
        settings=Microdiffusion(**snakemake.params.settings),
        tiling=Tiling(**snakemake.params.tiling),
        seed=snakemake.params.seed,
        shard=int(snakemake.wildcards.shard),
        threads=snakemake.threads,
        units_path=snakemake.output.units,
    )
