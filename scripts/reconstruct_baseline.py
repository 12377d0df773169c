"""Reconstruct the work units of one shard with a method that needs no training.

`interpolation` interpolates linearly between the projections; `spectral` is the exact posterior of
a stationary Gaussian process whose spectrum and noise are fitted by marginal likelihood, with its
standard deviation;
`variational` minimises the misfit to photon noise plus a Hessian penalty over volumes without
negative light, and restores the contrast that the penalty takes; `richardson_lucy` is the classical
deconvolution.
"""

import time
from pathlib import Path

from besselflow.baselines.units import (
    by_interpolation,
    by_richardson_lucy,
    by_spectral,
    by_variational,
)
from besselflow.config import RichardsonLucy, Spectral, Tiling, Variational
from besselflow.hardware import describe_cpu
from besselflow.job import Progress, run_script
from besselflow.store import UnitWriter, open_projections
from besselflow.tiling import list_units, unit_shape, units_of_shard


def main(
    projections: Path,
    method: str,
    tiling: Tiling,
    shard: int,
    units_path: Path,
    spectral_units: Path | None = None,
    settings: Spectral | Variational | RichardsonLucy | None = None,
    seed: int = 0,
    threads: int = 1,
) -> None:
    """Write the units of one shard.

    Parameters
    ----------
    projections : path
        Projection store.
    method : str
        One of `besselflow.config.BASELINES`.
    tiling : Tiling
        How the sample is cut.
    shard : int
        Which of the shards.
    units_path : path
        Unit store to write.
    spectral_units : path or None
        Unit store of the spectral Gaussian process, where `variational` starts from.
    settings : Spectral, Variational, RichardsonLucy or None
        Settings of these methods; those of `spectral` may be left out.
    seed : int
        Seed of the run.
    threads : int
        Threads on the CPU.
    """
    measured = open_projections(projections)
    units = list_units(measured.data.shape, tiling.tile, tiling.halo)
    measured.check_halo(units, tiling.halo)
    mine = units_of_shard(units, shard, tiling.shards, tiling.chain)
    # Nothing is handed on from one time point to the next here, and all tiles of one share a model.
    mine.sort(key=lambda unit: unit.index)
    if method == "interpolation":
        reconstruct = by_interpolation(measured)
    elif method == "spectral":
        reconstruct = by_spectral(measured, units, settings or Spectral())
    elif method == "variational":
        reconstruct = by_variational(measured, spectral_units, settings, seed, threads)
    else:
        reconstruct = by_richardson_lucy(measured, settings)
    progress = Progress(method, len(mine))
    size = unit_shape(units, measured.grid.n_slices)
    names = ("volume", "std") if method == "spectral" else ("volume",)
    with UnitWriter(units_path, mine, size, names) as writer:
        for done, unit in enumerate(mine, start=1):
            started = time.monotonic()
            arrays, record = reconstruct(unit)
            found = {"seconds": time.monotonic() - started, "hardware": describe_cpu(threads)}
            writer.write(unit, record | found, **arrays)
            progress.update(done)


if __name__ == "__main__":
    snakemake = globals()["snakemake"]
    method = snakemake.wildcards.baseline
    models = {
        "spectral": Spectral,
        "variational": Variational,
        "richardson_lucy": RichardsonLucy,
    }
    run_script(
        snakemake,
        main,
        projections=snakemake.input.projections,
        method=method,
        tiling=Tiling(**snakemake.params.tiling),
        shard=int(snakemake.wildcards.shard),
        units_path=snakemake.output.units,
        spectral_units=snakemake.input.get("spectral"),
        settings=models[method](**snakemake.params.settings) if method in models else None,
        seed=snakemake.params.seed,
        threads=snakemake.threads,
    )
