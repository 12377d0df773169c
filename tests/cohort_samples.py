"""Results of many samples, as the workflow would leave them, without the work of computing them."""

from __future__ import annotations

from pathlib import Path

import dask.array as da
import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter

from besselflow.report import SampleStatus
from besselflow.store import write_tsv, write_volume

METHODS = {"interpolation": 0.0, "spectral": 2.5, "inr": 3.5, "diffusion": 5.0}
GROUPS = ("wild type", "knock-out", "rescue")
_DRAWN = 6


def write_cohort(results: Path, count: int, seed: int = 0) -> list[SampleStatus]:
    """Write folders of samples with scores, thumbnails' volumes and times; every tenth failed.

    Every thirteenth sample has no ground truth, and every seventh is worse than the INR.
    """
    rng = np.random.default_rng(seed)
    volumes = [_write_volume(results / ".drawn" / str(number), rng) for number in range(_DRAWN)]
    statuses = []
    for number in range(count):
        name = f"mouse-{number:03d}"
        extra = {"group": GROUPS[number % 3], "animal": f"m{number // 4}", "notes": f"<{number}>"}
        if number % 10 == 3:
            log = results / name / "logs" / "fit_inr.log"
            log.parent.mkdir(parents=True)
            log.write_text("Traceback (most recent call last):\nMemoryError: out of memory\n")
            reason = f"out of memory after {number} steps"
            statuses.append(
                SampleStatus(name, "test", "failed", "fit_inr", reason, str(log), extra)
            )
            continue
        statuses.append(SampleStatus(name, "test", "done", extra=extra))
        _write_sample(results / name, name, number, rng)
        (results / name / "volume.ome.zarr").symlink_to(volumes[number % _DRAWN])
    statuses.append(
        SampleStatus("mislabelled", "test", "excluded", "check of the input", "no such file: a.tif")
    )
    return statuses


def _write_sample(folder: Path, name: str, number: int, rng: np.random.Generator) -> None:
    folder.mkdir(parents=True)
    (folder / "report.html").write_text(f"<!DOCTYPE html><title>{name}</title><h1>{name}</h1>")
    (folder / "benchmarks").mkdir()
    for stage in ("preprocess", "fit_inr-0"):
        seconds = rng.uniform(20, 900)
        text = f"s\th:m:s\tmax_rss\n{seconds:.1f}\t0:00:00\t400\n"
        (folder / "benchmarks" / f"{stage}.tsv").write_text(text)
    base, rows = rng.normal(30, 2), []
    for method, gain in METHODS.items():
        own = base + gain + rng.normal(0, 0.4)
        if method == "diffusion" and number % 7 == 0:
            own = base + 2.0
        values = {"chi2": rng.normal(1, 0.03), "structure": 0.02}
        if number % 13:
            values |= {
                "psnr": own,
                "psnr_3d": own - 0.5,
                "ssim": 1 - np.exp(-own / 15),
                "dice": 1 - np.exp(-own / 20),
                "micro_ssim": 1 - np.exp(-own / 12),
                "resolution_z": 60 / own,
                "psnr_lower": own - 0.4,
                "psnr_upper": own + 0.4,
            }
        rows += [(name, method, metric, value) for metric, value in values.items()]
    table = pd.DataFrame(rows, columns=["sample", "method", "metric", "value"])
    write_tsv(folder / "metrics.tsv", table)


def _write_volume(path: Path, rng: np.random.Generator) -> Path:
    values = gaussian_filter((rng.random((1, 1, 6, 96, 96)) > 0.995) * 900.0, (0, 0, 1, 2, 2))
    write_volume(path, da.from_array(values.astype("float32")), (1, 0.5, 0.5), (0, 0, 0), "v", {})
    return path
