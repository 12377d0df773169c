"""Work units: what a job writes of the volume, and its records, in a single ZIP file."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import zarr

from besselflow.store.arrays import ATTRIBUTE, open_again, open_store, write_store
from besselflow.store.files import atomic_path
from besselflow.tiling import Unit


class UnitWriter:
    """Writes the work units of one shard; the store appears only when the block succeeds.

    Each array of each unit is a chunk, and an entry of the ZIP file: one file, however many tiles.

    Parameters
    ----------
    path : path
        ZIP file to write.
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
        self._store = self._stack.enter_context(write_store(temporary, packed=True))
        self._arrays = {
            name: zarr.create_array(
                self._store,
                name=name,
                shape=(len(self.units), *self.unit_shape),
                chunks=(1, *self.unit_shape),
                dtype="float32",
            )
            for name in self.names
        }
        return self

    def write(self, unit: Unit, record: dict[str, Any], **arrays: np.ndarray) -> None:
        """Write one unit: its arrays by name, and a record of numbers about its fit.

        Raises
        ------
        AssertionError
            The unit was written before, or an array is missing or does not fill its chunk.
        """
        position = self.units.index(unit)
        if any(record["unit"] == unit.index for record in self.records):
            raise AssertionError(f"unit {unit.index} of {self.path} has two writers")
        shapes = {name: np.shape(values) for name, values in arrays.items()}
        if shapes != dict.fromkeys(self.names, self.unit_shape):
            raise AssertionError(f"{shapes} do not fill chunks of {self.unit_shape}, {self.names}")
        for name, values in arrays.items():
            # Computing a lazy array within the event loop of zarr would never end.
            self._arrays[name][position] = np.asarray(values)
        self._store.flush()
        self.records.append({"unit": unit.index, **record})

    def __exit__(self, *error) -> None:
        """Publish the store, or remove what was written."""
        if error[0] is None:
            values = {
                "arrays": list(self.names),
                "units": [unit.index for unit in self.units],
                "records": self.records,
            }
            zarr.open_group(self._store, mode="a").attrs[ATTRIBUTE] = values
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
        group = zarr.open_group(open_store(path), mode="r")
        values = group.attrs[ATTRIBUTE]
        for name in values["arrays"]:
            lazy = open_again(group[name], "UZYX")
            by_unit = arrays.setdefault(name, {})
            by_unit.update({index: lazy[i] for i, index in enumerate(values["units"])})
        records.update({record["unit"]: record for record in values["records"]})
    return UnitStores(arrays, records)
