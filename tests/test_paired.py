"""Paired comparison of methods against enumeration, scipy, and what it must say of few samples."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata, wilcoxon

from besselflow.paired import COMPARISON_COLUMNS, compare_methods, holm


def table(**scores):
    rows = [
        (f"s{number}", method, "psnr", value)
        for method, values in scores.items()
        for number, value in enumerate(values)
    ]
    return pd.DataFrame(rows, columns=["sample", "method", "metric", "value"])


def compare(differences, direction=1):
    metrics = table(own=list(differences), other=[0.0] * len(differences))
    (found,) = compare_methods(metrics, "own", {"psnr": direction})
    return found


def enumerated(differences):
    """The test by all assignments of signs."""
    values = [value for value in differences if value]
    ranks = rankdata(np.abs(values))
    observed = abs(float(np.sum(ranks * np.sign(values))))
    sums = [abs(np.sum(ranks * signs)) for signs in product((-1, 1), repeat=len(ranks))]
    return np.mean(np.array(sums) >= observed - 1e-9)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(-5, 5).filter(bool), min_size=2, max_size=9))
def test_the_test_is_exact_for_few_samples_even_with_ties(differences):
    assert compare(differences).p == pytest.approx(enumerated(differences))


def test_many_samples_are_tested_as_scipy_does():
    differences = np.random.default_rng(0).normal(0.2, 1, 80)
    assert compare(differences).p == pytest.approx(wilcoxon(differences).pvalue)


def test_the_effect_size_is_one_where_every_sample_agrees():
    found = compare([1.0, 2.0, 0.5, 3.0, 4.0, 0.1])
    assert found.rank_biserial == 1 and (found.better, found.worse) == (6, 0)
    assert found.p == pytest.approx(2 / 2**6)
    assert found.median_difference == pytest.approx(1.5)
    assert compare([-1.0, 1.0]).rank_biserial == 0
    # Ranks 3 + 2 for, 1 against, of 6 in all.
    assert compare([-1.0, 2.0, 3.0]).rank_biserial == pytest.approx(4 / 6)


def test_lower_may_be_better():
    found = compare([-1.0, -2.0, -3.0], direction=-1)
    assert found.rank_biserial == 1 and found.better == 3 and found.median_difference == -2


@pytest.mark.parametrize(("n", "too_small"), [(1, True), (4, True), (5, True), (6, False)])
def test_few_samples_can_show_nothing(n, too_small):
    found = compare(np.arange(1.0, n + 1))
    assert found.is_too_small == too_small
    assert found.p == pytest.approx(found.smallest_p)


def test_equal_methods_differ_in_nothing():
    found = compare([0.0, 0.0, 0.0])
    assert (found.p, found.rank_biserial, found.better, found.worse) == (1, 0, 0, 0)


def test_only_samples_with_both_scores_count():
    metrics = pd.concat(
        [table(own=[1.0, 2.0, 3.0], other=[0.0, 0.0]), table(third=[])], ignore_index=True
    )
    (found,) = compare_methods(metrics, "own", {"psnr": 1, "ssim": 1})
    assert found.n == 2
    assert compare_methods(metrics, "absent", {"psnr": 1}) == []
    assert set(vars(found)) == set(COMPARISON_COLUMNS)


def test_holm_is_the_stepwise_bonferroni_correction():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []
    metrics = table(own=[1, 2, 3, 4, 5, 6], a=[0] * 6, b=[0.5, 2.5, 2, 3, 4, 5])
    first, second = compare_methods(metrics, "own", {"psnr": 1})
    assert first.p_holm == pytest.approx(2 * first.p)
    assert second.p_holm == pytest.approx(max(second.p, first.p_holm))
