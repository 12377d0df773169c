"""The demo on smaller volumes: killed, run again, and again while somebody else is at work."""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys

import pytest
import yaml

from tiny_runs import ROOT, environment, wait_until

pytestmark = [pytest.mark.workflow, pytest.mark.slow]


def test_a_killed_demo_goes_on_and_then_has_nothing_to_do(tmp_path):
    folder = tmp_path / "demo"
    settings = tmp_path / "settings.yaml"
    settings.write_text(yaml.safe_dump({"methods": ["spectral"], "final": "spectral"}))
    command = [
        *(sys.executable, str(ROOT / "scripts" / "run_demo.py")),
        *(str(folder), "--configfile", str(settings), "--shape", "18", "32", "32"),
        *("--", "--cores", "2", "--max-threads", "1"),
    ]
    planned = subprocess.run(
        [*command, "-n"], cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert planned.returncode == 0 and "The report" not in planned.stdout, planned.stderr
    kill_in_the_middle(command, tmp_path, folder / "results" / "vessels" / "projections.zip")
    assert not (folder / "results" / "report.html").exists()

    second = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300
    )
    assert second.returncode == 0, second.stderr
    assert second.stdout.strip().endswith(str(folder / "results" / "report.html"))
    finished = times_of(folder / "results")
    for name in ("vessels", "neuron", "cells", "vessels-unknown"):
        assert (folder / "results" / name / "volume.ome.zarr").is_dir()

    third = run_while_another_demo_holds_the_folder(command, tmp_path, folder)
    assert "Nothing to be done" in third
    assert times_of(folder / "results") == finished


def kill_in_the_middle(command, cwd, sign):
    """Start a process group and kill all of it as soon as a file is there."""
    log = cwd / "first.txt"
    with open(log, "w") as output:
        first = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment(),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        wait_until(lambda: sign.exists() or first.poll() is not None, 120)
        assert first.poll() is None, log.read_text(encoding="utf-8")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(first.pid, signal.SIGKILL)
        first.wait()


def run_while_another_demo_holds_the_folder(command, cwd, folder):
    """Return what a demo prints that has to wait for another one to end."""
    log = cwd / "third.txt"
    with open(folder / ".lock", "w") as lock, open(log, "w") as output:
        fcntl.flock(lock, fcntl.LOCK_EX)
        third = subprocess.Popen(command, cwd=cwd, env=environment(), stdout=output, stderr=output)
        try:
            wait_until(lambda: "waiting for another demo" in log.read_text(encoding="utf-8"), 60)
            assert "Nothing to be done" not in log.read_text(encoding="utf-8")
            fcntl.flock(lock, fcntl.LOCK_UN)
            assert third.wait(timeout=120) == 0, log.read_text(encoding="utf-8")
        finally:
            third.kill()
    return log.read_text(encoding="utf-8")


def times_of(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
