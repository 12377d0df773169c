"""The canonical projection store."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import zarr

from besselflow.beam import AxialProfile
from besselflow.errors import InputError
from besselflow.lateral import LateralBlur
from besselflow.projection import AxialGrid, AxialProjection
from besselflow.store.arrays import (
    ATTRIBUTE,
    create_array,
    open_lazily,
    open_store,
    slab_depth,
    store_blocks,
    write_store,
)
from besselflow.store.files import atomic_path
from besselflow.tiling import Unit

_DATA, _MASKED, _SATURATED, _PICTURES = "intensity", "masked", "saturated", "pictures"
_CHUNK_DEPTH, _CHUNK_EDGE = 8, 256


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
    masked : dask.array.Array of bool, shape (T, C, P, Y, X), or None
        Pixels that hold no measurement (`besselflow.corrections`); their `data` are a guess from
        their neighbours. None where there are none.
    saturated : dask.array.Array of bool, shape (T, C, P, Y, X), or None
        Those of the masked pixels whose `data` are a lower bound: the light was at least so bright.
    pictures : dict of str to numpy.ndarray
        Small images of what was corrected, for the report.
    noise_factors : numpy.ndarray or None, shape (P,)
        Of the operator (`besselflow.projection.AxialProjection`).
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
    masked: da.Array | None = None
    saturated: da.Array | None = None
    pictures: dict[str, np.ndarray] = field(default_factory=dict)
    noise_factors: np.ndarray | None = None

    @property
    def operator(self) -> AxialProjection:
        """The operator that maps a volume on `grid` to these projections."""
        kernel = self.lateral_kernel
        blur = None if kernel is None else LateralBlur(kernel)
        if self.members_um is None:
            whole = AxialProjection.from_geometry(self.profile, self.positions_um, self.grid, blur)
            return replace(whole, noise_factors=self.noise_factors)
        parts = [
            AxialProjection.from_geometry(self.profile, np.array(members), self.grid).matrix
            for members in self.members_um
        ]
        folded = np.stack([part.mean(axis=0) for part in parts])
        return AxialProjection(folded, blur, self.noise_factors)

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

    def unit_masked(self, unit: Unit) -> np.ndarray | None:
        """Return which of them are no measurements, shape (P, y, x), bool; None for none at all."""
        return self.masked_at(unit.t, unit.c, unit.tile.y, unit.tile.x)

    def masked_at(self, t: int, c: int, *window: slice) -> np.ndarray | None:
        """Return the mask of a lateral window (y, x), shape (P, y, x); None for none at all."""
        return _window(self.masked, t, c, window)

    def unit_saturated(self, unit: Unit) -> np.ndarray | None:
        """Return which projections of a unit are lower bounds, as `unit_masked` does."""
        return self.saturated_at(unit.t, unit.c, unit.tile.y, unit.tile.x)

    def saturated_at(self, t: int, c: int, *window: slice) -> np.ndarray | None:
        """Return which projections of a window are lower bounds, as `masked_at` does."""
        return _window(self.saturated, t, c, window)


def _window(mask: da.Array | None, t: int, c: int, window: tuple[slice, ...]) -> np.ndarray | None:
    if mask is None:
        return None
    mask = np.asarray(mask[t, c, :, *window])
    return mask if mask.any() else None


def write_projections(path: Path | str, projections: Projections) -> None:
    """Write the canonical projection store.

    It is a plain Zarr v3 array with named dimensions rather than an OME-Zarr image: the stage
    positions may be uneven, which OME-Zarr 0.5 has no axis for. With it in a group lie the masks,
    where there are any, and the pictures of the corrections.

    Parameters
    ----------
    path : path
        ZIP file to write; it appears only when complete.
    projections : Projections
        Contents; `data` is computed block by block.
    """
    kernel, factors = projections.lateral_kernel, projections.noise_factors
    shape = projections.data.shape
    # Slabs of whole images, each of which is corrected as a whole, and so only once.
    layout = shape, (1, 1, slab_depth(shape, _CHUNK_DEPTH), _CHUNK_EDGE, _CHUNK_EDGE)
    named = {"dimension_names": ["t", "c", "p", "y", "x"]}
    with atomic_path(path) as temporary, write_store(temporary, packed=True) as store:
        group = zarr.open_group(store, mode="w", zarr_format=3)
        group.attrs[ATTRIBUTE] = {
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
            "noise_factors": None if factors is None else np.asarray(factors).tolist(),
            "pictures": list(projections.pictures),
        }
        store_blocks(projections.data, create_array(store, _DATA, *layout, **named))
        for name, mask in ((_MASKED, projections.masked), (_SATURATED, projections.saturated)):
            if mask is not None:
                store_blocks(mask, create_array(store, name, *layout, dtype="bool", **named))
        for name, image in projections.pictures.items():
            group.create_array(f"{_PICTURES}/{name}", data=np.asarray(image, np.float32))


def open_projections(path: Path | str) -> Projections:
    """Open the canonical projection store without reading its pixels."""
    group = zarr.open_group(open_store(path), mode="r")
    values = group.attrs[ATTRIBUTE]
    array = group[_DATA]
    first, spacing, count = values["grid"]
    kernel, factors = values.get("lateral_kernel"), values.get("noise_factors")
    return Projections(
        data=open_lazily(array),
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
        masked=open_lazily(group[_MASKED]) if _MASKED in group else None,
        saturated=open_lazily(group[_SATURATED]) if _SATURATED in group else None,
        pictures={
            name: np.asarray(group[f"{_PICTURES}/{name}"]) for name in values.get("pictures", [])
        },
        noise_factors=None if factors is None else np.array(factors),
    )
