"""Measure time and peak memory of the preflight for acquisitions of several sizes.

Each is drawn as noise over a pattern, written as a TIFF with one strip per plane, and examined in a
process of its own: reading, fit and judgement, without the start of Python.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import tifffile
from scipy.ndimage import gaussian_filter

from besselflow.config import Config
from preflight_sample import main as preflight_sample

CASES = ((21, 128, 128), (21, 512, 512), (21, 2048, 2048), (100, 512, 512), (21, 512, 512, 10))


def write_case(folder: Path, shape: tuple[int, ...]) -> None:
    """Write an acquisition of a shape (P, Y, X) or (P, Y, X, T) with its stage positions."""
    projections, rows, columns, times = (*shape, 1)[:4]
    rng = np.random.default_rng(0)
    pattern = np.abs(gaussian_filter(rng.standard_normal((rows, columns)), 2.0))
    photons = 300 * pattern / pattern.max()
    with tifffile.TiffWriter(folder / "a.tif", bigtiff=True) as file:
        planes = (
            (100 + 10 * rng.poisson(np.roll(photons, 7 * p))).astype(np.uint16)
            for _ in range(times)
            for p in range(projections)
        )
        file.write(
            planes,
            shape=(times, projections, rows, columns),
            dtype=np.uint16,
            photometric="minisblack",
            metadata={"axes": "TZYX"},
        )
    lines = ["projection,z_um", *(f"{p},{2.5 + 6 * p}" for p in range(projections))]
    (folder / "stage.csv").write_text("\n".join(lines) + "\n")


def measure(folder: Path) -> dict[str, float]:
    """Run the preflight on what lies in a folder."""
    preflight_sample(
        folder / "a.tif",
        folder / "stage.csv",
        None,
        "box:6um",
        (1.0, 1.0, 1.0),
        100.0,
        10.0,
        "case",
        Config(),
        folder / "preflight.json",
    )
    seconds = json.loads((folder / "preflight.json").read_text())["seconds"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    processor = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    return {"seconds": seconds, "processor": processor, "peak_mib": peak}


def main() -> None:
    """Measure all cases, or what lies in one folder in this process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="one case only, from its folder")
    chosen = parser.parse_args()
    if chosen.folder:
        print(json.dumps(measure(chosen.folder)))
        return
    for shape in CASES:
        with tempfile.TemporaryDirectory() as name:
            write_case(Path(name), shape)
            command = [sys.executable, __file__, "--folder", name]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found = json.loads(done.stdout)
        size = " x ".join(map(str, shape))
        print(
            f"{size}: {found['seconds']:.1f} s, {found['processor']:.1f} s of a processor with "
            f"the start of Python, peak memory {found['peak_mib']:.0f} MiB",
            flush=True,
        )


if __name__ == "__main__":
    main()
