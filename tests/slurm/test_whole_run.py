"""A whole run on a real cluster: its volumes, its jobs, and a sample that fails beside it."""

import csv
import os
import re
import shutil

import numpy as np
import pandas as pd
import pytest

import make_demo
from besselflow.slurm import job_prefix
from besselflow.store import open_volume
from cluster_runs import APART, ClusterFacility, jobs_of_run
from tiny_faults import spoil_second_projection
from tiny_runs import ROOT

pytestmark = pytest.mark.slurm

SETTINGS = {"prior": {"weights": "shipped"}}
JOB_FIELDS = ("JobID", "State", "Comment", "tres-per-job", "Partition")


class WholeRun:
    """A good sample and one that can't be decoded, by the name of the profile; then locally."""

    def __init__(self, folder):
        self.facility = ClusterFacility(folder / "cluster", **SETTINGS, cluster=APART)
        self.facility.add_test("known", step_um=1.5)
        spoil_second_projection(self.facility.add_test("spoilt", seed=6, step_um=3.0))
        # As in a clone of the repository, where Snakemake adds this profile by itself.
        shutil.copytree(ROOT / "profiles" / "default", self.facility.folder / "profiles/default")
        settings = folder / "home" / "snakemake"
        settings.mkdir(parents=True)
        os.symlink(ROOT / "profiles" / "slurm", settings / "slurm")
        command = ("--profile", "slurm", "--retries", "0")
        self.run = self.facility.submit(*command, XDG_CONFIG_HOME=str(folder / "home"))
        self.jobs = jobs_of_run(job_prefix(self.facility.results), *JOB_FIELDS)
        self.local = ClusterFacility(folder / "local", **SETTINGS)
        self.local.add_test("known", step_um=1.5)
        self.run_locally = self.local.run("results/known/report.html")


@pytest.fixture(scope="module")
def whole(cluster, tmp_path_factory):
    return WholeRun(tmp_path_factory.mktemp("whole"))


def test_the_good_sample_is_finished(whole):
    folder = whole.facility.results / "known"
    assert (folder / "report.html").exists(), whole.run.stdout
    assert "workflow specific profile profiles/default" in whole.run.stdout


def test_volumes_are_those_of_a_local_run(whole):
    assert whole.run_locally.returncode == 0, whole.run_locally.stdout
    relative = ["volume.ome.zarr", "uncertainty.ozx", "determined.ozx"]
    relative += [
        f"methods/{name}.ozx" for name in ("interpolation", "spectral", "inr", "microdiffusion")
    ]
    for path in relative:
        found, expected = (
            np.asarray(open_volume(facility.results / "known" / path).data)
            for facility in (whole.facility, whole.local)
        )
        scale = float(np.abs(expected).max())
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * scale, err_msg=path)


def test_a_failed_sample_is_named_and_leaves_the_other_alone(whole):
    assert whole.run.returncode != 0
    summary = whole.run.stdout[whole.run.stdout.rindex("BesselFlow could not finish") :]
    assert summary.count("  sample: ") == 1
    assert "  sample: spoilt\n    stage:  preprocess\n    reason: " in summary
    assert "killed" not in summary
    assert not (whole.facility.results / "spoilt" / "report.html").exists()


def test_a_sample_is_a_handful_of_jobs_that_hold_no_gpu(whole):
    tasks = [task for _, _, task, _, _ in whole.jobs]
    # The preflight, before and after the networks, both networks for the sample and for what was
    # withheld, and training and sampling of the published scheme; and the first two of the spoilt
    # sample.
    assert len(tasks) == 11, tasks
    assert sum("microdiffusion" in task for task in tasks) == 2
    assert sum(task.startswith("rule_fit_inr") for task in tasks) == 2
    assert sum(task.startswith("rule_refine") for task in tasks) == 2
    states = sorted(state for _, state, _, _, _ in whole.jobs)
    assert states == ["COMPLETED"] * 9 + ["FAILED"] * 2
    assert {(gpus, partition) for *_, gpus, partition in whole.jobs} == {("N/A", "main")}


def test_each_sample_of_the_demo_is_a_single_job(whole, cluster, tmp_path):
    facility = ClusterFacility(tmp_path, **SETTINGS)
    with open(make_demo.main(tmp_path, (18, 32, 32), (18, 32, 32)), encoding="utf-8") as sheet:
        facility.rows = {row["sample"]: row for row in csv.DictReader(sheet, delimiter="\t")}
    names = [name for name, row in facility.rows.items() if row["role"] == "test"]
    facility.add_test("known", step_um=1.5)
    spoil_second_projection(facility.add_test("spoilt", seed=6, step_um=3.0))
    done = facility.submit("--retries", "0")
    assert done.returncode != 0
    assert done.stdout.count("  sample: ") == 1
    # Both read the projections, and whichever is first ends the job.
    first = r"  sample: spoilt\n    stage:  (preflight_sample|preprocess)\n    reason: "
    assert re.search(first, done.stdout), done.stdout
    jobs = jobs_of_run(job_prefix(facility.results), *JOB_FIELDS)
    assert sorted(state for _, state, *_ in jobs) == ["COMPLETED"] * 5 + ["FAILED"]
    # Stages with one thread each go in single file.
    assert {*jobs_of_run(job_prefix(facility.results), "NumCPUs")} == {("1",)}
    scores = pd.read_csv(facility.results / "metrics.tsv", sep="\t")
    assert len(names) == 4 and set(scores["sample"]) == {*names, "known"}
    truth = scores["metric"] == "psnr"
    assert set(scores["sample"][truth]) == {*names, "known"} - {"vessels-unknown"}
    for name in names:
        assert (facility.results / name / "report.html").stat().st_size > 10_000
    found, expected = (
        np.asarray(open_volume(each.results / "known" / "volume.ome.zarr").data)
        for each in (facility, whole.local)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * float(expected.max()))
