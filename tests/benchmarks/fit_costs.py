"""Print what a stage costs, from the benchmark tables of a finished run.

These are the coefficients of `besselflow.preflight.cost`: processor seconds per million units of
work, after what the start of a job takes.
"""

import argparse
import math
import sys
from pathlib import Path

import pandas as pd
import yaml

from besselflow.config import METHODS, Config, load_config
from besselflow.preflight.cost import PER_MILLION, START_S, start_of, work_of
from besselflow.store import open_projections
from besselflow.tiling import list_units, unit_shape

RULES = {"inr": "fit_inr", "microdiffusion": "sample_microdiffusion", "diffusion": "refine"}
OTHERS = ("preprocess", "convert_ground_truth", "hold_out", "assemble", "validate", "evaluate")


def cpu_seconds(path: Path) -> float | None:
    """Return the processor seconds of a job, where it has finished."""
    if not path.exists():
        return None
    return float(pd.read_csv(path, sep="\t")["cpu_time"].iloc[-1])


def costs_of(folder: Path, config: Config) -> dict[str, float]:
    """Return stage -> processor seconds per million units of work of one sample."""
    measured = open_projections(folder / "projections.zip")
    units = list_units(measured.data.shape, config.tiling.tile, config.tiling.halo)
    size = unit_shape(units, measured.grid.n_slices)
    found = {}
    for method in METHODS:
        rule = RULES.get(method, f"reconstruct_baseline-{method}")
        spent = cpu_seconds(folder / "benchmarks" / f"{rule}-0.tsv")
        if spent is not None and method in config.methods:
            work = len(units) * work_of(method, size, config)
            found[method] = max(spent - start_of(method), 0) / work * 1e6
    shape = measured.data.shape
    voxels = math.prod(shape[:2]) * measured.grid.n_slices * math.prod(shape[3:])
    spent = [cpu_seconds(folder / "benchmarks" / f"{rule}.tsv") for rule in OTHERS]
    if None not in spent:
        rest = sum(max(each - START_S, 0) for each in spent)
        found["other"] = rest / (voxels * len(config.methods)) * 1e6
    return found


def main(results: Path, settings: list[Path]) -> int:
    """Print every sample, and the medians."""
    given: dict = {}
    for path in settings:
        given |= yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    config = load_config(given)
    folders = sorted(path.parent for path in results.glob("*/projections.zip"))
    if not folders:
        print(f"{results} holds no sample; run the workflow first")
        return 1
    table = pd.DataFrame({folder.name: costs_of(folder, config) for folder in folders}).T
    print("processor seconds per million units of work")
    print(table.round(3).to_string())
    for stage in table:
        values = table[stage].dropna()
        print(
            f"{stage}: median {values.median():.3g}, from {values.min():.3g} to "
            f"{values.max():.3g}; in use: {PER_MILLION[stage]:g}"
        )
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, help="folder of the results of a finished run")
    parser.add_argument("--settings", type=Path, nargs="*", default=[], help="its configuration")
    chosen = parser.parse_args()
    sys.exit(main(chosen.results, chosen.settings))
