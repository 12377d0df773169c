"""Training volumes that share voxels with a tested ground truth."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from besselflow.acquisition import Acquisition, open_acquisition
from besselflow.findings import Findings
from besselflow.fingerprint import fingerprint
from besselflow.landmarks import Landmarks, landmarks

# Slices of a tested ground truth that are looked for, of every channel and of up to three times.
_SLICES = 16
# So many of the landmarks of each, or this share where there are more: plenty for a small part.
_LANDMARKS, _SHARE = 1024, 1 / 8


@dataclass(frozen=True)
class Print:
    """What tells two ground truths apart without reading them whole.

    The files themselves are closed again, since a sheet may name more than a process may open.

    Attributes
    ----------
    path : pathlib.Path
        Where it lies.
    shape : tuple of int
        (T, C, Z, Y, X).
    digest : bytes or None
        Of its middle plane; None where that can't be decoded.
    state : str
        Identifies its files as they are now.
    """

    path: Path
    shape: tuple[int, ...]
    digest: bytes | None
    state: str


def print_of(stack: Acquisition) -> Print:
    """Return what the middle plane of a ground truth looks like."""
    shape, state = stack.data.shape, _state_of(stack)
    try:
        plane = np.asarray(stack.data[shape[0] // 2, shape[1] // 2, shape[2] // 2], np.float64)
    except Exception:
        # Reported by the check of the planes; what can't be decoded can't be compared.
        return Print(stack.path, shape, None, state)
    return Print(stack.path, shape, hashlib.sha256(plane.tobytes()).digest(), state)


def _state_of(stack: Acquisition) -> str:
    """Identify files by name, size and time of modification."""
    files = [os.path.abspath(path) for path in stack.files or (stack.path,)]
    return fingerprint([(name, *_size_and_time(name)) for name in files])


def _size_and_time(name: str) -> tuple[int, int]:
    status = os.stat(name)
    return status.st_size, status.st_mtime_ns


class Overlaps:
    """Looks for parts of tested ground truths in training volumes.

    A training volume is read whole for this, once: what was compared is remembered.

    Parameters
    ----------
    tested : mapping
        Test sample -> print of its ground truth.
    compared : collection of str
        Pairs of files that are known to share nothing.

    Attributes
    ----------
    compared : set of str
        The same with the pairs that were compared since, as far as they still matter.
    """

    def __init__(self, tested: Mapping[str, Print], compared: Collection[str] = ()):
        self._tested, self._before, self.compared = tested, frozenset(compared), set()
        self._landmarks: dict[str, np.ndarray] = {}

    def check(self, findings: Findings, train: Print) -> None:
        """Refuse a training volume that shares voxels with a tested ground truth."""
        pairs = {name: fingerprint(train.state, each.state) for name, each in self._tested.items()}
        new = [name for name, pair in pairs.items() if pair not in self._before]
        try:
            known = Landmarks({name: self._of(name) for name in new})
            name = known.found_in(_learnt_slices(train.path)) if new else None
        except Exception:
            # Whoever needs a plane that can't be decoded will report it.
            return
        if name is None:
            self.compared |= set(pairs.values())
            return
        findings.report(
            "ground_truth",
            train.path,
            f'it shares voxels with the ground truth of the test sample "{name}" '
            f"({self._tested[name].path}), and a model must not learn from what it is tested on",
            "train on another sample, or on a part of this one that does not overlap it",
        )

    def _of(self, name: str) -> np.ndarray:
        if name not in self._landmarks:
            digests = [np.zeros(0, np.uint64)]
            for image in _tested_slices(self._tested[name].path):
                found = landmarks(image)
                digests.append(found[: max(_LANDMARKS, int(_SHARE * len(found)))])
            self._landmarks[name] = np.unique(np.concatenate(digests))
        return self._landmarks[name]


def _learnt_slices(path: Path) -> Iterator[np.ndarray]:
    """Yield all slices of what a prior learns from: the first time point of every channel."""
    data = open_acquisition(path).data[0]
    return (np.asarray(data[index]) for index in np.ndindex(*data.shape[:2]))


def _tested_slices(path: Path) -> Iterator[np.ndarray]:
    """Yield some slices of a ground truth, evenly spread over its depth."""
    data = open_acquisition(path).data
    n_times, channels, depth = data.shape[:3]
    chosen = sorted({int(z) for z in np.linspace(0, depth - 1, _SLICES).round()})
    for t in sorted({0, n_times // 2, n_times - 1}):
        for c in range(channels):
            yield from (np.asarray(data[t, c, z]) for z in chosen)


def check_copy(findings: Findings, train: Print, tested: dict[str, Print]) -> None:
    """Refuse a training volume whose voxels are those of a tested ground truth."""
    for name, test in tested.items():
        alike = train.digest is not None and (train.shape, train.digest) == (
            test.shape,
            test.digest,
        )
        if not alike or not _equal_voxels(train.path, test.path):
            continue
        findings.report(
            "ground_truth",
            train.path,
            f'its voxels equal the ground truth of the test sample "{name}" ({test.path}), and a '
            f"model must not learn from what it is tested on",
            "train on another sample",
        )


def _equal_voxels(a: Path, b: Path) -> bool:
    """Compare two stacks of one shape, plane by plane, until they differ."""
    first, second = open_acquisition(a).data, open_acquisition(b).data
    try:
        return all(
            np.array_equal(np.asarray(first[i]), np.asarray(second[i]))
            for i in np.ndindex(*first.shape[:3])
        )
    except Exception:
        # Whoever needs a plane that can't be decoded will report it.
        return False
