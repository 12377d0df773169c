"""What was done for a sample: times, settings, and how the fits and the training went."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from besselflow.folding import read_benchmark, read_log
from besselflow.hardware import hardware_in
from besselflow.report.figures import draw_training_curve
from besselflow.report.page import ThemedImage, themed_figure


@dataclass(frozen=True)
class Stage:
    """Time, peak memory, processor cores in use on average, and hardware, of one stage."""

    name: str
    seconds: float
    memory_mb: float
    cores: float = float("nan")
    hardware: str = ""


def training_figure(curves: list, what: str, colour_of: str) -> ThemedImage | None:
    """Draw the curves of a fit or training, where there are any; see `draw_training_curve`."""
    if not curves:
        return None
    return themed_figure(partial(draw_training_curve, curves, what, colour_of))


def read_benchmarks(benchmarks: Mapping[str, Path]) -> list[Stage]:
    """Read what Snakemake measured of each stage; tables that are not there are left out.

    The hardware is the one that the log beside it names.
    """
    stages = []
    for name, path in benchmarks.items():
        table = read_benchmark(path)
        if table is not None:
            table = table.apply(pd.to_numeric, errors="coerce")
            if {"s", "max_rss"} <= set(table.columns) and len(table):
                seconds, memory = float(table["s"].mean()), float(table["max_rss"].max())
                # Snakemake prints the mean load in per cent of one core.
                load = float(table["mean_load"].mean()) if "mean_load" in table else math.nan
                path = Path(path)
                log = read_log(path.parents[1] / "logs" / f"{path.stem}.log")
                stages.append(Stage(name, seconds, memory, load / 100, hardware_in(log)))
    return stages


def flatten(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Turn nested settings into (dotted key, value) pairs."""
    pairs = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            pairs += flatten(value, f"{prefix}{key}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            pairs.append((f"{prefix}{key}", text))
    return pairs
