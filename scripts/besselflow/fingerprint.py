"""Digests that tell whether settings and data are the same as before."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np


def fingerprint(*parts: Any) -> str:
    """Identify settings and data, so that a resumed run can't mix two of them.

    Parameters
    ----------
    *parts
        Anything JSON can hold, and numpy arrays.

    Returns
    -------
    str
        Hexadecimal digest.
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(str((part.shape, part.dtype)).encode())
            digest.update(np.ascontiguousarray(part).data)
        else:
            digest.update(json.dumps(part, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def seed_of(seed: int, name: str) -> int:
    """Derive a seed for something with a name, the same in every run."""
    return (seed << 32) + int(fingerprint(name)[:8], 16)
