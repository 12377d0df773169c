"""The sample sheet: one module each for its columns, its text, its cells and its rows."""

from besselflow.sample_sheet.cells import FILL_IN
from besselflow.sample_sheet.columns import COLUMNS, RESERVED_NAMES, ROLES, Column
from besselflow.sample_sheet.sheet import (
    VOXEL_COLUMNS,
    Sample,
    Sheet,
    problems_by_sample,
    read_sheet,
)

__all__ = [
    "COLUMNS",
    "FILL_IN",
    "RESERVED_NAMES",
    "ROLES",
    "VOXEL_COLUMNS",
    "Column",
    "Sample",
    "Sheet",
    "problems_by_sample",
    "read_sheet",
]
