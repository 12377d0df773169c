"""Write the self-contained HTML report of one sample."""

from dataclasses import replace
from pathlib import Path

from besselflow.job import logger, run_script
from besselflow.report import (
    EvaluationFiles,
    SampleReportInputs,
    ValidationFiles,
    write_sample_report,
)
from besselflow.weights import read_info


def main(inputs: SampleReportInputs, report: Path, prior_info: Path | None = None) -> None:
    """Write the page of one sample.

    Parameters
    ----------
    inputs : SampleReportInputs
        What to show; its `prior_info` is read from the file of that name here.
    report : path
        HTML file to write.
    prior_info : path or None
        JSON file that the training of the prior wrote, or the prior itself.
    """
    if prior_info is not None:
        inputs = replace(inputs, prior_info=read_info(prior_info))
    write_sample_report(report, inputs)
    logger.info("report of %.1f MB: %s", Path(report).stat().st_size / 1e6, report)


if __name__ == "__main__":
    snakemake = globals()["snakemake"]
    params, sources = snakemake.params, snakemake.input
    run_script(
        snakemake,
        main,
        inputs=SampleReportInputs(
            sample=snakemake.wildcards.sample,
            projections=sources.projections,
            volumes=dict(zip(params.methods, sources.volumes, strict=True)),
            final=params.final,
            metrics=sources.metrics,
            slices=sources.slices,
            truth=sources.get("truth") or None,
            uncertainty=sources.get("uncertainty") or None,
            settings=params.settings,
            row=params.row,
            picture_pixels=params.picture_pixels,
            benchmarks=params.benchmarks,
            validation=ValidationFiles(
                sources.by_projection,
                sources.by_slice,
                sources.maps,
                sources.determined,
                sources.held_out,
                params.not_held_out,
            ),
            preflight=sources.preflight,
            evaluation=EvaluationFiles(sources.sweep, sources.shells, sources.conditions),
        ),
        report=snakemake.output.report,
        prior_info=sources.get("prior_info") or None,
    )
