"""Reading the configuration, and the messages for wrong keys and values."""

from __future__ import annotations

import difflib
import re
from typing import Any

from pydantic import BaseModel, ValidationError

from besselflow.config.whole import Config
from besselflow.errors import Problem, ProblemsError

_AUTO_OR_NUMBER = {
    ("spectral", "anisotropy"),
    ("variational", "weight"),
    ("inr", "bandwidth"),
    ("inr", "steps"),
    ("refine", "trust"),
}


def load_config(values: dict[str, Any], source: str = "config") -> Config:
    """Validate configuration values and fill in the defaults.

    Parameters
    ----------
    values : dict
        Nested values as read from YAML and the command line.
    source : str
        Name of the file to blame in messages.

    Returns
    -------
    Config

    Raises
    ------
    ProblemsError
        All wrong keys and values at once, unknown keys with a suggestion.
    """
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        found: dict[tuple, Problem] = {}
        for item in error.errors():
            location = _without_union_tags(item["loc"])
            found.setdefault(location, _explain(item, location, source))
        raise ProblemsError(list(found.values())) from None


def _without_union_tags(location: tuple) -> tuple:
    """Drop what pydantic adds where a key allows values of several types."""
    model, kept = Config, []
    for part in location:
        if not isinstance(part, int) and model is None:
            break
        kept.append(part)
        if not isinstance(part, int):
            model = _section(model, part)
    return tuple(kept)


def _section(model: type[BaseModel], key: str) -> type[BaseModel] | None:
    entry = model.model_fields.get(key)
    is_section = entry is not None and isinstance(entry.annotation, type)
    return entry.annotation if is_section and issubclass(entry.annotation, BaseModel) else None


def _explain(error: dict[str, Any], location: tuple, source: str) -> Problem:
    key = ".".join(str(part) for part in location) or None
    value = None if isinstance(error["input"], dict) else str(error["input"])
    if error["type"] == "extra_forbidden":
        known = _keys_beside(location)
        close = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)
        remedy = f'did you mean "{close[0]}"?' if close else f"known keys: {', '.join(known)}"
        return Problem(source, "unknown key", remedy, column=key, value=value, kind="key")
    # Our own messages hold the remedy already.
    if error["type"] == "value_error":
        message, _, remedy = error["msg"].removeprefix("Value error, ").partition("; ")
        remedy = remedy or "see config/README.md for this key"
        return Problem(source, message, remedy, column=key, value=value, kind="key")
    remedy = "see config/README.md for this key"
    if error["type"] == "literal_error":
        choices = re.findall(r"'([^']+)'", error["ctx"]["expected"])
        close = difflib.get_close_matches(str(error["input"]), choices, n=1, cutoff=0.5)
        if close and location not in _AUTO_OR_NUMBER:
            remedy = f'did you mean "{close[0]}"?'
    message = error["msg"]
    if error["type"] == "model_type":
        message = "it must be a section of keys and values"
    elif location in _AUTO_OR_NUMBER:
        message = "it must be `auto` or a positive number"
        if location == ("refine", "trust"):
            message = "it must be `auto` or a number from 0 to 1"
    elif location == ("evaluate", "centreline"):
        message = "it must be `auto`, `true` or `false`"
    elif location == ("corrections", "depth_attenuation"):
        message = "it must be `none`, `auto`, or a length in micrometres other than 0"
    return Problem(source, message, remedy, column=key, value=value, kind="key")


def _keys_beside(location: tuple) -> list[str]:
    """Return the keys that are known in the section of an unknown key."""
    model: type[BaseModel] = Config
    for part in location[:-1]:
        model = model.model_fields[part].annotation
    return list(model.model_fields)
