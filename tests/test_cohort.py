"""The cohort's page and the tables beside it, from synthetic results of many samples."""

import csv
import json
import re

import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from besselflow.held_out import FOLDED, Prediction
from besselflow.paired import compare_methods
from besselflow.report import SampleStatus, write_cohort_report
from besselflow.report.cohort_files import MULTIQC_FILES
from besselflow.report.cohort_page import describe_comparison
from besselflow.report.cohort_rows import group_columns
from besselflow.report.lights import LEVELS, SIGNALS, Light, SampleFacts, light_of
from besselflow.report.verdict import Suspect, write_verdict
from cohort_samples import GROUPS, METHODS, write_cohort
from report_cohort import list_statuses
from test_report import Page, check_page


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    results = tmp_path_factory.mktemp("results")
    statuses = write_cohort(results, 30)
    statuses.append(SampleStatus("trainer", "train", "done"))
    write_cohort_report(
        results / "report.html", results / "metrics.tsv", results, statuses, "diffusion"
    )
    return results


@pytest.fixture(scope="module")
def page(cohort):
    return Page(cohort / "report.html")


def chart_data(page):
    return json.loads(re.search(r'id="chart-data">(.*?)</script>', page.source, re.S)[1])


def test_the_page_is_self_contained_and_small(page):
    check_page(page)
    assert page.size < 31 * 8000
    assert "27 of 31 samples finished, 3 failed and 1 excluded" in page.text


def test_what_needs_attention_stands_first(page):
    lights = re.findall(r'<tr data-status="\w+" data-light="(\w+)"', page.source)
    assert lights == sorted(lights, key=LEVELS.index)
    assert lights.count("stop") == 4 and lights.count("check") == 4 and lights[-1] == "good"
    assert "dB below inr" in page.text


def test_training_data_are_named_but_no_line_of_the_table(page):
    assert re.search(r"1 sample was only used to train a prior\s+trainer", page.text)
    assert 'data-sort="trainer"' not in page.source


def test_failures_have_their_reason_and_log_and_other_samples_their_page(page):
    assert "mouse-003/logs/fit_inr.log" in page.links and "mouse-003/report.html" not in page.links
    assert "mouse-004/report.html" in page.links
    assert "out of memory after 3 steps" in page.text


def test_columns_with_a_few_values_are_groups(page, cohort):
    data = chart_data(page)
    assert set(data["groups"]) == {"group", "animal"}
    assert data["groups"]["group"]["values"] == sorted(GROUPS)
    place = data["samples"].index("mouse-004")
    assert data["groups"]["group"]["of"][place] == GROUPS[1]
    statuses = [SampleStatus(f"s{n}", "test", "done", extra={"n": str(n)}) for n in range(13)]
    assert group_columns(statuses) == {}
    assert group_columns(statuses[:12])["n"][:2] == ["0", "1"]
    assert group_columns(statuses[:1]) == {}


def test_the_drawings_hold_every_score(page, cohort):
    data, metrics = chart_data(page), pd.read_csv(cohort / "metrics.tsv", sep="\t")
    assert data["methods"] == list(METHODS) and data["final"] == "diffusion"
    wide = metrics.pivot_table(index="sample", columns=["metric", "method"], values="value")
    for key in ("psnr", "dice", "resolution_z"):
        for method in METHODS:
            for sample, value in zip(data["samples"], data["values"][key][method], strict=True):
                expected = wide[key][method].get(sample)
                missing = expected is None or pd.isna(expected)
                assert value is None if missing else value == pytest.approx(expected, rel=1e-4)


def test_comparisons_on_the_page_are_those_of_the_table(page, cohort):
    table = pd.read_csv(cohort / "report_comparisons.csv")
    psnr = table[table["metric"] == "psnr"].set_index("other")
    assert set(psnr.index) == set(METHODS) - {"diffusion"}
    assert psnr.loc["interpolation", "rank_biserial"] == 1
    metrics = pd.read_csv(cohort / "metrics.tsv", sep="\t")
    again = compare_methods(metrics, "diffusion", {"psnr": 1})
    assert psnr["p"].to_list() == pytest.approx([each.p for each in again], rel=1e-5)
    assert "diffusion is better than interpolation" in page.text


def test_too_few_samples_are_said_to_be_too_few(tmp_path):
    statuses = write_cohort(tmp_path, 4, seed=1)
    write_cohort_report(
        tmp_path / "report.html", tmp_path / "metrics.tsv", tmp_path, statuses, "diffusion"
    )
    text = Page(tmp_path / "report.html").text
    assert "too few to tell: 2 samples can't give p below 0.5" in text
    assert "is better than" not in text


def test_a_comparison_without_a_difference_says_so():
    rows = [
        (f"s{n}", method, "psnr", value)
        for n in range(8)
        for method, value in (("a", n % 2), ("b", (n + 1) % 2 + 0.01 * n))
    ]
    metrics = pd.DataFrame(rows, columns=["sample", "method", "metric", "value"])
    (found,) = compare_methods(metrics, "a", {"psnr": 1})
    assert describe_comparison(found) == "no difference is shown"


def test_the_table_of_samples_has_one_line_each_with_all_scores(cohort):
    with (cohort / "report.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["sample"]: row for row in csv.DictReader(file)}
    assert len(rows) == 32
    assert rows["mouse-003"]["reason"] == "out of memory after 3 steps"
    assert rows["mouse-003"]["light"] == "stop" and rows["mouse-003"]["diffusion.psnr"] == ""
    assert rows["mouse-004"]["notes"] == "<4>" and rows["mouse-004"]["group"] == GROUPS[1]
    metrics = pd.read_csv(cohort / "metrics.tsv", sep="\t")
    own = metrics[metrics["sample"] == "mouse-004"]
    for method, metric, value in own[["method", "metric", "value"]].itertuples(index=False):
        assert float(rows["mouse-004"][f"{method}.{metric}"]) == pytest.approx(value, rel=1e-5)
    stages = (cohort / "mouse-004" / "benchmarks").glob("*.tsv")
    seconds = sum(float(path.read_text().splitlines()[1].split()[0]) for path in stages)
    assert float(rows["mouse-004"]["seconds"]) == pytest.approx(seconds, rel=1e-5)


def test_multiqc_files_hold_what_multiqc_asks_for(cohort):
    general, samples, psnr = (cohort / "multiqc" / name for name in MULTIQC_FILES)
    content = json.loads(general.read_text(encoding="utf-8"))
    assert content["plot_type"] == "generalstats"
    assert set(content["headers"]) == {"psnr", "gain", "ssim", "dice", "resolution_z", "chi2"}
    assert set(content["data"]["mouse-004"]) == set(content["headers"])
    content = json.loads(samples.read_text(encoding="utf-8"))
    assert content["plot_type"] == "table" and len(content["data"]) == 31
    assert content["data"]["mouse-003"]["light"] == "stop"
    lines = psnr.read_text(encoding="utf-8").splitlines()
    head = yaml.safe_load("\n".join(line[2:] for line in lines if line.startswith("#")))
    assert head["plot_type"] == "table" and head["pconfig"]["id"]
    body = [line.split("\t") for line in lines if not line.startswith("#")]
    assert body[0] == ["Sample", *METHODS]
    assert len(body) == 1 + 25 and all(len(row) == len(body[0]) for row in body)


def test_statuses_carry_the_further_columns():
    statuses = list_statuses(["a"], {"b": "no"}, [], {"a": {"group": "x"}})
    assert [dict(status.extra) for status in statuses] == [{"group": "x"}, {}]


def facts(scores, ranking=(), status="done", role="test", reason=None):
    return SampleFacts(status, role, reason, "diffusion", scores, ranking)


@settings(max_examples=60, deadline=None)
@given(st.floats(20, 40), st.floats(20, 40), st.floats(0.3, 3), st.floats(0, 0.5), st.booleans())
def test_the_light_agrees_with_the_verdict_and_always_has_a_reason(
    own, other, chi2, structure, known
):
    scores = {"diffusion": {"chi2": chi2, "structure": structure}, "interpolation": {}}
    if known:
        scores["diffusion"] |= {"psnr": own, "ssim": 0.9, "dice": 0.8}
        scores["interpolation"] |= {"psnr": other}
    light = light_of(facts(scores))
    tone = write_verdict(scores, "diffusion", known, None, Suspect(0, "")).tone
    assert light.level == {"good": "good", "warning": "check", "unknown": "unverified"}[tone]
    assert light.reason


def test_lights_of_outcomes_and_predictions():
    assert light_of(facts({}, status="failed", reason="it broke")) == Light("stop", "it broke")
    assert light_of(facts({}, status="excluded")).level == "stop"
    assert len(light_of(facts({}, status="failed", reason="word " * 99)).reason) <= 120
    assert light_of(facts({}, role="train")).level == "none"
    ranking = [
        Prediction("inr", FOLDED, 30.0, 1.0, True),
        Prediction("diffusion", FOLDED, 28.0, 2.0, False),
    ]
    light = light_of(facts({"diffusion": {"chi2": 1.0}}, ranking))
    assert light == Light("check", "inr predicts withheld data 2.0 dB better")


def test_another_signal_joins_and_the_worst_decides(monkeypatch):
    def preflight(facts):
        return Light("check", "saturated pixels")

    monkeypatch.setattr("besselflow.report.lights.SIGNALS", (*SIGNALS, preflight))
    assert light_of(facts({"diffusion": {"chi2": 1.0}})) == Light("check", "saturated pixels")
    assert light_of(facts({"diffusion": {"chi2": 9.0}})).reason.endswith("; saturated pixels")
    assert light_of(facts({}, status="failed", reason="no")) == Light("stop", "no")
