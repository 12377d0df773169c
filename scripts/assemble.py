"""Join the work units of one method into a multiscale OME-Zarr volume."""

from pathlib import Path

from besselflow.config import Tiling
from besselflow.job import logger, run_script
from besselflow.store import column_edge, open_projections, open_units, write_volume
from besselflow.tiling import blend_units, list_units


def main(
    projections: Path,
    unit_stores: dict[str, list[Path]],
    tiling: Tiling,
    volumes: dict[str, Path],
    uncertainties: dict[str, Path],
) -> None:
    """Write the volume of every method and, where asked for, its standard deviation.

    Parameters
    ----------
    projections : path
        Projection store.
    unit_stores : dict
        Method -> unit stores of all shards.
    tiling : Tiling
        How the sample was cut.
    volumes, uncertainties : dict
        Method -> OME-Zarr volume to write.
    """
    measured = open_projections(projections)
    units = list_units(measured.data.shape, tiling.tile, tiling.halo)
    times, channels, _, height, width = measured.data.shape
    shape = (times, channels, measured.grid.n_slices, height, width)
    sample = measured.attributes["sample"]
    wanted = [(method, "volume", path) for method, path in volumes.items()]
    wanted += [(method, "std", path) for method, path in uncertainties.items()]
    for method, array, path in wanted:
        stores = open_units(unit_stores[method])
        write_volume(
            path,
            blend_units(stores.arrays[array], units, shape, tiling.halo, column_edge(shape[2])),
            measured.voxel_size_um,
            (measured.grid.first_um, 0.0, 0.0),
            f"{sample} {method}" + (" standard deviation" if array == "std" else ""),
            {
                "sample": sample,
                "method": method,
                "unit": measured.unit,
                "channels": measured.attributes.get("acquisition", {}).get("channels", []),
                "unseen_slices": measured.unseen_slices,
                "records": [stores.records[unit.index] for unit in units],
            },
        )
        logger.info("%s (%s), %d work units: %s", method, array, len(units), path)


def stores_by_method(methods: list[str], paths: list[Path]) -> dict[str, list[Path]]:
    """Split a flat list of unit stores, all shards of one method after another."""
    shards = len(paths) // len(methods)
    return {method: paths[i * shards : (i + 1) * shards] for i, method in enumerate(methods)}


if __name__ == "__main__":
    snakemake = globals()["snakemake"]
    methods = snakemake.params.methods
    stds = snakemake.output.get("uncertainties", [])
    run_script(
        snakemake,
        main,
        projections=snakemake.input.projections,
        unit_stores=stores_by_method(methods, list(snakemake.input.units)),
        tiling=Tiling(**snakemake.params.tiling),
        volumes=dict(zip(methods, snakemake.output.volumes, strict=True)),
        uncertainties=dict(zip(snakemake.params.uncertain, stds, strict=True)),
    )
