"""The scores of a sample's page: the tables of methods, and how their scores were taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from besselflow.report.inputs import SampleReportInputs
from besselflow.report.metric_names import METRICS, SHARES, Metric
from besselflow.report.page import METHOD_NOTES, format_number


@dataclass(frozen=True)
class Cell:
    """One score: its text, its interval as text or an empty one, and whether it is the best."""

    text: str
    interval: str
    is_best: bool


@dataclass(frozen=True)
class ScoreRow:
    """One line of a table of methods."""

    method: str
    note: str
    is_final: bool
    cells: list[Cell]


@dataclass(frozen=True)
class ScoreTable:
    """A table of methods: its columns and its lines."""

    columns: list[Metric]
    rows: list[ScoreRow]

    @property
    def has_intervals(self) -> bool:
        """Whether any score has a confidence interval."""
        return any(cell.interval for row in self.rows for cell in row.cells)


def read_scores(path: Path) -> dict[str, dict[str, float]]:
    """Read a table of scores as method -> metric -> value."""
    scores: dict[str, dict[str, float]] = {}
    for row in pd.read_csv(path, sep="\t").itertuples():
        scores.setdefault(str(row.method), {})[str(row.metric)] = float(row.value)
    return scores


def tabulate(
    scores: Mapping[str, Mapping[str, float]], inputs: SampleReportInputs, place: str
) -> ScoreTable:
    """Arrange the scores of all methods, one line each, and mark the best of each column.

    Parameters
    ----------
    scores : mapping
        Method -> metric -> value; ``X_lower`` and ``X_upper`` are the interval of metric X.
    inputs : SampleReportInputs
        Names the methods and the final one.
    place : str
        Which metrics of the registry to show, see `Metric.place`; those that no method has are
        left out.
    """
    table = {method: _with_gains(scores, method) for method in inputs.volumes}
    columns = [
        metric
        for metric in METRICS
        if metric.place == place and any(metric.key in values for values in table.values())
    ]
    best = {
        metric.key: max(
            metric.better * values[metric.key] for values in table.values() if metric.key in values
        )
        for metric in columns
        if metric.better
    }
    rows = [
        ScoreRow(
            method,
            METHOD_NOTES.get(method, ""),
            method == inputs.final,
            [_cell(values, metric, best.get(metric.key)) for metric in columns],
        )
        for method, values in table.items()
    ]
    return ScoreTable(columns, rows)


def _with_gains(scores: Mapping[str, Mapping[str, float]], method: str) -> dict[str, float]:
    values = dict(scores.get(method, {}))
    for key, baseline in (("gain", "interpolation"), ("gain_inr", "inr")):
        yardstick = scores.get(baseline, {}).get("psnr")
        if yardstick is not None and "psnr" in values and len(scores) > 1:
            values[key] = values["psnr"] - yardstick
    return {key: 100 * value if key in SHARES else value for key, value in values.items()}


def _cell(values: Mapping[str, float], metric: Metric, best: float | None) -> Cell:
    ends = [values.get(f"{metric.key}_{end}") for end in ("lower", "upper")]
    interval = ""
    if None not in ends:
        interval = " to ".join(format_number(end, metric.digits) for end in ends)
    value = values.get(metric.key)
    is_best = value is not None and best is not None and metric.better * value == best
    return Cell(format_number(value, metric.digits), interval, is_best)


def describe_conditions(conditions: Mapping[str, Any], unit: str) -> list[tuple[str, str]]:
    """Say how the scores against the ground truth were taken, as pairs of a name and a value.

    Parameters
    ----------
    conditions : mapping
        What `evaluate` wrote; empty without ground truth.
    unit : str
        Unit of intensity.
    """
    if not conditions:
        return []
    several = len(conditions["data_range"]) > 1

    def by_channel(values: list[float]) -> str:
        numbers = " / ".join(f"{value:.4g}" for value in values)
        return f"{numbers} {unit}" + (" (by channel)" if several else "")

    region = (
        f"{conditions['n_slices']} slices, from z = {conditions['first_um']:g} to "
        f"{conditions['last_um']:g} µm (the first to the last projection), the whole field"
    )
    alike = conditions["alike_slices"]
    return [
        (
            "Data range",
            f"0 to {by_channel(conditions['data_range'])}, the peak of the ground truth",
        ),
        (
            "Threshold of Dice",
            f"{by_channel(conditions['threshold'])}, Otsu's of the ground truth, for all methods",
        ),
        ("Region", region),
        ("Window of SSIM", f"{conditions['ssim_window']} pixels"),
        (
            "Intervals",
            f"{100 * conditions['confidence']:g} %, over the slices of this sample, drawn again in "
            f"blocks of {alike}, whose errors are alike; where there are too few, none is given",
        ),
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
