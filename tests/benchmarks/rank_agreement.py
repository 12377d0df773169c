"""Compare rankings of methods without ground truth with that by ground truth.

There are two: by the differences of folded neighbours, which decides in the reports, and by
withheld projections. For every sample, it prints each order and that by PSNR, their rank
correlations (Spearman's rho, Kendall's tau), and how much PSNR a user would lose who chose the
method by its predictions alone.
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
QUESTIONS = {"folded_psnr": "folded neighbours", "held_out_psnr": "withheld projections"}
"""Metric -> what the methods were asked."""


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


def compare_rankings(metrics: pd.DataFrame, score: str) -> list[Agreement]:
    """Compare the rankings of every sample with ground truth and predictions.

    Parameters
    ----------
    metrics : pandas.DataFrame
        Columns ``sample method metric value``.
    score : str
        Which of `QUESTIONS` is compared with ``psnr``.
    """
    chosen = metrics[metrics["metric"].isin(["psnr", score])]
    found = []
    for sample, table in chosen.groupby("sample", sort=False):
        wide = table.pivot(index="method", columns="metric", values="value").dropna()
        if not {"psnr", score} <= set(wide.columns) or wide.empty:
            continue
        truth, prediction = (
            wide[column].sort_values(ascending=False) for column in ("psnr", score)
        )
        several = len(wide) > 1
        found.append(
            Agreement(
                str(sample),
                list(prediction.index),
                list(truth.index),
                float(spearmanr(wide).statistic) if several else np.nan,
                float(kendalltau(wide["psnr"], wide[score]).statistic) if several else np.nan,
                float(truth.iloc[0] - truth[prediction.index[0]]),
            )
        )
    return found


def format_agreement(found: list[Agreement], question: str) -> str:
    """Return the comparison as text."""
    lines = [f"ranking by {question}"]
    for each in found:
        verdict = "good enough" if each.loss_db <= GOOD_ENOUGH_DB else "not good enough"
        lines += [
            each.sample,
            f"  by prediction:          {' > '.join(each.by_prediction)}",
            f"  by ground truth (PSNR): {' > '.join(each.by_truth)}",
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
    text = format_rankings(pd.read_csv(path, sep="\t", dtype={"sample": str}))
    print(text or f"{path} holds no sample with both a ground truth and predictions")
    return 0 if text else 1


def format_rankings(metrics: pd.DataFrame) -> str:
    """Return the comparisons of all questions as text; empty where nothing can be compared."""
    compared = {name: compare_rankings(metrics, score) for score, name in QUESTIONS.items()}
    return "\n".join(format_agreement(found, name) for name, found in compared.items() if found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("metrics", nargs="?", type=Path, default=METRICS, help="table of scores")
    sys.exit(main(parser.parse_args().metrics))
