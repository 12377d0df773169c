"""The report of a cohort: every sample with its status, its scores and a link to its page."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import pandas as pd

from besselflow.metrics import METRIC_COLUMNS
from besselflow.report.figures import draw_score_distribution
from besselflow.report.page import image_uri, themed_figure, to_grey, write_page
from besselflow.report.pictures import display_window, load_preview
from besselflow.report.trust import read_ranking
from besselflow.store import write_tsv
from besselflow.validation import judge_fit

_THUMBNAIL_PIXELS = 96
_ORDER = {"failed": 0, "excluded": 1, "done": 2}


@dataclass(frozen=True)
class SampleStatus:
    """How far a sample came.

    Attributes
    ----------
    sample : str
        Name.
    role : str
        ``test`` or ``train``.
    status : str
        ``done``; ``failed`` while it was computed; ``excluded`` by the check of its input.
    stage : str or None
        Stage at which it failed.
    reason : str or None
        Why it failed or was excluded.
    log : str or None
        Log file that ends with the error, relative to the working directory.
    """

    sample: str
    role: str
    status: Literal["done", "failed", "excluded"]
    stage: str | None = None
    reason: str | None = None
    log: str | None = None


@dataclass(frozen=True)
class _Row:
    """One line of the table of samples; links are relative to the page."""

    status: SampleStatus
    thumbnail: str | None
    page: str | None
    log: str | None
    scores: dict[str, float]
    predictor: str
    fit: str


def write_cohort_report(
    path: Path | str,
    metrics_path: Path | str,
    results: Path | str,
    statuses: list[SampleStatus],
    final: str,
) -> None:
    """Write the page of all samples, and the table of all their scores.

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
    """
    results, folder = Path(results), Path(path).parent
    metrics = _gather_metrics(results, statuses)
    write_tsv(metrics_path, metrics)
    rows = [
        _describe_sample(status, results, folder, metrics, final)
        for status in sorted(statuses, key=lambda s: (_ORDER[s.status], s.role, s.sample))
    ]
    scored = metrics[metrics["metric"] == "psnr"]
    write_page(
        path,
        "cohort.html.j2",
        title="Cohort · BesselFlow",
        summary=_summarise(rows, final),
        trouble=[row for row in rows if row.status.status != "done"],
        rows=rows,
        final=final,
        metrics_link=os.path.relpath(metrics_path, folder),
        distribution=(
            themed_figure(partial(draw_score_distribution, metrics, final)) if len(scored) else None
        ),
        n_scored=scored["sample"].nunique(),
    )


def _gather_metrics(results: Path, statuses: list[SampleStatus]) -> pd.DataFrame:
    paths = [
        results / status.sample / "metrics.tsv" for status in statuses if status.status == "done"
    ]
    tables = [pd.read_csv(path, sep="\t", dtype={"sample": str}) for path in paths if path.exists()]
    tables = [table for table in tables if len(table)]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=METRIC_COLUMNS)


def _describe_sample(
    status: SampleStatus, results: Path, folder: Path, metrics: pd.DataFrame, final: str
) -> _Row:
    own = metrics[metrics["sample"] == status.sample]
    by_method = {
        str(method): dict(zip(table["metric"], table["value"].astype(float), strict=True))
        for method, table in own.groupby("method")
    }
    scores = dict(by_method.get(final, {}))
    baseline = by_method.get("interpolation", {}).get("psnr")
    if "psnr" in scores and baseline is not None and final != "interpolation":
        scores["gain"] = scores["psnr"] - baseline
    page = results / status.sample / "report.html"
    return _Row(
        status=status,
        thumbnail=_thumbnail(results / status.sample / "volume.ome.zarr"),
        page=_link(page, folder) if status.status == "done" and page.exists() else None,
        log=_link(Path(status.log), folder) if status.log and Path(status.log).exists() else None,
        scores=scores,
        predictor=_best_predictor(results / status.sample / "held_out.tsv"),
        fit=(judge_fit(scores["chi2"], scores.get("structure")) or "ok")
        if "chi2" in scores
        else "",
    )


def _best_predictor(errors: Path) -> str:
    """Name the methods that predicted withheld projections best; empty where none was asked."""
    ranking = read_ranking(errors) if errors.exists() else []
    return ", ".join(each.method for each in ranking if each.tied)


def _link(target: Path, folder: Path) -> str:
    return Path(os.path.relpath(target, folder)).as_posix()


def _thumbnail(volume: Path) -> str | None:
    if not volume.exists():
        return None
    values = load_preview(volume, _THUMBNAIL_PIXELS).values.max(axis=0)
    return image_uri(to_grey(values, display_window(values)), quality=70)


def _summarise(rows: list[_Row], final: str) -> str:
    """Say in a sentence or two how many samples are done, and how good they are."""
    tests = [row for row in rows if row.status.role != "train"]
    counts = {
        name: sum(row.status.status == name for row in tests)
        for name in ("done", "failed", "excluded")
    }
    text = f"{counts['done']} of {len(tests)} {_samples(len(tests))} finished"
    trouble = [f"{counts[name]} {word}" for name, word in _TROUBLE if counts[name]]
    text += f", {' and '.join(trouble)}." if trouble else "."
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


_TROUBLE = (("failed", "failed"), ("excluded", "excluded at the check of the input"))


def _samples(count: int) -> str:
    return "sample" if count == 1 else "samples"
