"""The sample sheet: its samples, and all that is wrong with it at once."""

from __future__ import annotations

import difflib
import os
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from besselflow.acquisition import Frames
from besselflow.errors import Problem, ProblemsError
from besselflow.sample_sheet.cells import (
    Row,
    empty_unfilled,
    path_of,
    read_beam,
    read_detector,
    read_frames,
    read_lateral,
    read_path,
    read_simulated,
    read_voxel_size,
    read_yes,
)
from besselflow.sample_sheet.columns import COLUMNS, RESERVED_NAMES, ROLES
from besselflow.sample_sheet.table import (
    check_header,
    check_separator,
    read_lines,
    split_cells,
    wrong_length,
)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_LONGEST_NAME = 100
VOXEL_COLUMNS = ("voxel_size_z_um", "voxel_size_y_um", "voxel_size_x_um")
PATH_COLUMNS = {"acquisition": True, "stage_positions": False, "ground_truth": True}
"""Columns with paths, and whether a folder may stand in them."""


@dataclass(frozen=True)
class Sample:
    """One row of the sample sheet, understood.

    Attributes
    ----------
    name : str
        Unique name.
    row : int
        1-based line of the sheet.
    acquisition, stage_positions, ground_truth : pathlib.Path or None
        Absolute paths of existing files, or folders; None where the cell is empty.
    beam_profile : str or None
        A model such as ``box:6um``, or the absolute path of a CSV or of a TIFF with beads, which
        may have options behind it (``/data/beads.tif:z=0.5um``).
    voxel_size_um : tuple of float
        (z, y, x); None where the cell is empty. After the check of the files, only z may be None,
        for a default, where there is no ground truth.
    role : str
        ``test`` or ``train``.
    offset : float, ``auto`` or None
        Counts of an unlit pixel; ``auto`` where the data are to tell.
    gain : float, ``auto`` or None
        Counts per photon.
    lateral_psf : str or None
        ``beam``, a model such as ``gaussian:0.6um``, or the absolute path of a TIFF as in
        `beam_profile`; None where there is no lateral blur.
    simulated : bool
        Whether the acquisition was computed from the ground truth.
    frames : str
        ``average`` or ``time``: what becomes of frames that were repeated at one position.
    overrule : bool
        Whether the sheet counts where the files state other positions or voxel sizes.
    extra : dict of str to str
        Cells of further columns.
    positions_um : tuple of float, or None
        Stage positions in the order of the projections; known after the check of the files.
    acquisition_files : tuple of pathlib.Path
        Files of the acquisition, of very many the first; known after the check of the files.
    ground_truth_files : tuple of pathlib.Path
        Files that belong to the ground truth beside the one that the sheet names, likewise.
    """

    name: str
    row: int
    acquisition: Path | None
    stage_positions: Path | None
    beam_profile: str | None
    voxel_size_um: tuple[float | None, float | None, float | None]
    ground_truth: Path | None
    role: Literal["test", "train"]
    offset: float | Literal["auto"] | None = None
    gain: float | Literal["auto"] | None = None
    lateral_psf: str | None = None
    simulated: bool = False
    frames: Frames = "average"
    overrule: bool = False
    extra: dict[str, str] = field(default_factory=dict)
    positions_um: tuple[float, ...] | None = None
    acquisition_files: tuple[Path, ...] = ()
    ground_truth_files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Sheet:
    """A sample sheet as far as it could be understood.

    Attributes
    ----------
    path : pathlib.Path
        The sheet.
    samples : tuple of Sample
        Rows without a problem, in the order of the sheet.
    problems : tuple of Problem
        What is wrong with the other rows.
    """

    path: Path
    samples: tuple[Sample, ...]
    problems: tuple[Problem, ...]

    @property
    def tests(self) -> tuple[Sample, ...]:
        """Samples to reconstruct."""
        return tuple(sample for sample in self.samples if sample.role == "test")

    @property
    def trains(self) -> tuple[Sample, ...]:
        """Samples to learn from."""
        return tuple(sample for sample in self.samples if sample.role == "train")

    @property
    def rejected(self) -> dict[str, tuple[Problem, ...]]:
        """Problems by sample name; rows without a name appear as ``row N``."""
        return problems_by_sample(self.problems)


def problems_by_sample(problems: Iterable[Problem]) -> dict[str, tuple[Problem, ...]]:
    """Group problems by the sample that they exclude.

    Parameters
    ----------
    problems : iterable of Problem

    Returns
    -------
    dict of str to tuple of Problem
        Sample name -> its problems. Rows without a name appear as ``row N``, which can't be a
        sample name.
    """
    grouped: dict[str, list[Problem]] = defaultdict(list)
    for problem in problems:
        grouped[problem.sample or f"row {problem.row}"].append(problem)
    return {name: tuple(found) for name, found in grouped.items()}


def read_sheet(path: Path | str) -> Sheet:
    """Read a sample sheet and find everything that is wrong with it, without opening its files.

    Parameters
    ----------
    path : path
        Tab-separated table in UTF-8 with the columns of `COLUMNS`. Blank lines and lines that
        start with ``#`` are skipped. Relative paths in it start from its own folder, or, where
        nothing is there, from the working directory.

    Returns
    -------
    Sheet
        Problems of single rows are collected in it.

    Raises
    ------
    ProblemsError
        The sheet as a whole is unusable: missing, not tab-separated text, columns missing or
        doubled, all rows of the wrong length, no sample, or no ``test`` sample. All that was found
        is listed, problems of single rows included.
    """
    path = Path(path)
    lines = read_lines(path)
    (header_line, header_text), body = lines[0], lines[1:]
    check_separator(path, header_line, header_text)
    header = split_cells(header_text)
    while header and header[-1] == "":
        header.pop()
    problems = check_header(path, header_line, header)
    if problems:
        raise ProblemsError(problems)
    if not body:
        raise ProblemsError(
            [
                Problem(
                    str(path),
                    "no samples; there is a header only",
                    "add one tab-separated row per sample below the header "
                    "(lines that start with # are comments)",
                )
            ]
        )
    rows, misfits = [], []
    for line, text in body:
        cells = split_cells(text)
        while len(cells) > len(header) and cells[-1] == "":
            cells.pop()
        if len(cells) == len(header):
            rows.append(Row(path, line, dict(zip(header, cells, strict=True))))
        else:
            misfits.append(_misfit(path, line, text, cells, len(header)))
    samples = _understand(rows, misfits)
    by_row = [problem for row in (*rows, *misfits) for problem in row.problems]
    if not rows:
        raise ProblemsError([row.problems[0] for row in misfits])
    if not misfits and all(row.cells["role"] == "train" for row in rows):
        problem = Problem(
            str(path),
            "no test sample: every row has the role train",
            "write test into the role column of the samples to reconstruct",
            column="role",
        )
        raise ProblemsError([problem, *by_row])
    return Sheet(path, tuple(samples), tuple(sorted(by_row, key=lambda problem: problem.row)))


def _misfit(path: Path, line: int, text: str, cells: list[str], columns: int) -> Row:
    """Return a row of the wrong length, of whose cells nobody knows the columns but the first."""
    name = cells[0] if _NAME.fullmatch(cells[0]) else ""
    problem = wrong_length(path, line, text, cells, columns, name or None)
    numbered = {str(number): cell for number, cell in enumerate(cells)}
    return Row(path, line, {"sample": name, **numbered}, [problem])


def _understand(rows: list[Row], misfits: list[Row]) -> list[Sample]:
    """Turn rows into samples; what is wrong is reported to the rows."""
    for row in rows:
        empty_unfilled(row)
    _check_names(rows)
    _check_repeated([*rows, *misfits])
    known, parsed = {column.name for column in COLUMNS}, []
    for row in rows:
        _check_role(row)
        paths = {
            column: read_path(row, column, folders) for column, folders in PATH_COLUMNS.items()
        }
        cells = {
            "voxel_size_um": tuple(read_voxel_size(row, column) for column in VOXEL_COLUMNS),
            "offset": read_detector(row, "offset"),
            "gain": read_detector(row, "gain"),
            "beam_profile": read_beam(row),
            "lateral_psf": read_lateral(row),
            "frames": read_frames(row),
            "overrule": read_yes(row, "overrule"),
            "simulated": read_simulated(row),
            "extra": {name: cell for name, cell in row.cells.items() if name not in known},
        }
        _check_needed(row)
        parsed.append((row, paths, cells))
    _check_leaks([(row, paths) for row, paths, _ in parsed], misfits)
    return [
        Sample(name=row.cells["sample"], row=row.line, role=row.cells["role"], **paths, **cells)
        for row, paths, cells in parsed
        if not row.problems
    ]


def _check_names(rows: list[Row]) -> None:
    for row in rows:
        name = row.cells["sample"]
        if not name:
            row.report("sample", "the sample has no name", "give it a unique name")
            continue
        if not _NAME.fullmatch(name):
            safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name).lstrip("._-")
            hint = f', such as "{safe}"' if safe else ""
            row.report(
                "sample",
                "the name can't be used as a folder name",
                f"use letters, digits, '.', '_' and '-', beginning with a letter or digit{hint}",
            )
        elif len(name) > _LONGEST_NAME:
            row.report(
                "sample",
                f"the name has {len(name)} characters",
                f"use at most {_LONGEST_NAME}",
            )
        elif name.lower() in RESERVED_NAMES:
            row.report(
                "sample",
                "the name is reserved for a file or folder in the results",
                f"choose a name other than {', '.join(RESERVED_NAMES)}",
            )


def _check_repeated(rows: list[Row]) -> None:
    by_name: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.cells["sample"]:
            by_name[row.cells["sample"].lower()].append(row)
    for group in by_name.values():
        for row in group:
            others = [other for other in group if other is not row]
            if not others:
                continue
            where = ", ".join(str(other.line) for other in others)
            same = all(other.cells["sample"] == row.cells["sample"] for other in others)
            row.report(
                "sample",
                f"the name is used again in row {where}"
                + ("" if same else ", apart from capitals, which some file systems ignore"),
                "give every sample its own name",
            )


def _check_role(row: Row) -> None:
    role = row.cells["role"]
    if role in ROLES:
        return
    close = difflib.get_close_matches(role.lower(), ROLES, n=1, cutoff=0.5)
    remedy = f'did you mean "{close[0]}"?' if close else "write test or train"
    row.report("role", "unknown role" if role else "the role is missing", remedy)


def _check_needed(row: Row) -> None:
    needed = {"test": ("acquisition", "beam_profile"), "train": ("ground_truth",)}
    for column in needed.get(row.cells["role"], ()):
        if not row.cells[column]:
            row.report(
                column,
                f"a {row.cells['role']} sample needs it",
                "write the path of the file"
                + (" or a model such as box:6um" if column == "beam_profile" else ""),
            )


def _check_leaks(rows: list[tuple[Row, dict[str, Path | None]]], misfits: list[Row]) -> None:
    """Refuse training data that are the same file as something that is tested on.

    A row of the wrong length may be mended tomorrow, and then tested on with the same prior.
    """
    tested: dict[tuple[int, int], str] = {}
    for row, paths in rows:
        if row.cells["role"] != "train":
            for column in ("ground_truth", "acquisition"):
                identity = _identity(paths[column])
                where = f'is the {column} of the test sample "{row.cells["sample"]}"'
                if identity is not None:
                    tested.setdefault(identity, f"{where} (row {row.line})")
    for row in misfits:
        cells = set(row.cells.values()) - {""}
        for cell in cells if "train" not in cells else ():
            identity = _identity(path_of(row, cell))
            if identity is not None:
                where = f"stands in row {row.line}, which has the wrong number of cells"
                tested.setdefault(identity, where)
    for row, paths in rows:
        identity = _identity(paths["ground_truth"])
        if row.cells["role"] == "train" and identity in tested:
            row.report(
                "ground_truth",
                f"the same file {tested[identity]}, and a model must not learn from what it is "
                f"tested on",
                "train on another sample",
            )


def _identity(path: Path | None) -> tuple[int, int] | None:
    """Return what is equal for all names of one file, symbolic and hard links included."""
    if path is None:
        return None
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (status.st_dev, status.st_ino)
