"""Damage for files of pixels, weights and checkpoints, and disks without room."""

import contextlib
import io
import os
import pickle
import subprocess
import zipfile

import pytest
import tifffile


class _Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.open, (str(self.path), os.O_CREAT | os.O_WRONLY)


def malicious_pickle(path, archive):
    """Return a pickle that makes a file where it is loaded by a reader that runs code.

    Parameters
    ----------
    path : path
        The file that it would make.
    archive : bool
        Whether the pickle lies in an archive such as torch writes.
    """
    content = pickle.dumps(_Touch(path), protocol=2)
    if not archive:
        return content
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("archive/data.pkl", content)
        file.writestr("archive/version", "3\n")
    return buffer.getvalue()


def spoil_second_projection(path):
    """Overwrite compressed pixels where the check, which decodes a few planes, doesn't look."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[1]
        offset, count = page.dataoffsets[0], page.databytecounts[0]
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * count)


@contextlib.contextmanager
def small_disk(place, size):
    """Mount a file system of a limited size where that is allowed."""
    place.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill_disk(place, free=0):
    """Leave so many bytes free in the file system of a folder; return the file that fills it."""
    filler = place / "filler"
    with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    os.truncate(filler, filler.stat().st_size - free)
    return filler
