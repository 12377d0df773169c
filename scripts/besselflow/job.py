"""What every job of the workflow shares: its log, its progress lines, and how it fails."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import dask
import psutil

from besselflow.disk import explained
from besselflow.errors import InputError
from besselflow.hardware import MARK, describe_hardware

CONTROLLER_VARIABLE = "BESSELFLOW_CONTROLLER"
logger = logging.getLogger("besselflow")


@contextlib.contextmanager
def job_log(log_path: Path | str, label: str, threads: int = 1) -> Iterator[None]:
    """Send the library's messages to a log file and, labelled, to the terminal.

    The hardware that the job has used is noted in the log. An exception leaves its traceback as
    the end of the log and its message on the terminal, and ends the process with status 1. So does
    a log that can't be made; where the disk has no room for its lines, the job goes on without.

    Parameters
    ----------
    log_path : path
        Log of this job; it is overwritten.
    label : str
        What the terminal lines start with: sample and stage.
    threads : int
        Threads that the job may use.
    """
    try:
        with explained(log_path):
            Path(log_path).parent.mkdir(parents=True, exist_ok=True)
            file = logging.FileHandler(log_path, mode="w", encoding="utf-8")
    except InputError as error:
        print(f"[{label}] failed: {error}", file=sys.stderr, flush=True)
        sys.exit(1)
    # A traceback on the terminal for every line would hide what the job itself says of the disk.
    file.handleError = lambda _: None
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    terminal = logging.StreamHandler(sys.stderr)
    terminal.setFormatter(logging.Formatter(f"[{label}] %(message)s"))
    terminal.addFilter(lambda record: not record.getMessage().startswith(MARK))
    logging.captureWarnings(True)
    warnings_logger = logging.getLogger("py.warnings")
    logger.setLevel(logging.INFO)
    for handler in (file, terminal):
        logger.addHandler(handler)
    warnings_logger.addHandler(file)
    watch_controller()
    try:
        try:
            yield
        finally:
            logger.info("%s%s", MARK, describe_hardware(threads))
    except Exception as error:
        # What ends a log is what its job failed of: see `besselflow.failures`.
        text, log = traceback.format_exc(), f"log: {log_path}"
        try:
            with explained(log_path), file.lock:
                file.stream.write(text)
                file.flush()
        except InputError as refusal:
            log = f"no log: {refusal}"
        print(f"[{label}] failed: {error} ({log})", file=sys.stderr, flush=True)
        sys.exit(1)
    finally:
        for handler in (file, terminal):
            logger.removeHandler(handler)
        warnings_logger.removeHandler(file)
        logging.captureWarnings(False)
        # What did not fit is tried again here.
        with contextlib.suppress(OSError):
            file.close()


def become_controller() -> None:
    """Have the jobs that this process starts on this machine end soon after it."""
    os.environ[CONTROLLER_VARIABLE] = f"{os.getpid()}@{socket.gethostname()}"


def watch_controller(interval_s: float = 1.0) -> None:
    """End this process soon after the one that controls it has died.

    Without this, a job outlives a killed workflow and would write its output beside the job that
    the rerun starts. A controller on another machine, from where a cluster's jobs inherit their
    environment, can't be watched; what its death leaves behind is found by `besselflow.slurm`.

    Parameters
    ----------
    interval_s : float
        Seconds between two looks.
    """
    number, _, machine = os.environ.get(CONTROLLER_VARIABLE, "").partition("@")
    if machine != socket.gethostname() or int(number) == os.getpid():
        return

    def look() -> None:
        while True:
            if not _is_alive(int(number)):
                os._exit(1)
            time.sleep(interval_s)

    threading.Thread(target=look, daemon=True).start()


def _is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Progress:
    """Reports how far a long loop is, at most every few seconds.

    Parameters
    ----------
    what : str
        What is going on, such as ``fit``.
    total : int
        Number of steps of the loop.
    done : int
        Steps that an earlier run has done.
    every_s : float
        Seconds between two lines.
    """

    def __init__(self, what: str, total: int, done: int = 0, every_s: float = 5.0):
        self.what, self.total, self.first, self.every_s = what, total, done, every_s
        self.start = self.last = time.monotonic()

    def update(self, done: int, detail: str = "") -> None:
        """Report after `done` steps, if the last line is old enough or this is the last step."""
        now = time.monotonic()
        if now - self.last < self.every_s and done < self.total:
            return
        self.last = now
        rate = (done - self.first) / max(now - self.start, 1e-9)
        left = (self.total - done) / rate if rate > 0 else float("nan")
        text = f"{self.what} {100 * done // self.total} % ({done}/{self.total})"
        logger.info("%s%s, %.0f s left", text, f", {detail}" if detail else "", left)


def run_script(snakemake, main: Callable[..., None], **arguments) -> None:
    """Run the main function of a script with the log, label and threads of its job.

    Parameters
    ----------
    snakemake : object
        The object that the workflow hands to a script; its `log`, `rule` and `wildcards` are used.
    main : callable
        The work itself.
    **arguments
        Passed on to `main`.
    """
    # A wildcard may be empty, or a part of a path.
    where = " ".join(str(value).strip("/") for value in snakemake.wildcards if value)
    # Dask would take every core of the machine, and hold a block of the volume for each.
    threads = dask.config.set(num_workers=snakemake.threads)
    label = f"{where} {snakemake.rule}".strip()
    with threads, job_log(snakemake.log[0], label, snakemake.threads):
        main(**arguments)
