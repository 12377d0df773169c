"""Projections withheld by the workflow: which jobs follow, a whole run, killed inside, and off."""

import re

import pandas as pd
import pytest

from tiny_runs import TinyFacility, job_counts

pytestmark = pytest.mark.workflow

METHODS = {"methods": ["interpolation", "spectral"], "final": "spectral"}


def many_and_few(folder, **settings):
    """A sample of nine projections, and one of three, which are too few to withhold any."""
    facility = TinyFacility(folder, **(METHODS | settings))
    facility.add_test("many", seed=5, step_um=1.5)
    facility.add_test("few", seed=6, known=False)
    return facility


@pytest.fixture(scope="module")
def unrun(tmp_path_factory):
    return many_and_few(tmp_path_factory.mktemp("unrun"))


@pytest.mark.parametrize(
    ("settings", "withheld"),
    [
        ("validation={hold_out: 4}", 2),
        ("validation={hold_out: 0}", 0),
        ("validation={methods: [interpolation]}", 1),
        # What is left is small: it is not divided among as many jobs as the sample.
        ("tiling={shards: 3}", 2),
    ],
)
def test_only_samples_with_enough_projections_are_thinned(unrun, settings, withheld):
    dry = unrun.run("--dry-run", "--config", settings)
    assert dry.returncode == 0, dry.stdout
    counts = job_counts(dry.stdout)
    shards = 3 if "shards" in settings else 1
    assert counts.get("hold_out", 0) == (1 if withheld else 0)
    assert counts["reconstruct_baseline"] == 4 * shards + withheld
    assert counts["validate"] == 2
    assert len(re.findall(r"many/held_out: \w+ reconstruction", dry.stdout)) == withheld


def test_withheld_projections_rank_the_methods(tmp_path):
    facility = many_and_few(tmp_path)
    first = facility.run()
    assert first.returncode == 0, first.stdout
    many, few = facility.results / "many", facility.results / "few"
    errors = pd.read_csv(many / "held_out.tsv", sep="\t")
    assert set(errors["method"]) == {"interpolation", "spectral"}
    asked = errors.groupby("question")["projection"].agg(set)
    assert asked.to_dict() == {"withheld": {3}, "folded": {6}}
    assert pd.read_csv(few / "held_out.tsv", sep="\t").empty
    table = pd.read_csv(facility.results / "metrics.tsv", sep="\t")
    by_sample = table.groupby("sample")["metric"].agg(set)
    everywhere = {"chi2", "structure", "determined"}
    assert (
        everywhere | {"held_out_psnr", "held_out_chi2", "folded_psnr", "psnr"} <= by_sample["many"]
    )
    assert by_sample["few"] == everywhere
    page = (many / "report.html").read_text(encoding="utf-8")
    assert "told best how neighbouring projections differ" in page
    page = (few / "report.html").read_text(encoding="utf-8")
    assert "of the 3 that this sample has, all are needed" in page
    assert re.search(r"^\[many held_out spectral 0 reconstruct_baseline\]", first.stdout, re.M)

    # A prediction that was lost is made again, and nothing that does not follow from it.
    before = facility.modification_times()
    again = facility.run()
    assert "Nothing to be done" in again.stdout and facility.modification_times() == before
    for name in ("held_out.tsv", "report.html"):
        (many / name).unlink()
    third = facility.run()
    assert third.returncode == 0, third.stdout
    assert (many / "held_out.tsv").exists()
    assert "many: judging the methods" in third.stdout
    assert "reconstruction" not in third.stdout and "few: judging" not in third.stdout

    off = facility.run("--config", "validation={hold_out: 0}")
    assert off.returncode == 0, off.stdout
    assert "reconstruction" not in off.stdout
    assert pd.read_csv(many / "held_out.tsv", sep="\t").empty
    page = (many / "report.html").read_text(encoding="utf-8")
    assert "validation.hold_out is 0 in the configuration" in page
