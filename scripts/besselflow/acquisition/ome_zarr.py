"""OME-Zarr 0.4 and 0.5: the full resolution of the first multiscale image.

bioformats2raw writes images into numbered folders of one that names no image itself; a single one
is read as that folder (https://ngff.openmicroscopy.org/0.5/, "bioformats2raw.layout").
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from besselflow.acquisition.model import Acquisition
from besselflow.acquisition.units import is_length, position_um, size_um, time_s
from besselflow.decoding import COPY_AGAIN, open_explained
from besselflow.errors import InputError

FORMAT = "OME-Zarr"
_LAYOUT = "bioformats2raw.layout"
_MOST_NAMED = 5
_METADATA = ("zarr.json", ".zgroup", ".zattrs")


def is_ome_zarr(path: Path) -> bool:
    """Return whether a folder is a Zarr group or array."""
    return path.is_dir() and any((path / name).is_file() for name in (*_METADATA, ".zarray"))


def read_ome_zarr(path: Path) -> Acquisition:
    """Open an OME-Zarr image, or the only image in a folder of bioformats2raw.

    Raises
    ------
    InputError
        The folder is Zarr but no image of OME-Zarr, or holds several, or its axes can't be
        understood.
    """
    try:
        group = zarr.open_group(str(path), mode="r")
    except Exception as error:
        raise InputError(
            f"{path}: not a readable group of OME-Zarr ({error}); give the folder of the image"
        ) from error
    ome = _metadata(group)
    if _LAYOUT in ome and "multiscales" not in ome:
        group = _only_image(path, group)
        ome = _metadata(group)
    try:
        image = ome["multiscales"][0]
        dataset = image["datasets"][0]
        array = group[dataset["path"]]
    except (KeyError, IndexError, TypeError) as error:
        raise InputError(
            f"{path}: its metadata describe no image (multiscales with datasets; {error}); give "
            f"the folder of one image, such as the folder 0 of a series"
        ) from None
    except ValueError as error:
        raise InputError(
            f"{path}: the metadata of its array are damaged ({error}); copy it again from the "
            f"microscope"
        ) from None
    axes = [_axis(axis) for axis in image.get("axes", [])]
    names = "".join(axis["name"].upper()[:1] for axis in axes)
    fitting = len(names) == array.ndim == len(set(names)) and {*"YX"} <= {*names} <= {*"TCZYX"}
    if not fitting:
        raise InputError(
            f"{path}: the axes {[axis['name'] for axis in axes]} of an array of shape "
            f"{array.shape} can't be read as any of t, c, z, y, x; export it with these axes"
        )
    data = open_explained(array, path, names, COPY_AGAIN)
    data = data.astype(data.dtype.newbyteorder("="))
    data = data.transpose([names.index(axis) for axis in "TCZYX" if axis in names])
    data = data[tuple(slice(None) if axis in names else None for axis in "TCZYX")]
    scale, shift = _transformation(image, dataset, len(axes), path)
    by_name = dict(zip(names, zip(axes, scale, shift, strict=True), strict=True))
    voxel, unknown = _voxel_size(by_name)
    version = ome.get("version", image.get("version", "0.4"))
    sources, positions = {}, None
    if None not in voxel[1:]:
        sources["pixel size"] = "the scale of the axes y and x"
    if voxel[0] is not None and data.shape[2] > 1:
        axis, _, first = by_name["Z"]
        positions = position_um(first, axis["unit"]) + voxel[0] * np.arange(data.shape[2])
        sources["stage positions"] = "scale and translation of the axis z"
    return Acquisition(
        data,
        path,
        f"{FORMAT} {version}",
        voxel,
        positions,
        _channels(ome, data.shape[1]),
        _times(by_name, data.shape[0]),
        files=(path,),
        sources=sources,
        unknown=unknown,
        gaps=_gaps(array),
    )


def _metadata(group: zarr.Group) -> dict[str, Any]:
    """Return the attributes of OME-Zarr, which are nested from version 0.5 on."""
    attributes = dict(group.attrs)
    return attributes.get("ome", attributes)


def _only_image(path: Path, group: zarr.Group) -> zarr.Group:
    """Return the image in a folder of bioformats2raw."""
    names = _metadata(group["OME"]).get("series") if "OME" in group else None
    if names is None:
        names = list(itertools.takewhile(group.__contains__, map(str, itertools.count())))
    if not names:
        raise InputError(f"{path}: a folder of bioformats2raw without an image; convert it again")
    if len(names) > 1:
        named = ", ".join(str(path / name) for name in names[:_MOST_NAMED])
        more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
        raise InputError(
            f"{path}: this folder holds {len(names)} images; give the folder of one of them: "
            f"{named}{more}"
        )
    if names[0] not in group:
        raise InputError(
            f"{path}: the image {names[0]} that its metadata name is not there; copy it again"
        )
    return group[names[0]]


def _gaps(array: zarr.Array) -> str | None:
    """Return how many chunks are not there, if any."""
    missing = array.nchunks - array.nchunks_initialized
    return f"{missing} of {array.nchunks} chunks are missing" if missing > 0 else None


def _axis(axis: str | dict[str, Any]) -> dict[str, Any]:
    """Return name and unit; versions before 0.4 have names alone."""
    if isinstance(axis, str):
        return {"name": axis, "unit": None}
    return {"name": str(axis.get("name", "")), "unit": axis.get("unit")}


def _transformation(
    image: dict[str, Any], dataset: dict[str, Any], axes: int, path: Path
) -> tuple[np.ndarray, np.ndarray]:
    """Return the scale and the translation of the axes: of the dataset, then of the image.

    The scale is not a number where none is stated.
    """
    scale, shift, stated = np.ones(axes), np.zeros(axes), False
    for step in (
        *dataset.get("coordinateTransformations", []),
        *image.get("coordinateTransformations", []),
    ):
        kind = step.get("type")
        if kind not in ("scale", "translation"):
            continue
        try:
            values = np.asarray(step.get(kind), float).reshape(axes)
        except (TypeError, ValueError):
            raise InputError(
                f"{path}: its {kind} {step.get(kind)} has not one number for each of {axes} axes; "
                f"export it again"
            ) from None
        if kind == "scale":
            scale, shift, stated = scale * values, shift * values, True
        else:
            shift = shift + values
    return scale if stated else np.full(axes, np.nan), shift


def _voxel_size(
    by_name: dict[str, tuple[dict[str, Any], float, float]],
) -> tuple[tuple[float | None, float | None, float | None], dict[str, str]]:
    sizes, unclear = [], {}
    for name in "ZYX":
        axis, scale, _ = by_name.get(name, ({"unit": None}, None, None))
        sizes.append(size_um(scale, axis["unit"]))
        key = "stage positions" if name == "Z" else "voxel size"
        if name in by_name and not is_length(axis["unit"]):
            stated = f'has the unit "{axis["unit"]}"' if axis["unit"] else "has no unit"
            unclear[key] = f"the axis {name.lower()} {stated}, and so its scale is no length"
        elif name in by_name and sizes[-1] is None:
            stated = f"is {scale:g}" if np.isfinite(scale) else "is not stated"
            unclear[key] = f"the scale of the axis {name.lower()} {stated}"
    return tuple(sizes), unclear


def _channels(ome: dict[str, Any], count: int) -> tuple[str, ...]:
    labels = [channel.get("label") for channel in ome.get("omero", {}).get("channels", [])]
    return tuple(map(str, labels)) if len(labels) == count and all(labels) else ()


def _times(
    by_name: dict[str, tuple[dict[str, Any], float, float]], count: int
) -> tuple[float, ...]:
    axis, scale, _ = by_name.get("T", ({"unit": None}, 1.0, 0.0))
    step = time_s(scale, axis["unit"])
    return tuple(step * t for t in range(count)) if step is not None and count > 1 else ()
