"""XML files that come with images, read with messages that name the file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO
from xml.etree import ElementTree

from besselflow.errors import InputError

_BLOCK_BYTES = 1 << 16
_BYTE_ORDER_MARKS = (b"\xff\xfe", b"\xfe\xff")
# Characters that XML 1.0 has no place for, and references to them.
_FORBIDDEN = bytes(sorted(set(range(32)) - set(b"\t\n\r")))
_REFERENCES = re.compile(
    rb"&#(?:x0*(?:[0-8bcef]|1[0-9a-f])|0*(?:[0-8]|1[124-9]|2[0-9]|3[01]));", re.IGNORECASE
)
_LONGEST_REFERENCE = 12


def root_tag(path: Path) -> str | None:
    """Return the tag of the root element, None for what is no XML file."""
    try:
        with path.open("rb") as file:
            for _, element in _events(file, ("start",)):
                return element.tag.rpartition("}")[2]
    except (OSError, ElementTree.ParseError, ValueError, LookupError):
        # No file, no XML, or in an encoding that is not known.
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
            yield from _events(file, ("start", "end"))
    except PermissionError as error:
        raise InputError(f"{path}: permission denied; make the file readable") from error
    except (OSError, ElementTree.ParseError) as error:
        raise _damaged(path, error) from error


def _events(file: BinaryIO, events: tuple[str, ...]) -> Iterator[tuple[str, ElementTree.Element]]:
    """Parse what microscopes write, of which some put control characters into notes."""
    parser, rest, legible = ElementTree.XMLPullParser(events), b"", None
    while block := file.read(_BLOCK_BYTES):
        if legible is None:
            legible = not block.startswith(_BYTE_ORDER_MARKS)
        if legible:
            block = _REFERENCES.sub(b"", (rest + block).translate(None, _FORBIDDEN))
            # A reference may go on in the next block.
            open_at = block.rfind(b"&", max(0, len(block) - _LONGEST_REFERENCE))
            cut = open_at if open_at >= 0 and b";" not in block[open_at:] else len(block)
            block, rest = block[:cut], block[cut:]
        parser.feed(block)
        yield from parser.read_events()
    parser.feed(rest)
    parser.close()
    yield from parser.read_events()


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
