"""Measure how time and peak memory of every stage grow with the volume.

`python tests/benchmarks/measure_scale.py` simulates acquisitions of 512, 1024 and 2048 pixels along
each edge and 64 slices, plane by plane, and takes each of them with the default tiling through
`preprocess`, `convert_ground_truth`, `spectral`, `assemble`, `validate`, `evaluate` and
`report_sample`, every stage in a fresh process with one thread. It prints a row per stage, with the
time on the wall and that of the processor, which other work on the machine hardly changes, and ends
with status 1 if one took more than 2 GiB.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import dask
import numpy as np
import tifffile

from besselflow.beam import parse_beam_profile
from besselflow.phantoms import draw_phantom
from besselflow.projection import AxialGrid, AxialProjection
from besselflow.simulate import Detector, stage_positions, write_table

EDGES = (512, 1024, 2048)
SLICES = 64
LIMIT_GIB = 2.0
VOXEL_UM = (1.0, 1.0, 1.0)
BEAM = "box:6um"
_CELL = 256


def simulate(folder: Path, edge: int) -> None:
    """Write an acquisition and its ground truth, holding one plane of them at a time.

    A phantom of 256 x 256 pixels is repeated, every other time as its mirror image, which leaves
    no seams; the noise is not repeated.
    """
    cell = draw_phantom("vessels", (SLICES, _CELL, _CELL), 7, VOXEL_UM)
    detector, profile = Detector(), parse_beam_profile(BEAM)
    positions = stage_positions(SLICES, VOXEL_UM[0], profile, 6.0)
    grid = AxialGrid(0.0, VOXEL_UM[0], SLICES)
    images = AxialProjection.from_geometry(profile, positions, grid).forward(cell)
    rng = np.random.default_rng(0)

    def recorded():
        for image in images:
            photons = rng.poisson(detector.photons * repeat(image, edge))
            yield (photons * detector.gain + detector.offset).round().astype(np.uint16)

    planes = (detector.noise_free_counts(repeat(plane, edge)) for plane in cell)
    for name, stack, count in (
        ("acquisition", recorded(), len(positions)),
        ("truth", planes, SLICES),
    ):
        tifffile.imwrite(
            folder / f"{name}.tif",
            stack,
            shape=(count, edge, edge),
            dtype=np.uint16,
            photometric="minisblack",
            compression="zlib",
            metadata={"axes": "ZYX"},
            bigtiff=True,
        )
    rows = [(i, f"{z:.9g}") for i, z in enumerate(positions)]
    write_table(folder / "stage.csv", ["projection", "z_um"], rows)


def repeat(plane: np.ndarray, edge: int) -> np.ndarray:
    """Fill a square with a plane and its mirror images."""
    return np.pad(plane, (0, edge - len(plane)), mode="symmetric")


def preprocess(folder: Path) -> None:
    """From the raw stack to photons."""
    import preprocess as script

    detector = Detector()
    script.main(
        folder / "acquisition.tif",
        folder / "stage.csv",
        folder / "truth.tif",
        BEAM,
        VOXEL_UM,
        detector.offset,
        detector.gain,
        "scale",
        folder / "projections.zip",
    )


def convert_ground_truth(folder: Path) -> None:
    """From the slices of the ground truth to a volume."""
    import convert_ground_truth as script

    detector = Detector()
    script.main(
        folder / "truth.tif",
        VOXEL_UM,
        detector.offset,
        detector.gain,
        "scale",
        folder / "ground_truth.ozx",
    )


def spectral(folder: Path) -> None:
    """Mean and standard deviation of every tile."""
    import reconstruct_baseline as script
    from besselflow.config import Tiling

    script.main(
        folder / "projections.zip",
        "spectral",
        Tiling(),
        shard=0,
        units_path=folder / "units.zip",
    )


def assemble(folder: Path) -> None:
    """From tiles to two multiscale volumes."""
    import assemble as script
    from besselflow.config import Tiling

    script.main(
        folder / "projections.zip",
        {"spectral": [folder / "units.zip"]},
        Tiling(),
        {"spectral": folder / "volume.ome.zarr"},
        {"spectral": folder / "uncertainty.ome.zarr"},
    )


def validate(folder: Path) -> None:
    """Judge the volume without ground truth."""
    import validate as script

    script.main(
        {"spectral": folder / "volume.ome.zarr"},
        "spectral",
        folder / "projections.zip",
        None,
        "scale",
        script.Outputs(**validation_files(folder), metrics=folder / "validation.tsv"),
    )


def validation_files(folder: Path) -> dict[str, Path]:
    """Return what `validate` writes besides its scores."""
    return {
        "projections": folder / "by_projection.tsv",
        "depth": folder / "by_slice.tsv",
        "maps": folder / "maps.npz",
        "determined": folder / "determined.ozx",
        "held_out": folder / "held_out.tsv",
    }


def evaluate(folder: Path) -> None:
    """Compare the volume with the ground truth."""
    import evaluate as script

    script.main(
        {"spectral": folder / "volume.ome.zarr"},
        folder / "ground_truth.ozx",
        folder / "projections.zip",
        {"spectral": folder / "uncertainty.ome.zarr"},
        7,
        "scale",
        folder / "metrics.tsv",
        folder / "slice_metrics.tsv",
        folder / "validation.tsv",
    )


def report_sample(folder: Path) -> None:
    """Draw the page."""
    import report_sample as script
    from besselflow.report import SampleReportInputs, ValidationFiles

    inputs = SampleReportInputs(
        sample="scale",
        projections=folder / "projections.zip",
        volumes={"spectral": folder / "volume.ome.zarr"},
        final="spectral",
        metrics=folder / "metrics.tsv",
        slices=folder / "slice_metrics.tsv",
        truth=folder / "ground_truth.ozx",
        uncertainty=folder / "uncertainty.ome.zarr",
        validation=ValidationFiles(**validation_files(folder)),
    )
    script.main(inputs, folder / "report.html")


STAGES: dict[str, Callable[[Path], None]] = {
    stage.__name__: stage
    for stage in (
        preprocess,
        convert_ground_truth,
        spectral,
        assemble,
        validate,
        evaluate,
        report_sample,
    )
}


def measure_stage(stage: str, folder: Path) -> None:
    """Run one stage in this process, and print its seconds and its peak memory in GiB."""
    started, busy = time.perf_counter(), time.process_time()
    with dask.config.set(num_workers=1):
        STAGES[stage](folder)
    seconds, busy = time.perf_counter() - started, time.process_time() - busy
    print(json.dumps({"seconds": seconds, "busy": busy, "gib": peak_memory()}))


def peak_memory() -> float:
    """Return the peak memory of this process in GiB.

    It is not what `resource.getrusage` says, which is no less than the memory of the process that
    started this one.
    """
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)[1]) / 2**20


def in_fresh_process(stage: str, folder: Path) -> dict[str, float]:
    """Measure a stage where nothing else has used memory."""
    alone = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    command = [sys.executable, __file__, "--stage", stage, "--folder", str(folder)]
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | alone
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> int:
    """Measure all stages at all sizes, or one of them in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edges", type=int, nargs="+", default=EDGES, help="pixels along y and x")
    parser.add_argument("--scratch", type=Path, help="folder with space for 10 GB")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.stage:
        measure_stage(chosen.stage, chosen.folder)
        return 0
    if chosen.scratch:
        chosen.scratch.mkdir(parents=True, exist_ok=True)
    highest = 0.0
    print("| stage | pixels x slices | seconds | processor seconds | peak memory |")
    print("| --- | --- | --- | --- | --- |")
    for edge in chosen.edges:
        with tempfile.TemporaryDirectory(dir=chosen.scratch) as name:
            simulate(Path(name), edge)
            for stage in STAGES:
                found = in_fresh_process(stage, Path(name))
                highest = max(highest, found["gib"])
                size = f"{edge} x {edge} x {SLICES}"
                print(
                    f"| `{stage}` | {size} | {found['seconds']:.1f} | {found['busy']:.1f} "
                    f"| {found['gib']:.2f} GiB |",
                    flush=True,
                )
    return int(highest > LIMIT_GIB)


if __name__ == "__main__":
    sys.exit(main())
