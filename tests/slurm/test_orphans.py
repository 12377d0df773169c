"""Jobs whose controller was killed: a rerun cancels them or waits, and never has two writers."""

import os
import signal

import pytest

from besselflow.slurm import job_prefix, jobs_of
from cluster_runs import APART, LONG_FIT, UNITS, VOLUME, ClusterFacility, jobs_of_run

pytestmark = pytest.mark.slurm

FINISHED = UNITS.replace("known", "finished")


# It has to outlive its controller by two more starts of Snakemake.
LONGER_FIT = LONG_FIT | {"inr": LONG_FIT["inr"] | {"steps": 15_000}}


def kill_controller(facility, *targets):
    """Kill a run by SIGKILL in the middle of a fit, whose job must live on."""
    with facility.submitting("--", *targets) as controller:
        facility.wait_for_checkpoint(controller)
        os.kill(controller.pid, signal.SIGKILL)
        controller.wait()
    running = fits_of(facility, "State")
    assert running[-1] == ("RUNNING",), running
    refused = facility.submit("--", *targets)
    assert refused.returncode != 0 and "--unlock" in refused.stdout
    assert fits_of(facility, "State") == running
    assert facility.submit("--unlock").returncode == 0


def fits_of(facility, *fields):
    jobs = jobs_of_run(job_prefix(facility.results), "Comment", *fields)
    return [job[1:] for job in jobs if job[0].startswith("rule_fit_inr_wildcards_known")]


def test_a_rerun_cancels_orphans_and_redoes_no_finished_fit(cluster, tmp_path):
    facility = ClusterFacility(tmp_path, **LONGER_FIT)
    facility.add_test("known")
    facility.add_test("finished", seed=6)
    first = facility.submit("--", FINISHED)
    assert first.returncode == 0, first.stdout
    finished = time_of(facility, FINISHED)
    kill_controller(facility, VOLUME)
    second = facility.submit("--", VOLUME, FINISHED)
    assert second.returncode == 0, second.stdout
    assert "Cancelled 1 Slurm job(s) that an earlier run left behind." in second.stdout
    assert time_of(facility, FINISHED) == finished
    (orphan, repeated) = fits_of(facility, "State", "StartTime", "EndTime")
    assert (orphan[0], repeated[0]) == ("CANCELLED", "COMPLETED")
    assert orphan[2] <= repeated[1], "two jobs wrote one output"
    assert "resuming from" in facility.log_of("fit_inr-0")
    assert jobs_of(facility.results) == []


def time_of(facility, path):
    return (facility.folder / path).stat().st_mtime_ns


def test_a_rerun_that_waits_takes_what_the_orphan_has_made(cluster, tmp_path):
    facility = ClusterFacility(tmp_path, **LONGER_FIT | {"cluster": APART | {"orphans": "wait"}})
    facility.add_test("known")
    kill_controller(facility, UNITS)
    second = facility.submit("--", UNITS)
    assert second.returncode == 0, second.stdout
    assert "waiting for 1 Slurm job(s) of an earlier run to end" in second.stdout
    assert "Nothing to be done" in second.stdout
    assert fits_of(facility, "State") == [("COMPLETED",)]
    assert "resuming from" not in facility.log_of("fit_inr-0")
