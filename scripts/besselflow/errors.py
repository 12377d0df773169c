"""Errors that tell a user what is wrong, where, and what to do."""

from __future__ import annotations

from dataclasses import dataclass


class InputError(ValueError):
    """Wrong input of the user, described in one sentence that ends with a remedy."""


def on_one_line(error: Exception) -> str:
    """Return an error's message without line breaks: summaries of a run show the first line."""
    return " ".join(str(error).split())


@dataclass(frozen=True)
class Problem:
    """One finding of a check of the user's input.

    Attributes
    ----------
    file : str
        The file in which the value stands.
    row : int or None
        1-based line of the file (the header is line 1), where it applies.
    column : str or None
        Column name or key.
    value : str or None
        The offending value as it was read.
    message : str
        What is wrong with it.
    remedy : str
        What to do about it.
    sample : str or None
        The sample that the finding excludes; None where it concerns the whole sheet.
    kind : str
        What `column` names: ``column`` of a table or ``key`` of a configuration.
    """

    file: str
    message: str
    remedy: str
    row: int | None = None
    column: str | None = None
    value: str | None = None
    sample: str | None = None
    kind: str = "column"

    def __str__(self) -> str:
        """Format as ``file:row, column "x", value "y": message; remedy``."""
        where = self.file if self.row is None else f"{self.file}:{self.row}"
        if self.column is not None:
            where += f', {self.kind} "{self.column}"'
        if self.value is not None:
            where += f', value "{self.value}"'
        return f"{where}: {self.message}; {self.remedy}"


class ProblemsError(InputError):
    """Several findings at once, so that a user can mend all of them in one go."""

    def __init__(self, problems: list[Problem]):
        self.problems = problems
        super().__init__("\n".join(f"  - {problem}" for problem in problems))
