"""Checkpoints of long fits: written atomically, loaded without executing code."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch

from besselflow.job import logger
from besselflow.store import atomic_path


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
