"""Why a job failed, by what Slurm and the executor plugin say of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

# How the plugin words a refusal, and the state of a job that has ended.
_REFUSAL = re.compile(r"sbatch failed\. The error message was '(.*?)'\.", re.DOTALL)
_STATE = re.compile(r"SLURM status is: '(\w+)")
# Where only a step was killed, the job's state is FAILED, and its log says more.
_SPENT = {
    "TIMEOUT": ("time", "runtime=MINUTES", re.compile(r"DUE TO TIME LIMIT")),
    "OUT_OF_MEMORY": (
        "memory",
        "mem_mb=MEGABYTES",
        re.compile(r"exceeded (job )?memory limit|oom.?kill", re.IGNORECASE),
    ),
}
_END_OF_LOG = 2**14

SILENT = "the job ended without a message, and its state in Slurm is "
"""How a reason begins where nothing says why."""


def refusal(said: str) -> str | None:
    """Return why Slurm did not take a job; None for one that it took.

    Parameters
    ----------
    said : str
        What the plugin says of the job.
    """
    refused = _REFUSAL.search(said)
    if refused is None:
        return None
    lines = [line.strip().removeprefix("sbatch: error: ") for line in refused[1].splitlines()]
    return f"Slurm refused the job: {'; '.join(filter(None, lines))}"


def ending(said: str, rule: str, logs: Sequence[str]) -> str | None:
    """Return how a job ended whose own log doesn't tell; None where Slurm doesn't either.

    Parameters
    ----------
    said : str
        What the plugin says of the job.
    rule : str
        The rule at work.
    logs : sequence of str
        Slurm's own logs of it.
    """
    state = _STATE.search(said)
    if state is None:
        return None
    where = f"; Slurm's log of it is {logs[0]}" if logs else ""
    text = "\n".join(map(_end_of, logs))
    for name, (what, setting, words) in _SPENT.items():
        if state[1] == name or (state[1] == "FAILED" and words.search(text)):
            return (
                f"Slurm ended the job, which had used up its {what}; give it more with "
                f"--set-resources {rule}:{setting}{where}"
            )
    return f"{SILENT}{state[1]}{where}"


def _end_of(log: str) -> str:
    """Return the end of a log; nothing where there is none."""
    try:
        return Path(log).read_bytes()[-_END_OF_LOG:].decode("utf-8", errors="replace")
    except OSError:
        return ""
