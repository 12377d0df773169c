"""Score every method of a sample against ground truth, where there is one.

PSNR, SSIM, Dice and the coverage of the uncertainty follow the definitions in `besselflow.metrics`.
Where some of the scored slices were seen by no projection, the PSNR of those that were and of those
that were not is told apart. The table of scores begins with what `validate` found without ground
truth.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from besselflow.job import logger, run_script
from besselflow.metrics import METRIC_COLUMNS, describe_truth, score_volume, scored_slices
from besselflow.store import open_projections, open_volume, write_tsv

SLICE_COLUMNS = ["sample", "method", "t", "c", "z_um", "psnr", "ssim", "seen"]


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
    """
    measured = open_projections(projections)
    grid = measured.grid
    scored = scored_slices(grid, measured.positions_um)
    seen = measured.operator.seen
    true = None if truth is None else open_volume(truth).data
    reference = None if true is None else describe_truth(true, scored)
    metrics, tables = [], []
    for method, path in volumes.items():
        estimate = open_volume(path).data
        values = {}
        if true is not None:
            std = open_volume(uncertainty[method]).data if method in uncertainty else None
            scores = score_volume(estimate, true, scored, ssim_window, std, reference)
            values.update(scores.summary | score_by_sight(scores.slices, seen))
            z = scores.slices["z"].to_numpy()
            table = scores.slices.assign(
                sample=sample, method=method, z_um=grid.centres_um[z], seen=seen[z]
            )
            tables.append(table[SLICE_COLUMNS])
            logger.info("%s: %s", method, ", ".join(f"{k} {v:.4g}" for k, v in values.items()))
        metrics += [(sample, method, name, value) for name, value in values.items()]
    table = pd.DataFrame(metrics, columns=METRIC_COLUMNS)
    if validation is not None:
        without_truth = pd.read_csv(validation, sep="\t", dtype={"sample": str})
        table = pd.concat([without_truth, table]) if metrics else without_truth
    write_tsv(metrics_path, table)
    empty = pd.DataFrame(columns=SLICE_COLUMNS)
    write_tsv(slices_path, pd.concat(tables) if tables else empty)


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
    )
