"""Fit an implicit neural representation to the work units of one shard.

A network from a coordinate to an intensity is fitted so that its volume, seen through the beam,
gives the measured projections. Where the network is smooth, what is resolved laterally decides how
the volume varies along z.
"""

from pathlib import Path

import numpy as np

from besselflow.baselines.spectral import SpectralModel
from besselflow.config import Inr, Tiling
from besselflow.device import select_device
from besselflow.fingerprint import fingerprint
from besselflow.inr.fit import InrProblem, fit_inr
from besselflow.job import run_script
from besselflow.store import UnitWriter, open_projections, open_units, remove
from besselflow.tiling import list_units, unit_shape, units_of_shard


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
    mine = units_of_shard(units, shard, tiling.shards)
    device = select_device(threads)
    checkpoints = Path(units_path).with_suffix(".checkpoints")
    size = unit_shape(units, measured.grid.n_slices)
    with UnitWriter(units_path, mine, size) as writer:
        for number, unit in enumerate(mine, start=1):
            model = SpectralModel.from_record(spectral.records[unit.index])
            data = measured.unit_data(unit)
            problem = InrProblem(
                data,
                measured.operator,
                measured.voxel_size_um,
                measured.attributes["scale"][unit.t][unit.c],
                model,
                measured.operator.forward(np.asarray(spectral.arrays["volume"][unit.index])),
            )
            identity = fingerprint(
                settings.model_dump(exclude={"checkpoint_seconds"}),
                seed,
                model.as_record(),
                problem.operator.matrix,
                data,
            )
            label = "fit" if len(mine) == 1 else f"fit of unit {number} of {len(mine)}"
            volume, fitted = fit_inr(
                problem,
                settings,
                seed + unit.index,
                checkpoints / f"unit-{unit.index}.pt",
                identity,
                device,
                label,
            )
            writer.write(unit, fitted, volume=volume)
    remove(checkpoints)


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
