"""The workflow run for real: to its end, with bad samples, killed and resumed."""

import html
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import psutil
import pytest

from besselflow.report.cohort_files import MULTIQC_FILES
from besselflow.store import open_volume
from tiny_faults import spoil_second_projection
from tiny_runs import ROOT, TinyFacility, environment, job_counts, run, wait_until

pytestmark = pytest.mark.workflow

BASELINE_ONLY = {"methods": ["interpolation"], "final": "interpolation"}
METHODS = ["interpolation", "spectral", "variational", "inr", "microdiffusion", "diffusion"]


# A name that a careless shell, page or template would take for something else than a name.
NASTY = 'Zoë\'s {lab; $(touch injected) & < b>"%s" #1 [x]*?'


class FullRun:
    """A sheet with two good samples and a bad one: run, then without the bad row, then again.

    Folder and one of the acquisitions have a nasty name.
    """

    def __init__(self, folder):
        self.facility = TinyFacility(folder / NASTY)
        self.facility.add_test("known", seed=5)
        plain = self.facility.add_test("unknown", seed=6, known=False)
        row = self.facility.rows["unknown"]
        row["acquisition"] = row["acquisition"].replace(plain.name, f"{NASTY}.ome.tif")
        plain.rename(plain.with_name(f"{NASTY}.ome.tif"))
        self.facility.add_train("other")
        self.facility.add_test("broken", seed=7).write_bytes(b"not an image")
        report = self.facility.results / "report.html"
        self.first = self.facility.run()
        self.report_of_first = report.read_text(encoding="utf-8")
        self.after_first = self.facility.modification_times()
        del self.facility.rows["broken"]
        self.facility.write_sheet()
        self.second = self.facility.run()
        self.report_of_second = report.read_text(encoding="utf-8")
        self.after_second = self.facility.modification_times()
        self.third = self.facility.run()
        self.after_third = self.facility.modification_times()


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    return FullRun(tmp_path_factory.mktemp("full"))


def last_lines(output, start):
    """Return what was printed from the last line that begins with `start`."""
    lines = output.rstrip().splitlines()
    first = max(number for number, line in enumerate(lines) if line.startswith(start))
    return lines[first:]


class TestFullRun:
    def test_an_excluded_sample_fails_the_run_but_not_the_others(self, full):
        assert full.first.returncode != 0
        for name in ("known", "unknown"):
            folder = full.facility.results / name
            assert (folder / "volume.ome.zarr" / "zarr.json").exists(), full.first.stdout
            assert (folder / "uncertainty.ozx").exists()
            assert (folder / "report.html").stat().st_size > 10_000
            assert (folder / "metrics.tsv").exists()
        assert not (full.facility.results / "broken").exists()

    def test_names_are_taken_for_nothing_else(self, full, tmp_path_factory):
        assert not list(tmp_path_factory.getbasetemp().rglob("injected"))
        pages = [
            full.report_of_first,
            *(
                (full.facility.results / name / "report.html").read_text(encoding="utf-8")
                for name in ("known", "unknown")
            ),
        ]
        assert NASTY in html.unescape(pages[-1])
        assert not any("touch injected) & < b>" in page for page in pages)

    def test_the_summary_comes_last_and_names_the_excluded_sample(self, full):
        summary = last_lines(full.first.stdout, "BesselFlow could not finish everything.")
        assert "  sample: broken" in summary
        reason = next(line for line in summary if "reason:" in line)
        assert "broken.ome.tif" in reason and "acquisition" in reason
        assert summary[-1].startswith("After the repair, go on with: ")
        assert not any(line.startswith("  sample: known") for line in summary)

    def test_the_cohort_report_names_the_excluded_sample(self, full):
        assert "broken.ome.tif" in full.report_of_first
        assert "known" in full.report_of_first
        assert "broken" not in full.report_of_second

    def test_metrics_are_a_long_table(self, full):
        cohort = pd.read_csv(full.facility.results / "metrics.tsv", sep="\t")
        assert list(cohort.columns) == ["sample", "method", "metric", "value"]
        known = cohort[cohort["sample"] == "known"]
        assert set(known["method"]) == set(METHODS)
        for metric in ("psnr", "psnr_3d", "ssim", "dice"):
            assert len(known[known["metric"] == metric]) == len(METHODS)
        unknown = cohort[cohort["sample"] == "unknown"]
        assert "psnr" not in set(unknown["metric"])

    def test_volumes_are_finite_and_differ_between_methods(self, full):
        folder = full.facility.results / "known"
        paths = [folder / "volume.ome.zarr"]
        paths += [folder / "methods" / f"{method}.ozx" for method in METHODS[:-1]]
        volumes = [read_volume(path) for path in paths]
        assert all(volume.shape == (1, 1, 18, 24, 24) for volume in volumes)
        assert all(np.isfinite(volume).all() for volume in volumes)
        final, others = volumes[0], dict(zip(METHODS[:-1], volumes[1:], strict=True))
        # So few projections can't check a prior, which is then not followed.
        np.testing.assert_array_equal(final, others.pop("inr"))
        assert all(not np.allclose(final, other) for other in others.values())

    def test_progress_tells_sample_stage_and_how_far(self, full):
        output = full.first.stdout
        assert "known: fitting the implicit neural representation" in output
        assert re.search(r"^\[known 0 fit_inr\] fit 100 % \((\d+)/\1\)", output, re.MULTILINE)
        assert re.search(r"^\d+ of \d+ steps \(\d+%\) done", output, re.MULTILINE)
        assert "Select jobs" not in output and "Reason:" not in output

    def test_without_the_bad_row_only_the_cohort_report_is_made_again(self, full):
        assert full.second.returncode == 0, full.second.stdout
        assert full.second.stdout.rstrip().endswith("BesselFlow is done: open results/report.html")
        changed = {
            path
            for path, modified in full.after_second.items()
            if full.after_first.get(path) != modified
        }
        cohort = {"report.html", "report.csv", "report_comparisons.csv", "metrics.tsv"}
        cohort |= {
            ".compared.json",
            ".exclusions.json",
            ".known.json",
            *(f"multiqc/{name}" for name in MULTIQC_FILES),
        }
        logs = {"logs/report_cohort.log", "benchmarks/report_cohort.tsv"}
        assert "report.html" in changed and changed <= cohort | logs

    def test_a_finished_sample_is_at_most_fifty_files_even_where_it_is_large(self, full):
        folder = full.facility.results / "known"
        files = [path for path in folder.rglob("*") if path.is_file()]
        # Of 2048 x 2048 pixels, the folder would have three levels, and two files for each.
        more = 2 * (3 - len(list((folder / "volume.ome.zarr").glob("*/zarr.json"))))
        assert more == 4
        listing = "\n".join(sorted(str(path.relative_to(folder)) for path in files))
        assert len(files) + more <= 50, listing

    def test_a_finished_run_does_nothing(self, full):
        assert full.third.returncode == 0
        assert "Nothing to be done" in full.third.stdout
        assert full.after_third == full.after_second


def read_volume(path):
    return np.asarray(open_volume(path).data)


class FailingRun:
    """A sample that passes the check but can't be decoded, beside a good one; then repaired."""

    def __init__(self, folder):
        self.facility = TinyFacility(folder / "Ergebnisse ä b", **BASELINE_ONLY)
        self.facility.add_test("good", seed=5)
        acquisition = self.facility.add_test("spoilt", seed=6, step_um=3.0)
        intact = acquisition.read_bytes()
        spoil_second_projection(acquisition)
        report = self.facility.results / "report.html"
        self.first = self.facility.run()
        self.report_of_first = report.read_text(encoding="utf-8")
        self.log = self.facility.results / "spoilt" / "logs" / "preprocess.log"
        self.log_of_first = self.log.read_text(encoding="utf-8")
        self.planned = self.facility.run("--dry-run")
        acquisition.write_bytes(intact)
        self.resume = self.first.stdout.rstrip().splitlines()[-1].partition("go on with: ")[2]
        self.second = run(self.resume, self.facility.folder)
        self.report_of_second = report.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def failing(tmp_path_factory):
    return FailingRun(tmp_path_factory.mktemp("failing"))


class TestFailingRun:
    def test_the_other_sample_finishes(self, failing):
        assert failing.first.returncode != 0
        assert (failing.facility.results / "good" / "report.html").exists()
        assert "is left out" not in failing.first.stdout, "the check was to let it pass"

    def test_the_log_ends_with_the_traceback(self, failing):
        assert "Traceback (most recent call last):" in failing.log_of_first
        assert re.match(r"[\w.]+: ", failing.log_of_first.rstrip().splitlines()[-1])

    def test_the_summary_comes_last(self, failing):
        summary = last_lines(failing.first.stdout, "BesselFlow could not finish everything.")
        text = "\n".join(summary)
        error = failing.log_of_first.rstrip().splitlines()[-1]
        assert summary[1:3] == ["  sample: spoilt", "    stage:  preprocess"]
        reason = summary[3].partition("reason: ")[2]
        assert reason in error
        assert "spoilt.ome.tif: the image at z 1 can't be decoded (DeflateError: " in reason
        assert reason.endswith("; copy it again from the microscope")
        assert "    log:    results/spoilt/logs/preprocess.log" in summary
        assert text.count("sample:") == 1
        assert summary[-1].startswith("After the repair, go on with: ")

    def test_the_cohort_report_names_reason_and_log(self, failing):
        summary = last_lines(failing.first.stdout, "BesselFlow could not finish everything.")
        reason = summary[3].partition("reason: ")[2]
        assert reason in html.unescape(failing.report_of_first)
        assert 'href="spoilt/logs/preprocess.log"' in failing.report_of_first
        assert 'href="good/report.html"' in failing.report_of_first

    def test_the_next_run_tries_again_though_nothing_changed(self, failing):
        planned = job_counts(failing.planned.stdout)
        assert planned["preprocess"] == planned["report_sample"] == planned["report_cohort"] == 1

    def test_the_printed_command_resumes(self, failing):
        assert failing.second.returncode == 0, failing.second.stdout
        assert (failing.facility.results / "spoilt" / "volume.ome.zarr").exists()
        assert 'href="spoilt/report.html"' in failing.report_of_second
        assert "preprocess.log" not in failing.report_of_second
        assert "good: reading the projections" not in failing.second.stdout


INR_ONLY = {
    "methods": ["spectral", "inr"],
    "final": "inr",
    "inr": {"steps": 1500, "width": 16, "features": 16, "checkpoint_seconds": 0.2},
}
VOLUME = "results/known/volume.ome.zarr"


def test_a_killed_fit_resumes_and_gives_the_same_volume(tmp_path):
    undisturbed = TinyFacility(tmp_path / "undisturbed", **INR_ONLY)
    killed = TinyFacility(tmp_path / "killed", **INR_ONLY)
    for facility in (undisturbed, killed):
        facility.add_test("known")
    kill_while_fitting(killed)
    locked = killed.run(VOLUME)
    assert locked.returncode != 0 and "--unlock" in locked.stdout
    assert killed.run("--unlock").returncode == 0
    resumed = killed.run(VOLUME)
    assert resumed.returncode == 0, resumed.stdout
    log = (killed.results / "known" / "logs" / "fit_inr-0.log").read_text(encoding="utf-8")
    step = re.search(r"resuming from .* at step (\d+)", log)
    assert step and 0 < int(step[1]) < 1500, log
    assert undisturbed.run(VOLUME).returncode == 0
    expected = read_volume(undisturbed.folder / VOLUME)
    scale = float(np.abs(expected).max())
    found = read_volume(killed.folder / VOLUME)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * scale)


def kill_while_fitting(facility):
    """Kill the controlling process only, when the fit has a checkpoint; its jobs must follow."""
    checkpoint = facility.results / "known" / "units" / "inr-0.checkpoints" / "unit-0.pt"
    with open(facility.folder / "killed.txt", "w") as output:
        controller = subprocess.Popen(
            facility.command(VOLUME),
            cwd=facility.folder,
            env=environment(),
            stdout=output,
            stderr=output,
        )
    try:
        wait_until(lambda: checkpoint.exists() or controller.poll() is not None, 120)
        said = (facility.folder / "killed.txt").read_text(encoding="utf-8")
        assert controller.poll() is None, said
        jobs = psutil.Process(controller.pid).children(recursive=True)
    finally:
        controller.kill()
        controller.wait()
    assert any("fit_inr" in part for job in jobs if job.is_running() for part in job.cmdline())
    _, alive = psutil.wait_procs(jobs, timeout=10)
    assert not alive, "a job outlived the workflow, and would write beside the next run's"
    assert not (facility.folder / VOLUME).exists()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    facility = TinyFacility(tmp_path_factory.mktemp("prepared"), **BASELINE_ONLY)
    facility.add_test("good")
    return facility


class TestRefusedRun:
    def test_an_unknown_key_is_refused_with_a_suggestion(self, prepared):
        refused = prepared.run("--config", "inr={stepps: 10}", "seeed=1")
        assert refused.returncode != 0
        assert "Nothing was run" in refused.stdout
        assert 'did you mean "steps"' in refused.stdout
        assert 'did you mean "seed"' in refused.stdout
        assert "Traceback" not in refused.stdout
        assert not prepared.results.exists()

    def test_a_wrong_separator_is_refused(self, prepared):
        prepared.write_sheet(separator=";")
        try:
            refused = prepared.run()
        finally:
            prepared.write_sheet()
        assert refused.returncode != 0
        assert "the columns are separated by semicolons" in refused.stdout
        assert "Traceback" not in refused.stdout
        assert not prepared.results.exists()

    def test_a_sheet_without_a_good_sample_is_refused(self, prepared):
        acquisition = prepared.folder / "data" / "good.ome.tif"
        intact = acquisition.read_bytes()
        acquisition.write_bytes(intact[:400])
        try:
            refused = prepared.run()
        finally:
            acquisition.write_bytes(intact)
        assert refused.returncode != 0
        assert "nothing to reconstruct" in refused.stdout and "good.ome.tif" in refused.stdout
        assert not prepared.results.exists()


# What each job and each start of a run would otherwise wait for, a second or more altogether.
@pytest.mark.parametrize(
    "modules",
    [
        "besselflow.runs, besselflow.ablation, besselflow.folding",
        "preflight_sample, preprocess, hold_out, reconstruct_baseline, assemble",
    ],
)
def test_neither_the_sheet_nor_quick_jobs_load_what_only_others_need(modules):
    heavy = {"torch", "monai", "matplotlib", "pandas", "skimage", "ome_zarr_models"}
    code = f"import sys, {modules}; print(*{heavy!r} & {{*sys.modules}})"
    scripts = environment() | {"PYTHONPATH": str(ROOT / "scripts")}
    loaded = subprocess.check_output([sys.executable, "-c", code], env=scripts, text=True)
    assert loaded.split() == []
