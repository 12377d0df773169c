"""The preflight in the workflow: on its own, and leaving out a bad sample."""

import json

import pandas as pd
import pytest

from tiny_runs import TinyFacility, job_counts

pytestmark = pytest.mark.workflow

BASELINE_ONLY = {"methods": ["interpolation"], "final": "interpolation"}
# With a step of twice the beam, a third of the depth is never seen.
STRICT = {"unseen_red": 0.3, "psnr_yellow": 5.0, "psnr_red": 5.0}


class StoppedRun:
    """A good sample and one with gaps: the preflight alone, then a run that stops at red."""

    def __init__(self, folder):
        self.facility = TinyFacility(folder, **BASELINE_ONLY, preflight=STRICT)
        self.facility.add_test("good", seed=5)
        self.facility.add_test("gappy", seed=6, step_um=12.0)
        self.alone = self.facility.run("preflight")
        self.after_alone = set(self.facility.modification_times())
        self.facility.configure(**BASELINE_ONLY, preflight=STRICT | {"stop_at": "red"})
        self.stopped = self.facility.run()
        self.page = (self.facility.results / "report.html").read_text(encoding="utf-8")
        self.facility.configure(**BASELINE_ONLY, preflight=STRICT)
        self.planned = self.facility.run("--dry-run")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return StoppedRun(tmp_path_factory.mktemp("preflight"))


def test_the_target_runs_the_preflight_only(run):
    assert run.alone.returncode == 0, run.alone.stdout
    made = {path for path in run.after_alone if not path.startswith(("logs/", "benchmarks/"))}
    kept = {path for path in made if "/logs/" not in path and "/benchmarks/" not in path}
    assert {path for path in kept if not path.startswith(".")} == {
        *("preflight.tsv", "preflight.html"),
        *("good/preflight.json", "gappy/preflight.json"),
    }
    table = pd.read_csv(run.facility.results / "preflight.tsv", sep="\t")
    assert dict(zip(table["sample"], table["light"], strict=True)) == {
        "good": "green",
        "gappy": "red",
    }
    assert "gappy  RED" in run.alone.stdout and "good   GREEN" in run.alone.stdout


def test_a_red_sample_is_left_out_and_the_other_finishes(run):
    assert run.stopped.returncode != 0
    results = run.facility.results
    assert (results / "good" / "report.html").exists(), run.stopped.stdout
    left = {path.name for path in (results / "gappy").iterdir()}
    assert left == {"preflight.json", "ground_truth.ozx", "logs", "benchmarks"}
    assert json.loads((results / "gappy" / "preflight.json").read_text())["light"] == "red"
    assert "  sample: gappy\n    stage:  the preflight\n" in run.stopped.stdout
    assert "reduce the step to 6 um" in run.stopped.stdout


def test_the_cohort_page_names_it_as_excluded_with_the_reason(run):
    assert '<span class="status excluded">excluded</span>' in run.page
    assert "preflight is red and preflight.stop_at is red: (1) no projection sees 33" in run.page
    assert '<span class="beacon green">green</span>' in run.page
    assert '<span class="beacon red">red</span>' in run.page


def test_the_page_of_the_sample_has_a_section(run):
    page = (run.facility.results / "good" / "report.html").read_text(encoding="utf-8")
    assert 'id="preflight"' in page and "Overlap of beams" in page


def test_another_threshold_repeats_no_finished_stage(run):
    planned = job_counts(run.planned.stdout)
    # What was left out is computed now; the good sample has its volumes already.
    assert planned["preprocess"] == planned["assemble"] == 1
    assert "preflight_sample" not in planned
