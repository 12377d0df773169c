"""Fields of cells or nuclei that vary in size, orientation, brightness and texture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial.transform import Rotation

from besselflow.phantoms.field import (
    MAX_NODES,
    Field,
    Waves,
    finish,
    generator,
    given_or_drawn,
    positive,
    smooth_noise,
)
from besselflow.phantoms.shapes import draw_cell


def draw_cells(
    shape: Sequence[int],
    seed: int,
    voxel_size_um: Sequence[float] = (1.0, 1.0, 1.0),
    *,
    radius_um: float | None = None,
    crowding: float | None = None,
) -> np.ndarray:
    """Draw a field of cells or nuclei of varying size, orientation, brightness and texture.

    Parameters
    ----------
    shape, seed, voxel_size_um
        As in `besselflow.phantoms.draw_phantom`.
    radius_um : float, optional
        Mean radius of a cell; drawn between 3 and 12 um by default, most often below 7.
    crowding : float, optional
        Share of the volume that the cells would fill if all could be placed without touching,
        above 0 and at most 0.5; drawn between 0.05 and 0.22 by default.

    Returns
    -------
    numpy.ndarray, shape (Z, Y, X), float32
        Relative brightness, peak 1.

    Raises
    ------
    ValueError
        The shape, the voxel size, the seed, the radius or the crowding is not valid.
    """
    field = Field.checked(shape, voxel_size_um)
    rng = generator("cells", seed)
    drawn_radius = 3.0 * 4.0 ** (rng.random() ** 1.6)
    radius = drawn_radius if radius_um is None else positive(radius_um, "radius_um")
    radius = min(radius * field.fitting_size(1.0), 0.12 * field.breadth_um)
    crowding = given_or_drawn(crowding, rng, 0.05, 0.22, "crowding")
    if crowding > 0.5:
        raise ValueError(f"crowding must be at most 0.5, not {crowding:g}")
    elongation = rng.uniform(0.05, 0.3)
    spread = rng.uniform(0.08, 0.25)
    cytoplasmic = rng.random() < 0.35
    mixed = rng.random() < 0.3
    brightness_spread = rng.uniform(0.15, 0.45)
    texture_contrast = rng.uniform(0.08, 0.3)
    chromatin = smooth_noise(rng, field, max(0.35 * radius, 1.5 * field.pitch_um))
    fine = smooth_noise(rng, field, max(0.15 * radius, 1.2 * field.pitch_um))
    texture = np.exp(texture_contrast * (0.7 * chromatin + 0.7 * fine))
    gradient = Waves(rng, 12, (field.breadth_um, 3 * field.breadth_um))

    canvas = field.canvas()
    for centre, own_radius in zip(*_pack(rng, field, radius, spread, crowding), strict=True):
        semi_axes = own_radius * np.exp(elongation * rng.standard_normal(3))
        rotation = Rotation.random(rng=rng)
        nuclear = not cytoplasmic if not mixed else rng.random() < 0.6
        own = np.exp(brightness_spread * rng.standard_normal() + 0.15 * gradient(centre[None])[0])
        draw_cell(
            canvas,
            field,
            centre,
            semi_axes_um=semi_axes,
            rotation=rotation,
            irregularity=Waves(rng, 8, (1.5, 3.5)),
            brightness=float(np.clip(0.55 * own, 0.12, 1.1)),
            nucleus=1.0 if nuclear else rng.uniform(0.25, 0.6),
            texture=texture,
            holes=rng.uniform(-0.6, 0.6, (rng.integers(0, 4) if nuclear else 0, 3)),
        )
    return finish(rng, canvas, field, grain=0.0, grain_um=radius)


def _pack(
    rng: np.random.Generator, field: Field, radius_um: float, spread: float, crowding: float
) -> tuple[np.ndarray, np.ndarray]:
    """Place spheres at random without overlap: centres (N, 3) and radii (N,)."""
    extent = field.extent_um + radius_um
    per_cell = 4 / 3 * np.pi * radius_um**3 * np.exp(4.5 * spread**2)
    wanted = int(np.clip(crowding * np.prod(extent) / per_cell, 6, MAX_NODES))
    radii = radius_um * np.exp(spread * rng.standard_normal(wanted))
    # The large first: they would find no room between the small ones.
    radii = np.sort(radii)[::-1]
    centres = np.empty((wanted, 3))
    placed = 0
    for radius in radii:
        candidates = rng.random((12, 3)) * extent - 0.5 * radius_um
        if placed == 0:
            candidates[0] = rng.random(3) * field.extent_um
        for candidate in candidates:
            gap = np.linalg.norm(centres[:placed] - candidate, axis=1) - radii[:placed]
            if placed == 0 or gap.min() > 0.95 * radius:
                centres[placed], radii[placed] = candidate, radius
                placed += 1
                break
    return centres[:placed], radii[:placed]
