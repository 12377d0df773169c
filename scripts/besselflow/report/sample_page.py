"""The report of one sample: verdict, pictures, scores, and what was done."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from besselflow.report.corrections import describe_corrections
from besselflow.report.facts import CITATION, acquisition_facts, fit_facts, methods_paragraph
from besselflow.report.figures import draw_along_depth
from besselflow.report.history import flatten, read_benchmarks, training_figure
from besselflow.report.inputs import SampleReportInputs
from besselflow.report.page import software_versions, themed_figure, write_page
from besselflow.report.pictures import load_preview
from besselflow.report.prior import describe_sources, prior_note
from besselflow.report.sample_pictures import affordable_pixels, draw_pictures, viewer_data
from besselflow.report.scores import read_scores, score_columns, score_rows, seen_and_unseen
from besselflow.report.trust import describe_trust, read_ranking
from besselflow.report.verdict import find_suspect, write_verdict
from besselflow.store import open_projections, open_volume

_BRIGHT_PERCENTILE = 99


def write_sample_report(path: Path | str, inputs: SampleReportInputs) -> None:
    """Write the self-contained page of one sample.

    Parameters
    ----------
    path : path
        HTML file to write.
    inputs : SampleReportInputs
        What to show.
    """
    measured = open_projections(inputs.projections)
    scores = read_scores(inputs.metrics)
    slices = pd.read_csv(inputs.slices, sep="\t")
    records = {
        method: open_volume(volume).attributes.get("records", [])
        for method, volume in inputs.volumes.items()
    }
    final = load_preview(inputs.volumes[inputs.final], affordable_pixels(inputs))
    spread = None
    if inputs.uncertainty is not None:
        spread = load_preview(inputs.uncertainty, max(final.values.shape[1:])).values
    suspect = find_suspect(
        slices,
        inputs.final,
        None if spread is None else spread.mean(axis=(1, 2)),
        final.z_um,
        measured.positions_um,
    )
    has_truth = inputs.truth is not None
    ranking = read_ranking(inputs.validation.held_out) if inputs.validation else []
    verdict = write_verdict(
        scores, inputs.final, has_truth, _relative_spread(final.values, spread), suspect, ranking
    )
    pictures = draw_pictures(inputs, measured, final, spread, verdict.z_um)
    columns = score_columns(scores)
    write_page(
        path,
        "sample.html.j2",
        title=f"{inputs.sample} · BesselFlow",
        inputs=inputs,
        has_truth=has_truth,
        verdict=verdict,
        facts=acquisition_facts(measured),
        unit=measured.unit,
        several=math.prod(measured.data.shape[:2]) > 1,
        pictures=pictures,
        trust=describe_trust(inputs, measured, scores, ranking) if inputs.validation else None,
        corrections=describe_corrections(measured),
        viewer=viewer_data(pictures, inputs, measured, slices),
        columns=columns,
        slices_name=Path(inputs.slices).name,
        rows=score_rows(scores, columns, inputs),
        seen=seen_and_unseen(slices, inputs.final),
        curve=(
            themed_figure(
                partial(
                    draw_along_depth,
                    slices,
                    "psnr",
                    "PSNR of the slice (dB)",
                    measured.positions_um,
                    inputs.final,
                )
            )
            if len(slices)
            else None
        ),
        inr_curve=training_figure(
            [record["curve"] for record in records.get("inr", []) if record.get("curve")],
            "data misfit",
            "inr",
        ),
        prior_curve=training_figure(
            [inputs.prior_info["curve"]] if (inputs.prior_info or {}).get("curve") else [],
            "training loss",
            "diffusion",
        ),
        microdiffusion_curve=training_figure(
            [record["curve"] for record in records.get("microdiffusion", []) if "curve" in record],
            "training loss",
            "microdiffusion",
        ),
        prior=inputs.prior_info or {},
        prior_sources=describe_sources(inputs.prior_info),
        prior_note=prior_note(records.get("diffusion", []), inputs.prior_info),
        fits=fit_facts(records, measured.unit),
        stages=read_benchmarks(inputs.benchmarks),
        settings=flatten(inputs.settings),
        software=software_versions(),
        paragraph=methods_paragraph(measured, records, inputs.final, inputs.prior_info, has_truth),
        citation=CITATION,
    )


def _relative_spread(final: np.ndarray, spread: np.ndarray | None) -> float | None:
    if spread is None:
        return None
    bright = final >= np.percentile(final, _BRIGHT_PERCENTILE)
    level = float(final[bright].mean())
    return float(spread[bright].mean()) / level if level > 0 else None
