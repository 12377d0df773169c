"""Measure time and peak memory of the spectral reconstruction, each case in a fresh process.

`python tests/benchmarks/time_spectral.py` prints one line per case, first of the library on whole
images, then of the workflow's script, which cuts them into tiles and writes the work units to disk.
The projections are smoothed noise that resembles its neighbours along z, as a box beam of 6 slices
in steps of 6 would give them, with noise of constant variance; their content changes the cost of
the fit only.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import dask.array as da
import numpy as np
from scipy.ndimage import gaussian_filter

import reconstruct_baseline
from besselflow.baselines.spectral import fit_spectral_model, posterior_mean, posterior_std
from besselflow.beam import box_profile
from besselflow.config import Tiling
from besselflow.projection import AxialGrid
from besselflow.store import Projections, write_projections

WHOLE = ((128, 128, 128), (128, 304, 304), (128, 512, 512))
TILED = ((128, 128, 128), (128, 512, 512))
VOXEL_UM = (1.0, 1.0, 1.0)
_LENGTH = 6


def measure_library(shape: tuple[int, int, int]) -> dict[str, float]:
    """Reconstruct a volume of a shape (Z, Y, X) at once; return seconds by step."""
    measured = acquire(shape)
    data, operator = np.asarray(measured.data[0, 0]), measured.operator
    times = [time.perf_counter()]
    model = fit_spectral_model([data], operator, VOXEL_UM)
    times.append(time.perf_counter())
    posterior_mean(data, operator, model, VOXEL_UM)
    times.append(time.perf_counter())
    posterior_std(shape[1:], operator, model, VOXEL_UM)
    times.append(time.perf_counter())
    fit, mean, std = np.diff(times).tolist()
    return {"fit": fit, "mean": mean, "std": std, "all": fit + mean + std}


def measure_script(shape: tuple[int, int, int]) -> dict[str, float]:
    """Run the rule's script on a volume of a shape (Z, Y, X); return its seconds."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "projections.zarr"
        write_projections(store, acquire(shape))
        started = time.perf_counter()
        units = Path(folder) / "units.zarr"
        reconstruct_baseline.main(store, "spectral", Tiling(), shard=0, units_path=units)
        return {"all": time.perf_counter() - started}


def acquire(shape: tuple[int, int, int]) -> Projections:
    """Draw the projections themselves, so that no volume adds to the peak memory."""
    depth, *lateral = shape
    positions = np.arange((_LENGTH - 1) / 2, depth - _LENGTH / 2, _LENGTH)
    rng = np.random.default_rng(0)
    data = np.empty((len(positions), *lateral), np.float32)
    pattern = np.zeros(lateral)
    for image in data:
        fresh = gaussian_filter(rng.standard_normal(lateral), 2.0)
        pattern = 0.4 * pattern + fresh / fresh.std()
        image[:] = 50 + 20 * pattern + 5 * rng.standard_normal(lateral)
    return Projections(
        data=da.from_array(data[None, None]),
        positions_um=positions,
        profile=box_profile(_LENGTH),
        grid=AxialGrid(0.0, VOXEL_UM[0], depth),
        pixel_size_um=VOXEL_UM[1:],
        unit="photons",
    )


def main() -> None:
    """Measure all cases, or one of them in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=3, metavar=("Z", "Y", "X"), help="one case only")
    parser.add_argument("--script", action="store_true", help="of the script, not of the library")
    chosen = parser.parse_args()
    if chosen.shape:
        found = (measure_script if chosen.script else measure_library)(tuple(chosen.shape))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps({**found, "peak_gib": peak}))
        return
    for name, cases, options in (("whole", WHOLE, []), ("tiled", TILED, ["--script"])):
        for shape in cases:
            command = [sys.executable, __file__, *options, "--shape", *map(str, shape)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found = json.loads(done.stdout)
            peak = found.pop("peak_gib")
            steps = ", ".join(f"{step} {seconds:.2f} s" for step, seconds in found.items())
            size = " x ".join(map(str, shape))
            print(f"{name} {size}: {steps}; peak memory {peak:.2f} GiB", flush=True)


if __name__ == "__main__":
    main()
