"""XML files that come with images, read with messages that name the file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from besselflow.errors import InputError


def root_tag(path: Path) -> str | None:
    """Return the tag of the root element, None for what is no XML file."""
    try:
        with path.open("rb") as file:
            for _, element in ElementTree.iterparse(file, events=("start",)):
                return element.tag.rpartition("}")[2]
    except (OSError, ElementTree.ParseError):
        pass
    return None


def parse_xml(path: Path) -> ElementTree.Element:
    """Return the root element of an XML file.

    Raises
    ------
    InputError
        It is not readable, or ends early.
    """
    try:
        return ElementTree.parse(path).getroot()
    except PermissionError as error:
        raise InputError(f"{path}: permission denied; make the file readable") from error
    except (OSError, ElementTree.ParseError) as error:
        raise _damaged(path, error) from error


def iterate_xml(path: Path) -> Iterator[tuple[str, ElementTree.Element]]:
    """Return the begin and the end of all elements, for files that are too long to be held.

    Raises
    ------
    InputError
        The file is not readable, or ends early.
    """
    try:
        with path.open("rb") as file:
            yield from ElementTree.iterparse(file, events=("start", "end"))
    except PermissionError as error:
        raise InputError(f"{path}: permission denied; make the file readable") from error
    except (OSError, ElementTree.ParseError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: the XML is damaged ({error}); copy it again from the microscope")


def attribute(
    element: ElementTree.Element | None,
    name: str,
    convert: Callable[[str], Any],
    path: Path,
    default: Any = None,
) -> Any:
    """Return an attribute as a number.

    Parameters
    ----------
    element : xml.etree.ElementTree.Element or None
    name : str
        Name of the attribute.
    convert : callable
        ``int`` or ``float``.
    path : pathlib.Path
        The file, for messages.
    default : optional
        What is returned where it is missing; without one, that is an error.

    Raises
    ------
    InputError
        It is missing or no such number.
    """
    text = None if element is None else element.get(name)
    if text is None and default is not None:
        return default
    try:
        return convert(text)
    except (TypeError, ValueError):
        where = "" if element is None else f" of {element.tag}"
        found = "is missing" if text is None else f'is "{text}", not a number'
        raise InputError(
            f"{path}: the attribute {name}{where} {found}; copy it again from the microscope"
        ) from None
