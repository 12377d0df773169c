"""Problems of a sample's files, as the checks find them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from besselflow.errors import InputError, Problem
from besselflow.sample_sheet import Sample

_T = TypeVar("_T")


@dataclass(frozen=True)
class Findings:
    """Collects the problems of one sample.

    Attributes
    ----------
    sheet : pathlib.Path
        The sample sheet.
    sample : Sample
        The sample that is checked.
    problems : list of Problem
        What was found so far, of all samples.
    """

    sheet: Path
    sample: Sample
    problems: list[Problem]

    def report(self, column: str, value: object, message: str, remedy: str) -> None:
        """Note what is wrong with a cell of the sample, and what to do about it."""
        self.problems.append(
            Problem(
                str(self.sheet),
                message,
                remedy,
                self.sample.row,
                column,
                str(value),
                self.sample.name,
            )
        )

    def attempt(self, column: str, value: object, read: Callable[[], _T]) -> _T | None:
        """Return what `read` gives, or None after reporting its InputError."""
        try:
            return read()
        except InputError as error:
            # The path is named as the value already.
            text = str(error).removeprefix(f"{value}: ")
            if text.startswith(f"{value}:"):
                text = f"line {text.removeprefix(f'{value}:')}"
            message, _, remedy = text.rpartition("; ")
            self.report(column, value, message or remedy, remedy if message else "correct the file")
            return None
