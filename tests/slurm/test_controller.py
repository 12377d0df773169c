"""A controller that is a job itself, as the README submits it, cancelled and started again."""

import shlex
import subprocess

import pytest

import cluster as one_node
from besselflow.slurm import job_prefix
from cluster_runs import LONG_FIT, PATIENCE, UNITS, ClusterFacility, jobs_of_run
from tiny_runs import environment, wait_until

pytestmark = pytest.mark.slurm


def test_a_submitted_controller_cancels_its_jobs_and_the_same_command_goes_on(cluster, tmp_path):
    facility = ClusterFacility(tmp_path, **LONG_FIT)
    facility.add_test("known")
    own = (
        "--job-name",
        "besselflow",
        "--cpus-per-task",
        "1",
        "--mem",
        "2G",
        "--output",
        "said.txt",
    )
    command = ["sbatch", "--parsable", *own, "--time", "30"]
    wrapped = ["--wrap", shlex.join(facility.submit_command("--cores", "1", "--", UNITS))]
    submit = lambda: subprocess.check_output(  # noqa: E731
        [*command, *wrapped], cwd=facility.folder, env=environment(), text=True
    ).strip()
    said = lambda: (facility.folder / "said.txt").read_text(encoding="utf-8")  # noqa: E731
    first = submit()
    checkpoint = (facility.folder / UNITS).with_suffix(".checkpoints") / "unit-0.pt"
    wait_until(lambda: checkpoint.exists() or first not in one_node.jobs(), PATIENCE)
    assert checkpoint.exists(), said()
    subprocess.run(["scancel", "--full", "--signal=INT", first], check=True)
    wait_until(lambda: not one_node.jobs(), 120)
    fits = lambda: [  # noqa: E731
        state
        for task, state in jobs_of_run(job_prefix(facility.results), "Comment", "State")
        if task.startswith("rule_fit_inr")
    ]
    assert fits() == ["CANCELLED"], said()
    assert not (facility.folder / UNITS).exists()
    second = submit()
    wait_until(lambda: second not in one_node.jobs(), PATIENCE)
    assert fits() == ["CANCELLED", "COMPLETED"], said()
    assert "resuming from" in facility.log_of("fit_inr-0")
