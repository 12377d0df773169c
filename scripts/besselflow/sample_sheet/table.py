"""The sample sheet as a table of text: its lines, its header, and what separates its cells."""

from __future__ import annotations

import csv
import difflib
import re
from pathlib import Path

from besselflow.errors import Problem, ProblemsError
from besselflow.sample_sheet.columns import COLUMNS

_SEPARATORS = ((";", "semicolons"), (",", "commas"), ("|", "vertical bars"))
# Of a row without tabs, the first cell is all of it.
_SHOWN = 40


def read_lines(path: Path) -> list[tuple[int, str]]:
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


def split_cells(line: str) -> list[str]:
    """Split a line at its tabs, without the quotes of spreadsheets."""
    return [cell.strip() for cell in next(csv.reader([line], delimiter="\t"))]


def check_separator(path: Path, line: int, header: str) -> None:
    """Raise a ProblemsError that names the separator where it is not the tab."""
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


def check_header(path: Path, line: int, header: list[str]) -> list[Problem]:
    """Return what is wrong with the names of the columns."""
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


def wrong_length(
    path: Path, line: int, text: str, cells: list[str], columns: int, name: str | None
) -> Problem:
    """Return the problem of a row with more or fewer cells than the header.

    Parameters
    ----------
    path : path
        The sheet.
    line : int
        1-based line.
    text : str
        The row.
    cells : list of str
        What it is split into.
    columns : int
        Number of columns of the header.
    name : str or None
        The sample that the row seems to be of.
    """
    first, count = cells[0], len(cells)
    remedy = "separate the cells by single tabs, and keep the tab where a cell is empty"
    for separator, separators in _SEPARATORS:
        if count < columns and text.count(separator) >= columns - count:
            remedy = f"the row seems to be separated by {separators}: {remedy}"
            break
    else:
        if count < columns and len(re.split(r"\t| {2,}", text.strip())) > count:
            remedy = f"the row seems to be separated by spaces: {remedy}"
    first = first if len(first) <= _SHOWN else f"{first[:_SHOWN]}..."
    begins = f', which begins with "{first}",' if first else ""
    message = f"the row{begins} has {count} cells, but the header has {columns} columns"
    return Problem(str(path), message, remedy, line, sample=name)
