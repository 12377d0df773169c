"""What every command of ours shares: how its help looks, and how it ends on wrong input."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path


def command_parser(description: str, examples: str) -> argparse.ArgumentParser:
    """Return a parser without arguments, whose help keeps the lines of both texts.

    Parameters
    ----------
    description : str
        What the command is for: the docstring of its script.
    examples : str
        Stands below the arguments.
    """
    return argparse.ArgumentParser(
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


@contextlib.contextmanager
def errors_in_a_line() -> Iterator[None]:
    """End the process with status 2 and one line, as argparse does, where input is wrong."""
    try:
        yield
    except (ValueError, OSError) as error:
        print(f"{Path(sys.argv[0]).name}: error: {error}", file=sys.stderr)
        sys.exit(2)
