"""Compare the ranking of methods by withheld projections with that by ground truth.

For every sample that has both, it prints the two orders, their rank correlations (Spearman's rho,
Kendall's tau), and how much PSNR a user would lose who chose the method by its predictions alone.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import kendalltau, spearmanr

METRICS = Path(__file__).parents[2] / "bench" / "results" / "metrics.tsv"
GOOD_ENOUGH_DB = 0.2


@dataclass(frozen=True)
class Agreement:
    """How two rankings of one sample's methods compare.

    Attributes
    ----------
    sample : str
        Its name.
    by_prediction, by_truth : list of str
        Methods, the best first.
    spearman, kendall : float
        Rank correlations, -1 to 1; NaN for fewer than two methods.
    loss_db : float
        PSNR of the best method by ground truth minus that of the best by prediction.
    """

    sample: str
    by_prediction: list[str]
    by_truth: list[str]
    spearman: float
    kendall: float
    loss_db: float


def compare_rankings(metrics: pd.DataFrame) -> list[Agreement]:
    """Compare the rankings of every sample with ground truth and withheld projections.

    Parameters
    ----------
    metrics : pandas.DataFrame
        Columns ``sample method metric value``; the metrics used are ``psnr`` and ``held_out_psnr``.
    """
    chosen = metrics[metrics["metric"].isin(["psnr", "held_out_psnr"])]
    found = []
    for sample, table in chosen.groupby("sample", sort=False):
        wide = table.pivot(index="method", columns="metric", values="value").dropna()
        if not {"psnr", "held_out_psnr"} <= set(wide.columns) or wide.empty:
            continue
        truth, prediction = (
            wide[column].sort_values(ascending=False) for column in ("psnr", "held_out_psnr")
        )
        several = len(wide) > 1
        found.append(
            Agreement(
                str(sample),
                list(prediction.index),
                list(truth.index),
                float(spearmanr(wide).statistic) if several else np.nan,
                float(kendalltau(wide["psnr"], wide["held_out_psnr"]).statistic)
                if several
                else np.nan,
                float(truth.iloc[0] - truth[prediction.index[0]]),
            )
        )
    return found


def format_agreement(found: list[Agreement]) -> str:
    """Return the comparison as text."""
    lines = []
    for each in found:
        verdict = "good enough" if each.loss_db <= GOOD_ENOUGH_DB else "not good enough"
        lines += [
            each.sample,
            f"  by withheld projections: {' > '.join(each.by_prediction)}",
            f"  by ground truth (PSNR):  {' > '.join(each.by_truth)}",
            f"  Spearman {each.spearman:.2f}, Kendall {each.kendall:.2f}; choosing "
            f"{each.by_prediction[0]} loses {each.loss_db:.2f} dB: {verdict}",
        ]
    good = sum(each.loss_db <= GOOD_ENOUGH_DB for each in found)
    mean = np.nanmean([each.spearman for each in found])
    lines.append(
        f"best by prediction within {GOOD_ENOUGH_DB} dB of the best by ground truth: {good} of "
        f"{len(found)} samples; mean Spearman {mean:.2f}"
    )
    return "\n".join(lines)


def main(path: Path) -> int:
    """Print the comparison for a table of scores; return the exit status."""
    if not path.exists():
        print(f"{path} is missing; run make bench first")
        return 1
    found = compare_rankings(pd.read_csv(path, sep="\t", dtype={"sample": str}))
    if not found:
        print(f"{path} holds no sample with both a ground truth and withheld projections")
        return 1
    print(format_agreement(found))
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("metrics", nargs="?", type=Path, default=METRICS, help="table of scores")
    sys.exit(main(parser.parse_args().metrics))
