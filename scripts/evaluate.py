"""Score every method of a sample against ground truth, where there is one.

All scores follow the definitions in `besselflow.metrics`. Where some of the scored slices were seen
by no projection, the PSNR of those that were and of those that were not is told apart. The table of
scores begins with what `validate` found without ground truth.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from besselflow.job import logger, run_script
from besselflow.metrics import (
    METRIC_COLUMNS,
    correlate_shells,
    describe_truth,
    is_thin,
    resolutions_um,
    score_centrelines,
    score_volume,
    scored_slices,
)
from besselflow.metrics.bootstrap import CONFIDENCE
from besselflow.metrics.fourier import CRITERION
from besselflow.store import Projections, open_projections, open_volume, write_json, write_tsv

SLICE_COLUMNS = ["sample", "method", "t", "c", "z_um", "psnr", "ssim", "seen"]
SWEEP_COLUMNS = ["sample", "method", "threshold", "dice"]
SHELL_COLUMNS = ["sample", "method", "axis", "frequency_per_um", "correlation"]


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
    found = Findings([], [], [], [], {})
    if truth is not None:
        found = score_methods(
            volumes, truth, measured, uncertainty, ssim_window, sample, centreline
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


@dataclass(frozen=True)
class Findings:
    """Scores of all methods, as rows and tables, and how they were taken."""

    metrics: list[tuple[str, str, str, float]]
    slices: list[pd.DataFrame]
    sweeps: list[pd.DataFrame]
    shells: list[pd.DataFrame]
    conditions: dict


def score_methods(
    volumes: dict[str, Path],
    truth: Path,
    measured: Projections,
    uncertainty: dict[str, Path],
    ssim_window: int,
    sample: str,
    centreline: Literal["auto"] | bool,
) -> Findings:
    """Compare all methods with the ground truth; the parameters are those of `main`."""
    grid, seen = measured.grid, measured.operator.seen
    scored = scored_slices(grid, measured.positions_um)
    true = open_volume(truth)
    estimates = {method: open_volume(path).data for method, path in volumes.items()}
    reference = describe_truth(true.data, scored)
    alike = alike_slices(measured)
    lines = centreline
    if centreline == "auto":
        lines = is_thin(true.data, scored, reference.threshold)
    followed = score_centrelines(estimates, true.data, scored, reference.threshold) if lines else {}
    z_um = grid.centres_um[scored]
    conditions = {
        "data_range": reference.peak.tolist(),
        "threshold": reference.threshold.tolist(),
        "first_um": float(z_um[0]),
        "last_um": float(z_um[-1]),
        "n_slices": len(z_um),
        "ssim_window": ssim_window,
        "alike_slices": alike,
        "confidence": CONFIDENCE,
        "criterion": CRITERION,
        "centreline": bool(lines),
    }
    found = Findings([], [], [], [], conditions)
    for method, estimate in estimates.items():
        std = open_volume(uncertainty[method]).data if method in uncertainty else None
        scores = score_volume(estimate, true.data, scored, ssim_window, std, reference, alike)
        curves = correlate_shells(estimate, true.data, scored, measured.voxel_size_um)
        values = scores.summary | score_by_sight(scores.slices, seen) | resolutions_um(curves)
        if method in followed:
            values["centreline_dice"] = followed[method]
        z = scores.slices["z"].to_numpy()
        slices = scores.slices.assign(z_um=grid.centres_um[z], seen=seen[z])
        for tables, table, columns in (
            (found.slices, slices, SLICE_COLUMNS),
            (found.sweeps, scores.sweep, SWEEP_COLUMNS),
            (found.shells, curves, SHELL_COLUMNS),
        ):
            tables.append(table.assign(sample=sample, method=method)[columns])
        found.metrics.extend((sample, method, name, value) for name, value in values.items())
        logger.info("%s: %s", method, ", ".join(f"{k} {v:.4g}" for k, v in values.items()))
    return found


def alike_slices(measured: Projections) -> int:
    """Say how many neighbouring slices have similar errors: those that one projection stands for.

    That is the length of the beam or the step of the stage, whichever is larger.
    """
    gaps = np.diff(np.sort(measured.positions_um))
    step = float(np.median(gaps)) if len(gaps) else 0.0
    return max(1, round(max(measured.profile.fwhm_um, step) / measured.grid.spacing_um))


def _join(tables: list[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    return pd.concat(tables) if tables else pd.DataFrame(columns=columns)


def score_by_sight(slices: pd.DataFrame, seen: np.ndarray) -> dict[str, float]:
    """Return the PSNR of the slices that projections saw, and of those that none saw.

    Parameters
    ----------
    slices : pandas.DataFrame
        Columns ``z`` (index) and ``psnr`` of the scored slices.
    seen : numpy.ndarray of bool, shape (Z,)
        Slices that at least one projection collects light from.

    Returns
    -------
    dict
        ``psnr_seen`` and ``psnr_unseen`` in dB; empty unless there are slices of both kinds.
    """
    sight = seen[slices["z"].to_numpy()]
    if sight.all() or not sight.any():
        return {}
    psnr = slices["psnr"].to_numpy()
    return {"psnr_seen": float(psnr[sight].mean()), "psnr_unseen": float(psnr[~sight].mean())}


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
