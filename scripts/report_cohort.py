"""Write the HTML report of all samples and the table of all their scores."""

from pathlib import Path

from besselflow.job import run_script
from besselflow.report import SampleStatus, write_cohort_report


def list_statuses(
    samples: list[str],
    rejected: dict[str, str],
    trains: list[str],
    extras: dict[str, dict[str, str]] | None = None,
) -> list[SampleStatus]:
    """Put together what became of every sample when nothing failed while it was computed.

    Parameters
    ----------
    samples : list of str
        Test samples that are done.
    rejected : dict
        Sample that the check of the input excluded -> the reason.
    trains : list of str
        Samples that only served as training data.
    extras : dict or None
        Sample -> its further columns in the sheet.
    """
    extras = extras or {}
    return [
        *(SampleStatus(name, "test", "done", extra=extras.get(name, {})) for name in samples),
        *(
            SampleStatus(name, "test", "excluded", "the check of the input", reason)
            for name, reason in rejected.items()
        ),
        *(SampleStatus(name, "train", "done") for name in trains if name not in rejected),
    ]


def main(
    report: Path,
    metrics: Path,
    results: Path,
    statuses: list[SampleStatus],
    final: str,
    flat_fields: Path | None = None,
) -> None:
    """Write the page and the table of the cohort.

    Parameters
    ----------
    report, metrics : path
        HTML page and TSV table to write.
    results : path
        Folder with one folder per sample.
    statuses : list of SampleStatus
        All samples of the sheet.
    final : str
        Method whose scores the page shows.
    flat_fields : path or None
        Folder of the flat fields that the run estimated, where it did.
    """
    write_cohort_report(report, metrics, results, statuses, final, flat_fields)


if __name__ == "__main__":
    snakemake = globals()["snakemake"]
    params = snakemake.params
    run_script(
        snakemake,
        main,
        report=snakemake.output.report,
        metrics=snakemake.output.metrics,
        results=params.results,
        statuses=list_statuses(params.samples, params.rejected, params.trains, params.extras),
        final=params.final,
        flat_fields=snakemake.input.get("flat_fields") or None,
    )
