"""What failed in a run, why, and how to go on: from the engine's events and the jobs' logs."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from besselflow import slurm_verdict
from besselflow.disk import explained, lack_of_room
from besselflow.errors import InputError, on_one_line

ADMISSION = "the preflight"
"""The stage at which a sample is left out for its light."""

_EXCLUDING_RULE = "exclude_samples"
_PREFLIGHT_RULE = "preflight_sample"
# How the reason of a sample begins that is left out for its light.
_NOT_ADMITTED = "preflight is "
# Bytes that a job's log takes, roughly.
_SIZE_OF_LOG = 2**14
_SILENT = "the job ended without a message"
_KILLED = (
    f"{_SILENT}, as when it is killed for its memory or time; run again with more memory or fewer "
    "jobs at once (--cores), or look into the cluster's own log"
)


@dataclass(frozen=True)
class Failure:
    """A job that failed.

    Attributes
    ----------
    sample : str or None
        Its sample; None for jobs of several samples.
    stage : str
        Its rule, or `ADMISSION`.
    reason : str
        The message of the exception that ends its log.
    log : str or None
        Its log file.
    """

    sample: str | None
    stage: str
    reason: str
    log: str | None


class JobWatch(logging.Handler):
    """Remembers which jobs failed for good, from the events that the workflow engine logs.

    The events are read as they happen and not from a log file, whose text depends on how much the
    user wants to see.
    """

    def __init__(self):
        super().__init__()
        self._failed: dict[int, tuple[str, str | None]] = {}
        self._spared: set[int] = set()
        # What a cluster said of each, and in which log.
        self._said: dict[int, tuple[str, Sequence[str]]] = {}

    def listen_to(self, executor: Any) -> None:
        """Hear what a cluster's executor says of the jobs that fail there.

        The engine's events tell it of single jobs only, not of those of a group.

        Parameters
        ----------
        executor : object
            Whose ``print_job_error`` is called with what it says, before the events.
        """
        print_error = executor.print_job_error

        def print_and_remember(
            job_info: Any, msg: str | None = None, aux_logs: Sequence[str] = (), **more: Any
        ) -> None:
            job, logs = job_info.job, [log for log in aux_logs if log is not None]
            for member in job.jobs if job.is_group() else [job]:
                self._said[member.jobid] = msg or "", logs
            print_error(job_info, msg, aux_logs=logs, **more)

        executor.print_job_error = print_and_remember

    def emit(self, record: logging.LogRecord) -> None:
        """Note a failed job, and forget one that succeeded when it was tried again."""
        event = getattr(getattr(record, "event", None), "name", None)
        if event == "GROUP_ERROR":
            members = record.job_error_info
            blamed = {member["jobid"] for member in _blamed(members)}
            # An event for every member follows.
            self._spared |= {member["jobid"] for member in members} - blamed
            self._spared -= blamed
        elif event == "JOB_ERROR" and record.jobid in self._spared:
            self._failed.pop(record.jobid, None)
        elif event == "JOB_ERROR" and record.rule_name != _EXCLUDING_RULE:
            log = str(record.log[0]) if record.log else None
            self._failed[record.jobid] = (record.rule_name, log)
        elif event == "JOB_FINISHED":
            self._failed.pop(record.job_id, None)

    def failures(self, results: str) -> list[Failure]:
        """List the failed jobs.

        Parameters
        ----------
        results : str
            Folder of the results; the folder below it names the sample.

        Returns
        -------
        list of Failure
            One per job, in the order of failing.
        """
        found = [
            _failure(*job, *self._said.get(number, ("", ())), results)
            for number, job in self._failed.items()
        ]
        found = _explain_silence(found, [each.reason for each in found])
        # What can't be read fails twice.
        elsewhere = {each.sample for each in found if each.stage != _PREFLIGHT_RULE}
        return [
            each for each in found if each.stage != _PREFLIGHT_RULE or each.sample not in elsewhere
        ]


def _failure(
    rule: str, log: str | None, said: str, cluster_logs: Sequence[str], results: str
) -> Failure:
    reason = slurm_verdict.refusal(said) or _reason_of(log)
    if reason == _KILLED:
        reason = slurm_verdict.ending(said, rule, cluster_logs) or _KILLED
    stage = ADMISSION if reason.startswith(_NOT_ADMITTED) else rule
    return Failure(_sample_of(log, results), stage, reason, log)


def _explain_silence(failures: list[Failure], messages: list[str]) -> list[Failure]:
    """Suspect the disk of what no log tells, where it was full for others.

    What a failed job leaves may be gone by now, so that there is room for a log again.
    """
    lack = lack_of_room(messages)
    if lack is None:
        return failures
    reason = f"{_SILENT}, and elsewhere in this run it was found that {lack}"
    silent = (_KILLED, slurm_verdict.SILENT)
    return [
        replace(each, reason=reason) if each.reason.startswith(silent) else each
        for each in failures
    ]


def _blamed(members: list[dict]) -> list[dict]:
    """Return the jobs of a failed group that failed themselves.

    The engine fails all jobs of a group together. Some had finished, and some were not begun since
    what they need is missing.
    """
    unfinished = [one for one in members if not all(map(os.path.exists, one["output"]))]
    missing = {path for one in unfinished for path in one["output"]}
    begun = [one for one in unfinished if not missing & set(one["input"])]
    told = [one for one in begun if one["log"] and _message_of(str(one["log"][0]))]
    return told or begun[:1] or members[:1]


def _sample_of(log: str | None, results: str) -> str | None:
    if log is None:
        return None
    try:
        parts = Path(log).relative_to(results).parts
    except ValueError:
        return None
    return parts[0] if len(parts) > 2 and parts[0] != "priors" else None


def _reason_of(log: str | None) -> str:
    """Return why a job failed: by its log, or else by what may have kept it from writing one."""
    message = _message_of(log)
    if message is not None:
        return message
    refusal = None if log is None else attempt(lambda: _try_to_write(Path(log)))
    return _KILLED if refusal is None else f"{_SILENT}, and {refusal}"


def _message_of(log: str | None) -> str | None:
    """Return the message of the exception that ends a job's log, None where none does."""
    if log is None or not Path(log).exists():
        return None
    lines = Path(log).read_text(encoding="utf-8", errors="replace").rstrip().splitlines()
    start = max(
        (i for i, line in enumerate(lines) if line.startswith("Traceback (most recent")), default=-1
    )
    if start < 0:
        return None
    message = [line for line in lines[start + 1 :] if line and not line.startswith(" ")]
    if not message:
        return None
    # A message of several lines says what happened in the first.
    kind, _, text = message[0].partition(": ")
    return text if text and kind.endswith("InputError") else message[0]


def _try_to_write(log: Path) -> None:
    """Raise an InputError where there is no room for a log; what is free does not tell a quota."""
    place = next(folder for folder in log.absolute().parents if folder.is_dir())
    with explained(log), tempfile.TemporaryFile(dir=place) as probe:
        probe.write(bytes(_SIZE_OF_LOG))
        probe.flush()
        os.fsync(probe.fileno())


def attempt(write: Callable[[], None]) -> str | None:
    """Write something, and return in a sentence why it can't be written; None where it is.

    Parameters
    ----------
    write : callable
        What writes it.
    """
    try:
        write()
    except (InputError, OSError) as error:
        return on_one_line(error)
    return None


def summarise(
    failures: list[Failure],
    rejected: dict[str, list[str]],
    results: str,
    resume: str,
    unwritten: str | None = None,
) -> str:
    """Write the summary that ends a failed run.

    Parameters
    ----------
    failures : list of Failure
        Jobs that failed.
    rejected : dict
        Excluded sample -> its problems.
    results : str
        Folder of the results.
    resume : str
        Command that goes on after the repair.
    unwritten : str or None
        Why the page of all samples can't be written, where that was tried in vain.
    """
    lines = ["", "BesselFlow could not finish everything."]
    for failure in _explain_silence(failures, [unwritten or ""]):
        lines += [
            f"  sample: {failure.sample or '(all)'}",
            f"    stage:  {failure.stage}",
            f"    reason: {failure.reason}",
            f"    log:    {failure.log or 'none'}",
        ]
    for name, problems in rejected.items():
        lines += [f"  sample: {name}", "    stage:  check of the input"]
        lines += [f"    reason: {problem}" for problem in problems]
    page = f"{results}/report.html"
    there = os.path.exists(page)
    if unwritten is not None:
        about = f"{page} is that of an earlier run" if there else f"There is no {page}"
        lines.append(f"{about}: {unwritten}.")
    lines += [
        f"What did finish is in {page if there and unwritten is None else results}.",
        f"After the repair, go on with: {resume}",
    ]
    return "\n".join(lines)


def without_forcing(arguments: Sequence[str]) -> list[str]:
    """Return arguments for Snakemake without those that repeat what is finished.

    Parameters
    ----------
    arguments : sequence of str
        Of the command line, without the program.
    """
    kept, names_rules = [], False
    for part in arguments:
        if part.startswith("-"):
            names_rules = part in ("-R", "--forcerun")
            if names_rules or part in ("-F", "--forceall"):
                continue
        if not names_rules:
            kept.append(part)
    return kept


def say_last(text: str) -> None:
    """Print a text when the process ends, after everything else that is still to be printed."""
    atexit.register(lambda: print(text, file=sys.stderr, flush=True))
