"""Checks what is asked of Slurm, with programs in its place that answer as it does."""

import math
import os
import stat
import subprocess
from pathlib import Path

import pytest

from besselflow import device, slurm
from besselflow.errors import InputError
from besselflow.slurm import (
    QueuedJob,
    cancel,
    gpus_per_job,
    job_prefix,
    jobs_of,
    longest_minutes,
    was_given_gpu,
)
from tiny_runs import ROOT


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Return a function that puts a shell script in the place of a program."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def write(name, script):
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    return write


def queue(programs, folder, *rows):
    """Have `squeue` list jobs, those that `scancel` was asked to end left out, after a delay."""
    lines = "\n".join("|".join((*row[:3], str(Path.cwd()), *row[3:])) for row in rows)
    (folder / "queue.txt").write_text(lines + "\n", encoding="utf-8")
    programs("squeue", f"[ -e '{folder}/ended' ] || cat '{folder}/queue.txt'")
    programs(
        "scancel", f"echo \"$@\" >> '{folder}/cancelled'; (sleep 0.2; touch '{folder}/ended') &"
    )


def test_prefix_is_that_of_the_folder_however_it_is_reached(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("results").mkdir()
    Path("link").symlink_to("results")
    assert job_prefix("results") == job_prefix(tmp_path / "results") == job_prefix("link")
    assert job_prefix("results") != job_prefix("other")
    # What Slurm's plugin for Snakemake allows in names.
    assert len(job_prefix("results") + "_") <= 50
    assert set(job_prefix("results")) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_only_jobs_of_the_same_results_are_found(programs, tmp_path):
    mine = f"{job_prefix('results')}_1f-2e"
    comment = "rule_fit_inr_wildcards_a|b_0"
    other = ("8", f"{job_prefix('other')}_1f-2e", "RUNNING", "rule_refine")
    queue(programs, tmp_path, ("7", mine, "RUNNING", comment), other, ("9", "bash", "PENDING", ""))
    assert jobs_of("results") == [QueuedJob("7", "RUNNING", Path.cwd(), comment)]


def test_cancelled_jobs_are_gone_before_anything_goes_on(programs, tmp_path):
    name = f"{job_prefix('results')}_1f"
    queue(programs, tmp_path, ("7", name, "RUNNING", "a"), ("8", name, "PENDING", "b"))
    assert [job.number for job in cancel("results", Path.cwd(), interval_s=0.05)] == ["7", "8"]
    assert (tmp_path / "cancelled").read_text() == "7 8\n"
    assert jobs_of("results") == []


def test_a_job_that_does_not_end_stops_the_run(programs, tmp_path):
    queue(programs, tmp_path, ("7", f"{job_prefix('results')}_1f", "COMPLETING", "a"))
    programs("scancel", "true")
    with pytest.raises(InputError, match="the Slurm jobs 7 of an earlier run still write into"):
        cancel("results", Path.cwd(), seconds=0.2, interval_s=0.05)


def test_jobs_of_a_run_that_was_started_elsewhere_are_left_alone(programs, tmp_path):
    queue(programs, tmp_path, ("7", f"{job_prefix('results')}_1f", "RUNNING", "a"))
    with pytest.raises(InputError, match="the Slurm jobs 7 of a run that was started in "):
        cancel("results", tmp_path)
    assert not (tmp_path / "cancelled").exists()


def test_nothing_is_cancelled_where_nothing_is_left(programs, tmp_path):
    queue(programs, tmp_path, ("9", "bash", "RUNNING", ""))
    assert cancel("results", Path.cwd()) == []
    assert not (tmp_path / "cancelled").exists()


def test_waiting_ends_with_the_jobs_and_says_so_once(programs, tmp_path):
    queue(programs, tmp_path, ("7", f"{job_prefix('results')}_1f", "RUNNING", "a"))
    said = []

    def say(text):
        said.append(text)
        (tmp_path / "ended").touch()

    assert len(slurm.wait_for_end("results", say, interval_s=0.05)) == 1
    assert len(said) == 1 and "waiting for 1 Slurm job(s)" in said[0]


def test_a_silent_controller_stops_the_run(programs):
    programs(
        "squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1"
    )
    with pytest.raises(
        InputError, match=r"Unable to contact slurm controller.*nothing is submitted"
    ):
        jobs_of("results")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("accounting_storage/none", False), ("accounting_storage/slurmdbd", True)],
)
def test_accounting_is_found_out(programs, kind, expected):
    programs("scontrol", f"echo 'Configuration data'; echo 'AccountingStorageType   = {kind}'")
    assert slurm.keeps_accounts() is expected


@pytest.mark.parametrize(
    ("setting", "built", "nodes", "expected"),
    [
        ("auto", True, "gpu:a100:4", 1),
        ("auto", True, "(null)", None),
        ("auto", False, "gpu:a100:4", None),
        ("always", False, "(null)", 1),
        ("never", True, "gpu:a100:4", None),
    ],
)
def test_gpus_are_asked_for_where_they_can_be_used(
    programs, monkeypatch, setting, built, nodes, expected
):
    programs("squeue", "true")
    programs("sinfo", f"echo '(null)'; echo '{nodes}'")
    monkeypatch.setattr(slurm, "torch_uses_gpus", lambda: built)
    assert gpus_per_job(setting) == expected


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("30:00", 30),
        ("2:00:00 30:00", 120),
        ("1-12:00:00 2:00:00", 36 * 60),
        ("1-00:00:00 infinite", math.inf),
        ("n/a 1:00:30", 60.5),
        ("n/a", None),
        ("", None),
    ],
)
def test_the_longest_time_is_that_of_the_most_patient_partition(programs, told, expected):
    programs("sinfo", f"printf '%s\\n' {told}")
    assert longest_minutes() == expected


def test_a_cluster_that_does_not_answer_tells_no_time(programs):
    programs("sinfo", "exit 1")
    assert longest_minutes() is None


def test_no_gpu_is_asked_for_of_a_cluster_that_is_gone(programs, monkeypatch):
    programs("squeue", "exit 1")
    programs("sinfo", "echo 'Unable to contact slurm controller' >&2; exit 1")
    monkeypatch.setattr(slurm, "torch_uses_gpus", lambda: True)
    assert gpus_per_job("auto") is None


def test_no_gpu_is_asked_for_without_slurm(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus_per_job("always") is None


def test_build_of_pytorch_is_told_without_loading_it():
    assert slurm.torch_uses_gpus() == (device.torch.version.cuda is not None)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        ({"CUDA_VISIBLE_DEVICES": "0"}, False),
        ({"SLURM_JOB_ID": "7"}, False),
        ({"SLURM_JOB_ID": "7", "CUDA_VISIBLE_DEVICES": "NoDevFiles"}, False),
        ({"SLURM_JOB_ID": "7", "CUDA_VISIBLE_DEVICES": ""}, False),
        ({"SLURM_JOB_ID": "7", "CUDA_VISIBLE_DEVICES": "0"}, True),
        ({"SLURM_JOB_ID": "7", "SLURM_STEP_GPUS": "2"}, True),
        ({"SLURM_JOB_ID": "7", "SLURM_JOB_GPUS": "0,1"}, True),
    ],
)
def test_a_gpu_counts_as_given_inside_a_job_only(environment, expected):
    assert was_given_gpu(environment) is expected


def test_a_given_gpu_that_is_not_seen_is_an_error(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(device.torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"gave this job a GPU on .* sees none; .*cluster\.gpus"):
        device.select_device(1)


def test_without_a_given_gpu_the_cpu_will_do(monkeypatch):
    for name in ("SLURM_JOB_ID", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(device.torch.cuda, "is_available", lambda: False)
    assert device.select_device(1).type == "cpu"


def test_the_documented_line_makes_the_profile_known_by_its_name(tmp_path):
    def link(home):
        command = ["make", "--silent", "-C", str(ROOT), "slurm-profile"]
        said = {"env": os.environ | {"XDG_CONFIG_HOME": str(home)}, "capture_output": True}
        return subprocess.run(command, text=True, **said)

    for _ in range(2):
        assert link(tmp_path / "home").returncode == 0
        made = tmp_path / "home" / "snakemake" / "slurm"
        assert made.is_symlink() and made.resolve() == ROOT / "profiles" / "slurm"
    own = tmp_path / "other" / "snakemake" / "slurm"
    own.mkdir(parents=True)
    refused = link(tmp_path / "other")
    assert refused.returncode != 0 and "move it away first" in refused.stdout
    assert own.is_dir() and not own.is_symlink()
