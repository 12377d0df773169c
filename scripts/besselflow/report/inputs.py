"""What the page of one sample is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class SampleReportInputs:
    """Everything that the page of a sample shows.

    Attributes
    ----------
    sample : str
        Name of the sample.
    projections : path
        Projection store.
    volumes : dict
        Method -> OME-Zarr volume, in the order of the page.
    final : str
        Method of the final volume, a key of `volumes`.
    metrics, slices : path
        Tables that `evaluate` wrote.
    truth, uncertainty : path or None
        OME-Zarr volumes of the ground truth, and of the final method's standard deviation.
    prior_info : dict or None
        What the prior was trained on: ``trained_on``, ``curve``, ``seconds``, ``steps``.
    settings : dict
        The resolved configuration.
    row : dict
        The sample's row of the sheet.
    picture_pixels : int
        Longest edge of one picture.
    benchmarks : dict
        Stage -> benchmark table of Snakemake; files that do not exist are left out.
    """

    sample: str
    projections: Path
    volumes: dict[str, Path]
    final: str
    metrics: Path
    slices: Path
    truth: Path | None = None
    uncertainty: Path | None = None
    prior_info: dict[str, Any] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    row: dict[str, Any] = field(default_factory=dict)
    picture_pixels: int = 320
    benchmarks: dict[str, Path] = field(default_factory=dict)
