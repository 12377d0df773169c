"""Compare the scores of the configurations of a grid: a table, a page and a plot."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from besselflow.ablation import compare
from besselflow.job import logger, run_script
from besselflow.report import write_ablation


def main(
    scores: Mapping[str, Path],
    variants: Mapping[str, Mapping[str, str]],
    steps_um: Mapping[str, float],
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
    table, page, plot : path
        CSV, HTML and PNG files to write.
    """
    tables = {name: pd.read_csv(path, sep="\t") for name, path in scores.items()}
    write_ablation(compare(tables, variants, steps_um), table, page, plot)
    logger.info("the comparison: %s", page)


if __name__ == "__main__":
    snakemake = globals()["snakemake"]
    run_script(
        snakemake,
        main,
        scores=dict(zip(snakemake.params.variants, snakemake.input.scores, strict=True)),
        variants=snakemake.params.variants,
        steps_um=snakemake.params.steps_um,
        table=snakemake.output.table,
        page=snakemake.output.page,
        plot=snakemake.output.plot,
    )
