"""Work units: what a job writes of the volume, and its records."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import zarr

from besselflow.store.arrays import ATTRIBUTE
from besselflow.store.files import atomic_path
from besselflow.tiling import Unit


class UnitWriter:
    """Writes the work units of one shard; the store appears only when the block succeeds.

    Parameters
    ----------
    path : path
        Folder to write.
    units : list of Unit
        The units of the shard, in order; may be empty.
    unit_shape : tuple of int
        (Z, y, x) of each unit, halo included.
    names : tuple of str
        Arrays per unit, such as ``("volume", "std")``.
    """

    def __init__(
        self,
        path: Path | str,
        units: list[Unit],
        unit_shape: tuple[int, int, int],
        names: tuple[str, ...] = ("volume",),
    ):
        self.path, self.units, self.unit_shape, self.names = path, units, unit_shape, names
        self.records: list[dict[str, Any]] = []

    def __enter__(self) -> UnitWriter:
        """Create the store under its temporary name."""
        self._stack = contextlib.ExitStack()
        temporary = self._stack.enter_context(atomic_path(self.path))
        self._group = zarr.open_group(str(temporary), mode="w", zarr_format=3)
        for name in self.names:
            self._group.create_array(
                name,
                shape=(len(self.units), *self.unit_shape),
                chunks=(1, *self.unit_shape),
                dtype="float32",
            )
        return self

    def write(self, unit: Unit, record: dict[str, Any], **arrays: np.ndarray) -> None:
        """Write one unit: its arrays by name, and a record of numbers about its fit."""
        position = self.units.index(unit)
        for name, values in arrays.items():
            self._group[name][position] = values
        self.records.append({"unit": unit.index, **record})

    def __exit__(self, *error) -> None:
        """Publish the store, or remove what was written."""
        if error[0] is None:
            self._group.attrs[ATTRIBUTE] = {
                "arrays": list(self.names),
                "units": [unit.index for unit in self.units],
                "records": self.records,
            }
        self._stack.__exit__(*error)


@dataclass(frozen=True)
class UnitStores:
    """The units of one method, over all shards of a sample.

    Attributes
    ----------
    arrays : dict
        Name of the array -> list over unit indices of lazily read (Z, y, x) arrays.
    records : dict
        Unit index -> record of its fit.
    """

    arrays: dict[str, dict[int, da.Array]]
    records: dict[int, dict[str, Any]]


def open_units(paths: list[Path | str]) -> UnitStores:
    """Open the unit stores of all shards without reading their pixels."""
    arrays: dict[str, dict[int, da.Array]] = {}
    records: dict[int, dict[str, Any]] = {}
    for path in paths:
        group = zarr.open_group(str(path), mode="r")
        values = group.attrs[ATTRIBUTE]
        for name in values["arrays"]:
            lazy = da.from_zarr(group[name])
            by_unit = arrays.setdefault(name, {})
            by_unit.update({index: lazy[i] for i, index in enumerate(values["units"])})
        records.update({record["unit"]: record for record in values["records"]})
    return UnitStores(arrays, records)
