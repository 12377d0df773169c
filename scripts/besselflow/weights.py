"""Trained weights as one safetensors file, which holds no code and tells when it was damaged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from besselflow.fingerprint import fingerprint
from besselflow.job import logger
from besselflow.store import atomic_path

_DIGEST = "digest"


def save_weights(
    path: Path | str, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Write weights and facts under their final name only when they are complete.

    Parameters
    ----------
    path : path
        File to write.
    tensors : mapping of str to numpy.ndarray
        Weights by name.
    metadata : mapping of str to str
        Facts; a digest of both is added to them, since the format has no checksum of its own.
    """
    # The writer takes the memory as it lies, whatever the strides.
    tensors = {name: np.asarray(values, order="C") for name, values in tensors.items()}
    facts = {**metadata, _DIGEST: _digest(tensors, metadata)}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, facts)
        # It comes readable by its owner alone, unlike everything else in the results.
        Path(temporary).chmod(0o644)


def load_weights(path: Path | str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read weights and facts.

    Returns
    -------
    tensors : dict of str to numpy.ndarray
        Weights by name.
    metadata : dict of str to str
        Facts, without the digest.

    Raises
    ------
    Exception
        The file is not there or not in this format.
    ValueError
        It was changed after it had been written. Files without a digest, which earlier versions
        wrote, are taken as they are.
    """
    with safe_open(str(path), framework="np") as file:
        metadata = dict(file.metadata() or {})
        tensors = {key: file.get_tensor(key) for key in file.keys()}
    expected = metadata.pop(_DIGEST, None)
    if expected is not None and expected != _digest(tensors, metadata):
        raise ValueError("its content is not what was written")
    return tensors, metadata


def read_info(path: Path | str) -> dict[str, Any]:
    """Read what a prior was trained on from the JSON file beside it, or else from the prior.

    Parameters
    ----------
    path : path
        JSON file that the training wrote, or the prior itself where it came without one. Training
        again for a damaged file would take hours, and the prior holds the same facts.

    Raises
    ------
    RuntimeError
        Neither can be read; the message says to delete both.
    """
    path = Path(path)
    prior = path.with_suffix(".safetensors")
    if path == prior:
        return _info_of(prior, f"{path}: not a readable prior", "choose another")
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(info, dict):
            return info
        reason = "no object in it"
    except ValueError as error:
        reason = str(error)
    logger.warning("%s can't be read (%s); taking the facts from %s", path, reason, prior)
    complaint = f"{path}: not readable ({reason}), nor is {prior}"
    return _info_of(prior, complaint, "delete both files and run again")


def _info_of(prior: Path, complaint: str, remedy: str) -> dict[str, Any]:
    try:
        return json.loads(load_weights(prior)[1]["info"])
    except Exception as error:
        raise RuntimeError(f"{complaint} ({error}); {remedy}") from error


def _digest(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> str:
    names = sorted(tensors)
    return fingerprint(dict(metadata), names, *(np.asarray(tensors[name]) for name in names))
