"""What the names of files say: which belong together, and what they hold."""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise
from pathlib import Path

_SUFFIXES = (
    *(".companion.ome", ".ome.tiff", ".ome.tif", ".ome.zarr"),
    *(".tiff", ".tif", ".zarr", ".npy", ".csv", ".xml"),
)
_SPLIT = re.compile(r"[\s_.\-]+")
_TRUTH = {"truth", "groundtruth", "gt", "reference", "pointscan"}
_BEADS = {"bead", "beads", "psf"}
# What is said in front of such a word, or stands for the data themselves.
_COMPANIONS = {"ground", "point", "scan", "volume", "stack", "the"}
_ACQUISITION = {"bessel", "acquisition", "acq", "projection", "projections", "raw"}
_TABLES = {"stage", "position", "positions", "z", "um", "beam", "profile", "axial"}
_LONGEST = 100


def stem_of(path: Path) -> str:
    """Return the name without the endings of image files and tables."""
    name = unicodedata.normalize("NFC", path.name)
    for suffix in _SUFFIXES:
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return name


def _words(path: Path) -> list[str]:
    return [word for word in _SPLIT.split(stem_of(path).casefold()) if word]


def is_truth(path: Path) -> bool:
    """Return whether a name says that a file is a ground truth."""
    words = _words(path)
    pairs = {a + b for a, b in pairwise(words)}
    return bool(_TRUTH & ({*words} | pairs))


def is_beads(path: Path) -> bool:
    """Return whether a name says that a file shows beads."""
    return bool(_BEADS & {*_words(path)})


def core_of(path: Path) -> tuple[str, ...]:
    """Return the words of a name that tell one sample from another.

    ``mouse 1_bessel_00001.tif``, ``Mouse-1_ground_truth.ome.tif`` and ``mouse-1_stage.csv`` have
    the same.
    """
    words, other = _words(path), _ACQUISITION | _TABLES
    if is_truth(path) or is_beads(path):
        other |= _TRUTH | _BEADS | _COMPANIONS
    kept = [word for word in words if word not in other]
    # The number of a file within a series.
    if len(kept) > 1 and re.fullmatch(r"0\d{4}", kept[-1]):
        kept.pop()
    return tuple(kept)


def sample_name(path: Path, taken: set[str]) -> str:
    """Return a name for the sheet: letters, digits, ``.``, ``_`` and ``-``, not taken yet.

    Parameters
    ----------
    path : pathlib.Path
        The acquisition, or a ground truth without one, which is named without the words at its end
        that call it one; where that is taken, it has its own name, and where this is, too, that of
        its folder is put in front.
    taken : set of str
        Names in use, in lower case; the new one is added.
    """
    stem = stem_of(path)
    own, short = _plain(stem), _plain(_without_truth(stem))
    longer = f"{_plain(path.parent.name)}-{own}".strip("-._")
    candidates = [short[:_LONGEST], own[:_LONGEST], longer[:_LONGEST]]
    for number in range(2, len(taken) + 3):
        end = f"-{number}"
        candidates.append(longer[: _LONGEST - len(end)] + end)
    name = next(name for name in candidates if name and name.lower() not in taken)
    taken.add(name.lower())
    return name


def _without_truth(stem: str) -> str:
    """Return a name without the last word, or two, that call it a ground truth."""
    words = [word for word in re.finditer(r"[^\s_.\-]+", stem)]
    for count in (2, 1):
        kept, last = words[:-count], words[-count:]
        if "".join(word[0].casefold() for word in last) in _TRUTH:
            return stem[: kept[-1].end()] if kept else stem
    return stem


def _plain(text: str) -> str:
    text = text.replace("µ", "u").replace("μ", "u").replace("ß", "ss")
    ascii_only = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9._-]+", "-", ascii_only).strip("-._") or "sample"
