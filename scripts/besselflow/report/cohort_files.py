"""Tables of the cohort beside its page: for spreadsheets, and for MultiQC."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from besselflow.paired import COMPARISON_COLUMNS, Comparison
from besselflow.report.cohort_rows import SampleRow
from besselflow.report.metric_names import BY_KEY, SUMMARY_KEYS
from besselflow.store import atomic_path

MULTIQC_FILES = (
    "besselflow_general_mqc.json",
    "besselflow_samples_mqc.json",
    "besselflow_psnr_mqc.tsv",
)
"""Names of the files for MultiQC, which finds what ends in ``_mqc``."""

_COLOURS = {"stop": "#b3261e", "check": "#a34400", "unverified": "#526071", "good": "#1a7f4b"}


def write_sample_table(path: Path, rows: list[SampleRow], metrics: pd.DataFrame) -> Path:
    """Write one line per sample with its light, its time, and all scores of all methods.

    Parameters
    ----------
    path : path
        CSV file to write.
    rows : list of SampleRow
        All samples.
    metrics : pandas.DataFrame
        Columns ``sample method metric value``.

    Returns
    -------
    pathlib.Path
        The file; scores stand in columns such as ``spectral.psnr``.
    """
    extras = list(dict.fromkeys(name for row in rows for name in row.status.extra))
    table = pd.DataFrame(
        [
            {
                "sample": row.status.sample,
                "role": row.status.role,
                "status": row.status.status,
                "light": row.light.level,
                "why": row.light.reason,
                "stage": row.status.stage,
                "reason": row.status.reason,
                "log": row.log,
                "page": row.page,
                "seconds": row.seconds,
                "best_prediction": row.predictor,
                **{name: row.status.extra.get(name) for name in extras},
            }
            for row in rows
        ]
    )
    if len(metrics):
        names = metrics["method"] + "." + metrics["metric"]
        wide = metrics.assign(name=names).pivot_table(
            index="sample", columns="name", values="value", sort=False
        )
        table = table.merge(wide, how="left", left_on="sample", right_index=True)
    return _write_csv(path, table)


def write_comparisons(path: Path, comparisons: list[Comparison]) -> Path:
    """Write one line per comparison of two methods; see `besselflow.paired.Comparison`."""
    table = pd.DataFrame([vars(each) for each in comparisons], columns=COMPARISON_COLUMNS)
    return _write_csv(path, table)


def write_multiqc(folder: Path, rows: list[SampleRow], metrics: pd.DataFrame, final: str) -> None:
    """Write files of custom content for MultiQC (https://docs.seqera.io/multiqc/custom_content).

    Parameters
    ----------
    folder : path
        Where to write `MULTIQC_FILES`: columns for the general statistics, a table of what became
        of every sample, and one of the PSNR by method.
    rows : list of SampleRow
        All samples.
    metrics : pandas.DataFrame
        Columns ``sample method metric value``.
    final : str
        Method whose scores stand in the general statistics.
    """
    general, samples, psnr = (folder / name for name in MULTIQC_FILES)
    tests = [row for row in rows if row.status.role != "train"]
    present = [key for key in SUMMARY_KEYS if any(key in row.scores for row in tests)]
    content = {
        "id": "besselflow_general",
        "plot_type": "generalstats",
        "headers": {key: _header(key, final) for key in present},
        "data": {
            row.status.sample: {key: row.scores[key] for key in present if key in row.scores}
            for row in tests
            if row.scores
        },
    }
    _write_json(general, content)
    _write_json(samples, _status_content(tests))
    _write_psnr(psnr, metrics)


def _header(key: str, final: str) -> dict[str, Any]:
    metric = BY_KEY[key]
    scales = {1: "RdYlGn", -1: "RdYlGn-rev", 0: "Blues"}
    return {
        "title": metric.title,
        "description": f"{metric.heading} of {final} (BesselFlow)",
        "format": f"{{:,.{metric.digits}f}}",
        "suffix": f" {metric.unit}" if metric.unit else "",
        "scale": scales[metric.better],
        "namespace": "BesselFlow",
    }


def _status_content(rows: list[SampleRow]) -> dict[str, Any]:
    levels = [{level: [{"s_eq": level}]} for level in _COLOURS]
    colours = [{level: colour} for level, colour in _COLOURS.items()]
    return {
        "id": "besselflow_samples",
        "section_name": "BesselFlow samples",
        "description": "What became of every sample, and whether someone has to look at it.",
        "plot_type": "table",
        "pconfig": {
            "id": "besselflow_samples_table",
            "title": "BesselFlow: samples",
            "namespace": "BesselFlow",
        },
        "headers": {
            "status": {"title": "Status"},
            "light": {
                "title": "Light",
                "cond_formatting_rules": {k: v for level in levels for k, v in level.items()},
                "cond_formatting_colours": colours,
            },
            "why": {"title": "Why"},
            "minutes": {"title": "Time", "suffix": " min", "format": "{:,.1f}", "scale": "Greys"},
        },
        "data": {
            row.status.sample: {
                "status": row.status.status,
                "light": row.light.level,
                "why": row.light.reason,
                **({} if row.seconds is None else {"minutes": round(row.seconds / 60, 2)}),
            }
            for row in rows
        },
    }


def _write_psnr(path: Path, metrics: pd.DataFrame) -> None:
    """Write a table of samples by method, with its description in a header of comments."""
    own = metrics[metrics["metric"] == "psnr"]
    wide = own.pivot_table(index="sample", columns="method", values="value", sort=False)
    head = [
        "# id: besselflow_psnr",
        "# section_name: 'BesselFlow PSNR by method'",
        "# description: 'Peak signal-to-noise ratio in dB against ground truth, mean over slices.'",
        "# plot_type: 'table'",
        "# pconfig:",
        "#     id: 'besselflow_psnr_table'",
        "#     title: 'BesselFlow: PSNR by method'",
        "#     namespace: 'BesselFlow'",
    ]
    text = wide.rename_axis("Sample").to_csv(sep="\t", float_format="%.4g", lineterminator="\n")
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(head) + "\n" + text, encoding="utf-8")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with atomic_path(path) as temporary:
        text = json.dumps(content, indent=1, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def _write_csv(path: Path, table: pd.DataFrame) -> Path:
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g")
    return path
