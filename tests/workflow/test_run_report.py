"""What a run leaves beside the cohort's page, and Snakemake's own report of it."""

import csv
import json
import re

import pandas as pd
import pytest

from tiny_runs import TinyFacility

pytestmark = pytest.mark.workflow

METHODS = ["interpolation", "spectral"]


@pytest.fixture(scope="module")
def facility(tmp_path_factory):
    """Two samples in two groups, run with quick methods."""
    facility = TinyFacility(tmp_path_factory.mktemp("grouped"), methods=METHODS, final="spectral")
    facility.add_test("first", seed=5)
    facility.add_test("second", seed=6)
    sheet = facility.folder / "samples.tsv"
    groups = iter(("group", "young", "old"))
    lines = sheet.read_text(encoding="utf-8").splitlines()
    sheet.write_text("".join(f"{line}\t{next(groups)}\n" for line in lines), encoding="utf-8")
    done = facility.run()
    assert done.returncode == 0, done.stdout
    return facility


def test_further_columns_of_the_sheet_group_the_samples(facility):
    page = (facility.results / "report.html").read_text(encoding="utf-8")
    data = json.loads(re.search(r'id="chart-data">(.*?)</script>', page, re.S)[1])
    assert data["groups"]["group"] == {"values": ["old", "young"], "of": ["young", "old"]}
    with (facility.results / "report.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["sample"]: row for row in csv.DictReader(file)}
    assert rows["first"]["group"] == "young"
    assert float(rows["first"]["seconds"]) > 0
    assert (facility.results / "report_comparisons.csv").exists()


def test_scores_come_with_how_they_were_taken(facility):
    folder = facility.results / "first"
    metrics = pd.read_csv(folder / "metrics.tsv", sep="\t")
    expected = {"psnr", "psnr_affine", "micro_ssim", "dice_best", "published_psnr", "resolution_x"}
    assert expected <= set(metrics["metric"])
    conditions = json.loads((folder / "evaluation" / "conditions.json").read_text())
    assert conditions["ssim_window"] == 7 and conditions["data_range"][0] > 0
    for name in ("dice_by_threshold.tsv", "shell_correlation.tsv"):
        assert set(pd.read_csv(folder / "evaluation" / name, sep="\t")["method"]) == set(METHODS)


def test_snakemake_writes_its_own_report_with_captions_and_categories(facility):
    done = facility.run("--report", "run.html")
    assert done.returncode == 0, done.stdout
    report = (facility.folder / "run.html").read_text(encoding="utf-8")
    for words in (
        *("Cohort", "Samples", "page of all samples", "all scores", "one line per sample"),
        "All samples of the sheet side by side",
        "Every score of every method and sample",
        "All that was found out about sample first",
        "BesselFlow reconstructed depth-resolved volumes",
    ):
        assert words in report, words
