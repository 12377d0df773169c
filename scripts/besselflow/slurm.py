"""What the workflow asks Slurm itself: jobs that an earlier run left behind, GPUs, accounting."""

from __future__ import annotations

import hashlib
import importlib.util
import math
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from besselflow.errors import InputError

GPUS_VARIABLE = "BESSELFLOW_GPUS"
"""Environment variable in which a run tells its jobs how many GPUs a stage asks for."""

LONGEST_VARIABLE = "BESSELFLOW_LONGEST_MINUTES"
"""Environment variable in which a run tells its jobs the most minutes that a job may ask for."""

_ANSWER_SECONDS = 60
# What squeue prints of a job; a comment may hold anything, and therefore comes last.
_FORMAT = "%i|%j|%T|%Z|%k"


@dataclass(frozen=True)
class QueuedJob:
    """A job that is waiting, running or about to end.

    Attributes
    ----------
    number : str
        Its number in Slurm.
    state : str
        Its state, such as ``RUNNING``.
    folder : pathlib.Path
        Where its run was started.
    task : str
        What it does, such as ``rule_fit_inr_wildcards_mouse-1_0``.
    """

    number: str
    state: str
    folder: Path
    task: str


def is_installed() -> bool:
    """Say whether jobs can be submitted from this machine."""
    return shutil.which("squeue") is not None


def job_prefix(results: Path | str) -> str:
    """Return what the names of all jobs that write into a folder of results begin with.

    It depends on the folder alone, so that a run finds the jobs of every run before it.

    Parameters
    ----------
    results : path
        Folder of the results; links and relative paths lead to the same prefix.
    """
    place = str(Path(results).resolve())
    return f"besselflow-{hashlib.sha256(place.encode()).hexdigest()[:12]}"


def jobs_of(results: Path | str) -> list[QueuedJob]:
    """List the jobs of this user that write into a folder of results, whoever submitted them.

    Parameters
    ----------
    results : path
        Folder of the results.

    Raises
    ------
    InputError
        Slurm does not answer, so that nobody knows.
    """
    prefix = job_prefix(results) + "_"
    lines = _ask("squeue", "--noheader", "--me", "--format", _FORMAT).splitlines()
    cells = [line.split("|", 4) for line in lines if line.count("|") >= 4]
    return [
        QueuedJob(number, state, Path(folder), task)
        for number, name, state, folder, task in cells
        if name.startswith(prefix)
    ]


def cancel(
    results: Path | str, folder: Path, seconds: float = 300.0, interval_s: float = 1.0
) -> list[QueuedJob]:
    """Cancel the jobs that write into a folder of results, and wait until none is left.

    Parameters
    ----------
    results : path
        Folder of the results.
    folder : path
        Where this run was started, and where no other one can be at work.
    seconds : float
        How long the jobs may take to end; Slurm itself kills them after its ``KillWait``.
    interval_s : float
        Seconds between two looks.

    Returns
    -------
    list of QueuedJob
        The jobs that there were.

    Raises
    ------
    InputError
        Slurm does not answer, a job does not end, or jobs belong to a run that was started
        elsewhere and may be at work.
    """
    found = left = jobs_of(results)
    foreign = [job for job in found if job.folder.resolve() != folder.resolve()]
    if foreign:
        raise InputError(
            f"the Slurm jobs {_numbers(foreign)} of a run that was started in {foreign[0].folder} "
            f"write into {results}, too; if that run is over, end them by `scancel`, else let it "
            "finish, and start again"
        )
    end = time.monotonic() + seconds
    if found:
        _ask("scancel", *(job.number for job in found))
    while left:
        if time.monotonic() > end:
            raise InputError(
                f"the Slurm jobs {_numbers(left)} of an earlier run still write into {results} "
                f"{seconds:.0f} s after they were cancelled; ask your cluster's support to end "
                "them, then start again"
            )
        time.sleep(interval_s)
        left = jobs_of(results)
    return found


def wait_for_end(
    results: Path | str, say: Callable[[str], None], interval_s: float = 10.0
) -> list[QueuedJob]:
    """Return when no job writes into a folder of results any more.

    Parameters
    ----------
    results : path
        Folder of the results.
    say : callable
        Gets a sentence whenever the number of jobs has changed.
    interval_s : float
        Seconds between two looks.

    Returns
    -------
    list of QueuedJob
        The jobs that there were at first.

    Raises
    ------
    InputError
        Slurm does not answer.
    """
    found = left = jobs_of(results)
    known = 0
    while left:
        if len(left) != known:
            known = len(left)
            say(
                f"waiting for {known} Slurm job(s) of an earlier run to end ({_numbers(left)}); "
                "`--config 'cluster={orphans: cancel}'` would cancel them instead"
            )
        time.sleep(interval_s)
        left = jobs_of(results)
    return found


def _numbers(jobs: Sequence[QueuedJob], most: int = 5) -> str:
    shown = [job.number for job in jobs[:most]]
    return ", ".join(shown) + (", ..." if len(jobs) > most else "")


def keeps_accounts() -> bool:
    """Say whether the cluster remembers finished jobs in a data base, which ``sacct`` asks."""
    found = re.search(
        r"^AccountingStorageType\s*=\s*(\S+)", _ask("scontrol", "show", "config"), re.MULTILINE
    )
    return found is not None and not found[1].endswith("/none")


def gpus_per_job(setting: str) -> int | None:
    """Return how many GPUs a stage that can use one asks for; None for no request at all.

    Parameters
    ----------
    setting : str
        ``always``, ``never``, or ``auto``: where the cluster has GPUs, and the PyTorch that its
        jobs will run was built for them.
    """
    if setting == "never" or not is_installed():
        return None
    wanted = setting == "always" or (torch_uses_gpus() and offers_gpus())
    return 1 if wanted else None


def offers_gpus() -> bool:
    """Say whether any node of the cluster has a GPU.

    A cluster that does not answer has none: commands of Slurm may be left on a machine where
    everything runs without it.
    """
    try:
        return "gpu" in _ask("sinfo", "--noheader", "--format", "%G")
    except InputError:
        return False


def longest_minutes() -> float | None:
    """Return the most minutes that any partition gives to a job, `math.inf` where one has no limit.

    None where the cluster does not answer, or in words that are not known.
    """
    try:
        told = _ask("sinfo", "--noheader", "--format", "%l").split()
    except InputError:
        return None
    found = [_minutes_of(each) for each in told]
    return max((each for each in found if each is not None), default=None)


def _minutes_of(limit: str) -> float | None:
    """Read a time as Slurm writes it, ``[[days-]hours:]minutes:seconds``; None for other words."""
    if limit == "infinite":
        return math.inf
    if not (found := re.fullmatch(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+)", limit)):
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return (days * 24 + hours) * 60 + minutes + seconds / 60


def torch_uses_gpus() -> bool:
    """Say whether PyTorch was built for GPUs, without the seconds that loading it takes."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return False
    text = (Path(found.origin).parent / "version.py").read_text(encoding="utf-8")
    return re.search(r"^(cuda|hip)\b[^=]*=\s*['\"]", text, re.MULTILINE) is not None


def was_given_gpu(environment: Mapping[str, str] = os.environ) -> bool:
    """Say whether Slurm gave this job a GPU.

    Parameters
    ----------
    environment : mapping
        Environment variables of the job.
    """
    if "SLURM_JOB_ID" not in environment:
        return False
    # Slurm writes NoDevFiles where a job of a cluster with GPUs has none.
    nothing = {"", "-1", "NoDevFiles"}
    names = ("CUDA_VISIBLE_DEVICES", "SLURM_STEP_GPUS", "SLURM_JOB_GPUS")
    return any(environment.get(name, "") not in nothing for name in names)


def _ask(*command: str) -> str:
    """Return what a command of Slurm prints."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_ANSWER_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip()
        raise InputError(
            f"Slurm does not answer to `{command[0]}` ({said}); nothing is submitted before it is "
            "known which jobs there are; try again when it does"
        ) from error
    return done.stdout
