"""Single cells of the sample sheet: numbers, paths and beams, and what is wrong with them."""

from __future__ import annotations

import difflib
import math
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from besselflow.acquisition import Frames
from besselflow.beam.spec import split_tiff
from besselflow.errors import Problem
from besselflow.placeholders import REMEDY, placeholder_in
from besselflow.sample_sheet.columns import COLUMNS

FILL_IN = "?"
"""What a drafted sheet has in the cells that a person must fill in."""

FRAMES = ("average", "time")
PLAUSIBLE_VOXEL_UM = (0.005, 100.0)
_MODEL = re.compile(r"[A-Za-z]+:")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_DECIMAL_COMMA = re.compile(r"[-+]?\d*,\d+")
_WITH_UNIT = re.compile(r"(?P<number>[-+]?[\d.,]+)\s*(?P<unit>[a-zA-Zµμ]+)")
_UNITS_UM = {"nm": 1e-3, "um": 1.0, "µm": 1.0, "μm": 1.0, "mm": 1e3}


@dataclass(frozen=True)
class Row:
    """A row of the sheet and what was found out about it so far."""

    sheet: Path
    line: int
    cells: dict[str, str]
    problems: list[Problem] = field(default_factory=list)
    unfilled: set[str] = field(default_factory=set)

    def report(self, column: str, message: str, remedy: str) -> None:
        """Note what is wrong with a cell, and what to do about it."""
        if column in self.unfilled:
            return
        value, name = self.cells[column], self.cells["sample"] or None
        self.problems.append(
            Problem(str(self.sheet), message, remedy, self.line, column, value, name)
        )


def empty_unfilled(row: Row) -> None:
    """Report every cell that is still to be filled in, and make it empty for all who read it."""
    for column in COLUMNS:
        if row.cells.get(column.name) != FILL_IN:
            continue
        what = column.description.split(". ")[0].rstrip(".").removesuffix(", see below")
        row.report(
            column.name,
            "this cell is still to be filled in",
            f"{what}, such as {column.example}",
        )
        row.unfilled.add(column.name)
        row.cells[column.name] = ""


def read_number(row: Row, column: str, unit: str) -> float | None:
    """Return a finite number, or None after reporting why the cell is not one."""
    cell, name = row.cells[column], unit or "plain numbers"
    if _NUMBER.fullmatch(cell) and math.isfinite(float(cell)):
        return float(cell)
    if _DECIMAL_COMMA.fullmatch(cell):
        point = cell.replace(",", ".")
        row.report(column, "decimal comma", f'write it with a decimal point: "{point}"')
        return None
    with_unit = _WITH_UNIT.fullmatch(cell)
    if with_unit:
        remedy = f"write the number alone, in {name}"
        if unit == "micrometres" and with_unit["unit"] in _UNITS_UM:
            number = with_unit["number"].replace(",", ".")
            if _NUMBER.fullmatch(number):
                remedy += f': "{float(number) * _UNITS_UM[with_unit["unit"]]:g}"'
        row.report(column, "a unit stands beside the number", remedy)
        return None
    row.report(column, "not a finite number", f"write a number in {name}, such as 0.5")
    return None


def read_voxel_size(row: Row, column: str) -> float | None:
    """Return a plausible length in micrometres; what is wrong with it is reported to the row.

    An empty cell is None without a report: the files may state it, and a default for the distance
    of the slices follows from pixel size and stage step.
    """
    if not row.cells[column]:
        return None
    value = read_number(row, column, "micrometres")
    if value is None:
        return None
    low, high = PLAUSIBLE_VOXEL_UM
    if value <= 0:
        row.report(column, "the voxel size is not positive", "write it in micrometres")
    elif value > high:
        row.report(
            column,
            "the voxel size looks like nanometres",
            f'give micrometres (would it be "{value * 1e-3:g}"?)',
        )
    elif value < low:
        factor, unit = (1e3, "millimetres") if value * 1e3 >= low else (1e6, "metres")
        row.report(
            column,
            f"the voxel size looks like {unit}",
            f'give micrometres (would it be "{value * factor:g}"?)',
        )
    return value


def read_detector(row: Row, column: str) -> float | Literal["auto"] | None:
    """Return the offset or the gain; None where the cell is empty or, after a report, wrong."""
    cell = row.cells.get(column)
    if not cell:
        return None
    if cell.lower() == "auto":
        _check_estimable(row, column)
        return "auto"
    value = read_number(row, column, "counts" if column == "offset" else "counts per photon")
    if column == "gain" and value is not None and value <= 0:
        row.report(
            column,
            "the gain is not positive",
            "write the counts per photon, or leave the cell empty if it is unknown",
        )
    return value


def _check_estimable(row: Row, column: str) -> None:
    """Report an offset or gain that the data can't tell, from what else the row says."""
    offset, gain = (row.cells.get(name, "").lower() for name in ("offset", "gain"))
    if row.cells["role"] == "train":
        row.report(
            column,
            "only projections tell offset and gain, and this sample is for training",
            "write a number, or leave the cell empty",
        )
    elif column == "offset" and gain != "auto":
        row.report(
            column,
            "the offset is estimated only along with the gain",
            "write auto as gain too, or a number as offset",
        )
    elif column == "gain" and not offset:
        row.report(
            column,
            "the gain is to be estimated, but the offset is empty",
            "write auto or the counts of an unlit pixel as offset",
        )


def path_of(row: Row, cell: str) -> Path:
    """Return the absolute path of a cell: from the sheet's folder, or else where that exists."""
    # Unlike pathlib's, these functions raise for no text: an unknown user, a folder that may not be
    # entered, or a name that is too long would spoil the other rows.
    path = Path(os.path.expanduser(cell))
    beside_sheet = row.sheet.absolute().parent / path
    if not os.path.exists(beside_sheet) and os.path.exists(path):
        return path.absolute()
    return beside_sheet


def _report_locked(row: Row, column: str, path: Path) -> bool:
    """Report a path that can't be looked at, so that nobody knows what is there."""
    try:
        os.stat(path)
    except PermissionError:
        remedy = "make it readable, and the folders above it"
        row.report(column, f"permission denied ({path})", remedy)
        return True
    except (OSError, ValueError):
        pass
    return False


def read_path(row: Row, column: str, folders: bool = False) -> Path | None:
    """Return the absolute path in a cell, None where it is empty; report what is no file.

    Folders count as well where they may be an acquisition.
    """
    cell = row.cells[column]
    if not cell:
        return None
    path = path_of(row, cell)
    _refuse_placeholder(row, column, path)
    if os.path.isdir(path):
        if not folders:
            row.report(column, "this is a folder", "give the path of a file")
    elif not _report_locked(row, column, path) and not os.path.isfile(path):
        row.report(
            column,
            f"no such file ({path})",
            "correct the path; relative paths start from the folder of the sheet",
        )
    return path


def read_beam(row: Row) -> str | None:
    """Return the model or the absolute path; None where the cell is empty or, reported, wrong."""
    cell = row.cells["beam_profile"]
    if not cell:
        return None
    return _read_optics(
        row,
        "beam_profile",
        "a model such as box:6um or bessel:NA=0.40-0.43,wavelength=0.94um, or correct the path of "
        "the CSV or bead stack",
    )


def read_lateral(row: Row) -> str | None:
    """Return ``beam``, the model or the absolute path; None if there is none or it is wrong."""
    cell = row.cells.get("lateral_psf")
    if not cell or cell.lower() == "beam":
        return "beam" if cell else None
    return _read_optics(
        row,
        "lateral_psf",
        "beam, or a model such as gaussian:0.6um, or correct the path of the TIFF",
    )


def read_frames(row: Row) -> Frames:
    """Return what becomes of repeated frames; what can't be understood is reported."""
    answer = row.cells.get("frames", "").lower()
    if answer in ("", *FRAMES):
        return answer or "average"
    close = difflib.get_close_matches(answer, FRAMES, n=1)
    remedy = f'did you mean "{close[0]}"?' if close else "write average or time"
    row.report("frames", "unknown treatment of repeated frames", remedy)
    return "average"


def read_yes(row: Row, column: str) -> bool:
    """Return whether a cell says yes; what can't be understood is reported."""
    answer = row.cells.get(column, "").lower()
    if answer not in ("", "no", "yes"):
        row.report(column, "neither yes nor no", "write yes, or leave the cell empty")
    return answer == "yes"


def read_simulated(row: Row) -> bool:
    """Return whether the cell says yes; what can't be understood, or can't be so, is reported."""
    if not read_yes(row, "simulated"):
        return False
    if not row.cells["ground_truth"]:
        row.report(
            "simulated",
            "a simulated acquisition without the volume that it was computed from",
            "write the path of that volume as ground_truth, or leave this cell empty",
        )
    elif row.cells.get("gain", "").lower() in ("", "auto"):
        row.report(
            "simulated",
            "the gain is missing, and with it the number of photons",
            "write the counts per photon as gain, or leave this cell empty",
        )
    return True


def _refuse_placeholder(row: Row, column: str, path: Path) -> None:
    found = placeholder_in(path)
    if found:
        row.report(column, f"{found} in {path} means a placeholder to the workflow engine", REMEDY)


def _read_optics(row: Row, column: str, remedy: str) -> str | None:
    """Return a model as it stands, or the absolute path of a file with the options behind it."""
    cell = row.cells[column]
    path = path_of(row, cell)
    if os.path.isfile(path):
        _refuse_placeholder(row, column, path)
        return str(path)
    split = split_tiff(cell)
    if split:
        path = path_of(row, split[0])
        if os.path.isfile(path):
            _refuse_placeholder(row, column, path)
            return f"{path}:{split[1]}" if split[1] else str(path)
    elif _MODEL.match(cell):
        return cell
    if not _report_locked(row, column, path):
        row.report(column, f"neither a model nor an existing file ({path})", f"write {remedy}")
    return None
