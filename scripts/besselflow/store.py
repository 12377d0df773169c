"""The stores on disk, OME-Zarr volumes among them; the only module that opens Zarr."""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import ome_zarr_models.v05
import pandas as pd
import zarr

from besselflow.beam import AxialProfile
from besselflow.errors import InputError
from besselflow.lateral import LateralBlur
from besselflow.projection import AxialGrid, AxialProjection
from besselflow.tiling import Unit

ATTRIBUTE = "besselflow"
_VOLUME_CHUNK = (1, 1, 64, 128, 128)
_SHARD_PIXELS = 512
_SMALLEST_LEVEL = 64


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Give a temporary name beside `path` that becomes `path` only when the block succeeds.

    Works for files and folders, and never touches what an interrupted or concurrent writer left.

    Parameters
    ----------
    path : path
        Final name; what stands there is replaced.

    Yields
    ------
    pathlib.Path
        Name to write to, in the same folder.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Only a writer on the same machine can be told to be dead by its process number.
    prefix = f".{path.name}.partial-{platform.node()}-"
    temporary = path.with_name(f"{prefix}{os.getpid()}")
    remove(temporary)
    try:
        yield temporary
        if path.is_dir():
            remove(path)
        os.replace(temporary, path)
    finally:
        remove(temporary)
        for stale in path.parent.glob(f"{prefix}*"):
            if not _is_running(int(stale.name.rsplit("-", 1)[1])):
                remove(stale)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def remove(path: Path) -> None:
    """Delete a file or a folder, if it exists."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path | str, values: dict[str, Any]) -> None:
    """Write a JSON file under its final name only when it is complete."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def write_tsv(path: Path | str, table: pd.DataFrame) -> None:
    """Write a table of results, tab-separated, under its final name only when it is complete."""
    with atomic_path(path) as temporary:
        table.to_csv(temporary, sep="\t", index=False, float_format="%.6g")


@dataclass(frozen=True)
class Projections:
    """The canonical projection store, opened.

    Attributes
    ----------
    data : dask.array.Array, shape (T, C, P, Y, X)
        float32 intensities.
    positions_um : numpy.ndarray, shape (P,)
        Stage positions, increasing.
    profile : AxialProfile
        Axial profile of the beam.
    grid : AxialGrid
        Output slices.
    pixel_size_um : tuple of float
        (y, x).
    unit : str
        ``photons`` or ``counts``.
    attributes : dict
        Everything else that was found out about the acquisition.
    lateral_kernel : numpy.ndarray or None, shape (ky, kx)
        What the side lobes of the beam mix within each projection; see
        `besselflow.lateral.LateralBlur`.
    members_um : list of list of float, or None
        Stage positions of what each projection is the mean of, where some were folded
        (`besselflow.thinning`).
    """

    data: da.Array
    positions_um: np.ndarray
    profile: AxialProfile
    grid: AxialGrid
    pixel_size_um: tuple[float, float]
    unit: str
    attributes: dict[str, Any] = field(default_factory=dict)
    lateral_kernel: np.ndarray | None = None
    members_um: list[list[float]] | None = None

    @property
    def operator(self) -> AxialProjection:
        """The operator that maps a volume on `grid` to these projections."""
        kernel = self.lateral_kernel
        blur = None if kernel is None else LateralBlur(kernel)
        if self.members_um is None:
            return AxialProjection.from_geometry(self.profile, self.positions_um, self.grid, blur)
        parts = [
            AxialProjection.from_geometry(self.profile, np.array(members), self.grid).matrix
            for members in self.members_um
        ]
        return AxialProjection(np.stack([part.mean(axis=0) for part in parts]), blur)

    @property
    def unseen_slices(self) -> list[int]:
        """Indices of the slices that no projection collects light from."""
        return np.flatnonzero(~self.operator.seen).tolist()

    def check_halo(self, units: list[Unit], halo: int) -> None:
        """Refuse tiles whose edges the lateral blur would carry into their own area.

        A tile goes on as its own mirror image beyond its edges, which is wrong within the radius of
        the blur; the halo has to hold that.

        Parameters
        ----------
        units : list of Unit
            All units of the sample.
        halo : int
            Their halo in pixels.

        Raises
        ------
        InputError
            The halo is not larger than the radius.
        """
        if self.lateral_kernel is None:
            return
        radius = max(LateralBlur(self.lateral_kernel).radius)
        is_tiled = any(unit.tile != units[0].tile for unit in units)
        if is_tiled and radius >= halo:
            raise InputError(
                f"the lateral point-spread function reaches {radius} pixels, but tiles overlap "
                f"their neighbours by {halo} only; set tiling.halo to at least {radius + 1}, or "
                f"tiling.tile to the size of the image"
            )

    @property
    def voxel_size_um(self) -> tuple[float, float, float]:
        """(z, y, x) of the output volume."""
        return (self.grid.spacing_um, *self.pixel_size_um)

    def unit_data(self, unit: Unit) -> np.ndarray:
        """Return the projections of one work unit, shape (P, y, x), float32."""
        return np.asarray(self.data[unit.t, unit.c, :, unit.tile.y, unit.tile.x])


def write_projections(path: Path | str, projections: Projections) -> None:
    """Write the canonical projection store.

    It is a plain Zarr v3 array with named dimensions rather than an OME-Zarr image: the stage
    positions may be uneven, which OME-Zarr 0.5 has no axis for.

    Parameters
    ----------
    path : path
        Folder to write; it appears only when complete.
    projections : Projections
        Contents; `data` is computed block by block.
    """
    shape = projections.data.shape
    chunks = (1, 1, min(shape[2], 64), min(shape[3], 256), min(shape[4], 256))
    kernel = projections.lateral_kernel
    with atomic_path(path) as temporary:
        array = zarr.create_array(
            store=str(temporary),
            shape=shape,
            chunks=chunks,
            shards=_shard_shape(shape, chunks),
            dtype="float32",
            dimension_names=["t", "c", "p", "y", "x"],
            attributes={
                ATTRIBUTE: {
                    "positions_um": [float(z) for z in projections.positions_um],
                    "profile_edges_um": projections.profile.edges_um.tolist(),
                    "profile_weights": projections.profile.weights.tolist(),
                    "profile_source": projections.profile.source,
                    "grid": [
                        projections.grid.first_um,
                        projections.grid.spacing_um,
                        projections.grid.n_slices,
                    ],
                    "pixel_size_um": list(projections.pixel_size_um),
                    "unit": projections.unit,
                    "attributes": projections.attributes,
                    "lateral_kernel": None if kernel is None else np.asarray(kernel).tolist(),
                    "members_um": projections.members_um,
                }
            },
        )
        _store(projections.data, array)


def open_projections(path: Path | str) -> Projections:
    """Open the canonical projection store without reading its pixels."""
    array = zarr.open_array(str(path), mode="r")
    values = array.attrs[ATTRIBUTE]
    first, spacing, count = values["grid"]
    kernel = values.get("lateral_kernel")
    return Projections(
        data=da.from_zarr(array, chunks=array.shards),
        positions_um=np.array(values["positions_um"]),
        profile=AxialProfile(
            np.array(values["profile_edges_um"]),
            np.array(values["profile_weights"]),
            values["profile_source"],
        ),
        grid=AxialGrid(first, spacing, int(count)),
        pixel_size_um=tuple(values["pixel_size_um"]),
        unit=values["unit"],
        attributes=values["attributes"],
        lateral_kernel=None if kernel is None else np.array(kernel),
        members_um=values.get("members_um"),
    )


@dataclass(frozen=True)
class Volume:
    """One resolution level of an OME-Zarr volume, opened.

    Attributes
    ----------
    data : dask.array.Array, shape (T, C, Z, Y, X)
        Intensities.
    voxel_size_um, origin_um : tuple of float
        (z, y, x): size of a voxel, and centre of the first one.
    attributes : dict
        BesselFlow's own attributes (method, unit, provenance).
    """

    data: da.Array
    voxel_size_um: tuple[float, float, float]
    origin_um: tuple[float, float, float]
    attributes: dict[str, Any]

    @property
    def unseen_slices(self) -> list[int]:
        """Slices at full resolution that no projection saw, where the writer recorded them."""
        return self.attributes.get("unseen_slices", [])


def write_volume(
    path: Path | str,
    data: da.Array,
    voxel_size_um: tuple[float, float, float],
    origin_um: tuple[float, float, float],
    name: str,
    attributes: dict[str, Any],
) -> None:
    """Write a multiscale OME-Zarr 0.5 image and validate it.

    Parameters
    ----------
    path : path
        Folder to write; it appears only when complete and valid.
    data : dask.array.Array, shape (T, C, Z, Y, X)
        Volume, computed block by block.
    voxel_size_um, origin_um : tuple of float
        (z, y, x) voxel size, and centre of the first voxel.
    name : str
        Name that viewers show.
    attributes : dict
        Stored beside the OME metadata.
    """
    with atomic_path(path) as temporary:
        group = zarr.open_group(str(temporary), mode="w", zarr_format=3)
        datasets, spacing, origin = [], list(voxel_size_um), list(origin_um)
        level = data.astype("float32")
        for index in range(32):
            array = _create_level(group, str(index), level.shape)
            _store(level, array)
            datasets.append(_dataset(str(index), spacing, origin))
            factors = pyramid_factors(level.shape[2:], spacing)
            if factors is None:
                break
            origin = [o + (f - 1) * s / 2 for o, f, s in zip(origin, factors, spacing, strict=True)]
            spacing = [s * f for s, f in zip(spacing, factors, strict=True)]
            stored = da.from_zarr(array, chunks=array.shards)
            axes = {2: factors[0], 3: factors[1], 4: factors[2]}
            level = da.coarsen(np.mean, stored, axes, trim_excess=True)
        smallest = np.asarray(level)
        group.attrs.update(
            {
                "ome": _ome_metadata(name, datasets, smallest),
                ATTRIBUTE: attributes,
            }
        )
        ome_zarr_models.v05.Image.from_zarr(zarr.open_group(str(temporary), mode="r"))


def pyramid_factors(
    shape: tuple[int, int, int], spacing_um: list[float]
) -> tuple[int, int, int] | None:
    """Choose the factors to the next pyramid level.

    The lateral axes are halved; z is halved with them when that brings the voxels closer to cubes,
    so that a finely sliced volume shrinks in all directions and a coarse one keeps its slices.

    Parameters
    ----------
    shape : tuple of int
        (Z, Y, X) of the present level.
    spacing_um : list of float
        (z, y, x) voxel size of the present level.

    Returns
    -------
    tuple of int or None
        Factors along (z, y, x); None where the level is small enough to be the last.
    """
    z, y, x = shape
    if max(y, x) <= _SMALLEST_LEVEL:
        return None
    factor_y, factor_x = (2 if y > 1 else 1), (2 if x > 1 else 1)
    lateral = math.sqrt(spacing_um[1] * factor_y * spacing_um[2] * factor_x)
    halve_z = z >= 2 and spacing_um[0] * math.sqrt(2) <= lateral
    return (2 if halve_z else 1, factor_y, factor_x)


def open_volume(path: Path | str, level: int = 0) -> Volume:
    """Open one level of an OME-Zarr volume without reading its pixels.

    Parameters
    ----------
    path : path
        OME-Zarr folder.
    level : int
        Pyramid level; 0 is full resolution, -1 the coarsest.
    """
    group = zarr.open_group(str(path), mode="r")
    dataset = group.attrs["ome"]["multiscales"][0]["datasets"][level]
    scale, translation = dataset["coordinateTransformations"]
    array = group[dataset["path"]]
    return Volume(
        data=da.from_zarr(array, chunks=array.shards),
        voxel_size_um=tuple(scale["scale"][2:]),
        origin_um=tuple(translation["translation"][2:]),
        attributes=dict(group.attrs.get(ATTRIBUTE, {})),
    )


def _create_level(group: zarr.Group, name: str, shape: tuple[int, ...]) -> zarr.Array:
    chunks = tuple(min(n, c) for n, c in zip(shape, _VOLUME_CHUNK, strict=True))
    return group.create_array(
        name,
        shape=shape,
        chunks=chunks,
        shards=_shard_shape(shape, chunks),
        dtype="float32",
        dimension_names=["t", "c", "z", "y", "x"],
    )


def _shard_shape(shape: tuple[int, ...], chunks: tuple[int, ...]) -> tuple[int, ...]:
    """Return shards that hold all of z (or p) and a lateral square: few files, bounded memory."""
    wanted = (1, 1, shape[2], min(shape[3], _SHARD_PIXELS), min(shape[4], _SHARD_PIXELS))
    return tuple(math.ceil(w / c) * c for w, c in zip(wanted, chunks, strict=True))


def _store(data: da.Array, array: zarr.Array) -> None:
    """Write a dask array so that each shard has exactly one writer."""
    blocks = data.rechunk(tuple(min(n, s) for n, s in zip(data.shape, array.shards, strict=True)))
    for axis, sizes in enumerate(blocks.chunks):
        if any(size != array.shards[axis] for size in sizes[:-1]):
            raise AssertionError(f"blocks {sizes} of axis {axis} do not match {array.shards}")
    da.store(blocks, array, lock=False, compute=True, scheduler="threads")


def _dataset(path: str, spacing: list[float], origin: list[float]) -> dict[str, Any]:
    return {
        "path": path,
        "coordinateTransformations": [
            {"type": "scale", "scale": [1.0, 1.0, *map(float, spacing)]},
            {"type": "translation", "translation": [0.0, 0.0, *map(float, origin)]},
        ],
    }


def _ome_metadata(name: str, datasets: list[dict], smallest: np.ndarray) -> dict[str, Any]:
    space = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx"]
    axes = [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}, *space]
    channels = []
    for channel in range(smallest.shape[1]):
        values = smallest[:, channel]
        low, high = (float(v) for v in np.percentile(values, [1, 99.8]))
        channels.append(
            {
                "label": f"channel {channel}",
                "color": "FFFFFF",
                "active": True,
                "window": {
                    "min": min(0.0, float(values.min())),
                    "max": float(values.max()),
                    "start": low,
                    "end": max(high, low + 1e-6),
                },
            }
        )
    return {
        "version": "0.5",
        "multiscales": [{"name": name, "axes": axes, "datasets": datasets}],
        "omero": {"channels": channels},
    }


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
