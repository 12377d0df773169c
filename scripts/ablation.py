"""Compare the scores of the configurations of a grid: a table, a page and a plot."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from besselflow.ablation import compare
from besselflow.job import logger, run_script
from besselflow.point_scan import POINT_SCANS
from besselflow.report import write_ablation


def main(
    scores: Mapping[str, Path],
    variants: Mapping[str, Mapping[str, str]],
    steps_um: Mapping[str, float],
    beams: Mapping[str, str],
    scans: Sequence[Path],
    table: Path,
    page: Path,
    plot: Path,
) -> None:
    """Write the comparison.

    Parameters
    ----------
    scores : mapping
        Configuration -> table of the scores of all samples.
    variants : mapping
        Configuration -> ``changes``, and ``method`` whose scores stand for it.
    steps_um : mapping
        Sample -> median distance of its stage positions.
    beams : mapping
        Sample -> what its beam is called.
    scans : sequence of path
        Tables of the scores of point scans of the simulated samples; may be empty.
    table, page, plot : path
        CSV, HTML and PNG files to write.
    """
    read = partial(pd.read_csv, sep="\t", dtype={"sample": str})
    tables = {name: read(path) for name, path in scores.items()}
    variants = dict(variants)
    if scans:
        scanned = pd.concat([read(path) for path in scans])
        for name, changes in POINT_SCANS.items():
            tables[name] = scanned
            variants[name] = {"changes": changes, "method": name}
    compared = compare(tables, variants, steps_um, beams)
    write_ablation(compared, table, page, plot, list(POINT_SCANS))
    logger.info("the comparison: %s", page)


if __name__ == "__main__":
    snakemake = globals()["snakemake"]
    run_script(
        snakemake,
        main,
        scores=dict(zip(snakemake.params.variants, snakemake.input.scores, strict=True)),
        variants=snakemake.params.variants,
        steps_um=snakemake.params.steps_um,
        beams=snakemake.params.beams,
        scans=snakemake.input.scans,
        table=snakemake.output.table,
        page=snakemake.output.page,
        plot=snakemake.output.plot,
    )
