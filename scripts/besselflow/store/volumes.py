"""Volumes as multiscale OME-Zarr."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import ome_zarr_models.v05
import zarr

from besselflow.store.arrays import ATTRIBUTE, shard_shape, store_blocks
from besselflow.store.files import atomic_path

_VOLUME_CHUNK = (1, 1, 64, 128, 128)
_SMALLEST_LEVEL = 64


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
        Stored beside the OME metadata; ``channels`` in them names the channels for viewers.
    """
    with atomic_path(path) as temporary:
        group = zarr.open_group(str(temporary), mode="w", zarr_format=3)
        datasets, spacing, origin = [], list(voxel_size_um), list(origin_um)
        level = data.astype("float32")
        for index in range(32):
            array = _create_level(group, str(index), level.shape)
            store_blocks(level, array)
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
                "ome": _ome_metadata(name, datasets, smallest, attributes.get("channels", [])),
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
        shards=shard_shape(shape, chunks),
        dtype="float32",
        dimension_names=["t", "c", "z", "y", "x"],
    )


def _dataset(path: str, spacing: list[float], origin: list[float]) -> dict[str, Any]:
    return {
        "path": path,
        "coordinateTransformations": [
            {"type": "scale", "scale": [1.0, 1.0, *map(float, spacing)]},
            {"type": "translation", "translation": [0.0, 0.0, *map(float, origin)]},
        ],
    }


def _ome_metadata(
    name: str, datasets: list[dict], smallest: np.ndarray, labels: list[str]
) -> dict[str, Any]:
    space = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx"]
    axes = [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}, *space]
    channels = []
    for channel in range(smallest.shape[1]):
        values = smallest[:, channel]
        low, high = (float(v) for v in np.percentile(values, [1, 99.8]))
        channels.append(
            {
                "label": labels[channel] if channel < len(labels) else f"channel {channel}",
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
