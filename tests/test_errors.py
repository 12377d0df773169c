"""Problems are printed with their place and their remedy."""

import pytest

from besselflow.errors import InputError, Problem, ProblemsError


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (Problem("a.tsv", "empty", "fill it"), "a.tsv: empty; fill it"),
        (
            Problem("a.tsv", "no number", "write one", 3, "gain", "x"),
            'a.tsv:3, column "gain", value "x": no number; write one',
        ),
        (
            Problem("c.yaml", "unknown key", "remove it", column="foo", value=""),
            'c.yaml, column "foo", value "": unknown key; remove it',
        ),
    ],
)
def test_problem_as_text(problem, text):
    assert str(problem) == text


def test_problems_error_lists_all():
    problems = [Problem("a", "one", "x"), Problem("b", "two", "y")]
    error = ProblemsError(problems)
    assert isinstance(error, InputError)
    assert error.problems == problems
    assert str(error).splitlines() == ["  - a: one; x", "  - b: two; y"]
