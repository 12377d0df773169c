"""Score every method of a sample against ground truth, where there is one.

All scores follow the definitions in `besselflow.metrics`. Where some of the scored slices were seen
by no projection, the PSNR of those that were and of those that were not is told apart. The table of
scores begins with what `validate` found without ground truth.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from besselflow.job import run_script
from besselflow.metrics import METRIC_COLUMNS
from besselflow.metrics.methods import (
    SHELL_COLUMNS,
    SLICE_COLUMNS,
    SWEEP_COLUMNS,
    Findings,
    score_methods,
)
from besselflow.store import open_projections, open_volume, write_json, write_tsv


@dataclass(frozen=True)
class Details:
    """Files beside the scores.

    Attributes
    ----------
    sweep : path
        Table of Dice by threshold, in units of that of the scores: ``sample method threshold
        dice``.
    shells : path
        Table of the Fourier shell correlation: ``sample method axis frequency_per_um correlation``.
    conditions : path
        JSON file that says how the scores were taken: ``data_range`` and ``threshold`` (by
        channel), ``first_um`` and ``last_um`` (slices), ``n_slices``, ``ssim_window``,
        ``alike_slices``, ``confidence``, ``criterion`` and ``centreline``; empty without ground
        truth.
    """

    sweep: Path
    shells: Path
    conditions: Path


def main(
    volumes: dict[str, Path],
    truth: Path | None,
    projections: Path,
    uncertainty: dict[str, Path],
    ssim_window: int,
    sample: str,
    metrics_path: Path,
    slices_path: Path,
    validation: Path | None = None,
    centreline: Literal["auto"] | bool = "auto",
    details: Details | None = None,
) -> None:
    """Write the scores of all methods of one sample.

    Parameters
    ----------
    volumes : dict
        Method -> OME-Zarr volume.
    truth : path or None
        OME-Zarr volume of the ground truth.
    projections : path
        Projection store.
    uncertainty : dict
        Method -> OME-Zarr volume of its standard deviation; may be empty.
    ssim_window : int
        Edge length of the SSIM window in pixels.
    sample : str
        Name of the sample.
    metrics_path, slices_path : path
        Tables to write: ``sample method metric value``, and one row per method and scored slice
        (``sample method t c z_um psnr ssim seen``), empty without ground truth.
    validation : path or None
        Table of scores that need no ground truth, which become part of the scores.
    centreline : bool or "auto"
        Whether to compare centre lines; "auto": where the ground truth consists of lines.
    details : Details or None
        Further files to write.
    """
    measured = open_projections(projections)
    found = Findings()
    if truth is not None:
        found = score_methods(
            {method: open_volume(path).data for method, path in volumes.items()},
            open_volume(truth).data,
            measured,
            {method: open_volume(path).data for method, path in uncertainty.items()},
            ssim_window,
            sample,
            centreline,
        )
    table = pd.DataFrame(found.metrics, columns=METRIC_COLUMNS)
    if validation is not None:
        without_truth = pd.read_csv(validation, sep="\t", dtype={"sample": str})
        table = pd.concat([without_truth, table]) if found.metrics else without_truth
    write_tsv(metrics_path, table)
    write_tsv(slices_path, _join(found.slices, SLICE_COLUMNS))
    if details is not None:
        write_tsv(details.sweep, _join(found.sweeps, SWEEP_COLUMNS))
        write_tsv(details.shells, _join(found.shells, SHELL_COLUMNS))
        write_json(details.conditions, found.conditions)


def _join(tables: list[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    return pd.concat(tables) if tables else pd.DataFrame(columns=columns)


if __name__ == "__main__":
    snakemake = globals()["snakemake"]
    methods = dict(zip(snakemake.params.methods, snakemake.input.volumes, strict=True))
    stds = snakemake.input.get("uncertainties", [])
    run_script(
        snakemake,
        main,
        volumes=methods,
        truth=snakemake.input.get("truth") or None,
        projections=snakemake.input.projections,
        uncertainty=dict(zip(snakemake.params.uncertain, stds, strict=True)),
        ssim_window=snakemake.params.ssim_window,
        sample=snakemake.wildcards.sample,
        metrics_path=snakemake.output.metrics,
        slices_path=snakemake.output.slices,
        validation=snakemake.input.validation,
        centreline=snakemake.params.centreline,
        details=Details(
            Path(snakemake.output.sweep),
            Path(snakemake.output.shells),
            Path(snakemake.output.conditions),
        ),
    )
