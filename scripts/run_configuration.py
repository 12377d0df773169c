"""Run the workflow with one configuration of a grid, and keep the table of its scores.

The configuration has a folder of results of its own below that of the comparison, with all reports;
its jobs are run as those of the run that compares: on the same cluster, or with the same cores.
"""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from besselflow.ablation import passed_on
from besselflow.job import logger, run_script
from besselflow.store import atomic_path

SNAKEFILE = Path(__file__).resolve().parents[1] / "workflow" / "Snakefile"


def main(settings: dict[str, Any], arguments: Sequence[str], scores: Path) -> None:
    """Run the workflow over all samples.

    Parameters
    ----------
    settings : dict
        The whole configuration, with the folder of its results.
    arguments : sequence of str
        Arguments for Snakemake that say where and how jobs run.
    scores : path
        Table of the scores of all samples to write.

    Raises
    ------
    RuntimeError
        The run did not come to its end.
    """
    results = Path(settings["results"])
    configuration = results.with_suffix(results.suffix + ".yaml")
    with atomic_path(configuration) as temporary:
        temporary.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    logger.info("the results go to %s", results)
    # Locks on the folder are those of the run that compares.
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(SNAKEFILE), "--nolock"]
    status = subprocess.run([*command, "--configfile", str(configuration), *arguments]).returncode
    if status:
        raise RuntimeError(
            f"the run with {configuration} failed; what went wrong is said above and in "
            f"{results}/report.html, and the same command goes on after the repair"
        )
    with atomic_path(scores) as temporary:
        shutil.copyfile(results / "metrics.tsv", temporary)


if __name__ == "__main__":
    snakemake = globals()["snakemake"]
    run_script(
        snakemake,
        main,
        settings=snakemake.params.settings,
        arguments=passed_on(),
        scores=snakemake.output.scores,
    )
