"""The rows of a drafted sheet: what belongs together, what is known, what a person must add."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from besselflow.acquisition import Acquisition
from besselflow.checks import check_images, check_samples
from besselflow.draft.names import core_of, is_truth, sample_name
from besselflow.draft.scan import Found
from besselflow.errors import InputError, Problem, ProblemsError
from besselflow.findings import Findings
from besselflow.sample_sheet import (
    COLUMNS,
    FILL_IN,
    RESERVED_NAMES,
    VOXEL_COLUMNS,
    Sample,
    read_sheet,
)

NOTES = ("format", "recorded")
"""Columns that a draft adds for the reader; the workflow keeps them as notes."""

_HEADER = (*(column.name for column in COLUMNS), *NOTES)


@dataclass(frozen=True)
class Draft:
    """A sheet that was written, and what is to be done about it.

    Attributes
    ----------
    path : pathlib.Path
        The sheet.
    rows : list of dict
        Its cells by column.
    images : list of Acquisition
        The acquisition, or for ``train`` the ground truth, of each row.
    problems : list of Problem
        What the check of the sheet finds, cells to fill in included.
    """

    path: Path
    rows: list[dict[str, str]]
    images: list[Acquisition]
    problems: list[Problem]


def draft_rows(found: Found, folder: Path) -> list[tuple[dict[str, str], Acquisition]]:
    """Return one row per acquisition, and one per ground truth that belongs to none.

    Parameters
    ----------
    found : Found
        What lies in the tree.
    folder : pathlib.Path
        Folder of the sheet, which relative paths start from.

    Returns
    -------
    list of (dict, Acquisition)
        Cells by column; those that a person must fill in hold `FILL_IN`.
    """
    truths = [image for image in found.images if is_truth(image.path)]
    tests = [image for image in found.images if not is_truth(image.path)]
    taken, used, rows = set(RESERVED_NAMES), set(), []
    for image in tests:
        truth = _named(image.path, [other.path for other in truths])
        used.add(truth)
        known = next((other for other in truths if other.path == truth), None)
        rows.append((_test_row(image, known, found, tests, folder, taken), image))
    for truth in truths:
        if truth.path not in used:
            rows.append((_train_row(truth, folder, taken), truth))
    return rows


def _test_row(
    image: Acquisition,
    truth: Acquisition | None,
    found: Found,
    tests: list[Acquisition],
    folder: Path,
    taken: set[str],
) -> dict[str, str]:
    path = image.path
    stage = _named(path, found.stages)
    if stage is None and image.positions_um is None:
        stage = _shared(path, found.stages, tests)
    # What is named after the acquisition goes first, and a profile before the beads it came from.
    beams = (found.beams, found.beads)
    choices = [_named(path, place) for place in beams]
    choices += [_shared(path, place, tests) for place in beams]
    beam = next((choice for choice in choices if choice is not None), None)
    sizes = dict(zip(VOXEL_COLUMNS, _voxel_cells(image, truth), strict=True))
    return {
        "sample": sample_name(image.path, taken),
        "acquisition": _shown(image.path, folder),
        "stage_positions": _shown(stage, folder) or (FILL_IN if image.positions_um is None else ""),
        "beam_profile": _shown(beam, folder) or FILL_IN,
        **sizes,
        "ground_truth": _shown(truth.path, folder) if truth else "",
        "role": "test",
        **_notes(image),
    }


def _train_row(truth: Acquisition, folder: Path, taken: set[str]) -> dict[str, str]:
    return {
        "sample": sample_name(truth.path, taken),
        **dict(zip(VOXEL_COLUMNS, _voxel_cells(None, truth), strict=True)),
        "ground_truth": _shown(truth.path, folder),
        "role": "train",
        **_notes(truth),
    }


def _voxel_cells(image: Acquisition | None, truth: Acquisition | None) -> list[str]:
    """Return the cells (z, y, x); without a ground truth, z may stay open."""
    stacks = [stack for stack in (image, truth) if stack is not None]
    spacing = truth.voxel_size_um[0] if truth is not None else None
    cells = [f"{spacing:.6g}" if spacing else (FILL_IN if truth is not None else "")]
    for axis in (1, 2):
        stated = [stack.voxel_size_um[axis] for stack in stacks if stack.voxel_size_um[axis]]
        cells.append(f"{stated[0]:.6g}" if stated else FILL_IN)
    return cells


def _notes(image: Acquisition) -> dict[str, str]:
    recorded = image.date.isoformat(" ", "seconds") if image.date else ""
    return {"format": image.format, "recorded": recorded}


def _named(path: Path, candidates: Sequence[Path]) -> Path | None:
    """Return the file that belongs to an acquisition by its name; of several, the nearest one."""
    fitting = [candidate for candidate in candidates if core_of(candidate) == core_of(path)]
    nearest = min((_distance(path, candidate) for candidate in fitting), default=0)
    return _only([place for place in fitting if _distance(path, place) == nearest])


def _shared(path: Path, candidates: Sequence[Path], tests: Sequence[Acquisition]) -> Path | None:
    """Return the nearest file above an acquisition whose name names no acquisition."""
    cores = {core_of(test.path) for test in tests}
    above = [
        candidate
        for candidate in candidates
        if candidate.parent in (path, *path.parents) and core_of(candidate) not in cores
    ]
    deepest = max((len(candidate.parent.parts) for candidate in above), default=0)
    return _only([place for place in above if len(place.parent.parts) == deepest])


def _only(paths: list[Path]) -> Path | None:
    """Return the path where there is just one: several can't be told apart."""
    return paths[0] if len(paths) == 1 else None


def _distance(a: Path, b: Path) -> int:
    """Return the number of steps between the folders of two paths."""
    common = len(Path(os.path.commonpath([a.parent.absolute(), b.parent.absolute()])).parts)
    return len(a.parent.absolute().parts) + len(b.parent.absolute().parts) - 2 * common


def _shown(path: Path | None, folder: Path) -> str:
    """Return a path as it stands in the sheet: relative where it lies below the sheet's folder."""
    if path is None:
        return ""
    absolute = path.absolute()
    if absolute.is_relative_to(folder.absolute()):
        return str(absolute.relative_to(folder.absolute()))
    return str(absolute)


def write_draft(found: Found, out: Path) -> Draft:
    """Write the sheet and check it.

    Parameters
    ----------
    found : Found
        What lies in the tree.
    out : pathlib.Path
        The sheet to write.

    Raises
    ------
    InputError
        There is nothing to write, or a path holds a tab or a line break.
    """
    rows = draft_rows(found, out.parent)
    if not rows:
        raise InputError("no acquisition was found; give the directory that the microscope wrote")
    lines = ["\t".join(_HEADER)]
    for row, image in rows:
        cells = [row.get(name, "") for name in _HEADER]
        if any(set("\t\r\n") & set(cell) for cell in cells):
            raise InputError(f"{image.path}: its path holds a tab or a line break; rename it")
        lines.append("\t".join(cells))
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Draft(out, [row for row, _ in rows], [image for _, image in rows], _problems(out, rows))


def _problems(path: Path, rows: list[tuple[dict[str, str], Acquisition]]) -> list[Problem]:
    """Return what the check of a sheet and its files finds.

    The check leaves rows aside that are not filled in yet; their images are looked at here.
    """
    try:
        sheet = read_sheet(path)
        problems = [found for each in check_samples(sheet).rejected.values() for found in each]
    except ProblemsError as error:
        problems = list(error.problems)
    for line, (row, image) in enumerate(rows, start=2):
        if FILL_IN in row.values() and row["role"] == "test":
            voxel = (None, None, None)
            sample = Sample(row["sample"], line, image.path, None, None, voxel, None, "test")
            check_images(Findings(path, sample, problems), image)
    return sorted(problems, key=lambda problem: problem.row or 0)


def describe_positions(image: Acquisition) -> str:
    """Say in some words where the projections were taken."""
    if image.positions_um is None:
        return "positions unknown"
    steps = np.diff(np.sort(image.positions_um))
    if np.ptp(steps) < 0.01 * steps.mean():
        return f"steps of {steps.mean():.4g} um"
    return f"steps of {steps.min():.4g} to {steps.max():.4g} um"
