"""Compare ways to decide how far a prior is followed, on volumes that it does not know.

`python tests/benchmarks/prior_share.py --scratch FOLDER` simulates acquisitions of parts of the
benchmark's training volumes, where they are there, and of structures that no phantom has (textures,
membranes, points, textured nuclei), takes them through the workflow with the shipped prior (a
quarter of an hour on 2 cores), and prints for each the share of the prior that the folded
neighbours tell, its standard error, the share that the truth tells, the PSNR of the INR, of the
prior, and of the mixture by each way, and how much the 90 % intervals of the result and of
`spectral` hold. What is in the scratch folder is not computed again.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile
import yaml
from scipy.ndimage import gaussian_filter

import safeguard
from besselflow.beam import parse_beam_profile
from besselflow.config import Tiling
from besselflow.diffusion.safeguard import PRIOR, prior_share, shrink
from besselflow.metrics.scores import COVERAGE, psnr, slice_square
from besselflow.scored import scored_slices
from besselflow.simulate import Detector, simulate_acquisition, stage_positions, write_acquisition
from besselflow.store import open_projections, open_units, open_volume
from simulate_acquisition import SHEET_COLUMNS, sheet_row

ROOT = Path(__file__).parents[2]
TRAIN = ROOT.parent / "shared" / "bench" / "train"
VOXEL_UM, SHAPE = (1.0, 1.0, 1.0), (90, 72, 72)
PARTS = {
    "vasculature-train-3": (5, 10, 20),
    "vasculature-train-5": (20, 40, 10),
    "dendrite-train-2": (5, 40, 10),
    "dendrite-train-4": (20, 10, 40),
}
WAYS: dict[str, Callable[[float, float], float]] = {
    "share": lambda share, error: float(np.clip(share, 0, 1)),
    "less its error": lambda share, error: float(np.clip(share - error, 0, 1)),
    "shrunk": shrink,
}

COVERED = ("90 % covers", "of `spectral`")


def field(seed: int, width: float) -> np.ndarray:
    """Return a random field of unit variance, correlated over a width in voxels."""
    values = gaussian_filter(np.random.default_rng(seed).normal(size=SHAPE), width, mode="wrap")
    return values / values.std()


def texture(seed: int, fine: float, coarse: float) -> np.ndarray:
    """Return the bright side of noise between two widths."""
    noise = np.random.default_rng(seed).normal(size=SHAPE)
    difference = gaussian_filter(noise, fine, mode="wrap") - gaussian_filter(
        noise, coarse, mode="wrap"
    )
    return np.maximum(difference, 0)


def membranes(seed: int, width: float, thickness: float) -> np.ndarray:
    """Return the surfaces at which a random field is zero."""
    return gaussian_filter(np.exp(-((field(seed, width) / thickness) ** 2)), 0.7)


def points(seed: int, count: int, size: tuple[float, float, float]) -> np.ndarray:
    """Return spots of random brightness."""
    rng = np.random.default_rng(seed)
    volume = np.zeros(SHAPE)
    volume.flat[rng.integers(0, volume.size, count)] = rng.gamma(2, 1, count)
    return gaussian_filter(volume, size)


def nuclei(seed: int, width: float, grain: float) -> np.ndarray:
    """Return blobs with a texture."""
    inside = gaussian_filter((field(seed, width) > 0.8).astype(float), 0.8)
    return inside * (0.5 + 0.35 * np.clip(field(seed + 1, grain), -1.4, 3))


def volumes() -> dict[str, np.ndarray]:
    """Return all volumes, their brightest voxels at 1."""
    found = {}
    for name, corner in PARTS.items() if TRAIN.is_dir() else ():
        window = tuple(slice(c, c + n) for c, n in zip(corner, SHAPE, strict=True))
        found[name] = tifffile.imread(TRAIN / f"{name}.tif")[window].astype(float)
        found[name] -= np.percentile(found[name], 1)
    found |= {
        "fine texture": texture(0, 1.2, 4),
        "coarse texture": texture(1, 2.5, 8),
        "membranes": membranes(0, 5, 0.25),
        "thick membranes": membranes(1, 3, 0.35),
        "points": points(2, 900, (1.5, 1, 1)),
        "many points": points(3, 6000, (1, 0.8, 0.8)),
        "nuclei": nuclei(4, 5, 1.3),
        "grainy nuclei": nuclei(6, 4, 1.0),
        "large nuclei": nuclei(8, 6, 1.8),
    }
    return {
        name: np.clip(volume / np.percentile(volume, 99.95), 0, 1).astype(np.float32)
        for name, volume in found.items()
    }


def simulate(folder: Path) -> list[str]:
    """Write acquisitions, sheet and configuration; return the names of the samples."""
    detector, profile, rows = Detector(), parse_beam_profile("box:6um"), []
    positions = stage_positions(SHAPE[0], VOXEL_UM[0], profile, 6.0)
    for seed, (name, volume) in enumerate(volumes().items()):
        sample = name.replace(" ", "-")
        acquisition = simulate_acquisition(
            volume, profile, positions, VOXEL_UM, detector, seed=seed
        )
        files = write_acquisition(
            folder / "data",
            sample,
            acquisition,
            profile,
            VOXEL_UM,
            detector,
            ground_truth=volume,
        )
        rows.append(sheet_row(sample, files, VOXEL_UM, detector, relative_to=folder))
    lines = [SHEET_COLUMNS, *([row[column] for column in SHEET_COLUMNS] for row in rows)]
    (folder / "samples.tsv").write_text("".join("\t".join(cells) + "\n" for cells in lines))
    settings = {
        "samples": "samples.tsv",
        "methods": ["spectral", "inr", "diffusion"],
        "validation": {"region": 64},
    }
    (folder / "config").mkdir(exist_ok=True)
    (folder / "config" / "config.yaml").write_text(yaml.safe_dump(settings))
    return [row["sample"] for row in rows]


def shares_of(results: Path) -> tuple[float, float]:
    """Return the share of the prior that a sample's folded neighbours tell, and its error."""
    found = {}

    def keep(*question):
        found["share"], found["error"], _ = prior_share(*question)
        return {PRIOR: 0.0, "inr": 1.0}

    safeguard.cautious_weights = keep
    held_out = results / "held_out"
    units = {name: held_out / f"units/{name}-0.zip" for name in ("prior", "inr", "spectral")}
    sources = safeguard.Sources(units["prior"], {"inr": units["inr"]}, units["spectral"])
    check = safeguard.Check(held_out / "projections.zip", sources, Tiling())
    safeguard.weights_by_prediction(check, open_projections(results / "projections.zip"))
    return found["share"], found["error"]


def row_of(results: Path) -> list[str]:
    """Return what the table says of a sample."""
    share, error = shares_of(results)
    prior, inr = (
        np.asarray(open_units([results / f"units/{name}-0.zip"]).arrays["volume"][0], np.float64)
        for name in ("prior", "inr")
    )
    truth = np.asarray(open_volume(results / "ground_truth.ozx").data[0, 0], np.float64)
    measured = open_projections(results / "projections.zip")
    scored, peak = scored_slices(measured.grid, measured.positions_um), truth.max()
    change = (prior - inr)[scored]
    true_share = np.vdot((truth - inr)[scored], change) / np.vdot(change, change)

    def decibels(weight: float) -> str:
        mixture = inr + weight * (prior - inr)
        squares = [slice_square(mixture[z], truth[z], peak) for z in np.flatnonzero(scored)]
        return f"{np.mean([psnr(square, peak) for square in squares]):.2f}"

    def covered(method: str) -> str:
        arrays = open_units([results / f"units/{method}-0.zip"]).arrays
        volume, std = (np.asarray(arrays[name][0], np.float64) for name in ("volume", "std"))
        within = np.abs(volume - truth)[scored] <= COVERAGE["coverage_90"] * std[scored]
        return f"{100 * within.mean():.1f}"

    ways = [f"{decibels(way(share, error))} ({way(share, error):.2f})" for way in WAYS.values()]
    shares = [f"{share:.2f} ± {error:.2f}", f"{true_share:.2f}"]
    return [*shares, decibels(0), decibels(1), *ways, covered("diffusion"), covered("spectral")]


def main(scratch: Path) -> int:
    """Simulate, run, and print the table; return the exit status of the run."""
    names = simulate(scratch)
    command = [
        *(sys.executable, "-m", "snakemake", "--quiet"),
        *("--snakefile", str(ROOT / "workflow" / "Snakefile")),
        *("--profile", str(ROOT / "profiles" / "default")),
    ]
    status = subprocess.run(command, cwd=scratch).returncode
    columns = ["sample", "share", "by the truth", "INR", "prior", *WAYS, *COVERED]
    print("| " + " | ".join(columns) + " |\n" + "| --- " * len(columns) + "|")
    for name in names:
        results = scratch / "results" / name
        if (results / "metrics.tsv").exists():
            print(f"| {name} | " + " | ".join(row_of(results)) + " |", flush=True)
    return status


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scratch", type=Path, required=True, help="folder for data and results")
    arguments = parser.parse_args()
    arguments.scratch.mkdir(parents=True, exist_ok=True)
    sys.exit(main(arguments.scratch))
