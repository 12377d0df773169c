"""Reconstruct the work units of one shard with a method that needs no training.

`interpolation` interpolates linearly between the projections; `spectral` is the exact posterior
mean of an isotropic Gaussian process whose spectrum and noise are fitted by marginal likelihood.
"""

import time
from pathlib import Path

from besselflow.baselines.interpolation import interpolate
from besselflow.baselines.spectral import SpectralModel, fit_spectral_model, posterior_mean
from besselflow.config import Tiling
from besselflow.job import Progress, logger, run_script
from besselflow.store import Projections, UnitWriter, open_projections
from besselflow.tiling import Unit, list_units, units_of_shard

_REGIONS_TO_FIT = 9


def main(projections: Path, method: str, tiling: Tiling, shard: int, units_path: Path) -> None:
    """Write the units of one shard.

    Parameters
    ----------
    projections : path
        Projection store.
    method : str
        ``interpolation`` or ``spectral``.
    tiling : Tiling
        How the sample is cut.
    shard : int
        Which of the shards.
    units_path : path
        Unit store to write.
    """
    measured = open_projections(projections)
    units = list_units(measured.data.shape, tiling.tile, tiling.halo)
    mine = units_of_shard(units, shard, tiling.shards)
    operator = measured.operator
    size = unit_shape(measured, units)
    models: dict[tuple[int, int], SpectralModel] = {}
    progress = Progress(method, len(mine))
    with UnitWriter(units_path, mine, size) as writer:
        for done, unit in enumerate(mine, start=1):
            started = time.monotonic()
            data = measured.unit_data(unit)
            if method == "interpolation":
                volume = interpolate(data, measured.positions_um, measured.grid.centres_um)
                record = {}
            else:
                place = unit.t, unit.c
                if place not in models:
                    models[place] = fit_place(measured, units, place)
                volume = posterior_mean(data, operator, models[place], measured.voxel_size_um)
                record = models[place].as_record()
            writer.write(unit, {**record, "seconds": time.monotonic() - started}, volume=volume)
            progress.update(done)


def unit_shape(measured: Projections, units: list[Unit]) -> tuple[int, int, int]:
    """Return the (Z, y, x) shape that all units of a sample share, halo included."""
    tile = units[0].tile
    return (measured.grid.n_slices, tile.y.stop - tile.y.start, tile.x.stop - tile.x.start)


def fit_place(measured: Projections, units: list[Unit], place: tuple[int, int]) -> SpectralModel:
    """Fit the spectrum of one time point and channel on evenly spread units.

    Every shard fits the same units, so that all tiles share one model and show no seams.
    """
    own = [unit for unit in units if (unit.t, unit.c) == place]
    every = -(-len(own) // _REGIONS_TO_FIT)
    regions = [measured.unit_data(unit) for unit in own[::every]]
    model = fit_spectral_model(regions, measured.operator, measured.voxel_size_um)
    logger.info(
        "t %d, channel %d: correlation length %.3g um, smoothness %.3g, noise variance %.3g",
        *place,
        model.length_um,
        model.smoothness,
        model.noise_variance,
    )
    return model


if __name__ == "__main__":
    snakemake = globals()["snakemake"]
    run_script(
        snakemake,
        main,
        projections=snakemake.input.projections,
        method=snakemake.wildcards.baseline,
        tiling=Tiling(**snakemake.params.tiling),
        shard=int(snakemake.wildcards.shard),
        units_path=snakemake.output.units,
    )
