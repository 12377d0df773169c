"""The sample sheet: its columns, and all that is wrong with it at once."""

from __future__ import annotations

import csv
import difflib
import math
import os
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from besselflow.errors import Problem, ProblemsError


@dataclass(frozen=True)
class Column:
    """One column of the sample sheet.

    Attributes
    ----------
    name : str
        Name in the header.
    required : bool
        Whether the column must be there (its cells may still be empty where the description
        says so).
    unit : str
        Unit of the values, empty where they have none.
    description : str
        What to write into it.
    example : str
        A valid cell.
    """

    name: str
    required: bool
    unit: str
    description: str
    example: str


COLUMNS = (
    Column(
        "sample",
        True,
        "",
        "Name of the sample, and of its folder in the results: letters, digits, `.`, `_` and `-`, "
        "starting with a letter or digit, at most 100 characters, unique in the sheet (also when "
        "capitals are ignored).",
        "mouse-1",
    ),
    Column(
        "acquisition",
        True,
        "",
        "Path of the TIFF with the projections. May be empty for `train` samples.",
        "data/mouse-1.tif",
    ),
    Column(
        "stage_positions",
        True,
        "",
        "Path of the CSV with the stage position of every projection. May be empty for `train` "
        "samples.",
        "data/mouse-1_stage.csv",
    ),
    Column(
        "beam_profile",
        True,
        "",
        "Axial profile of the beam: `box:LENGTHum`, `gaussian:FWHMum`, or the path of a CSV. May "
        "be empty for `train` samples.",
        "gaussian:12um",
    ),
    Column(
        "voxel_size_z_um",
        True,
        "µm",
        "Distance of neighbouring slices of the output; that of the ground truth where there is "
        "one.",
        "1.0",
    ),
    Column("voxel_size_y_um", True, "µm", "Pixel size along y.", "0.5"),
    Column("voxel_size_x_um", True, "µm", "Pixel size along x.", "0.5"),
    Column(
        "ground_truth",
        True,
        "",
        "Path of a point-scanned TIFF stack of the same field of view, or empty. Needed for "
        "`train` samples.",
        "data/mouse-1_truth.tif",
    ),
    Column(
        "role",
        True,
        "",
        "`test`: reconstruct this sample. `train`: learn the diffusion prior from its ground "
        "truth.",
        "test",
    ),
    Column(
        "offset",
        False,
        "counts",
        "Counts of an unlit pixel. Empty counts as 0.",
        "100",
    ),
    Column(
        "gain",
        False,
        "counts per photon",
        "Counts that one detected photon adds. Empty: the results stay in counts.",
        "10",
    ),
)

ROLES = ("test", "train")
RESERVED_NAMES = ("priors", "logs", "methods", "report.html", "metrics.tsv")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_LONGEST_NAME = 100
_VOXEL_COLUMNS = ("voxel_size_z_um", "voxel_size_y_um", "voxel_size_x_um")
_PLAUSIBLE_VOXEL_UM = (0.005, 100.0)
_PATH_COLUMNS = ("acquisition", "stage_positions", "ground_truth")
_MODEL = re.compile(r"[A-Za-z]+:")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_DECIMAL_COMMA = re.compile(r"[-+]?\d*,\d+")
_WITH_UNIT = re.compile(r"(?P<number>[-+]?[\d.,]+)\s*(?P<unit>[a-zA-Zµμ]+)")
_UNITS_UM = {"nm": 1e-3, "um": 1.0, "µm": 1.0, "μm": 1.0, "mm": 1e3}
_SEPARATORS = ((";", "semicolons"), (",", "commas"), ("|", "vertical bars"))


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
        Absolute paths of existing files; None where the cell is empty.
    beam_profile : str or None
        A model such as ``box:6um``, or the absolute path of a CSV.
    voxel_size_um : tuple of float
        (z, y, x).
    role : str
        ``test`` or ``train``.
    offset : float or None
        Counts of an unlit pixel.
    gain : float or None
        Counts per photon.
    extra : dict of str to str
        Cells of further columns.
    """

    name: str
    row: int
    acquisition: Path | None
    stage_positions: Path | None
    beam_profile: str | None
    voxel_size_um: tuple[float, float, float]
    ground_truth: Path | None
    role: Literal["test", "train"]
    offset: float | None = None
    gain: float | None = None
    extra: dict[str, str] = field(default_factory=dict)


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


@dataclass(frozen=True)
class _Row:
    """A row of the sheet and what was found out about it so far."""

    sheet: Path
    line: int
    cells: dict[str, str]
    problems: list[Problem] = field(default_factory=list)

    def report(self, column: str, message: str, remedy: str) -> None:
        value, name = self.cells[column], self.cells["sample"] or None
        self.problems.append(
            Problem(str(self.sheet), message, remedy, self.line, column, value, name)
        )


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
        doubled, rows of the wrong length, no sample, or no ``test`` sample. All that was found is
        listed, problems of single rows included.
    """
    path = Path(path)
    lines = _read_lines(path)
    (header_line, header_text), body = lines[0], lines[1:]
    _check_separator(path, header_line, header_text)
    header = _split(header_text)
    while header and header[-1] == "":
        header.pop()
    problems = _check_header(path, header_line, header)
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
    rows = []
    for line, text in body:
        cells = _split(text)
        while len(cells) > len(header) and cells[-1] == "":
            cells.pop()
        if len(cells) != len(header):
            problems.append(_wrong_length(path, line, text, len(cells), len(header)))
        else:
            rows.append(_Row(path, line, dict(zip(header, cells, strict=True))))
    samples = _understand(rows)
    if rows and all(row.cells["role"] == "train" for row in rows):
        problems.append(
            Problem(
                str(path),
                "no test sample: every row has the role train",
                "write test into the role column of the samples to reconstruct",
                column="role",
            )
        )
    by_row = [problem for row in rows for problem in row.problems]
    if problems:
        raise ProblemsError(
            sorted([*problems, *by_row], key=lambda problem: problem.row or header_line)
        )
    return Sheet(path, tuple(samples), tuple(by_row))


def _read_lines(path: Path) -> list[tuple[int, str]]:
    """Return (line number, text) of every line that is neither blank nor a comment."""

    def refuse(message: str, remedy: str, row: int | None = None) -> ProblemsError:
        return ProblemsError([Problem(str(path), message, remedy, row)])

    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise refuse(
            "no such sample sheet",
            "correct the path, given by the config key samples (--config samples=PATH)",
        ) from None
    except IsADirectoryError:
        raise refuse("this is a folder", "give the path of the sample sheet itself") from None
    except PermissionError:
        raise refuse("permission denied", "make the sheet readable") from None
    export = 'save it as "tab-separated text" in UTF-8'
    if raw.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise refuse("this is a spreadsheet document, not text", export)
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\x00" in raw[:4096]:
        raise refuse("the text is UTF-16 or the file is not text", export)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise refuse(f"byte {raw[error.start]:#04x} is not UTF-8 text", export, line) from None
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    lines = [
        (number, line)
        for number, line in enumerate(text.split("\n"), start=1)
        if line.strip() and not line.lstrip().startswith(("#", '"#'))
    ]
    if not lines:
        names = ", ".join(column.name for column in COLUMNS if column.required)
        raise refuse("the sheet is empty", f"write a tab-separated header with the columns {names}")
    return lines


def _split(line: str) -> list[str]:
    return [cell.strip() for cell in next(csv.reader([line], delimiter="\t"))]


def _check_separator(path: Path, line: int, header: str) -> None:
    known = {column.name for column in COLUMNS}
    if "\t" in header:
        return
    found = None
    for separator, name in _SEPARATORS:
        if len(known & {cell.strip(' "') for cell in header.split(separator)}) > 1:
            found = name
    if found is None and len(known & set(header.split())) > 1:
        found = "spaces"
    if found is not None:
        raise ProblemsError(
            [
                Problem(
                    str(path),
                    f"the columns are separated by {found}",
                    "separate them by tabs (in a spreadsheet, save as tab-separated text)",
                    line,
                )
            ]
        )


def _check_header(path: Path, line: int, header: list[str]) -> list[Problem]:
    problems = []
    for column in COLUMNS:
        count = header.count(column.name)
        if count > 1:
            problems.append(
                Problem(
                    str(path),
                    f"the column is there {count} times",
                    "keep one of them",
                    line,
                    column.name,
                )
            )
        if count:
            continue
        known = {other.name for other in COLUMNS}
        others = {name.lower(): name for name in header if name not in known}
        close = difflib.get_close_matches(column.name, others, n=1, cutoff=0.8)
        if close:
            remedy = f'did you mean it by "{others[close[0]]}"? Rename that to "{column.name}"'
            message = "the column is missing" if column.required else "unknown column name"
            problems.append(Problem(str(path), message, remedy, line, column.name))
        elif column.required:
            problems.append(
                Problem(
                    str(path),
                    "the column is missing",
                    f"add it to the header; found are: {', '.join(header)}",
                    line,
                    column.name,
                )
            )
    known_names = {column.name for column in COLUMNS}
    for name in dict.fromkeys(header):
        if name == "":
            problems.append(
                Problem(str(path), "a column has no name", "name it or remove it", line)
            )
        elif name not in known_names and header.count(name) > 1:
            problems.append(
                Problem(str(path), "the column is there more than once", "rename one", line, name)
            )
    return problems


def _wrong_length(path: Path, line: int, text: str, cells: int, columns: int) -> Problem:
    remedy = "separate the cells by single tabs, and keep the tab where a cell is empty"
    for separator, name in _SEPARATORS:
        if cells < columns and text.count(separator) >= columns - cells:
            remedy = f"the row seems to be separated by {name}: {remedy}"
            break
    else:
        if cells < columns and len(re.split(r"\t| {2,}", text.strip())) > cells:
            remedy = f"the row seems to be separated by spaces: {remedy}"
    message = f"the row has {cells} cells, but the header has {columns} columns"
    return Problem(str(path), message, remedy, line)


def _understand(rows: list[_Row]) -> list[Sample]:
    """Turn rows into samples; what is wrong is reported to the rows."""
    _check_names(rows)
    parsed = []
    for row in rows:
        _check_role(row)
        voxel = tuple(_read_voxel_size(row, column) for column in _VOXEL_COLUMNS)
        offset, gain = _read_detector(row, "offset"), _read_detector(row, "gain")
        paths = {column: _read_path(row, column) for column in _PATH_COLUMNS}
        beam = _read_beam(row)
        _check_needed(row)
        parsed.append((row, voxel, offset, gain, paths, beam))
    _check_leaks([(row, paths) for row, _, _, _, paths, _ in parsed])
    known = {column.name for column in COLUMNS}
    return [
        Sample(
            name=row.cells["sample"],
            row=row.line,
            beam_profile=beam,
            voxel_size_um=voxel,
            role=row.cells["role"],
            offset=offset,
            gain=gain,
            extra={name: cell for name, cell in row.cells.items() if name not in known},
            **paths,
        )
        for row, voxel, offset, gain, paths, beam in parsed
        if not row.problems
    ]


def _check_names(rows: list[_Row]) -> None:
    by_name: dict[str, list[_Row]] = defaultdict(list)
    for row in rows:
        name = row.cells["sample"]
        if not name:
            row.report("sample", "the sample has no name", "give it a unique name")
            continue
        by_name[name.lower()].append(row)
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


def _check_role(row: _Row) -> None:
    role = row.cells["role"]
    if role in ROLES:
        return
    close = difflib.get_close_matches(role.lower(), ROLES, n=1, cutoff=0.5)
    remedy = f'did you mean "{close[0]}"?' if close else "write test or train"
    row.report("role", "unknown role" if role else "the role is missing", remedy)


def _read_number(row: _Row, column: str, unit: str) -> float | None:
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


def _read_voxel_size(row: _Row, column: str) -> float | None:
    if not row.cells[column]:
        row.report(column, "the voxel size is missing", "write it in micrometres")
        return None
    value = _read_number(row, column, "micrometres")
    if value is None:
        return None
    low, high = _PLAUSIBLE_VOXEL_UM
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


def _read_detector(row: _Row, column: str) -> float | None:
    if not row.cells.get(column):
        return None
    value = _read_number(row, column, "counts" if column == "offset" else "counts per photon")
    if column == "gain" and value is not None and value <= 0:
        row.report(
            column,
            "the gain is not positive",
            "write the counts per photon, or leave the cell empty if it is unknown",
        )
    return value


def _resolve(row: _Row, cell: str) -> Path:
    """Return the absolute path of a cell: from the sheet's folder, or else where that exists."""
    path = Path(cell).expanduser()
    beside_sheet = row.sheet.absolute().parent / path
    if not beside_sheet.exists() and path.absolute().exists():
        return path.absolute()
    return beside_sheet


def _read_path(row: _Row, column: str) -> Path | None:
    cell = row.cells[column]
    if not cell:
        return None
    path = _resolve(row, cell)
    if path.is_dir():
        row.report(column, "this is a folder", "give the path of a file")
    elif not path.is_file():
        row.report(
            column,
            f"no such file ({path})",
            "correct the path; relative paths start from the folder of the sheet",
        )
    return path


def _read_beam(row: _Row) -> str | None:
    cell = row.cells["beam_profile"]
    if not cell:
        return None
    path = _resolve(row, cell)
    if path.is_file():
        return str(path)
    if _MODEL.match(cell):
        return cell
    row.report(
        "beam_profile",
        f"neither a model nor an existing file ({path})",
        "write a model such as box:6um or gaussian:12um, or correct the path of the CSV",
    )
    return None


def _check_needed(row: _Row) -> None:
    needed = {"test": ("acquisition", "beam_profile"), "train": ("ground_truth",)}
    for column in needed.get(row.cells["role"], ()):
        if not row.cells[column]:
            row.report(
                column,
                f"a {row.cells['role']} sample needs it",
                "write the path of the file"
                + (" or a model such as box:6um" if column == "beam_profile" else ""),
            )


def _check_leaks(rows: list[tuple[_Row, dict[str, Path | None]]]) -> None:
    """Refuse training data that are the same file as something that is tested on."""
    tested: dict[tuple[int, int], tuple[_Row, str]] = {}
    for row, paths in rows:
        if row.cells["role"] != "train":
            for column in ("ground_truth", "acquisition"):
                identity = _identity(paths[column])
                if identity is not None:
                    tested.setdefault(identity, (row, column))
    for row, paths in rows:
        identity = _identity(paths["ground_truth"])
        if row.cells["role"] == "train" and identity in tested:
            other, column = tested[identity]
            row.report(
                "ground_truth",
                f"the same file is the {column} of the test sample "
                f'"{other.cells["sample"]}" (row {other.line}), and a model must not learn from '
                f"what it is tested on",
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
