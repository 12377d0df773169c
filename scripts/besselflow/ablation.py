"""A grid of configurations that one target runs over a sheet and compares."""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import Field, ValidationError

from besselflow.config import Config, Section, load_config
from besselflow.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

SCORES = ("psnr", "psnr_3d", "ssim", "dice", "held_out_psnr", "chi2")
"""Metrics of the table, as far as they were computed."""

ARGUMENTS_VARIABLE = "BESSELFLOW_ARGUMENTS"
"""Environment variable in which a run tells its jobs how it was started."""

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
# Options that say where and how jobs run, and nothing about results.
_PASSED_ON = (
    ("--profile",),
    ("--workflow-profile",),
    ("--executor", "-e"),
    ("--jobs", "-j"),
    ("--cores", "-c"),
    ("--local-cores",),
    ("--max-threads",),
)


class Grid(Section):
    """The file that lists the configurations.

    Attributes
    ----------
    shared : dict
        Keys that all configurations change.
    configurations : dict
        Name -> keys that it changes besides.
    """

    shared: dict[str, Any] = Field(default={})
    configurations: dict[str, dict[str, Any]] = Field(min_length=1)


@dataclass(frozen=True)
class Variant:
    """One configuration of the grid.

    Attributes
    ----------
    changes : str
        What sets it apart from the others, as text.
    config : Config
        The whole of it.
    """

    changes: str
    config: Config


def load_grid(path: Path | str, base: Config) -> dict[str, Variant]:
    """Read the grid and lay each of its configurations over that of the run.

    Parameters
    ----------
    path : path
        YAML file.
    base : Config
        Configuration of the run; results of each configuration lie below its own.

    Returns
    -------
    dict
        Name -> configuration, in the order of the file.

    Raises
    ------
    InputError
        The file can't be read, a name is not fit for a folder, or a key or value is wrong.
    """
    try:
        grid = Grid.model_validate(yaml.safe_load(Path(path).read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise InputError(
            f"{path}: not a grid of configurations ({error}); write `configurations:` and below "
            "it, for every name, the keys that it changes"
        ) from None
    variants = {}
    for name, changes in grid.configurations.items():
        if not _NAME.fullmatch(name):
            raise InputError(
                f"{path}: the configuration {name!r} needs a name that a folder can have; use "
                "letters, digits, dots, dashes and underscores"
            )
        values = merge(merge(base.model_dump(), grid.shared), changes)
        values |= {"samples": base.samples, "results": f"{base.results}/ablation/{name}"}
        config = load_config(values, f"{path}, configuration {name}")
        variants[name] = Variant(describe(changes), config)
    return variants


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested values with some of them changed; lists are replaced as a whole."""
    merged = dict(base)
    for key, value in changes.items():
        inner = merged.get(key)
        both = isinstance(inner, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(inner, value) if both else value
    return merged


def describe(changes: Mapping[str, Any], prefix: str = "") -> str:
    """Return nested changes as text, such as ``inr.width 64, final inr``."""
    parts = []
    for key, value in changes.items():
        if isinstance(value, Mapping):
            parts.append(describe(value, f"{prefix}{key}."))
        else:
            shown = "+".join(map(str, value)) if isinstance(value, list) else str(value)
            parts.append(f"{prefix}{key} {shown}")
    return ", ".join(parts)


def remember_arguments(arguments: Sequence[str]) -> None:
    """Tell the jobs of this run how it was started; see `passed_on`."""
    os.environ[ARGUMENTS_VARIABLE] = json.dumps(list(arguments))


def passed_on() -> list[str]:
    """Return those arguments of the run that the runs of its configurations need as well."""
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    for names in _PASSED_ON:
        # Without a number, `--cores` means all of them.
        parser.add_argument(*names, dest=names[0], nargs="?", const="all")
    found, _ = parser.parse_known_args(json.loads(os.environ.get(ARGUMENTS_VARIABLE, "[]")))
    return [part for name, value in vars(found).items() if value for part in (name, value)]


def compare(
    tables: Mapping[str, pd.DataFrame],
    variants: Mapping[str, Mapping[str, str]],
    steps_um: Mapping[str, float],
    beams: Mapping[str, str],
) -> pd.DataFrame:
    """Average the scores of every configuration over the samples of each beam and step length.

    Parameters
    ----------
    tables : mapping
        Configuration -> its table with the columns ``sample method metric value``.
    variants : mapping
        Configuration -> ``changes``, and ``method`` whose scores stand for it.
    steps_um : mapping
        Sample -> median distance of its stage positions.
    beams : mapping
        Sample -> what its beam is called.

    Returns
    -------
    pandas.DataFrame
        Columns ``configuration changes method beam step_um samples`` and those of `SCORES` that
        there are; one row per configuration, beam and step length, in their orders.
    """
    # What starts a run reads the grid alone, and need not wait for pandas.
    import pandas as pd

    rows = []
    for name, table in tables.items():
        method = variants[name]["method"]
        mine = table[(table["method"] == method) & table["metric"].isin(SCORES)]
        wide = mine.pivot_table(index="sample", columns="metric", values="value")
        order = {beam: number for number, beam in enumerate(dict.fromkeys(beams.values()))}
        places = [(order[beams[sample]], steps_um[sample]) for sample in wide.index]
        for place in sorted(set(places)):
            scores = wide[[own == place for own in places]]
            facts = {"configuration": name, "changes": variants[name]["changes"], "method": method}
            facts |= {"beam": list(order)[place[0]], "step_um": place[1], "samples": len(scores)}
            rows.append(facts | scores.mean().to_dict())
    facts = ["configuration", "changes", "method", "beam", "step_um", "samples"]
    found = pd.DataFrame(rows, columns=None if rows else facts)
    return found[[*facts, *(score for score in SCORES if score in found)]]
