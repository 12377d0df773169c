"""The small language of the sheet's cells about the beam: lengths, options, and files."""

from __future__ import annotations

import os
import re
from pathlib import Path

from besselflow.errors import InputError

_PER_UM = {"um": 1, "µm": 1, "μm": 1, "nm": 1000}
_LENGTH = re.compile(r"(?P<number>\d+\.?\d*|\.\d+)\s*(?P<unit>[a-zA-Zµμ]*)")
_TIFF = re.compile(r"(?P<path>.+\.tiff?)(?:\s*:(?P<options>[^/\\]*))?", re.IGNORECASE)


def split_tiff(spec: str) -> tuple[str, str] | None:
    """Split ``beads.tif:z=0.5um`` into the path and the options behind it.

    Parameters
    ----------
    spec : str
        A cell of the sheet.

    Returns
    -------
    tuple of str or None
        Path and options, which may be empty; None where the cell names no TIFF.
    """
    match = _TIFF.fullmatch(spec.strip())
    return (match["path"], (match["options"] or "").strip()) if match else None


def file_of(spec: str | None) -> Path | None:
    """Return the existing file that a cell about the beam names; None for a model."""
    if not spec:
        return None
    split = split_tiff(spec)
    path = Path(split[0] if split else spec)
    return path if os.path.isfile(path) else None


def absolute_spec(spec: str) -> str:
    """Return a cell with the path in it made absolute, where it names a file."""
    path = file_of(spec)
    if path is None:
        return spec
    options = (split_tiff(spec) or ("", ""))[1]
    return f"{path.resolve()}:{options}" if options else str(path.resolve())


def read_options(text: str, known: tuple[str, ...], where: str, example: str) -> dict[str, str]:
    """Read ``key=value,key=value``.

    Parameters
    ----------
    text : str
    known : tuple of str
        Keys that are understood; capitals don't matter.
    where : str
        Beginning of the messages, such as ``beam profile "bessel:..."``.
    example : str
        What to write, for the messages.

    Returns
    -------
    dict of str to str
        Values by the keys as they stand in `known`.

    Raises
    ------
    InputError
        A part is no ``key=value``, or a key is unknown or there twice.
    """
    names, values = {name.lower(): name for name in known}, {}
    for part in text.split(","):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not (key and equals and value):
            raise InputError(f'{where}: "{part.strip()}" is not of the form key=value; {example}')
        if key.lower() not in names:
            raise InputError(
                f'{where}: the key "{key}" is unknown (known: {", ".join(known)}); {example}'
            )
        name = names[key.lower()]
        if name in values:
            raise InputError(f'{where}: the key "{name}" is there twice; {example}')
        values[name] = value
    return values


def read_length_um(text: str, where: str, what: str, example: str) -> float:
    """Read a length with its unit, micrometres or nanometres.

    Parameters
    ----------
    text : str
        Such as ``0.5um`` or ``940nm``.
    where, what : str
        Beginning of the messages, and what the length is called in them.
    example : str
        What to write, for the messages.

    Returns
    -------
    float
        Micrometres.

    Raises
    ------
    InputError
        It is no positive number with one of the units.
    """
    match = _LENGTH.fullmatch(text.strip())
    if match and match["unit"] not in _PER_UM:
        wrong = f'has the unit "{match["unit"]}"' if match["unit"] else "has no unit"
        raise InputError(f'{where}: the {what} "{text}" {wrong}, not um or nm; {example}')
    if not match or float(match["number"]) <= 0:
        raise InputError(f'{where}: the {what} "{text}" is not a positive number; {example}')
    return float(match["number"]) / _PER_UM[match["unit"]]
