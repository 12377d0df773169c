"""Disks that are full or do not let themselves be written: what to do, in a sentence."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from besselflow.errors import InputError

_FREE = "free some space there, or choose another folder with the key `results`"
_ALLOW = "make the folder writable, or choose another with the key `results`"
_REMEDIES = {
    errno.ENOSPC: ("the disk is full", _FREE),
    errno.EDQUOT: ("the quota of the disk is used up", _FREE),
    errno.EROFS: ("the file system is read-only", _ALLOW),
    errno.EACCES: ("permission denied", _ALLOW),
}


@contextlib.contextmanager
def explained(path: Path | str) -> Iterator[None]:
    """Say what to do where `path` can't be written for a reason that lies with the disk.

    Raises
    ------
    InputError
        The disk is full, or does not let itself be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _REMEDIES:
            raise
        # A file that may not be read is another matter.
        named = error.filename is None or str(error.filename).startswith(str(Path(path).parent))
        if error.errno == errno.EACCES and not named:
            raise
        what, remedy = _REMEDIES[error.errno]
        raise InputError(
            f"{path} can't be written: {what}; {remedy}, then run the same command again"
        ) from error
