"""How far a volume can be trusted without ground truth: what the page of a sample says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from besselflow.held_out import FOLDED, Prediction, rank_predictions
from besselflow.report.figures import Band, draw_along_depth, draw_misfit_maps
from besselflow.report.inputs import SampleReportInputs, ValidationFiles
from besselflow.report.page import ThemedImage, format_number, themed_figure
from besselflow.store import Projections
from besselflow.validation import (
    CHI2_OVERFITS,
    CHI2_UNDERFITS,
    judge_fit,
    unexplained_projections,
)

JUDGEMENTS = {
    "underfits": "underfits: structure is left",
    "overfits": "overfits: noise is followed",
    None: "within the noise",
}
"""What the judgement of a fit means, in words."""

_LEAST_DRAWN = 0.05
_MOST_NAMED = 5
_FAR_ABOVE_NOISE = 3.0


@dataclass(frozen=True)
class MethodTrust:
    """One line of the table of methods: texts for its cells.

    Attributes
    ----------
    method, prediction, fit : str
        Name; how its prediction compares; how it explains the projections.
    numbers : list of str
        Prediction in dB and in units of the noise, chi-square, structure, determined share.
    is_final, is_flagged : bool
        Whether it is the final method; whether its fit is to be doubted.
    """

    method: str
    prediction: str
    fit: str
    numbers: list[str]
    is_final: bool
    is_flagged: bool


@dataclass(frozen=True)
class Trust:
    """What the page says without ground truth.

    Attributes
    ----------
    rows : list of MethodTrust
        The table of methods, the best prediction first.
    ranking : str
        Which method predicted best what it did not see, or why nothing was kept from it.
    is_ranked, is_folded : bool
        Whether anything was kept from the methods, and whether the ranking is that by the
        differences of folded neighbours.
    misfit, determined, unseen : str or None
        Which projections are not explained; how much of the final volume is measured; which slices
        no projection saw.
    misfit_chart, misfit_maps, determined_chart : ThemedImage or None
        Drawings, where there is something to draw.
    """

    rows: list[MethodTrust] = field(default_factory=list)
    ranking: str = ""
    is_ranked: bool = False
    is_folded: bool = False
    misfit: str | None = None
    determined: str | None = None
    unseen: str | None = None
    misfit_chart: ThemedImage | None = None
    misfit_maps: ThemedImage | None = None
    determined_chart: ThemedImage | None = None


def read_ranking(path: Path) -> list[Prediction]:
    """Rank the methods by the table of errors of their predictions, the best first."""
    return rank_predictions(pd.read_csv(path, sep="\t", dtype={"sample": str}))


def describe_trust(
    inputs: SampleReportInputs,
    measured: Projections,
    scores: Mapping[str, Mapping[str, float]],
    ranking: list[Prediction],
) -> Trust:
    """Put into words and drawings what is known without ground truth.

    Parameters
    ----------
    inputs : SampleReportInputs
        What to show; its `validation` must not be None.
    measured : Projections
        Opened projection store.
    scores : mapping
        Method -> metric -> value.
    ranking : list of Prediction
        Methods by how well they predicted what they did not see.
    """
    files, final = inputs.validation, inputs.final
    by_projection = pd.read_csv(files.projections, sep="\t")
    depth = pd.read_csv(files.depth, sep="\t")
    along = partial(draw_along_depth, positions_um=measured.positions_um, final=final)
    expected = Band(CHI2_OVERFITS, CHI2_UNDERFITS, "as expected")
    drawn = by_projection.assign(chi2=by_projection["chi2"].clip(lower=_LEAST_DRAWN))
    return Trust(
        rows=_rows(list(inputs.volumes), final, scores, ranking),
        ranking=describe_ranking(ranking, final, files.not_held_out),
        is_ranked=bool(ranking),
        is_folded=bool(ranking) and ranking[0].question == FOLDED,
        misfit=_describe_misfit(by_projection, final, measured),
        determined=_describe_share(scores.get(final, {}), final),
        unseen=describe_unseen(measured),
        misfit_chart=themed_figure(
            lambda theme: along(drawn, "chi2", "chi² of the projection", theme=theme, band=expected)
        )
        if len(by_projection)
        else None,
        misfit_maps=_draw_maps(files, measured),
        determined_chart=themed_figure(
            lambda theme: along(depth, "determined", "share that was measured", theme=theme)
        ),
    )


def describe_ranking(ranking: list[Prediction], final: str, not_held_out: str | None) -> str:
    """Say which method predicted best what it did not see, and how the final one compares."""
    if not ranking:
        return not_held_out or "No projection was withheld."
    best, *others = ranking
    told = "predicted the withheld projections best"
    if best.question == FOLDED:
        told = (
            "told best how neighbouring projections differ, of which it was shown the mean alone,"
        )
    text = f"Without ground truth: the method that {told} is {best.method}"
    tied = [each.method for each in others if each.tied]
    if tied:
        text += f", and {_list(tied)} can't be told from it"
    own = next((each for each in ranking if each.method == final), None)
    if own is None:
        return f"{text}. The final method, {final}, was not asked for predictions."
    if own is not best and not own.tied:
        behind = best.psnr - own.psnr
        text += f". The final method, {final}, was {behind:.1f} dB worse"
    if best.chi2 is not None and best.chi2 > _FAR_ABOVE_NOISE:
        text += (
            f". Even the best prediction is wrong by {best.chi2:.0f} times the noise (squared): "
            "much of what was kept from it shows in no other projection"
        )
    return f"{text}."


def describe_unseen(measured: Projections) -> str | None:
    """List the slices that no projection saw, as ranges of depth; None where there are none."""
    unseen = np.flatnonzero(~measured.operator.seen)
    if not len(unseen):
        return None
    z_um = measured.grid.centres_um
    runs = np.split(unseen, np.flatnonzero(np.diff(unseen) > 1) + 1)
    ranges = [
        f"{z_um[run[0]]:g}" if len(run) == 1 else f"{z_um[run[0]]:g} to {z_um[run[-1]]:g}"
        for run in runs
    ]
    shown = ranges[: 2 * _MOST_NAMED]
    more = f" and {len(ranges) - len(shown)} more ranges" if len(ranges) > len(shown) else ""
    return (
        f"No projection saw {len(unseen)} of {measured.grid.n_slices} slices (z = "
        f"{', '.join(shown)} µm{more}). Whatever they show was inferred."
    )


def _rows(
    methods: list[str],
    final: str,
    scores: Mapping[str, Mapping[str, float]],
    ranking: list[Prediction],
) -> list[MethodTrust]:
    predictions = {each.method: each for each in ranking}
    rows = []
    for method in [*predictions, *(m for m in methods if m not in predictions)]:
        own, prediction = scores.get(method, {}), predictions.get(method)
        judgement = judge_fit(own.get("chi2"), own.get("structure"))
        rows.append(
            MethodTrust(
                method,
                _compare(prediction, ranking),
                JUDGEMENTS[judgement] if "chi2" in own else "not known without `spectral`",
                [
                    format_number(prediction.psnr if prediction else None, 1),
                    format_number(prediction.chi2 if prediction else None),
                    format_number(own.get("chi2")),
                    format_number(own.get("structure")),
                    format_number(100 * own["determined"], 0) if "determined" in own else "–",
                ],
                method == final,
                judgement is not None,
            )
        )
    return rows


def _compare(prediction: Prediction | None, ranking: list[Prediction]) -> str:
    if prediction is None:
        return "–"
    if prediction is ranking[0]:
        return "best"
    if prediction.tied:
        return "no clear difference"
    return f"{ranking[0].psnr - prediction.psnr:.1f} dB behind"


def _describe_misfit(by_projection: pd.DataFrame, final: str, measured: Projections) -> str | None:
    own = by_projection[by_projection["method"] == final]
    if own.empty:
        return None
    pixels = int(np.prod(measured.data.shape[3:]))
    bad = own[unexplained_projections(own["chi2"].to_numpy(), pixels)]
    bad = bad.sort_values("chi2", ascending=False)
    if bad.empty:
        return f"Every projection is explained by the {final} volume within its noise."
    named = [
        f"z = {row.z_um:g} µm (chi² {row.chi2:.1f})" for row in bad.head(_MOST_NAMED).itertuples()
    ]
    more = f" and {len(bad) - len(named)} more" if len(bad) > len(named) else ""
    return (
        f"The {final} volume does not explain {len(bad)} of {len(own)} projections within their "
        f"noise, the worst at {', '.join(named)}{more}: look there for motion, saturation or a "
        f"wrong stage position."
    )


def _describe_share(own: Mapping[str, float], final: str) -> str | None:
    if "determined" not in own:
        return None
    share = 100 * own["determined"]
    return (
        f"The projections determine {share:.0f} % of the {final} volume (of its squared "
        f"intensity). The other {100 - share:.0f} %, which is mostly detail in depth that is finer "
        f"than the beam, changes no projection: it comes from the method's assumptions alone."
    )


def _draw_maps(files: ValidationFiles, measured: Projections) -> ThemedImage | None:
    with np.load(files.maps) as stored:
        maps = {name: stored[name][0] for name in stored if name != "bin_pixels"}
        if not maps:
            return None
        pixel_um = tuple(float(stored["bin_pixels"]) * size for size in measured.pixel_size_um)
    return themed_figure(partial(draw_misfit_maps, maps, pixel_um))


def _list(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
