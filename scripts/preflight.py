"""Write the table and the page of the preflight of all samples, and print the table."""

import sys
from collections.abc import Sequence
from pathlib import Path

from besselflow.job import logger, run_script
from besselflow.preflight import read_examination
from besselflow.report.preflight import format_table, tabulate, write_preflight_page
from besselflow.store import write_tsv


def main(records: Sequence[Path], table: Path, page: Path) -> None:
    """Put together what the preflight found of every sample.

    Parameters
    ----------
    records : sequence of path
        What it found of each.
    table, page : path
        TSV table and HTML page to write.
    """
    found = [read_examination(path) for path in records]
    rows = tabulate(found)
    write_tsv(table, rows)
    write_preflight_page(page, found, table)
    print(format_table(found), file=sys.stderr, flush=True)
    logger.info("the preflight of all samples: %s", page)


if __name__ == "__main__":
    snakemake = globals()["snakemake"]
    run_script(
        snakemake,
        main,
        records=snakemake.input.records,
        table=snakemake.output.table,
        page=snakemake.output.page,
    )
