"""Names of what a prior learns from.

A volume may be imaged several times; each acquisition is a job of its own, and has an item.
"""

from __future__ import annotations

import re


def acquisition_name(volume: str, number: int) -> str:
    """Name one of several acquisitions of a volume, counted from 1."""
    return volume if number == 1 else f"{volume} acquisition {number}"


def volume_name(acquisition: str) -> str:
    """Return the name of the volume that an acquisition is of."""
    return re.sub(r" acquisition \d+$", "", acquisition)


def training_item(name: str, number: int) -> str:
    """Name a simulated acquisition of a `role: train` sample, counted from 1."""
    return f"train-{name}" if number == 1 else f"train{number}-{name}"


def parse_item(item: str) -> tuple[str, str, int]:
    """Tell of what is imaged for a prior its kind, its name, and which acquisition of it.

    The kinds are ``train``, ``phantom`` and ``own``.
    """
    kind, name = item.split("-", 1)
    letters = kind.rstrip("0123456789")
    return letters, name, int(kind[len(letters) :] or 1)
