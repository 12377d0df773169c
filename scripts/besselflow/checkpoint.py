"""Checkpoints of long fits: written atomically, loaded without executing code."""

from __future__ import annotations

import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from besselflow.job import logger
from besselflow.store import atomic_path

# What is finished is kept if so much of the time between two checkpoints has passed.
_SHARE_AT_THE_END = 0.1


def save_checkpoint(path: Path, identity: str, state: dict[str, Any]) -> None:
    """Write a checkpoint under its final name only when it is complete."""
    with atomic_path(path) as temporary:
        torch.save({"fingerprint": identity, "state": state}, temporary)


def load_checkpoint(path: Path, identity: str) -> dict[str, Any] | None:
    """Return the state of a checkpoint, or None where there is none to resume from.

    A checkpoint of other settings or data, or one that can't be read, is reported and ignored:
    starting over costs time, resuming from it would cost the result.

    Parameters
    ----------
    path : pathlib.Path
        File written by `save_checkpoint`.
    identity : str
        Fingerprint that the checkpoint must carry.
    """
    if not path.exists():
        return None
    try:
        # torch leaves the checksums that it wrote unread, and would go on with damaged weights.
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"{damaged} in it is damaged")
        content = torch.load(path, map_location="cpu", weights_only=True)
        found, state = content["fingerprint"], content["state"]
    except Exception as error:  # a broken file makes the unpickler raise almost anything
        logger.warning("checkpoint %s can't be read (%s); starting over", path, error)
        return None
    if found != identity:
        logger.info("checkpoint %s belongs to other settings or data; starting over", path)
        return None
    logger.info("resuming from %s at step %d", path, state["step"])
    return state


@dataclass
class Keeper:
    """Keeps what a long computation has done, so that a rerun need not do it again.

    Attributes
    ----------
    path : pathlib.Path or None
        File to resume from, and to write to; None keeps nothing.
    fingerprint : str
        Identifies settings and data; a checkpoint with another one is not resumed from.
    checkpoint_seconds : float
        Seconds between two checkpoints.
    """

    path: Path | None
    fingerprint: str
    checkpoint_seconds: float
    _started: float = field(default_factory=time.monotonic, init=False)
    _saved: float = field(default_factory=time.monotonic, init=False)
    _before: float = field(default=0.0, init=False)

    def load(self) -> dict[str, Any] | None:
        """Return what was kept, or None where there is nothing to resume from."""
        state = load_checkpoint(self.path, self.fingerprint) if self.path else None
        self._before = 0.0 if state is None else state["seconds"]
        return state

    def save(self, state: Mapping[str, Any], finished: bool) -> None:
        """Keep a state, if the last is old enough; and the finished one, which other work follows.

        What took little time is not kept at its end: on a GPU, writing takes as long.

        Parameters
        ----------
        state : mapping
            What to keep: ``step``, and other plain values and tensors.
        finished : bool
            Whether nothing is left to do.
        """
        now = time.monotonic()
        patience = self.checkpoint_seconds * (_SHARE_AT_THE_END if finished else 1)
        if self.path is None or now - self._saved <= patience:
            return
        self._saved = now
        save_checkpoint(self.path, self.fingerprint, {**state, "seconds": self.seconds})

    @property
    def seconds(self) -> float:
        """Time spent so far, earlier runs included."""
        return self._before + time.monotonic() - self._started
