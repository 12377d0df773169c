"""Volumes as multiscale OME-Zarr."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import zarr

from besselflow.store.arrays import (
    ATTRIBUTE,
    create_array,
    is_packed,
    open_lazily,
    open_store,
    store_blocks,
    write_store,
)
from besselflow.store.files import atomic_path

# Eight slices, so that what goes through a volume slice by slice holds few of a large one.
_VOLUME_CHUNK = (1, 1, 8, 128, 128)
_SMALLEST_LEVEL, _LARGE_LEVEL, _MOST_LEVELS = 64, 1024, 3
_VOXELS_FOR_WINDOW = 2**22


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
        Folder to write, or, where it ends in ``.ozx``, a single ZIP file (OME-NGFF RFC-9); it
        appears only when complete and valid.
    data : dask.array.Array, shape (T, C, Z, Y, X)
        Volume, computed block by block.
    voxel_size_um, origin_um : tuple of float
        (z, y, x) voxel size, and centre of the first voxel.
    name : str
        Name that viewers show.
    attributes : dict
        Stored beside the OME metadata; ``channels`` in them names the channels for viewers.
    """
    packed = is_packed(path)
    with atomic_path(path) as temporary:
        datasets, spacing, origin = [], list(voxel_size_um), list(origin_um)
        level = data.astype("float32")
        for index in range(_MOST_LEVELS):
            _write_level(temporary, packed, str(index), level)
            datasets.append(_dataset(str(index), spacing, origin))
            factors = pyramid_factors(level.shape[2:], spacing)
            stored = open_lazily(zarr.open_array(open_store(temporary), path=str(index), mode="r"))
            if factors is None:
                break
            origin = [o + (f - 1) * s / 2 for o, f, s in zip(origin, factors, spacing, strict=True)]
            spacing = [s * f for s, f in zip(spacing, factors, strict=True)]
            axes = {2: factors[0], 3: factors[1], 4: factors[2]}
            level = da.coarsen(np.mean, stored, axes, trim_excess=True)
        with write_store(temporary, packed) as store:
            labels = attributes.get("channels", [])
            metadata = _ome_metadata(name, datasets, stored, labels)
            group = zarr.open_group(store, mode="a", zarr_format=3)
            group.attrs.update({"ome": metadata, ATTRIBUTE: attributes})
        _validate(zarr.open_group(open_store(temporary), mode="r"))


def _validate(group: zarr.Group) -> None:
    # Half a second to import, which those who only read need not wait for.
    from ome_zarr_models.v05 import Image

    Image.from_zarr(group)


def _write_level(path: Path, packed: bool, name: str, level: da.Array) -> None:
    with write_store(path, packed) as store:
        axes = ["t", "c", "z", "y", "x"]
        array = create_array(store, name, level.shape, _VOLUME_CHUNK, dimension_names=axes)
        store_blocks(level, array)


def pyramid_factors(
    shape: tuple[int, int, int], spacing_um: list[float]
) -> tuple[int, int, int] | None:
    """Choose the factors to the next pyramid level.

    The lateral axes are halved, or quartered above 1024 pixels, so that three levels do. z is
    reduced with them by what brings the voxels closest to cubes, so that a finely sliced volume
    shrinks in all directions and a coarse one keeps its slices.

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
    factor = 4 if max(y, x) > _LARGE_LEVEL else 2
    factor_y, factor_x = min(factor, y), min(factor, x)
    lateral = math.sqrt(spacing_um[1] * factor_y * spacing_um[2] * factor_x)
    possible = [f for f in (1, 2, 4) if f <= min(factor, z)]
    factor_z = min(possible, key=lambda f: abs(math.log(spacing_um[0] * f / lateral)))
    return (factor_z, factor_y, factor_x)


def open_volume(path: Path | str, level: int = 0) -> Volume:
    """Open one level of an OME-Zarr volume without reading its pixels.

    Parameters
    ----------
    path : path
        OME-Zarr folder or ZIP file.
    level : int
        Pyramid level; 0 is full resolution, -1 the coarsest.
    """
    group = zarr.open_group(open_store(path), mode="r")
    dataset = group.attrs["ome"]["multiscales"][0]["datasets"][level]
    scale, translation = dataset["coordinateTransformations"]
    array = group[dataset["path"]]
    return Volume(
        data=open_lazily(array),
        voxel_size_um=tuple(scale["scale"][2:]),
        origin_um=tuple(translation["translation"][2:]),
        attributes=dict(group.attrs.get(ATTRIBUTE, {})),
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
    name: str, datasets: list[dict], smallest: da.Array, labels: list[str]
) -> dict[str, Any]:
    space = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx"]
    axes = [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}, *space]
    channels = []
    for channel in range(smallest.shape[1]):
        values = _subsample(smallest[:, channel])
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


def _subsample(values: da.Array) -> np.ndarray:
    """Take enough evenly spread time points and slices of (T, Z, Y, X) to choose a window."""
    planes = max(1, _VOXELS_FOR_WINDOW // math.prod(values.shape[2:]))
    every = -(-math.prod(values.shape[:2]) // planes)
    chosen = list(np.ndindex(values.shape[:2]))[:: max(1, every)]
    return np.stack([np.asarray(values[place]) for place in chosen])
