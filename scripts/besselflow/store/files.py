"""Files that appear under their final name only when they are complete."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from besselflow.disk import explained

if TYPE_CHECKING:
    import pandas as pd


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Give a temporary name beside `path` that becomes `path` only when the block succeeds.

    Works for files and folders, and never touches what an interrupted or concurrent writer left.

    Parameters
    ----------
    path : path
        Final name; what stands there is replaced.

    Yields
    ------
    pathlib.Path
        Name to write to, in the same folder.

    Raises
    ------
    InputError
        The disk is full, or does not let itself be written.
    """
    path = Path(path)
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    # Only a writer on the same machine can be told to be dead by its process number.
    prefix = f".{path.name}.partial-{platform.node()}-"
    temporary = path.with_name(f"{prefix}{os.getpid()}")
    remove(temporary)
    try:
        with explained(path):
            yield temporary
            if path.is_dir():
                remove(path)
            os.replace(temporary, path)
    finally:
        remove(temporary)
        for stale in path.parent.glob(f"{prefix}*"):
            if not _is_running(int(stale.name.rsplit("-", 1)[1])):
                remove(stale)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def remove(path: Path) -> None:
    """Delete a file or a folder, if it exists."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path | str, values: dict[str, Any]) -> None:
    """Write a JSON file under its final name only when it is complete."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def write_tsv(path: Path | str, table: pd.DataFrame) -> None:
    """Write a table of results, tab-separated, under its final name only when it is complete."""
    with atomic_path(path) as temporary:
        table.to_csv(temporary, sep="\t", index=False, float_format="%.6g")
