"""Lengths and times as the metadata of files state them, in micrometres and seconds."""

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
_SECONDS = {
    "s": 1.0,
    "sec": 1.0,
    "second": 1.0,
    "seconds": 1.0,
    "ns": 1e-9,
    "nanosecond": 1e-9,
    "µs": 1e-6,
    "μs": 1e-6,
    "us": 1e-6,
    "microsecond": 1e-6,
    "ms": 1e-3,
    "msec": 1e-3,
    "millisecond": 1e-3,
    "min": 60.0,
    "minute": 60.0,
    "minutes": 60.0,
    "h": 3600.0,
    "hour": 3600.0,
    "hours": 3600.0,
    "d": 86400.0,
    "day": 86400.0,
}
# Of symbols, but not of words, the case counts: Mm is a megametre.
_LONGEST_SYMBOL = 3


def _factor(unit: str | None, factors: dict[str, float] = _MICROMETRES) -> float | None:
    text = unit.strip() if isinstance(unit, str) else ""
    return factors.get(text.casefold() if len(text) > _LONGEST_SYMBOL else text)


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


def time_s(value: str | float | None, unit: str | None) -> float | None:
    """Return a time in seconds; None where value or unit can't be understood."""
    try:
        time = float(value) * _factor(unit, _SECONDS)
    except (TypeError, ValueError):
        return None
    return time if math.isfinite(time) else None
