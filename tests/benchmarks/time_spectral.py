"""Measure time and peak memory of the spectral reconstruction, each case in a fresh process.

`python tests/benchmarks/time_spectral.py` prints one line per case, first of the library on whole
images, then of the workflow's script, which cuts them into tiles and writes the work units to disk.
The projections are smoothed noise that resembles its neighbours along z, as a box beam of 6 slices
in steps of 6 would give them, with noise of constant variance; their content changes the cost of
the fit only. Then come default tiles of a phantom with hot pixels, and with saturated ones, whose
number and place decide how many steps they take; their times are those of the processor.
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
from besselflow.baselines.spectral_masked import fill_masked, fit_with_bounds
from besselflow.beam import box_profile
from besselflow.config import Corrections, Tiling
from besselflow.corrections.pixels import correct_pixels
from besselflow.phantoms import draw_phantom
from besselflow.projection import AxialGrid, AxialProjection
from besselflow.simulate import Detector, Disturbance, simulate_acquisition, stage_positions
from besselflow.store import Projections, write_projections

WHOLE = ((128, 128, 128), (128, 304, 304), (128, 512, 512))
TILED = ((128, 128, 128), (128, 512, 512))
MASKED = ((64, 6), (128, 6), (128, 3), (256, 6))
VOXEL_UM = (1.0, 1.0, 1.0)
_LENGTH = 6
# A detector of 11 bits saturates at the brightest of the phantom's vessels.
_BITS, _HOT, _CELL, _TILE = {"hot": 16, "saturated": 11}, 0.003, (64, 128, 128), 304


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
        store = Path(folder) / "projections.zip"
        write_projections(store, acquire(shape))
        started = time.perf_counter()
        units = Path(folder) / "units.zarr"
        reconstruct_baseline.main(store, "spectral", Tiling(), shard=0, units_path=units)
        return {"all": time.perf_counter() - started}


def measure_masked(kind: str, slices: int, step: int) -> dict[str, float]:
    """Reconstruct a tile with hot or saturated pixels; return seconds of the processor by step."""
    cell = draw_phantom("vessels", _CELL, 7, VOXEL_UM)
    over = [max(0, want - have) for want, have in zip((slices, _TILE, _TILE), _CELL, strict=True)]
    volume = np.pad(cell, [(0, more) for more in over], mode="symmetric")
    beam, detector = box_profile(_LENGTH), Detector(bit_depth=_BITS[kind])
    positions = stage_positions(slices, VOXEL_UM[0], beam, step)
    disturbance = Disturbance(hot_pixels=_HOT if kind == "hot" else 0.0)
    args = (volume, beam, positions, VOXEL_UM, detector, disturbance)
    counts = da.from_array(simulate_acquisition(*args, seed=1).counts[None, None])
    corrected = correct_pixels(counts, detector.offset, detector.gain, Corrections())
    data = np.asarray(corrected.intensity[0, 0])
    masked = np.broadcast_to(np.asarray(corrected.masked[0, 0]), data.shape)
    saturated = None if corrected.saturated is None else np.asarray(corrected.saturated[0, 0])
    operator = AxialProjection.from_geometry(beam, positions, AxialGrid(0.0, 1.0, slices))
    times = [time.process_time()]
    model = fit_with_bounds([data], [masked], [saturated], operator, VOXEL_UM)
    times.append(time.process_time())
    filled = fill_masked(data, masked, operator, model, VOXEL_UM, saturated)
    times.append(time.process_time())
    posterior_mean(filled, operator, model, VOXEL_UM)
    times.append(time.process_time())
    posterior_std(data.shape[1:], operator, model, VOXEL_UM)
    times.append(time.process_time())
    named = zip(("fit", "masked pixels", "mean", "std"), np.diff(times).tolist(), strict=True)
    return {"projections": len(positions)} | dict(named)


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
    parser.add_argument("--masked", choices=_BITS, help="of a tile with masked pixels")
    parser.add_argument("--slices", type=int, default=128, help="of that tile")
    parser.add_argument("--step", type=int, default=6, help="of its projections")
    chosen = parser.parse_args()
    if chosen.masked:
        report(measure_masked(chosen.masked, chosen.slices, chosen.step))
        return
    if chosen.shape:
        found = (measure_script if chosen.script else measure_library)(tuple(chosen.shape))
        report(found)
        return
    for name, cases, options in (("whole", WHOLE, []), ("tiled", TILED, ["--script"])):
        for shape in cases:
            size = " x ".join(map(str, shape))
            print_row(f"{name} {size}", [*options, "--shape", *map(str, shape)])
    for slices, step in MASKED:
        for kind in _BITS:
            options = ["--masked", kind, "--slices", str(slices), "--step", str(step)]
            print_row(f"tile of {slices} slices in steps of {step}, {kind}", options)


def report(found: dict[str, float]) -> None:
    """Hand what was measured, and the peak memory, to the process that prints it."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({**found, "peak_gib": peak}))


def print_row(what: str, options: list[str]) -> None:
    """Measure a case in a fresh process, and print it."""
    command = [sys.executable, __file__, *options]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout)
    peak = found.pop("peak_gib")
    steps = ", ".join(
        f"{value} {step}" if step == "projections" else f"{step} {value:.2f} s"
        for step, value in found.items()
    )
    print(f"{what}: {steps}; peak memory {peak:.2f} GiB", flush=True)


if __name__ == "__main__":
    main()
