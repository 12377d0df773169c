"""Score every method of a sample: against ground truth where there is one, and against the data.

With ground truth, PSNR, SSIM, Dice and the coverage of the uncertainty follow the definitions in
`besselflow.metrics`. With or without it, each volume is imaged again through the beam and compared
with the measured projections: chi2 is the mean squared residual in units of the noise variance that
the spectral Gaussian process found in the same projections.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from besselflow.job import logger, run_script
from besselflow.metrics import describe_truth, reduced_chi_square, score_volume, scored_slices
from besselflow.store import atomic_path, open_projections, open_volume

METRIC_COLUMNS = ["sample", "method", "metric", "value"]
SLICE_COLUMNS = ["sample", "method", "t", "c", "z_um", "psnr", "ssim", "seen"]


def fitted_noise_variance(volume: Path) -> float:
    """Return the mean noise variance over the work units of a spectral volume.

    Parameters
    ----------
    volume : path
        OME-Zarr volume of the method `spectral`.

    Returns
    -------
    float
        Variance of a projected pixel, in the squared unit of the projections.
    """
    records = open_volume(volume).attributes["records"]
    return float(np.mean([record["noise_variance"] for record in records]))


def main(
    volumes: dict[str, Path],
    truth: Path | None,
    projections: Path,
    uncertainty: dict[str, Path],
    ssim_window: int,
    sample: str,
    metrics_path: Path,
    slices_path: Path,
    noise_variance: float | None = None,
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
    noise_variance : float or None
        Variance of a projected pixel; without it, chi2 is left out.
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
            values.update(scores.summary)
            z = scores.slices["z"].to_numpy()
            table = scores.slices.assign(
                sample=sample, method=method, z_um=grid.centres_um[z], seen=seen[z]
            )
            tables.append(table[SLICE_COLUMNS])
        if noise_variance is not None:
            values["chi2"] = reduced_chi_square(estimate, measured, noise_variance)
        metrics += [(sample, method, name, value) for name, value in values.items()]
        logger.info("%s: %s", method, ", ".join(f"{k} {v:.4g}" for k, v in values.items()))
    _write_tsv(pd.DataFrame(metrics, columns=METRIC_COLUMNS), metrics_path)
    empty = pd.DataFrame(columns=SLICE_COLUMNS)
    _write_tsv(pd.concat(tables) if tables else empty, slices_path)


def _write_tsv(table: pd.DataFrame, path: Path) -> None:
    with atomic_path(path) as temporary:
        table.to_csv(temporary, sep="\t", index=False, float_format="%.6g")


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
        noise_variance=(
            fitted_noise_variance(methods["spectral"]) if "spectral" in methods else None
        ),
    )
