"""Run the workflow over the benchmark and print one table: sample x method x metric.

The acquisitions lie outside the repository, in ../shared/bench; where that folder is missing, the
benchmark says so and is skipped. Results go to bench/results; a rerun continues what is there.
"""

import argparse
import csv
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
from rank_agreement import format_rankings

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
DATA = ROOT.parent / "shared" / "bench"
WORK = ROOT / "bench"
METRICS = [
    *("psnr", "psnr_seen", "psnr_unseen", "psnr_3d", "ssim", "dice"),
    *("chi2", "structure", "determined", "held_out_chi2", "held_out_psnr", "folded_psnr"),
    *("coverage_50", "coverage_90"),
]
# Further values of --config, which is the last option before them.
UNTRAINED = ("methods=[interpolation,spectral,variational,inr]", "final=inr")
PATH_COLUMNS = ["acquisition", "stage_positions", "beam_profile", "ground_truth"]


def main(geometries: list[str], untrained: bool, prior: str, extra: list[str]) -> int:
    """Run the benchmark.

    Parameters
    ----------
    geometries : list of str
        Beam and step, such as ``box6-step6``; empty for all.
    untrained : bool
        Leave out the methods that learn from other volumes.
    prior : str
        ``train`` for one trained on the benchmark's training volumes, ``shipped`` for the one that
        comes with BesselFlow.
    extra : list of str
        Further arguments for Snakemake.

    Returns
    -------
    int
        Exit status.
    """
    if not DATA.is_dir():
        print(f"benchmark skipped: its data are not in {os.path.relpath(DATA, ROOT)}")
        return 0
    sheet = write_sheet(geometries)
    command = [
        *(sys.executable, "-m", "snakemake"),
        *("--snakefile", str(ROOT / "workflow" / "Snakefile")),
        *("--profile", str(ROOT / "profiles" / "default")),
        *("--configfile", str(HERE / "config.yaml")),
        *("--config", f"samples={sheet}", f"results={WORK / 'results'}"),
        *(UNTRAINED if untrained else (f"prior={{weights: {prior}}}",)),
        *extra,
    ]
    status = subprocess.run(command, cwd=ROOT).returncode
    table = WORK / "results" / "metrics.tsv"
    if table.exists():
        metrics = pd.read_csv(table, sep="\t")
        print(format_table(metrics))
        print(format_rankings(metrics))
    return status


def write_sheet(geometries: list[str]) -> Path:
    """Write the rows of the chosen geometries, and the training volumes, to bench/samples.tsv."""
    with open(HERE / "samples.tsv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    known = {row["geometry"] for row in rows} - {""}
    unknown = set(geometries) - known
    if unknown:
        sys.exit(f"unknown geometry {sorted(unknown)[0]}; choose from {', '.join(sorted(known))}")
    wanted = [r for r in rows if r["role"] == "train" or r["geometry"] in (geometries or known)]
    for row in wanted:
        for column in PATH_COLUMNS:
            if row[column]:
                row[column] = os.path.relpath(HERE / row[column], WORK)
    WORK.mkdir(exist_ok=True)
    with open(WORK / "samples.tsv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(wanted)
    return WORK / "samples.tsv"


def format_table(metrics: pd.DataFrame) -> str:
    """Return one row per sample and method, one column per metric."""
    order = metrics[["sample", "method"]].drop_duplicates()
    wide = metrics.pivot(index=["sample", "method"], columns="metric", values="value")
    wide = wide.reindex(pd.MultiIndex.from_frame(order))
    columns = [name for name in METRICS if name in wide]
    return wide[columns].to_string(float_format=lambda value: f"{value:.3f}", na_rep="-")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--geometry",
        action="append",
        help="beam and step to run; may be repeated; 'all' for all of them (default: box6-step6)",
    )
    parser.add_argument(
        "--untrained", action="store_true", help="only the methods that learn from no other volume"
    )
    parser.add_argument(
        "--prior",
        choices=["train", "shipped"],
        default="train",
        help="learn from the benchmark's training volumes (default), or use the shipped prior",
    )
    parser.add_argument("snakemake", nargs="*", help="further arguments for Snakemake, after --")
    arguments = parser.parse_args()
    chosen = arguments.geometry or ["box6-step6"]
    sys.exit(
        main(
            [] if "all" in chosen else chosen,
            arguments.untrained,
            arguments.prior,
            arguments.snakemake,
        )
    )
