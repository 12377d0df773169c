"""What the page of one sample is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ValidationFiles:
    """What is known of a sample without ground truth; see the script of the rule `validate`.

    Attributes
    ----------
    projections, depth : path
        Tables of chi-square by projection, and of the determined share by slice.
    maps : path
        Lateral maps of chi-square.
    determined : path
        OME-Zarr volume of the determined share of the final volume.
    held_out : path
        Table of the errors of predictions.
    not_held_out : str or None
        Why no projection was withheld, as a sentence.
    """

    projections: Path
    depth: Path
    maps: Path
    determined: Path
    held_out: Path
    not_held_out: str | None = None


@dataclass(frozen=True)
class EvaluationFiles:
    """Details of the comparison with ground truth; see the script of the rule `evaluate`.

    Attributes
    ----------
    sweep, shells : path
        Tables of Dice by threshold, and of the Fourier shell correlation.
    conditions : path
        JSON file that says how the scores were taken.
    """

    sweep: Path
    shells: Path
    conditions: Path


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
    validation : ValidationFiles or None
        What is known without ground truth.
    evaluation : EvaluationFiles or None
        Details of the comparison with ground truth.
    prior_info : dict or None
        What the prior was trained on: ``trained_on``, ``curve``, ``seconds``, ``steps``.
    preflight : path or None
        What the preflight found; see `besselflow.preflight`.
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
    validation: ValidationFiles | None = None
    evaluation: EvaluationFiles | None = None
    prior_info: dict[str, Any] | None = None
    preflight: Path | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    row: dict[str, Any] = field(default_factory=dict)
    picture_pixels: int = 320
    benchmarks: dict[str, Path] = field(default_factory=dict)
