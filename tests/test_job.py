"""Checks what all jobs share: the log of a failure, progress, and the end of orphaned jobs."""

import logging
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
import warnings
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from besselflow import job
from besselflow.errors import InputError
from besselflow.hardware import cpu_name, describe_hardware, hardware_in
from besselflow.job import CONTROLLER_VARIABLE, Progress, job_log, logger, run_script
from tiny_faults import fill_disk, small_disk


@pytest.fixture(autouse=True)
def no_controller(monkeypatch):
    monkeypatch.delenv(CONTROLLER_VARIABLE, raising=False)


def test_log_of_a_failed_job_ends_with_the_traceback(tmp_path, capsys):
    log = tmp_path / "logs" / "fit.log"
    with pytest.raises(SystemExit) as ended, job_log(log, "mouse fit_inr"):
        logger.info("step 1")
        raise InputError("mouse.tif is truncated; copy it again")
    assert ended.value.code == 1
    lines = log.read_text().splitlines()
    assert lines[0].endswith("INFO step 1")
    assert "Traceback (most recent call last):" in lines
    assert lines[-1] == "besselflow.errors.InputError: mouse.tif is truncated; copy it again"
    terminal = capsys.readouterr().err
    assert "[mouse fit_inr] step 1" in terminal
    assert f"[mouse fit_inr] failed: mouse.tif is truncated; copy it again (log: {log})" in terminal
    assert "Traceback" not in terminal


def test_log_is_that_of_the_last_attempt(tmp_path, capsys):
    log = tmp_path / "a.log"
    with pytest.raises(SystemExit), job_log(log, "a"):
        raise RuntimeError("first attempt")
    with job_log(log, "a"):
        logger.info("second attempt")
    assert "first attempt" not in log.read_text()
    assert log.read_text().splitlines()[0].endswith("second attempt")


def test_a_full_disk_takes_the_log_and_not_what_it_would_have_said(tmp_path, capsys):
    disk = tmp_path / "disk"
    with small_disk(disk, "64k"):
        log = disk / "a.log"
        log.touch()
        fill_disk(disk)
        with job_log(log, "a"):
            logger.info("it goes on")
        with pytest.raises(SystemExit), job_log(log, "a"):
            raise RuntimeError("the fit diverged")
    terminal = capsys.readouterr().err
    assert "[a] it goes on" in terminal
    reason = f"[a] failed: the fit diverged (no log: {log} can't be written: the disk is full;"
    assert reason in terminal
    assert "Traceback" not in terminal and "Logging error" not in terminal


def test_log_holds_warnings_and_nothing_of_later_jobs(tmp_path, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with job_log(tmp_path / "a.log", "a"):
            warnings.warn("the laser flickered", stacklevel=1)
    with job_log(tmp_path / "b.log", "b"):
        logger.info("other job")
    assert "the laser flickered" in (tmp_path / "a.log").read_text()
    assert "other job" not in (tmp_path / "a.log").read_text()
    assert "[a] other job" not in capsys.readouterr().err


def test_interrupt_is_not_taken_for_a_failure(tmp_path):
    with pytest.raises(KeyboardInterrupt), job_log(tmp_path / "a.log", "a"):
        raise KeyboardInterrupt


def test_run_script_labels_by_wildcards_and_rule(tmp_path, capsys):
    snakemake = SimpleNamespace(
        log=[tmp_path / "a.log"], rule="fit_inr", wildcards=["mouse-3", "0"], threads=1
    )
    run_script(snakemake, lambda number: logger.info("got %d", number), number=7)
    assert "[mouse-3 0 fit_inr] got 7" in capsys.readouterr().err


@pytest.mark.parametrize("fails", [False, True])
def test_the_log_and_only_it_names_the_hardware(tmp_path, capsys, fails):
    log = tmp_path / "a.log"
    with pytest.raises(SystemExit) if fails else nullcontext(), job_log(log, "a", threads=3):
        logger.info("at work")
        if fails:
            raise ValueError("no light")
    found = hardware_in(log.read_text())
    assert cpu_name() in found and "3 threads" in found and socket.gethostname() in found
    assert "computed on" not in capsys.readouterr().err
    assert not fails or log.read_text().rstrip().endswith("ValueError: no light")


def test_a_gpu_is_named_where_one_was_used(monkeypatch):
    assert "Accelerator" not in describe_hardware(1)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Accelerator 9")
    assert describe_hardware(1).startswith("Accelerator 9, ")


def test_progress_text(caplog, monkeypatch):
    clock = iter([100.0, 102.0, 106.0, 108.0, 111.1, 112.0])
    monkeypatch.setattr(job, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    progress = Progress("fit", 200, done=50, every_s=5.0)
    with caplog.at_level(logging.INFO, "besselflow"):
        for done in (60, 80, 90, 190, 200):
            progress.update(done, "misfit 1.2" if done == 80 else "")
    assert caplog.messages == [
        # 30 steps took 6 s, so that 120 will take 24 s: what an earlier run did does not count.
        "fit 40 % (80/200), misfit 1.2, 24 s left",
        "fit 95 % (190/200), 1 s left",
        "fit 100 % (200/200), 0 s left",
    ]


def test_progress_of_a_finished_loop(caplog):
    with caplog.at_level(logging.INFO, "besselflow"):
        Progress("fit", 5, done=5).update(5)
    assert re.fullmatch(r"fit 100 % \(5/5\), \S+ s left", caplog.messages[0])


JOB = """
import sys, time
from besselflow.job import job_log
with job_log(sys.argv[1], "job"):
    print("working", flush=True)
    time.sleep(60)
"""
CONTROLLER = """
import subprocess, sys
from besselflow.job import become_controller
become_controller()
subprocess.run([sys.executable, "-c", sys.argv[1], sys.argv[2]])
"""


def is_open(stream, seconds):
    """Say whether a pipe still has a writer after some seconds, at once if it has none."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if select.select([stream], [], [], left)[0] and not os.read(stream.fileno(), 4096):
            return False
    return True


def test_job_ends_soon_after_its_killed_controller(tmp_path):
    command = [sys.executable, "-c", CONTROLLER, JOB, str(tmp_path / "job.log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as controller:
        try:
            assert controller.stdout.readline() == b"working\n"
            # The job holds the pipe, too: it is open as long as one of both lives.
            assert is_open(controller.stdout, 2.0)
            os.kill(controller.pid, signal.SIGKILL)
            controller.wait()
            assert not is_open(controller.stdout, 10.0)
        finally:
            try:
                os.killpg(controller.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


@pytest.mark.parametrize("controller", ["itself", "nobody", "on another machine"])
def test_job_without_another_controller_here_is_not_watched(monkeypatch, controller):
    if controller == "itself":
        job.become_controller()
    elif controller == "on another machine":
        # On a node, the number may be nobody's, or somebody else's.
        monkeypatch.setenv(CONTROLLER_VARIABLE, "4194304@login-1")
    started = []
    monkeypatch.setattr(job.threading, "Thread", lambda **options: started.append(options))
    job.watch_controller()
    assert started == []
