"""Estimate the light that the acquisitions of a run have in common, by field of view.

What is found serves all samples of the run, also those that could not be compared or that are added
to the sheet later: `preprocess` divides by it where it is certain that the light is uneven. Where
there are too few acquisitions, or it is not certain, that is what the record says.
"""

from pathlib import Path

from besselflow.config import load_config
from besselflow.corrections.estimated_fields import (
    Estimates,
    estimate_field,
    facts_of,
    write_estimates,
)
from besselflow.corrections.shading import FEWEST_ACQUISITIONS
from besselflow.job import logger, run_script
from besselflow.mean_images import survey_mean_images


def main(sheet: Path, folder: Path) -> None:
    """Write what is found of all acquisitions of a sheet.

    Parameters
    ----------
    sheet : path
        Sample sheet; an acquisition that can't be read is left out.
    folder : path
        Folder to write.

    Raises
    ------
    ProblemsError
        The sheet can't be read as a table.
    """
    found = survey_mean_images(sheet, FEWEST_ACQUISITIONS)
    fields = tuple(estimate_field(each.view, each.samples, each.images) for each in found.groups)
    rows = {sample.name: facts_of(sample) for sample in found.samples}
    estimates = write_estimates(folder, Estimates(fields, found.left_out, rows))
    for each in estimates.fields:
        logger.info("%s", each.describe())
    for name, reason in found.left_out.items():
        logger.warning("%s is left out of the estimate: %s", name, reason)


if __name__ == "__main__":
    snakemake = globals()["snakemake"]
    run_script(
        snakemake,
        main,
        # Not an input of the rule: a row more would repeat the estimate, and all that follows.
        sheet=load_config(snakemake.config).samples,
        folder=snakemake.output.fields,
    )
