"""Checks the comparison of rankings on tables of known order."""

import pandas as pd
import pytest
import rank_agreement

SCORE = "held_out_psnr"


def table(sample, **scores):
    rows = []
    for method, (psnr, prediction) in scores.items():
        rows += [(sample, method, "psnr", psnr), (sample, method, "held_out_psnr", prediction)]
        rows.append((sample, method, "chi2", 1.0))
    metrics = pd.DataFrame(rows, columns=["sample", "method", "metric", "value"])
    return metrics.dropna()


AGREEING = table("a", inr=(37, 31), spectral=(35, 30), interpolation=(32, 28))
CLOSE = table("b", inr=(35, 30), spectral=(35.1, 31))
UNKNOWN = table("c", inr=(None, 30), spectral=(None, 31))


def test_samples_with_both_rankings_are_compared():
    found = rank_agreement.compare_rankings(pd.concat([AGREEING, CLOSE, UNKNOWN]), SCORE)
    assert [each.sample for each in found] == ["a", "b"]
    assert found[0].by_prediction == found[0].by_truth == ["inr", "spectral", "interpolation"]
    assert found[0].spearman == pytest.approx(1) and found[0].kendall == pytest.approx(1)
    assert found[0].loss_db == found[1].loss_db == 0
    swapped = CLOSE.assign(metric=CLOSE["metric"].replace({"psnr": "x"}))
    assert rank_agreement.compare_rankings(swapped, SCORE) == []


def test_the_loss_is_that_of_choosing_by_prediction():
    (found,) = rank_agreement.compare_rankings(table("d", inr=(36, 30), spectral=(35, 31)), SCORE)
    assert found.by_prediction[0] == "spectral" and found.loss_db == pytest.approx(1)
    assert found.spearman == pytest.approx(-1)
    text = rank_agreement.format_agreement([found], "withheld projections")
    assert "choosing spectral loses 1.00 dB: not good enough" in text
    assert "0 of 1 samples" in text


def test_a_method_that_was_not_asked_is_not_ranked():
    metrics = table("e", inr=(37, None), spectral=(35, 30))
    (found,) = rank_agreement.compare_rankings(metrics, SCORE)
    assert found.by_truth == ["spectral"]


def test_both_questions_are_compared():
    folded = AGREEING.replace({"metric": {"held_out_psnr": "folded_psnr"}})
    text = rank_agreement.format_rankings(pd.concat([folded, CLOSE]))
    first, second = text.split("ranking by withheld projections")
    assert first.startswith("ranking by folded neighbours\na\n") and "b" in second.split()
    assert rank_agreement.format_rankings(UNKNOWN) == ""


def test_a_missing_table_is_said(tmp_path, capsys):
    assert rank_agreement.main(tmp_path / "metrics.tsv") == 1
    assert "run make bench first" in capsys.readouterr().out


def test_a_table_without_both_is_said(tmp_path, capsys):
    UNKNOWN.to_csv(tmp_path / "metrics.tsv", sep="\t", index=False)
    assert rank_agreement.main(tmp_path / "metrics.tsv") == 1
    assert "no sample with both" in capsys.readouterr().out
