"""What the cohort's page knows of each sample: status, light, scores, time, and its files."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pandas as pd

from besselflow.folding import folded_seconds
from besselflow.metrics import METRIC_COLUMNS
from besselflow.preflight import Examination
from besselflow.report.lights import LEVELS, Light, SampleFacts, light_of
from besselflow.report.page import image_uri, to_grey
from besselflow.report.pictures import display_window, load_preview
from besselflow.report.preflight import read_preflight
from besselflow.report.trust import read_ranking

_THUMBNAIL_PIXELS = 72
_MOST_GROUPS = 12
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
        ``done``; ``failed`` while it was computed; ``excluded`` by the check of its input
        or by the preflight.
    stage : str or None
        Stage at which it failed.
    reason : str or None
        Why it failed or was excluded.
    log : str or None
        Log file that ends with the error, relative to the working directory.
    extra : mapping
        Further columns of its row in the sheet, by which samples can be grouped.
    """

    sample: str
    role: str
    status: Literal["done", "failed", "excluded"]
    stage: str | None = None
    reason: str | None = None
    log: str | None = None
    extra: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_training_data(self) -> bool:
        """Whether it only served to train a prior, so that there is nothing to tell of it."""
        return self.role == "train" and self.status == "done"


@dataclass(frozen=True)
class SampleRow:
    """One line of the table of samples.

    Attributes
    ----------
    status : SampleStatus
        What became of it.
    light : Light
        Whether to look at it, and why.
    thumbnail : str or None
        Maximum projection, as a data URI.
    page, log : str or None
        Links, relative to the cohort's page.
    scores : dict
        Metric -> value of the final method, with its gain over interpolation.
    predictor : str
        Methods that predicted withheld projections best; empty where none was asked.
    seconds : float or None
        Time of all its stages together.
    preflight : Examination or None
        What was found before it was computed.
    """

    status: SampleStatus
    light: Light
    thumbnail: str | None
    page: str | None
    log: str | None
    scores: dict[str, float]
    predictor: str
    seconds: float | None
    preflight: Examination | None = None

    @property
    def time(self) -> str:
        """Time in words; a dash where it is not known."""
        if self.seconds is None:
            return "–"
        minutes = self.seconds / 60
        if minutes < 1:
            return f"{self.seconds:.0f} s"
        return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def gather_metrics(results: Path, statuses: list[SampleStatus]) -> pd.DataFrame:
    """Join the tables of scores of all samples that are done."""
    paths = [
        results / status.sample / "metrics.tsv" for status in statuses if status.status == "done"
    ]
    tables = [pd.read_csv(path, sep="\t", dtype={"sample": str}) for path in paths if path.exists()]
    tables = [table for table in tables if len(table)]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=METRIC_COLUMNS)


def describe_samples(
    statuses: list[SampleStatus],
    results: Path,
    folder: Path,
    metrics: pd.DataFrame,
    final: str,
) -> list[SampleRow]:
    """Describe all samples, what needs attention first.

    Parameters
    ----------
    statuses : list of SampleStatus
        All samples of the sheet.
    results, folder : path
        Folder with one folder per sample, and that of the page.
    metrics : pandas.DataFrame
        Result of `gather_metrics`.
    final : str
        Method of the final volumes.

    Returns
    -------
    list of SampleRow
        Failed samples, excluded ones, and those that are done: by light, then by gain (or PSNR),
        the lowest first. Training samples come last.
    """
    by_sample = {
        str(name): {
            str(method): dict(zip(own["metric"], own["value"].astype(float), strict=True))
            for method, own in table.groupby("method", sort=False)
        }
        for name, table in metrics.groupby("sample", sort=False)
    }
    rows = [
        _describe(status, results, folder, by_sample.get(status.sample, {}), final)
        for status in statuses
    ]
    return sorted(rows, key=_urgency)


def group_columns(statuses: list[SampleStatus]) -> dict[str, list[str]]:
    """Find the further columns of the sheet that sort its test samples into a few groups.

    Returns
    -------
    dict
        Column -> its values in alphabetical order, of which there are 2 to 12.
    """
    tests = [status.extra for status in statuses if status.role == "test"]
    names = dict.fromkeys(name for extra in tests for name in extra)
    values = {name: sorted({extra[name] for extra in tests if extra.get(name)}) for name in names}
    return {name: found for name, found in values.items() if 2 <= len(found) <= _MOST_GROUPS}


def link(target: Path, folder: Path) -> str:
    """Return the address of a file for a page in a folder."""
    return Path(os.path.relpath(target, folder)).as_posix()


def _urgency(row: SampleRow) -> tuple:
    lowest = row.scores.get("gain", row.scores.get("psnr", math.inf))
    return (
        _ORDER[row.status.status],
        row.status.role == "train",
        LEVELS.index(row.light.level),
        lowest,
        row.status.sample,
    )


def _describe(
    status: SampleStatus,
    results: Path,
    folder: Path,
    by_method: dict[str, dict[str, float]],
    final: str,
) -> SampleRow:
    own = results / status.sample
    scores = dict(by_method.get(final, {}))
    baseline = by_method.get("interpolation", {}).get("psnr")
    if "psnr" in scores and baseline is not None and final != "interpolation":
        scores["gain"] = scores["psnr"] - baseline
    errors, page = own / "held_out.tsv", own / "report.html"
    ranking = read_ranking(errors) if status.status == "done" and errors.exists() else []
    preflight = read_preflight(own)
    facts = SampleFacts(
        status.status,
        status.role,
        status.reason,
        final,
        by_method,
        ranking,
        preflight.findings if preflight else (),
    )
    stages = [*own.glob("benchmarks/*.tsv"), *own.glob("held_out/benchmarks/*.tsv")]
    times = [seconds for path in stages if (seconds := _read_seconds(path)) is not None]
    times += folded_seconds(own, without={path.stem for path in stages})
    return SampleRow(
        status=status,
        light=light_of(facts),
        thumbnail=_thumbnail(own / "volume.ome.zarr"),
        page=link(page, folder) if status.status == "done" and page.exists() else None,
        log=link(Path(status.log), folder) if status.log and Path(status.log).exists() else None,
        scores=scores,
        predictor=", ".join(each.method for each in ranking if each.tied),
        seconds=sum(times) if times else None,
        preflight=preflight,
    )


def _read_seconds(benchmark: Path) -> float | None:
    """Read the time of a stage; quickly, because a cohort has thousands of them."""
    lines = benchmark.read_text(encoding="utf-8").splitlines()
    try:
        index = lines[0].split("\t").index("s")
        return sum(float(line.split("\t")[index]) for line in lines[1:]) / (len(lines) - 1)
    except (IndexError, ValueError, ZeroDivisionError):
        return None


def _thumbnail(volume: Path) -> str | None:
    if not volume.exists():
        return None
    values = load_preview(volume, _THUMBNAIL_PIXELS).values.max(axis=0)
    return image_uri(to_grey(values, display_window(values)), quality=60)
