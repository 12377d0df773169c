"""Lengths as the metadata of files state them, in micrometres."""

from __future__ import annotations

import math

_MICROMETRES = {
    "µm": 1.0,
    "μm": 1.0,
    "um": 1.0,
    "\\u00b5m": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "micrometre": 1.0,
    "micrometers": 1.0,
    "pm": 1e-6,
    "picometer": 1e-6,
    "Å": 1e-4,
    "angstrom": 1e-4,
    "nm": 1e-3,
    "nanometer": 1e-3,
    "nanometers": 1e-3,
    "mm": 1e3,
    "millimeter": 1e3,
    "millimeters": 1e3,
    "cm": 1e4,
    "centimeter": 1e4,
    "m": 1e6,
    "meter": 1e6,
}
# Of symbols, but not of words, the case counts: Mm is a megametre.
_LONGEST_SYMBOL = 3


def _factor(unit: str | None) -> float | None:
    text = unit.strip() if isinstance(unit, str) else ""
    return _MICROMETRES.get(text.casefold() if len(text) > _LONGEST_SYMBOL else text)


def is_length(unit: str | None) -> bool:
    """Return whether a unit is one of length; ``pixel`` and ``reference frame`` are not."""
    return _factor(unit) is not None


def position_um(value: str | float | None, unit: str | None) -> float | None:
    """Return a position in micrometres; None where value or unit can't be understood."""
    try:
        position = float(value) * _factor(unit)
    except (TypeError, ValueError):
        return None
    return position if math.isfinite(position) else None


def size_um(value: str | float | None, unit: str | None) -> float | None:
    """Return a length in micrometres; None where it is not positive or can't be understood."""
    size = position_um(value, unit)
    return size if size is not None and size > 0 else None
