"""Everything that is compared with the ground truth of a sample, for all of its methods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import dask.array as da
import numpy as np
import pandas as pd

from besselflow.job import logger
from besselflow.metrics.bootstrap import CONFIDENCE
from besselflow.metrics.centreline import is_thin, score_centrelines
from besselflow.metrics.fourier import CRITERION, correlate_shells, resolutions_um
from besselflow.metrics.reference import describe_truth
from besselflow.metrics.scores import check_shapes, score_volume
from besselflow.scored import scored_slices
from besselflow.store import Projections

SLICE_COLUMNS = ["sample", "method", "t", "c", "z_um", "psnr", "ssim", "seen"]
SWEEP_COLUMNS = ["sample", "method", "threshold", "dice"]
SHELL_COLUMNS = ["sample", "method", "axis", "frequency_per_um", "correlation"]


@dataclass(frozen=True)
class Findings:
    """Scores of all methods, and how they were taken.

    Attributes
    ----------
    metrics : list of tuple
        ``(sample, method, metric, value)``.
    slices, sweeps, shells : list of pandas.DataFrame
        One table per method, with the columns `SLICE_COLUMNS`, `SWEEP_COLUMNS`, `SHELL_COLUMNS`.
    conditions : dict
        Data range, threshold, region, windows and limits of the scores.
    """

    metrics: list[tuple[str, str, str, float]] = field(default_factory=list)
    slices: list[pd.DataFrame] = field(default_factory=list)
    sweeps: list[pd.DataFrame] = field(default_factory=list)
    shells: list[pd.DataFrame] = field(default_factory=list)
    conditions: dict[str, Any] = field(default_factory=dict)


def score_methods(
    volumes: Mapping[str, da.Array],
    truth: da.Array,
    measured: Projections,
    uncertainty: Mapping[str, da.Array],
    ssim_window: int,
    sample: str,
    centreline: Literal["auto"] | bool,
) -> Findings:
    """Compare all methods of a sample with its ground truth.

    Parameters
    ----------
    volumes : mapping of str to dask.array.Array, shape (T, C, Z, Y, X)
        Method -> its volume.
    truth : dask.array.Array, shape (T, C, Z, Y, X)
        Ground truth.
    measured : Projections
        Opened projection store.
    uncertainty : mapping
        Method -> standard deviation, shape of the volumes; may be empty.
    ssim_window : int
        Edge length of the SSIM window in pixels.
    sample : str
        Name of the sample.
    centreline : bool or "auto"
        Whether to compare centre lines; "auto": where the ground truth consists of lines.
    """
    grid, seen = measured.grid, measured.operator.seen
    scored = scored_slices(grid, measured.positions_um)
    for method, estimate in volumes.items():
        check_shapes(estimate, truth, uncertainty.get(method), ssim_window)
    reference = describe_truth(truth, scored)
    alike = alike_slices(measured)
    lines = centreline
    if centreline == "auto":
        lines = is_thin(truth, scored, reference.threshold)
    followed = score_centrelines(volumes, truth, scored, reference.threshold) if lines else {}
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
    found = Findings(conditions=conditions)
    for method, estimate in volumes.items():
        std = uncertainty.get(method)
        scores = score_volume(estimate, truth, scored, ssim_window, std, reference, alike)
        curves = correlate_shells(estimate, truth, scored, measured.voxel_size_um)
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
