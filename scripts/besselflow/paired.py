"""Paired comparison of methods over samples: difference, effect size, and test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy

SIGNIFICANCE = 0.05
"""Level below which a difference counts as shown."""

COMPARISON_COLUMNS = [
    *("metric", "method", "other", "n", "better", "worse", "median_difference"),
    *("rank_biserial", "p", "p_holm", "smallest_p"),
]
"""Columns of the table of comparisons."""


@dataclass(frozen=True)
class Comparison:
    """A method against another one, on the samples that both were scored on.

    Attributes
    ----------
    metric, method, other : str
        Score, and the two methods.
    n : int
        Samples with both scores.
    better, worse : int
        Samples in which `method` is the better, or the worse one.
    median_difference : float
        Median over the samples of score of `method` minus that of `other`.
    rank_biserial : float
        Effect size from -1 to 1 (Kerby, Compr. Psychol. 3, 1 (2014)): sum of the ranks of the
        differences in favour of `method`, minus that of those against it, over the sum of both;
        0 where all differences are 0.
    p : float
        Two-sided p-value of Wilcoxon's signed-rank test; 1 where all differences are 0.
    p_holm : float
        The same after Holm's correction for all comparisons of the metric.
    smallest_p : float
        The smallest p-value that so many samples can give, whatever their scores.
    """

    metric: str
    method: str
    other: str
    n: int
    better: int
    worse: int
    median_difference: float
    rank_biserial: float
    p: float
    p_holm: float
    smallest_p: float

    @property
    def is_too_small(self) -> bool:
        """Whether so few samples can't show any difference."""
        return self.smallest_p > SIGNIFICANCE


def compare_methods(
    metrics: pd.DataFrame, method: str, directions: dict[str, int]
) -> list[Comparison]:
    """Compare a method with every other one, over the samples.

    The test is exact for up to 50 samples without ties, and for up to 13 with ties; beyond, the
    normal approximation is used, as ``scipy.stats.wilcoxon`` decides. Differences of 0 are left out
    of the test.

    Parameters
    ----------
    metrics : pandas.DataFrame
        Columns ``sample method metric value``.
    method : str
        Method to compare.
    directions : dict
        Metric -> 1 where a higher value is better, -1 where a lower one is; others are left out.

    Returns
    -------
    list of Comparison
        By metric in the order of `directions`, then by method as in the table. Empty for a metric
        that no other method has on the same samples.
    """
    found = []
    for metric, direction in directions.items():
        own = metrics[metrics["metric"] == metric]
        wide = own.pivot_table(index="sample", columns="method", values="value", sort=False)
        if method not in wide:
            continue
        pairs = {
            other: (wide[method] - wide[other]).dropna().to_numpy(float)
            for other in wide.columns
            if other != method
        }
        tested = [
            _compare(metric, method, other, differences, direction)
            for other, differences in pairs.items()
            if len(differences)
        ]
        adjusted = holm([each.p for each in tested])
        found += [
            Comparison(**{**vars(each), "p_holm": p})
            for each, p in zip(tested, adjusted, strict=True)
        ]
    return found


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number, after Holm, Scand. J. Statist. 6, 65 (1979)."""
    order = np.argsort(p_values, kind="stable")
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * float(p_values[index])))
        adjusted[index] = highest
    return adjusted


def _compare(
    metric: str, method: str, other: str, differences: np.ndarray, direction: int
) -> Comparison:
    favourable = direction * differences
    p, effect = 1.0, 0.0
    nonzero = favourable[favourable != 0]
    if len(nonzero):
        ranks = scipy.stats.rankdata(np.abs(nonzero))
        effect = float(np.sum(ranks * np.sign(nonzero)) / ranks.sum())
        p = float(scipy.stats.wilcoxon(nonzero).pvalue)
    return Comparison(
        metric=metric,
        method=method,
        other=other,
        n=len(differences),
        better=int(np.count_nonzero(favourable > 0)),
        worse=int(np.count_nonzero(favourable < 0)),
        median_difference=float(np.median(differences)),
        rank_biserial=effect,
        p=p,
        p_holm=p,
        smallest_p=min(1.0, 2.0 ** (1 - len(differences))),
    )
