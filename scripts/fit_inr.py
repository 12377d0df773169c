"""Fit an implicit neural representation to the work units of one shard.

A network from a coordinate to an intensity is fitted so that its volume, seen through the beam,
gives the measured projections. Where the network is smooth, what is resolved laterally decides how
the volume varies along z.
"""

from pathlib import Path

from besselflow.config import Inr, Tiling
from besselflow.device import describe_device, select_device
from besselflow.inr.fit import InrFit, InrProblem, fit_inr
from besselflow.job import run_script
from besselflow.store import UnitWriter, open_projections, open_units, remove
from besselflow.tiling import Unit, list_units, unit_shape, units_of_shard


def main(
    projections: Path,
    spectral_units: Path,
    settings: Inr,
    tiling: Tiling,
    seed: int,
    shard: int,
    threads: int,
    units_path: Path,
) -> None:
    """Write the units of one shard.

    Parameters
    ----------
    projections : path
        Projection store.
    spectral_units : path
        Unit store of the spectral Gaussian process for the same shard.
    settings : Inr
        Network and optimiser.
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
    spectral = open_units([spectral_units])
    units = list_units(measured.data.shape, tiling.tile, tiling.halo)
    mine = units_of_shard(units, shard, tiling.shards, tiling.chain)
    device = select_device(threads)
    measured.check_halo(units, tiling.halo)
    checkpoints = Path(units_path).with_suffix(".checkpoints")
    size = unit_shape(units, measured.grid.n_slices)
    before: tuple[Unit, InrFit] | None = None
    with UnitWriter(units_path, mine, size) as writer:
        for number, unit in enumerate(mine, start=1):
            problem = InrProblem.of_unit(measured, spectral, unit)
            start, own = None, settings
            if before is not None and continues(before[0], unit, tiling.chain):
                # The spectrum of its first time point sets the frequencies of a chain.
                start, bandwidth = before[1].weights, before[1].record["bandwidth_per_um"]
                own = settings.model_copy(update={"bandwidth": bandwidth})
            label = "fit" if len(mine) == 1 else f"fit of unit {number} of {len(mine)}"
            fit = fit_inr(
                problem,
                own,
                seed + unit.index,
                checkpoints / f"unit-{unit.index}.pt",
                problem.identity(own, seed, start),
                device,
                label,
                start,
            )
            record = fit.record | {"hardware": describe_device(device)}
            writer.write(unit, record, volume=fit.volume)
            before = (unit, fit)
    remove(checkpoints)


def continues(before: Unit, unit: Unit, chain: int) -> bool:
    """Tell whether a unit is the next time point of the unit before, in the same chain."""
    same_place = (before.c, before.tile) == (unit.c, unit.tile)
    return same_place and unit.t == before.t + 1 and unit.t % chain != 0


if __name__ == "__main__":
    snakemake = globals()["snakemake"]
    run_script(
        snakemake,
        main,
        projections=snakemake.input.projections,
        spectral_units=snakemake.input.spectral,
        settings=Inr(**snakemake.params.settings),
        tiling=Tiling(**snakemake.params.tiling),
        seed=snakemake.params.seed,
        shard=int(snakemake.wildcards.shard),
        threads=snakemake.threads,
        units_path=snakemake.output.units,
    )
