"""Stage positions from a CSV file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from besselflow.errors import InputError
from besselflow.tables import read_numeric_csv


def read_stage_positions(path: Path | str) -> np.ndarray:
    """Read the stage position of every projection.

    Parameters
    ----------
    path : path
        CSV with the columns ``projection`` (0, 1, 2, ... in the order of the stack, rows in any
        order) and ``z_um`` (centre of the beam in micrometres).

    Returns
    -------
    numpy.ndarray, shape (P,)
        Positions in micrometres in the order of the stack.

    Raises
    ------
    InputError
        A column is missing, a value is not a number, the projections are not numbered 0..P-1, or
        two projections share a position.
    """
    path = Path(path)
    table = read_numeric_csv(path, ["projection", "z_um"])
    numbers, lines = table.columns["projection"], table.lines
    order = np.argsort(numbers, kind="stable")
    if not np.array_equal(numbers[order], np.arange(len(numbers))):
        wrong = int(np.flatnonzero(numbers[order] != np.arange(len(numbers)))[0])
        row = int(order[wrong])
        raise InputError(
            f'{path}:{lines[row]}, column "projection", value "{numbers[row]:g}": projections must '
            f"be numbered 0 to {len(numbers) - 1}, each once; "
            f"renumber them in the order of the stack"
        )
    positions = table.columns["z_um"]
    values, counts = np.unique(positions, return_counts=True)
    if (counts > 1).any():
        twice = values[counts > 1][0]
        row = int(np.flatnonzero(positions == twice)[1])
        raise InputError(
            f'{path}:{lines[row]}, column "z_um", value "{twice:g}": two projections have the same '
            f"position; average repeated projections or correct the position"
        )
    return positions[order]
