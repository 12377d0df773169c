"""Measure time and peak memory of the spectral reconstruction, each case in a fresh process.

`python tests/benchmarks/time_spectral.py` prints one line per case. The projections are smoothed
noise that resembles its neighbours along z, as a box beam of 6 slices in steps of 6 would give
them, with noise of constant variance; their content changes the cost of the fit only.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np
from scipy.ndimage import gaussian_filter

from besselflow.baselines.spectral import fit_spectral_model, posterior_mean, posterior_std
from besselflow.beam import box_profile
from besselflow.projection import AxialGrid, AxialProjection

CASES = ((128, 128, 128), (128, 304, 304), (128, 512, 512))
VOXEL_UM = (1.0, 1.0, 1.0)
_LENGTH = 6


def measure(shape: tuple[int, int, int]) -> dict[str, float]:
    """Reconstruct one volume of a shape (Z, Y, X); return seconds by step, and peak memory in GiB.

    The peak is that of the process, its libraries included, after the data were made.
    """
    data, operator = acquire(shape)
    seconds = {}
    started = time.perf_counter()
    model = fit_spectral_model([data], operator, VOXEL_UM)
    seconds["fit"] = time.perf_counter() - started
    started = time.perf_counter()
    posterior_mean(data, operator, model, VOXEL_UM)
    seconds["mean"] = time.perf_counter() - started
    seconds["fit and mean"] = sum(seconds.values())
    started = time.perf_counter()
    posterior_std(shape[1:], operator, model, VOXEL_UM)
    seconds["std"] = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {**seconds, "peak_gib": peak}


def acquire(shape: tuple[int, int, int]) -> tuple[np.ndarray, AxialProjection]:
    """Draw the projections themselves, so that no volume adds to the peak memory."""
    depth, *lateral = shape
    positions = np.arange((_LENGTH - 1) / 2, depth - _LENGTH / 2, _LENGTH)
    grid = AxialGrid(0.0, VOXEL_UM[0], depth)
    operator = AxialProjection.from_geometry(box_profile(_LENGTH), positions, grid)
    rng = np.random.default_rng(0)
    data = np.empty((len(positions), *lateral), np.float32)
    pattern = np.zeros(lateral)
    for image in data:
        fresh = gaussian_filter(rng.standard_normal(lateral), 2.0)
        pattern = 0.4 * pattern + fresh / fresh.std()
        image[:] = 50 + 20 * pattern + 5 * rng.standard_normal(lateral)
    return data, operator


def main() -> None:
    """Measure all cases, or one of them in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=3, metavar=("Z", "Y", "X"), help="one case only")
    chosen = parser.parse_args().shape
    if chosen:
        print(json.dumps(measure(tuple(chosen))))
        return
    for shape in CASES:
        command = [sys.executable, __file__, "--shape", *map(str, shape)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found = json.loads(done.stdout)
        peak = found.pop("peak_gib")
        steps = ", ".join(f"{step} {seconds:.2f} s" for step, seconds in found.items())
        print(" x ".join(map(str, shape)) + f": {steps}; peak memory {peak:.2f} GiB", flush=True)


if __name__ == "__main__":
    main()
