"""Withhold every k-th projection, so that all methods can be asked to predict it.

What is left of the acquisition is a store like any other, on the same depth grid, cut to a region
that bounds the work.
"""

from pathlib import Path

from besselflow.config import Validation
from besselflow.held_out import thin
from besselflow.job import logger, run_script
from besselflow.store import open_projections, write_projections


def main(projections: Path, settings: Validation, thinned_path: Path) -> None:
    """Write the thinned projection store.

    Parameters
    ----------
    projections : path
        Projection store.
    settings : Validation
        How many projections to withhold, and in which region.
    thinned_path : path
        Store to write.
    """
    measured = open_projections(projections)
    thinned = thin(measured, settings.hold_out, settings.region)
    write_projections(thinned_path, thinned)
    taken = thinned.attributes["held_out"]
    logger.info(
        "%d of %d projections are withheld, in a region of %d x %d pixels",
        len(taken["projections"]),
        len(measured.positions_um),
        *thinned.data.shape[3:],
    )


if __name__ == "__main__":
    snakemake = globals()["snakemake"]
    run_script(
        snakemake,
        main,
        projections=snakemake.input.projections,
        settings=Validation(**snakemake.params.settings),
        thinned_path=snakemake.output.projections,
    )
