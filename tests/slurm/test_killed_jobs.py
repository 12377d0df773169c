"""Jobs that Slurm kills or takes back: they are repeated with more, and fits resume."""

import re
import subprocess
from pathlib import Path

import pytest

import cluster as one_node
from besselflow.slurm import job_prefix
from cluster_runs import APART, LONG_FIT, UNITS, ClusterFacility, jobs_of_run
from tiny_runs import wait_until

pytestmark = pytest.mark.slurm


def resumed_at(log):
    found = re.search(r"resuming from .* at step (\d+)", log)
    assert found, log
    return int(found[1])


def test_a_fit_is_given_more_memory_and_resumes_after_its_time_limit(cluster, tmp_path):
    # The second attempt has memory enough, and a minute, which is less than the fit takes.
    steps = LONG_FIT["inr"] | {"steps": 36_000}
    facility = ClusterFacility(tmp_path, **LONG_FIT | {"inr": steps})
    facility.add_test("known")
    more = ["fit_inr:mem_mb=200 * attempt**3", "fit_inr:runtime=1 if attempt < 3 else 30"]
    done = facility.submit("--set-resources", *more, "--", UNITS)
    assert done.returncode == 0, done.stdout
    jobs = jobs_of_run(job_prefix(facility.results), "Comment", "State", "MinMemory")
    fits = [(state, memory) for task, state, memory in jobs if task.startswith("rule_fit_inr")]
    assert [memory for _, memory in fits] == ["200M", "1600M", "5400M"]
    assert fits[0][0] in ("FAILED", "OUT_OF_MEMORY")
    assert [state for state, _ in fits[1:]] == ["TIMEOUT", "COMPLETED"]
    assert 0 < resumed_at(facility.log_of("fit_inr-0")) < 36_000


def test_a_preempted_fit_resumes_when_it_is_its_turn_again(cluster, tmp_path):
    facility = ClusterFacility(tmp_path, **LONG_FIT)
    facility.add_test("known")
    yielding = ("--default-resources", "slurm_partition=yielding", "mem_mb=900", "runtime=10")
    with facility.submitting(*yielding, "--", UNITS) as controller:
        facility.wait_for_checkpoint(controller)
        urgent = ["sbatch", "--parsable", "-p", "urgent", "--exclusive", "-o", "/dev/null"]
        number = subprocess.check_output([*urgent, "--wrap", "sleep 3"], text=True).strip()
        wait_until(lambda: number not in one_node.jobs(), 120)
        controller.wait(600)
        said = facility.said.read_text(encoding="utf-8")
    assert controller.returncode == 0, said
    fields = ("Comment", "State", "RestartCnt")
    jobs = jobs_of_run(job_prefix(facility.results), *fields)
    ((state, restarts),) = [job[1:] for job in jobs if job[0].startswith("rule_fit_inr")]
    assert state == "COMPLETED" and int(restarts) >= 1
    assert 0 < resumed_at(facility.log_of("fit_inr-0")) < LONG_FIT["inr"]["steps"]


PARTITIONS = """
partitions:
  main:
    max_runtime: 1h
  urgent:
    max_gpu: 1
"""


def test_a_gpu_that_pytorch_does_not_see_fails_the_fit_alone(cluster, tmp_path):
    facility = ClusterFacility(tmp_path, **LONG_FIT | {"cluster": APART | {"gpus": "always"}})
    facility.add_test("known")
    (tmp_path / "partitions.yaml").write_text(PARTITIONS, encoding="utf-8")
    partitions = ("--slurm-partition-config", "partitions.yaml")
    failed = facility.submit("--retries", "0", *partitions, "--", UNITS)
    assert failed.returncode != 0
    fields = ("Comment", "State", "tres-per-job", "Partition")
    jobs = jobs_of_run(job_prefix(facility.results), *fields)
    held = {task.split("_")[1]: facts for task, *facts in jobs}
    assert held == {
        "before": ["COMPLETED", "N/A", "main"],
        "fit": ["FAILED", "gres:gpu:1", "urgent"],
    }
    summary = failed.stdout[failed.stdout.rindex("BesselFlow could not finish") :]
    assert "stage:  fit_inr\n    reason: Slurm gave this job a GPU on " in summary
    assert "cluster.gpus: never" in summary
    assert "on the CPU with" not in facility.log_of("fit_inr-0")


# Of jobs of their own, and of a group.
@pytest.mark.parametrize("rule", ["fit_inr", "preprocess"])
def test_the_reason_of_a_job_that_slurm_refuses_is_what_slurm_says(cluster, tmp_path, rule):
    facility = ClusterFacility(tmp_path, **LONG_FIT)
    facility.add_test("known")
    failed = facility.submit(
        "--retries", "0", "--set-resources", f"{rule}:runtime=9000", "--", UNITS
    )
    assert failed.returncode != 0
    summary = failed.stdout[failed.stdout.rindex("BesselFlow could not finish") :]
    assert f"sample: known\n    stage:  {rule}\n    reason: Slurm refused the job: " in summary
    assert "Requested time limit is invalid" in summary


def test_a_job_that_is_killed_for_its_memory_is_told_so_with_slurms_own_log(cluster, tmp_path):
    facility = ClusterFacility(tmp_path, **LONG_FIT)
    facility.add_test("known")
    failed = facility.submit("--retries", "0", "--set-resources", "fit_inr:mem_mb=200", "--", UNITS)
    assert failed.returncode != 0
    summary = failed.stdout[failed.stdout.rindex("BesselFlow could not finish") :]
    assert "reason: Slurm ended the job, which had used up its memory; give it more" in summary
    assert "--set-resources fit_inr:mem_mb=MEGABYTES" in summary
    log = Path(re.search(r"Slurm's log of it is (\S+)", summary)[1])
    assert "exceeded memory limit" in log.read_text(encoding="utf-8")
