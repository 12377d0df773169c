"""Fit networks of several kinds, the published one among them, to one acquisition of the benchmark.

Each is fitted in a process of its own, from the same projections, spectrum and noise, and scored
against the ground truth with the wall time of its fit and the peak memory of its process.
"""

import argparse
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import dask.array as da
import numpy as np
import pandas as pd
import yaml

from besselflow.acquisition import open_acquisition, read_stage_positions
from besselflow.baselines.spectral import fit_spectral_model, posterior_mean
from besselflow.beam import parse_beam_profile
from besselflow.config import Inr
from besselflow.corrections import counts_to_intensity, intensity_scale
from besselflow.metrics import score_volume, scored_slices
from besselflow.projection import AxialGrid, AxialProjection

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "bench"
OFFSET, GAIN = 100.0, 10.0
VOXEL_UM = (1.0, 1.0, 1.0)
PUBLISHED = yaml.safe_load((ROOT / "config" / "published_inr.yaml").read_text())["inr"]
# A ray is one pixel of one projection; a column holds as many of them as there are projections.
RAYS = 8192
KINDS = {
    "published": PUBLISHED,
    "published, no neighbours averaged": PUBLISHED | {"neighbour_average": False},
    "sincos, our loss and optimiser": {"encoding": "sincos"},
    "gaussian, adam": {"optimiser": "adam"},
    "siren": {"encoding": "siren", "optimiser": "adam", "learning_rate": 1e-3},
    "grid": {"encoding": "grid", "width": 64, "depth": 2},
    "ours, 60 steps": {"steps": 60},
    "ours, 120 steps": {"steps": 120},
    "ours, 240 steps": {"steps": 240},
    "ours": {},
}


def read_bench(sample: str, geometry: str):
    """Return projections in photons, the operator, stage positions, grid and ground truth."""
    stem = DATA / "acquisitions" / f"{sample}_{geometry}"
    counts = open_acquisition(stem.with_name(stem.name + ".tif")).data
    measured = np.asarray(counts_to_intensity(counts, OFFSET, GAIN)[0, 0])
    truth = open_acquisition(DATA / "ground_truth" / f"{sample}.tif").data
    truth = np.asarray(counts_to_intensity(truth, OFFSET, GAIN))
    positions = read_stage_positions(stem.with_name(stem.name + "_stage.csv"))
    grid = AxialGrid(0.0, VOXEL_UM[0], truth.shape[2])
    profile = parse_beam_profile(str(stem.with_name(stem.name + "_beam.csv")))
    return measured, AxialProjection.from_geometry(profile, positions, grid), positions, grid, truth


def fit_one(sample: str, geometry: str, changes: dict, threads: int, queue) -> None:
    """Fit one kind of network and put its scores, time and memory into a queue."""
    import torch

    from besselflow.inr.fit import InrProblem, fit_inr

    torch.set_num_threads(threads)
    measured, operator, positions, grid, truth = read_bench(sample, geometry)
    model = fit_spectral_model([measured], operator, VOXEL_UM)
    spectral = posterior_mean(measured, operator, model, VOXEL_UM)
    problem = InrProblem(
        measured, operator, VOXEL_UM, intensity_scale(measured), model, operator.forward(spectral)
    )
    if "columns" in changes:
        changes = changes | {"columns": max(1, RAYS // len(measured))}
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        fit = fit_inr(problem, Inr(**changes), 0, Path(folder) / "c", "f", torch.device("cpu"))
    seconds = time.monotonic() - started
    scored = scored_slices(grid, positions)
    scores = score_volume(da.from_array(fit.volume[None, None]), da.from_array(truth), scored, 7)
    queue.put(
        {
            "psnr": scores.summary["psnr"],
            "ssim": scores.summary["ssim"],
            "chi2": fit.record["chi2"],
            "steps": fit.record["steps"],
            "parameters": fit.record["parameters"],
            "seconds": seconds,
            "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        }
    )


def main(samples: list[str], geometry: str, kinds: list[str], threads: int) -> int:
    """Print one row per sample and kind of network.

    Parameters
    ----------
    samples : list of str
        Volumes of the benchmark.
    geometry : str
        Beam and step, such as ``box6-step6``.
    kinds : list of str
        Keys of `KINDS`; empty for all.
    threads : int
        Threads of each fit.

    Returns
    -------
    int
        Exit status.
    """
    if not DATA.is_dir():
        print(f"comparison skipped: its data are not in {os.path.relpath(DATA, ROOT)}")
        return 0
    context, rows = multiprocessing.get_context("spawn"), []
    for sample in samples:
        for kind in kinds or KINDS:
            queue = context.Queue()
            arguments = (sample, geometry, KINDS[kind], threads, queue)
            process = context.Process(target=fit_one, args=arguments)
            process.start()
            row = queue.get()
            process.join()
            rows.append({"sample": sample, "network": kind} | row)
            print(pd.DataFrame(rows[-1:]).to_string(index=False, header=len(rows) == 1), flush=True)
    table = pd.DataFrame(rows)
    print("\n" + table.to_string(index=False, float_format=lambda value: f"{value:.3f}"))
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", action="append", help="default: vasculature-a")
    parser.add_argument("--geometry", default="box6-step6")
    parser.add_argument("--network", action="append", choices=list(KINDS), help="default: all")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    sys.exit(
        main(
            options.sample or ["vasculature-a"],
            options.geometry,
            options.network or [],
            options.threads,
        )
    )
