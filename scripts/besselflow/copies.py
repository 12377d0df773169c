"""Training volumes that are copies of a tested ground truth, found without reading all of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from besselflow.acquisition import Acquisition, open_acquisition
from besselflow.findings import Findings


@dataclass(frozen=True)
class Print:
    """What tells two ground truths apart without reading them whole.

    The files themselves are closed again, since a sheet may name more than a process may open.
    """

    path: Path
    shape: tuple[int, ...]
    digest: bytes | None


def print_of(stack: Acquisition) -> Print:
    """Return what the middle plane of a ground truth looks like."""
    shape = stack.data.shape
    try:
        plane = np.asarray(stack.data[shape[0] // 2, shape[1] // 2, shape[2] // 2], np.float64)
    except Exception:
        # Reported by the check of the planes; what can't be decoded can't be compared.
        return Print(stack.path, shape, None)
    return Print(stack.path, shape, hashlib.sha256(plane.tobytes()).digest())


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
