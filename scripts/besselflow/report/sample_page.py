"""The report of one sample: verdict, pictures, scores, and what was done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from besselflow.report.advice import advise
from besselflow.report.agreement import describe_agreement, read_conditions
from besselflow.report.cautions import collect_cautions
from besselflow.report.corrections import describe_corrections
from besselflow.report.curves import draw_beam
from besselflow.report.facts import CITATION, acquisition_facts, fit_facts, methods_paragraph
from besselflow.report.figures import draw_along_depth
from besselflow.report.history import flatten, read_benchmarks, training_figure
from besselflow.report.inputs import SampleReportInputs
from besselflow.report.page import ThemedImage, software_versions, themed_figure, write_page
from besselflow.report.pictures import load_preview
from besselflow.report.preflight import describe_preflight
from besselflow.report.prior import SPECTRAL_NOTE, describe_sources, prior_note, uncertainty_note
from besselflow.report.sample_pictures import affordable_pixels, draw_pictures
from besselflow.report.scores import (
    describe_conditions,
    read_scores,
    seen_and_unseen,
    tabulate,
)
from besselflow.report.trust import describe_trust, read_ranking
from besselflow.report.verdict import Suspect, find_suspect, write_verdict
from besselflow.report.viewer import COLORMAPS, build_viewer, place_name
from besselflow.store import Projections, open_projections, open_volume

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
    suspect = _find_suspect(inputs, slices, measured)
    place = (suspect.t, suspect.c)
    final = load_preview(inputs.volumes[inputs.final], affordable_pixels(inputs), place)
    spread = None
    if inputs.uncertainty is not None:
        spread = load_preview(inputs.uncertainty, max(final.values.shape[1:]), place).values
    has_truth = inputs.truth is not None
    ranking = read_ranking(inputs.validation.held_out) if inputs.validation else []
    verdict = write_verdict(
        scores, inputs.final, has_truth, _relative_spread(final.values, spread), suspect, ranking
    )
    pictures = draw_pictures(inputs, measured, final, spread, verdict.z_um, place)
    viewer = build_viewer(inputs, measured, slices, suspect)
    agreement = describe_agreement(inputs, measured, scores, place)
    conditions = read_conditions(inputs)
    along = partial(
        draw_along_depth, slices, positions_um=measured.positions_um, final=inputs.final
    )
    write_page(
        path,
        "sample.html.j2",
        title=f"{inputs.sample} · BesselFlow",
        inputs=inputs,
        has_truth=has_truth,
        verdict=verdict,
        advice=advise(scores, inputs.final, has_truth, suspect, measured.positions_um, ranking),
        facts=acquisition_facts(measured),
        preflight=describe_preflight(inputs.preflight),
        unit=measured.unit,
        place=place_name(place, measured),
        pictures=pictures,
        trust=describe_trust(inputs, measured, scores, ranking) if inputs.validation else None,
        corrections=describe_corrections(measured),
        viewer=viewer,
        colormaps=list(COLORMAPS),
        agreement=agreement,
        cautions=collect_cautions(measured, final, records, inputs.prior_info, inputs.final),
        beam=themed_figure(
            partial(
                draw_beam,
                measured.profile,
                measured.positions_um,
                measured.grid.centres_um,
                measured.operator,
            )
        ),
        main_scores=tabulate(scores, inputs, place="main"),
        further_scores=tabulate(scores, inputs, place="further"),
        conditions=describe_conditions(conditions, measured.unit),
        conditions_confidence=conditions.get("confidence", 0.95),
        slices_name=Path(inputs.slices).name,
        seen=seen_and_unseen(slices, inputs.final),
        curve=_along_depth(along, "psnr", "PSNR of the slice (dB)", slices),
        ssim_curve=_along_depth(along, "ssim", "SSIM of the slice", slices),
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
        uncertainty_note=SPECTRAL_NOTE
        if inputs.final == "spectral"
        else uncertainty_note(records.get(inputs.final, [])),
        fits=fit_facts(records, measured.unit),
        stages=read_benchmarks(inputs.benchmarks),
        settings=flatten(inputs.settings),
        software=software_versions(),
        paragraph=methods_paragraph(measured, records, inputs.final, inputs.prior_info, has_truth),
        citation=CITATION,
    )


def _find_suspect(
    inputs: SampleReportInputs, slices: pd.DataFrame, measured: Projections
) -> Suspect:
    spread_by_slice, z_um = None, measured.grid.centres_um
    if inputs.uncertainty is not None:
        # The coarsest level of the pyramid has the same means, and is small at any size.
        coarse = open_volume(inputs.uncertainty, -1)
        spread_by_slice = np.asarray(coarse.data.mean(axis=(3, 4)))
        z_um = coarse.origin_um[0] + coarse.voxel_size_um[0] * np.arange(coarse.data.shape[2])
    suspect = find_suspect(slices, inputs.final, spread_by_slice, z_um, measured.positions_um)
    named = place_name((suspect.t, suspect.c), measured)
    return replace(suspect, why=f"{named}, {suspect.why}") if named else suspect


def _along_depth(
    along: Callable[..., Figure], column: str, label: str, slices: pd.DataFrame
) -> ThemedImage | None:
    if slices.empty:
        return None
    return themed_figure(lambda theme: along(column=column, label=label, theme=theme))


def _relative_spread(final: np.ndarray, spread: np.ndarray | None) -> float | None:
    if spread is None:
        return None
    bright = final >= np.percentile(final, _BRIGHT_PERCENTILE)
    level = float(final[bright].mean())
    return float(spread[bright].mean()) / level if level > 0 else None
