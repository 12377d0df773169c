"""Score what a point scan would have shown of a simulated sample in the same time."""

from pathlib import Path

import dask.array as da
import numpy as np
import pandas as pd

from besselflow.job import logger, run_script
from besselflow.metrics import METRIC_COLUMNS, describe_truth, score_volume, scored_slices
from besselflow.point_scan import POINT_SCANS, scan_points
from besselflow.store import open_projections, open_volume, write_tsv


def main(
    projections: Path,
    truth: Path,
    ssim_window: int,
    seed: int,
    sample: str,
    scores_path: Path,
) -> None:
    """Write the scores of every way to scan.

    Parameters
    ----------
    projections : path
        Projection store, which knows how many projections there are, and where.
    truth : path
        OME-Zarr volume of the ground truth, in photons.
    ssim_window : int
        Edge length of the SSIM window in pixels.
    seed : int
        Of the noise.
    sample : str
        Name of the sample.
    scores_path : path
        Table to write: ``sample method metric value``.
    """
    measured, true = open_projections(projections), open_volume(truth).data
    grid, positions = measured.grid, measured.positions_um
    scans = {name: np.empty(true.shape, np.float32) for name in POINT_SCANS}
    for index in np.ndindex(*true.shape[:2]):
        volume, own_seed = np.asarray(true[index]), seed + 1000 * index[0] + index[1]
        found = scan_points(volume, positions, grid, measured.voxel_size_um, own_seed)
        for name, scan in found.items():
            scans[name][index] = scan
    scored = scored_slices(grid, positions)
    reference, rows = describe_truth(true, scored), []
    for name, scan in scans.items():
        chunked = da.from_array(scan, chunks=(1, 1, 16, *scan.shape[3:]))
        scores = score_volume(chunked, true, scored, ssim_window, reference=reference).summary
        rows += [(sample, name, metric, value) for metric, value in scores.items()]
        logger.info("%s: %s", name, ", ".join(f"{k} {v:.4g}" for k, v in scores.items()))
    write_tsv(scores_path, pd.DataFrame(rows, columns=METRIC_COLUMNS))


if __name__ == "__main__":
    snakemake = globals()["snakemake"]
    run_script(
        snakemake,
        main,
        projections=snakemake.input.projections,
        truth=snakemake.input.truth,
        ssim_window=snakemake.params.ssim_window,
        seed=snakemake.params.seed,
        sample=snakemake.wildcards.sample,
        scores_path=snakemake.output.scores,
    )
