"""Disks that are full or do not let themselves be written: what to do, in a sentence."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterable, Iterator
from pathlib import Path

from besselflow.errors import InputError

_FREE = "free some space there, or choose another folder with the key `results`"
_AGAIN = "then run the same command again"
_ALLOW = "make the folder writable, or choose another with the key `results`"
_FULL, _USED_UP = "the disk is full", "the quota of the disk is used up"
_REMEDIES = {
    errno.ENOSPC: (_FULL, _FREE),
    errno.EDQUOT: (_USED_UP, _FREE),
    errno.EROFS: ("the file system is read-only", _ALLOW),
    errno.EACCES: ("permission denied", _ALLOW),
}


def lack_of_room(messages: Iterable[str]) -> str | None:
    """Return what was found to be full, and the remedy, if one of some messages says so.

    Parameters
    ----------
    messages : iterable of str
        Of errors that `explained` may have raised.
    """
    for message in messages:
        for what in (_FULL, _USED_UP):
            if f"can't be written: {what}" in message:
                return f"{what}; {_FREE}, {_AGAIN}"
    return None


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
        raise InputError(f"{path} can't be written: {what}; {remedy}, {_AGAIN}") from error
