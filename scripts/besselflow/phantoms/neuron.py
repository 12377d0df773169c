"""Neurons: somata with tapering, spiny dendrites, and neurites that pass through."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from besselflow.phantoms.field import Field, Waves, finish, generator, given_or_drawn, positive
from besselflow.phantoms.shapes import draw_cell, draw_tube
from besselflow.phantoms.trees import Variation, grow_trees, points_on_hull, scatter


def draw_neuron(
    shape: Sequence[int],
    seed: int,
    voxel_size_um: Sequence[float] = (1.0, 1.0, 1.0),
    *,
    spacing_um: float | None = None,
    tip_radius_um: float | None = None,
    spines_per_um: float | None = None,
    size: float | None = None,
) -> np.ndarray:
    """Draw a neuron: a soma, tapering dendrites with spines, and neurites that pass through.

    Parameters
    ----------
    shape, seed, voxel_size_um
        As in `besselflow.phantoms.draw_phantom`.
    spacing_um : float, optional
        Mean distance of branch points; drawn between 14 and 28 um by default.
    tip_radius_um : float, optional
        Mean radius of the dendrites' tips; drawn between 0.5 and 1.0 um by default.
    spines_per_um : float, optional
        Linear density of the spines; drawn between 0.1 and 0.5 per um by default.
    size : float, optional
        Common factor on all lengths of the neuron; drawn between 0.8 and 2.2 by default, most
        often near 1.

    Returns
    -------
    numpy.ndarray, shape (Z, Y, X), float32
        Relative brightness, peak 1.

    Raises
    ------
    ValueError
        The shape, the voxel size, the seed or a length is not valid.
    """
    field = Field.checked(shape, voxel_size_um)
    rng = generator("neuron", seed)
    drawn_size = 0.8 + 1.4 * rng.random() ** 2.5
    size = field.fitting_size(drawn_size if size is None else positive(size, "size"))
    spacing = size * given_or_drawn(spacing_um, rng, 14.0, 28.0, "spacing_um")
    spacing = min(spacing, 0.35 * field.breadth_um)
    tip = size * given_or_drawn(tip_radius_um, rng, 0.5, 1.0, "tip_radius_um")
    density = given_or_drawn(spines_per_um, rng, 0.1, 0.5, "spines_per_um") / size

    margin = 0.7 * spacing
    points = scatter(rng, field, spacing, margin, thinning=rng.uniform(0.1, 0.4))
    n_somata = int(np.clip(rng.poisson(field.volume_um3 / (110 * size) ** 3), 1, 12))
    somata = rng.uniform(0.25, 0.75, (n_somata, 3)) * field.extent_um
    if n_somata > 1:
        somata[1:] = rng.uniform(0.0, 1.0, (n_somata - 1, 3)) * field.extent_um
    n_passing = int(rng.integers(1, 3 + len(points) // 40))
    passing = points_on_hull(rng, field, margin, n_passing)
    soma_radius = min(size * rng.uniform(5.0, 8.0), 0.14 * field.breadth_um)
    nearest = cKDTree(somata).query(points)[0]
    points = points[nearest > 1.3 * soma_radius]

    trees = grow_trees(
        rng,
        points,
        np.concatenate([somata, passing]),
        balance=(0.2, 0.65),
        rounds=1,
        tip_um=tip,
        tip_spread=0.2,
        exponent=(2.0, 3.0),
    ).up_to(3.0 * tip)
    varying = Variation(rng, spacing, calibre_from=0.4, staining_from=0.5)
    tree_brightness = np.concatenate(
        [rng.uniform(0.55, 0.85, n_somata), rng.uniform(0.25, 0.7, n_passing)]
    )
    varicosity = rng.uniform(0.05, 0.25)
    fading_um = rng.uniform(1.5, 4.0) * field.breadth_um
    has_spines = np.concatenate([np.ones(n_somata, bool), rng.random(n_passing) < 0.5])

    canvas = field.canvas()
    for branch in trees.branches():
        step = field.step_um(tip)
        path, radius = trees.sampled(branch, step)
        along = branch.distance_um + step * np.arange(len(path))
        stem = branch.tree < n_somata
        radius = radius * np.exp(varicosity * varying.calibre(path))
        if stem:
            radius = radius * (1 + 1.2 * np.exp(-along / (1.5 * soma_radius)))
        change = np.exp(0.2 * varying.staining(path) - along / fading_um)
        brightness = np.clip(tree_brightness[branch.tree] * change, 0.12, 1.1)
        path = varying.course(path)
        draw_tube(canvas, field, path, radius, brightness, 0.2)
        if has_spines[branch.tree]:
            clear = 1.5 * soma_radius if stem else 0.0
            _draw_spines(rng, canvas, field, path, radius, brightness, along > clear, density, size)
    for centre, own in zip(varying.course(somata), tree_brightness, strict=False):
        draw_cell(
            canvas,
            field,
            centre,
            semi_axes_um=soma_radius * np.exp(0.15 * rng.standard_normal(3)),
            rotation=Rotation.random(rng=rng),
            irregularity=Waves(rng, 8, (1.5, 3.0)),
            brightness=min(1.2, own + rng.uniform(0.15, 0.4)),
            nucleus=rng.choice([1.0, rng.uniform(0.6, 0.95)]),
        )
    return finish(rng, canvas, field, grain=rng.uniform(0.0, 0.12), grain_um=1.5 * size)


def _draw_spines(
    rng: np.random.Generator,
    canvas: np.ndarray,
    field: Field,
    path_um: np.ndarray,
    radii_um: np.ndarray,
    brightness: np.ndarray,
    bearing: np.ndarray,
    per_um: float,
    size: float,
) -> None:
    """Draw dendritic spines, a thin neck and a round head, where `bearing` (N,) is true."""
    length = np.linalg.norm(path_um[-1] - path_um[0])
    spots = rng.integers(0, len(path_um) - 1, rng.poisson(per_um * length))
    for spot in spots[bearing[spots]]:
        along = path_um[spot + 1] - path_um[spot]
        across = np.cross(along, rng.standard_normal(3))
        norm = np.linalg.norm(across) * np.linalg.norm(along)
        if norm == 0:
            continue
        direction = across / np.linalg.norm(across) + rng.normal(0, 0.35) * along / norm
        head = size * rng.uniform(0.45, 0.95)
        neck = size * rng.uniform(0.28, 0.45)
        reach = size * rng.gamma(4.0, 0.25) + head
        base = path_um[spot] + rng.random() * along
        tip = base + (radii_um[spot] + reach) * direction
        light = brightness[spot] * rng.uniform(0.5, 1.1)
        draw_tube(
            canvas, field, np.stack([base, tip]), np.full(2, neck), np.full(2, 0.9 * light), 0.0
        )
        draw_tube(canvas, field, np.stack([tip, tip]), np.full(2, head), np.full(2, light), 0.2)
