"""The scores of a sample's page: which columns its table has, and what they mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from besselflow.report.inputs import SampleReportInputs
from besselflow.report.page import METHOD_NOTES, format_number


@dataclass(frozen=True)
class ScoreRow:
    """One line of the table of methods."""

    method: str
    note: str
    is_final: bool
    cells: list[tuple[str, bool]]


@dataclass(frozen=True)
class Column:
    """One metric of the table of methods.

    Attributes
    ----------
    key, title, unit, meaning : str
        Name in the table file, heading, unit, and explanation for readers who do not know it.
    digits : int
        Decimals.
    higher_is_better : bool
        Whether the highest value is marked; else none is.
    """

    key: str
    title: str
    unit: str
    meaning: str
    digits: int
    higher_is_better: bool


_COLUMNS = (
    Column(
        "psnr",
        "PSNR",
        "dB",
        "peak signal-to-noise ratio, mean over slices; 3 dB more is half the squared error",
        2,
        True,
    ),
    Column(
        "gain",
        "gain",
        "dB",
        "PSNR above that of interpolating the projections, which needs no model at all",
        2,
        True,
    ),
    Column("psnr_3d", "PSNR 3D", "dB", "the same from the mean error of all slices", 2, True),
    Column(
        "psnr_seen", "PSNR, seen", "dB", "mean over the slices that some projection saw", 2, True
    ),
    Column(
        "psnr_unseen",
        "PSNR, unseen",
        "dB",
        "mean over the slices that no projection saw, where a method can only guess",
        2,
        True,
    ),
    Column(
        "ssim", "SSIM", "", "similarity of local structure, mean over slices; 1 is equal", 3, True
    ),
    Column(
        "dice",
        "Dice",
        "",
        "overlap of what is brighter than Otsu's threshold of the ground truth; 1 is equal",
        3,
        True,
    ),
    Column(
        "coverage_50",
        "in 50 %",
        "%",
        "share of true values inside the stated 50 % interval; ideally 50",
        0,
        False,
    ),
    Column(
        "coverage_90",
        "in 90 %",
        "%",
        "share of true values inside the stated 90 % interval; ideally 90",
        0,
        False,
    ),
    Column(
        "chi2",
        "chi²",
        "",
        "misfit to the measured projections in units of their noise; well above 1 contradicts "
        "them, well below 1 follows their noise",
        2,
        False,
    ),
)


def read_scores(path: Path) -> dict[str, dict[str, float]]:
    """Read a table of scores as method -> metric -> value."""
    scores: dict[str, dict[str, float]] = {}
    for row in pd.read_csv(path, sep="\t").itertuples():
        scores.setdefault(str(row.method), {})[str(row.metric)] = float(row.value)
    return scores


def score_columns(scores: Mapping[str, Mapping[str, float]]) -> list[Column]:
    """Choose the columns that at least one method has a value in."""
    present = {metric for values in scores.values() for metric in values}
    if "psnr" in scores.get("interpolation", {}) and len(scores) > 1:
        present.add("gain")
    return [column for column in _COLUMNS if column.key in present]


def score_rows(
    scores: Mapping[str, Mapping[str, float]],
    columns: list[Column],
    inputs: SampleReportInputs,
) -> list[ScoreRow]:
    """Format the scores of all methods, one line each, and mark the best of each column."""
    baseline = scores.get("interpolation", {}).get("psnr")
    table: dict[str, dict[str, float]] = {}
    for method in inputs.volumes:
        values = dict(scores.get(method, {}))
        if baseline is not None and "psnr" in values:
            values["gain"] = values["psnr"] - baseline
        table[method] = {
            key: 100 * value if key.startswith("coverage") else value
            for key, value in values.items()
        }
    best = {
        column.key: max((v[column.key] for v in table.values() if column.key in v), default=None)
        for column in columns
        if column.higher_is_better
    }
    return [
        ScoreRow(
            method,
            METHOD_NOTES.get(method, ""),
            method == inputs.final,
            [
                (
                    format_number(values.get(column.key), column.digits),
                    column.key in values and values[column.key] == best.get(column.key),
                )
                for column in columns
            ],
        )
        for method, values in table.items()
    ]


def seen_and_unseen(slices: pd.DataFrame, final: str) -> str | None:
    """Compare the slices that no projection saw with the others, in words."""
    own = slices[slices["method"] == final]
    if own.empty or own["seen"].all() or not own["seen"].any():
        return None
    psnr = own.groupby(own["seen"].astype(bool))["psnr"].mean()
    return (
        f"Slices that some projection saw: {psnr[True]:.1f} dB on average; slices that none saw, "
        f"where the method can only guess: {psnr[False]:.1f} dB."
    )
