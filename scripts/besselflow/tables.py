"""Small tables of numbers, read with messages that name the cell."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from besselflow.errors import InputError


@dataclass(frozen=True)
class NumericTable:
    """Numbers of a small CSV; what starts a run reads some, and need not wait for pandas.

    Attributes
    ----------
    columns : dict
        Name -> values, float64, shape (rows,).
    lines : list of int
        Line of each row in the file.
    """

    columns: dict[str, np.ndarray]
    lines: list[int]


def read_numeric_csv(path: Path | str, columns: list[str]) -> NumericTable:
    """Read a small CSV of numbers and say exactly which cell is not one.

    Blank lines and lines that start with ``#`` are skipped.

    Parameters
    ----------
    path : path
        Comma-separated file with a header line; a byte-order mark is accepted.
    columns : list of str
        Columns that must be there; others are ignored.

    Returns
    -------
    NumericTable

    Raises
    ------
    InputError
        The file is not such a table; the message names row, column and value.
    """
    path, wanted = Path(path), ",".join(columns)
    lines = _read_lines(path, wanted)
    if not lines:
        raise InputError(f"{path}: the file is empty; write a CSV with the header {wanted}")
    (header_line, header), rows = lines[0], lines[1:]
    for name in columns:
        if header.count(name) > 1:
            raise InputError(
                f'{path}:{header_line}: the column "{name}" is there {header.count(name)} times; '
                f"keep one of them"
            )
        if name not in header:
            raise InputError(
                f'{path}:{header_line}: the column "{name}" is missing (found: '
                f"{', '.join(header)}); separate the columns by commas and write the header "
                f"{wanted}"
            )
    if not rows:
        raise InputError(f"{path}: the table has no rows; add one row per bin or projection")
    numbers = []
    for line, cells in rows:
        # A decimal comma makes one cell too many, which must not shift the columns.
        if len(cells) != len(header):
            raise InputError(
                f"{path}:{line}: the row has {len(cells)} cells, but the header has {len(header)}; "
                f"write each number with a decimal point and separate the cells by one comma"
            )
        by_name = dict(zip(header, cells, strict=True))
        numbers.append([_number(path, line, name, by_name[name]) for name in columns])
    by_column = dict(zip(columns, np.array(numbers, float).T, strict=True))
    return NumericTable(by_column, [line for line, _ in rows])


def _read_lines(path: Path, wanted: str) -> list[tuple[int, list[str]]]:
    """Return (line number, stripped cells) of every line that is neither blank nor a comment."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, skipinitialspace=True)
            rows = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; correct the path") from error
    except PermissionError as error:
        raise InputError(f"{path}: permission denied; make the file readable") from error
    except IsADirectoryError as error:
        raise InputError(f"{path}: this is a folder; give the path of a CSV file") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path}: not a comma-separated table in UTF-8 ({error}); "
            f"write a CSV with the header {wanted}"
        ) from error
    kept = [(line, cells) for line, cells in rows if any(cells) and not cells[0].startswith("#")]
    # Spreadsheets pad rows with empty cells up to the width of the widest one.
    while kept and all(len(cells) > 1 and cells[-1] == "" for _, cells in kept):
        kept = [(line, cells[:-1]) for line, cells in kept]
    return kept


def _number(path: Path, line: int, column: str, cell: str) -> float:
    try:
        # float() would read "1_000", which no instrument writes, as 1000.
        value = math.nan if "_" in cell else float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(
            f'{path}:{line}, column "{column}", value "{cell}": not a finite number; '
            f"write it with a decimal point and without a unit"
        )
    return value
