"""Finds names in paths that Snakemake would put something else in the place of."""

from __future__ import annotations

import re
from pathlib import Path

# Wildcards, also where a path comes from a function, and the "pathvars" of Snakemake 9.
_PLACEHOLDER = re.compile(r"\{[^{}]*\}|<[a-z][a-z0-9_]*>")

REMEDY = "rename the file or folder without it"
"""What to do about a path with a placeholder."""


def placeholder_in(path: Path | str) -> str | None:
    """Return the first part of a path that Snakemake can't take as it stands; None without one."""
    found = _PLACEHOLDER.search(str(path))
    return found[0] if found else None
