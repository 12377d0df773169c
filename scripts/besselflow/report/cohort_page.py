"""The report of a cohort: every sample with its status, its scores and a link to its page."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd

from besselflow.corrections.estimated_fields import read_estimates
from besselflow.paired import SIGNIFICANCE, Comparison, compare_methods
from besselflow.report.cohort_files import (
    write_comparisons,
    write_multiqc,
    write_sample_table,
)
from besselflow.report.cohort_rows import (
    SampleRow,
    SampleStatus,
    describe_samples,
    gather_metrics,
    group_columns,
    link,
)
from besselflow.report.lights import LABELS, LEVELS
from besselflow.report.metric_names import BY_KEY, COHORT_METRICS, SHARES, SUMMARY_KEYS
from besselflow.report.page import format_number, write_page
from besselflow.report.shading import describe_estimates
from besselflow.store import write_tsv

_MANY = 6
_DIRECTIONS = {metric.key: metric.better for metric in COHORT_METRICS if metric.better}


def write_cohort_report(
    path: Path | str,
    metrics_path: Path | str,
    results: Path | str,
    statuses: list[SampleStatus],
    final: str,
    flat_fields: Path | str | None = None,
) -> None:
    """Write the page of all samples, and the tables of all that it shows.

    Beside the page stand a table of the samples and one of the comparisons, named as the page with
    the endings ``.csv`` and ``_comparisons.csv``, and a folder ``multiqc`` with files that MultiQC
    finds by itself.

    Parameters
    ----------
    path : path
        HTML file to write.
    metrics_path : path
        Table to write: ``sample method metric value`` of all samples that are done.
    results : path
        Folder with one folder per sample.
    statuses : list of SampleStatus
        All samples of the sheet.
    final : str
        Method whose scores the table shows.
    flat_fields : path or None
        Folder of the flat fields that the run estimated, where it did.
    """
    path, results = Path(path), Path(results)
    metrics = gather_metrics(results, statuses)
    write_tsv(metrics_path, metrics)
    rows = describe_samples(statuses, results, path.parent, metrics, final)
    comparisons = compare_methods(metrics, final, _DIRECTIONS)
    files = [
        Path(metrics_path),
        write_sample_table(path.with_suffix(".csv"), rows, metrics),
        write_comparisons(path.with_name(f"{path.stem}_comparisons.csv"), comparisons),
    ]
    write_multiqc(path.parent / "multiqc", rows, metrics, final)
    groups = group_columns(statuses)
    shown = [row for row in rows if not row.status.is_training_data]
    compared = [metric for metric in COHORT_METRICS if metric.key in set(metrics["metric"])]
    printed = metrics.assign(
        value=metrics["value"].where(~metrics["metric"].isin(SHARES), 100 * metrics["value"])
    )
    write_page(
        path,
        "cohort.html.j2",
        title="Cohort · BesselFlow",
        summary=_summarise(rows, final),
        trouble=[row for row in rows if row.status.status != "done"],
        many=_MANY,
        rows=shown,
        training=[row.status.sample for row in rows if row.status.is_training_data],
        final=final,
        groups=groups,
        columns=[BY_KEY[key] for key in SUMMARY_KEYS if any(key in row.scores for row in rows)],
        lights=[(level, LABELS[level]) for level in LEVELS if _count(shown, level)],
        has_predictors=any(row.predictor for row in rows),
        metrics=compared,
        titles=BY_KEY,
        medians=_medians(printed, compared),
        methods=list(dict.fromkeys(metrics["method"])),
        comparisons=[(each, describe_comparison(each)) for each in comparisons],
        data=_chart_data(printed, compared, statuses, groups, final),
        flat_fields=describe_estimates(
            read_estimates(flat_fields),
            [status.sample for status in statuses if status.role == "test"],
        )
        if flat_fields
        else None,
        files=[link(file, path.parent) for file in files],
        n_scored=metrics.loc[metrics["metric"] == "psnr", "sample"].nunique(),
    )


def describe_comparison(comparison: Comparison) -> str:
    """Say in words what a comparison shows, and what it can't show.

    Parameters
    ----------
    comparison : Comparison
        A method against another one.
    """
    count = f"{comparison.n} {_samples(comparison.n)}"
    if comparison.is_too_small:
        return (
            f"too few to tell: {count} can't give p below {comparison.smallest_p:.2g}, "
            f"whatever their scores"
        )
    if comparison.p_holm >= SIGNIFICANCE:
        return "no difference is shown"
    word = "better" if comparison.rank_biserial > 0 else "worse"
    return f"{comparison.method} is {word} than {comparison.other}"


def _count(rows: list[SampleRow], level: str) -> int:
    return sum(row.light.level == level for row in rows)


def _medians(metrics: pd.DataFrame, compared: list) -> list[tuple[str, dict[str, str]]]:
    """Return metric -> method -> median as text, for readers without scripts."""
    table = metrics.groupby(["metric", "method"], sort=False)["value"].median()
    found = []
    for metric in compared:
        values = table[metric.key]
        texts = {str(name): format_number(value, metric.digits) for name, value in values.items()}
        found.append((metric.heading, texts))
    return found


def _chart_data(
    metrics: pd.DataFrame,
    compared: list,
    statuses: list[SampleStatus],
    groups: dict[str, list[str]],
    final: str,
) -> dict[str, Any]:
    """Return all scores for the drawings of the page, by metric, method and sample."""
    samples = list(dict.fromkeys(metrics["sample"]))
    methods = list(dict.fromkeys(metrics["method"]))
    extras = {status.sample: status.extra for status in statuses}
    values = {}
    for metric in compared:
        own = metrics[metrics["metric"] == metric.key]
        wide = own.pivot_table(index="sample", columns="method", values="value")
        wide = wide.reindex(index=samples, columns=methods)
        values[metric.key] = {
            method: [_rounded(value) for value in wide[method]] for method in methods
        }
    return {
        "final": final,
        "samples": samples,
        "methods": methods,
        "metrics": [
            {"key": metric.key, "heading": metric.heading, "digits": metric.digits}
            for metric in compared
        ],
        "groups": {
            name: {"values": found, "of": [extras[s].get(name, "") for s in samples]}
            for name, found in groups.items()
        },
        "values": values,
    }


def _rounded(value: float) -> float | None:
    """Round to what a drawing can show; not a number becomes null, which JSON knows."""
    return float(f"{value:.5g}") if math.isfinite(value) else None


def _summarise(rows: list[SampleRow], final: str) -> str:
    """Say in a sentence or two how many samples are done, and how good they are."""
    tests = [row for row in rows if row.status.role != "train"]
    counts = {
        name: sum(row.status.status == name for row in tests)
        for name in ("done", "failed", "excluded")
    }
    text = f"{counts['done']} of {len(tests)} {_samples(len(tests))} finished"
    trouble = [f"{counts[name]} {word}" for name, word in _TROUBLE if counts[name]]
    text += f", {' and '.join(trouble)}." if trouble else "."
    doubtful = _count(rows, "check")
    if doubtful:
        text += f" {doubtful} {'needs' if doubtful == 1 else 'need'} a look."
    psnr = pd.Series([row.scores["psnr"] for row in tests if "psnr" in row.scores], dtype=float)
    gain = pd.Series([row.scores["gain"] for row in tests if "gain" in row.scores], dtype=float)
    if len(psnr):
        median = psnr.median()
        text += f" Against ground truth ({len(psnr)} {_samples(len(psnr))}), {final} reaches a "
        text += "PSNR" if len(psnr) == 1 else "median PSNR"
        text += f" of {median:.1f} dB"
        if len(gain):
            direction = "better" if gain.median() >= 0 else "worse"
            text += f", {abs(gain.median()):.1f} dB {direction} than interpolation"
        text += "."
    elif counts["done"]:
        text += " None has a ground truth, so their accuracy is unknown."
    return text


_TROUBLE = (("failed", "failed"), ("excluded", "excluded"))


def _samples(count: int) -> str:
    return "sample" if count == 1 else "samples"
