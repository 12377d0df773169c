r"""Synthetic vessels, neurons and cells: volumes with known truth, drawn from a seed.

Vessels and neurites grow as minimum spanning trees with a balancing factor (Cuntz et al. 2010,
doi:10.1371/journal.pcbi.1000877) through scattered supply points. Their radii follow Murray's law
(Murray 1926, doi:10.1073/pnas.12.3.207), :math:`r_0^\gamma = r_1^\gamma + r_2^\gamma`. What
varies along a structure (its course, calibre and brightness) is a random smooth function of the
position, so that branches stay joined where they meet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicHermiteSpline
from scipy.ndimage import gaussian_filter
from scipy.sparse import csr_array
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

# Above this many branch points or cells the distances grow instead, so that a wide field at a fine
# sampling stays a matter of seconds.
_MAX_NODES = 6000
_OPTICAL_BLUR_VOXELS = 0.7
# A field this wide (cube root of its volume, in um) shows several structures at their usual size;
# a smaller one gets smaller structures, since an empty volume teaches and tests nothing.
_FIELD_AT_FULL_SIZE_UM = 55.0


def draw_vessels(
    shape: Sequence[int],
    seed: int,
    voxel_size_um: Sequence[float] = (1.0, 1.0, 1.0),
    *,
    spacing_um: float | None = None,
    capillary_radius_um: float | None = None,
    size: float | None = None,
) -> np.ndarray:
    """Draw branching, tortuous blood vessels with filled lumen.

    Parameters
    ----------
    shape : sequence of int
        (Z, Y, X) in voxels.
    seed : int
        Not negative; the same seed gives the same volume.
    voxel_size_um : sequence of float
        (z, y, x) in micrometres.
    spacing_um : float, optional
        Mean distance of branch points; drawn between 10 and 22 um by default.
    capillary_radius_um : float, optional
        Mean radius of the thinnest vessels; drawn between 7 and 12.5 % of the spacing by default.
    size : float, optional
        Common factor on all lengths of the vessels; drawn between 0.8 and 1.4 by default.

    Returns
    -------
    numpy.ndarray, shape (Z, Y, X), float32
        Relative brightness, peak 1.

    Raises
    ------
    ValueError
        The shape, the voxel size, the seed or a length is not valid.
    """
    field = _Field.checked(shape, voxel_size_um)
    rng = _generator("vessels", seed)
    size = field.fitting_size(_given_or_drawn(size, rng, 0.8, 1.4, "size"))
    spacing = size * _given_or_drawn(spacing_um, rng, 10.0, 22.0, "spacing_um")
    spacing = min(spacing, 0.3 * field.breadth_um)
    share = spacing / size
    capillary = size * _given_or_drawn(
        capillary_radius_um, rng, 0.07 * share, 0.125 * share, "capillary_radius_um"
    )
    margin = 0.8 * spacing
    points = _scatter(rng, field, spacing, margin, thinning=rng.uniform(0.05, 0.3))
    n_trees = int(np.clip(rng.poisson(1 + len(points) / 80), 1, 40))
    roots = _points_on_hull(rng, field, margin, n_trees)

    tree = _grow_trees(points, roots, balance=rng.uniform(0.05, 0.35))
    nodes = _relax(tree, rounds=2)
    radii = _murray_radii(
        tree,
        tips_um=capillary * np.exp(0.15 * rng.standard_normal(len(nodes))),
        exponent=rng.uniform(2.7, 3.4),
        limit_um=min(rng.uniform(2.5, 5.0) * capillary, 0.4 * spacing, 0.09 * field.breadth_um),
    )
    branches = _branches(tree, radii)
    branches += _anastomoses(rng, tree, nodes, radii, reach_um=1.6 * spacing)

    course = _Course(rng, amplitude_um=spacing * rng.uniform(0.06, 0.16), wavelength_um=2 * spacing)
    calibre = _Waves(rng, 24, (0.5 * spacing, 2 * spacing))
    staining = _Waves(rng, 24, (0.6 * spacing, 4 * spacing))
    tree_brightness = rng.uniform(0.55, 1.0, n_trees)
    calibre_contrast = rng.uniform(0.0, 0.6)
    staining_contrast = rng.uniform(0.1, 0.3)
    branch_spread = rng.uniform(0.05, 0.25)
    profile = rng.uniform(0.0, 0.45)
    widest = radii.max()

    canvas = field.canvas()
    for branch in branches:
        path, radius = _sample_branch(
            nodes[branch.nodes], branch.radii_um, field.step_um(capillary)
        )
        own = tree_brightness[branch.tree] * np.exp(branch_spread * rng.standard_normal())
        brightness = (
            own
            * (1 - calibre_contrast + calibre_contrast * np.sqrt(radius / widest))
            * np.exp(staining_contrast * staining(path))
        )
        # Wide vessels have even walls; a capillary swells where its cells' nuclei lie.
        swelling = 0.14 * np.sqrt(np.minimum(1, capillary / radius))
        radius = radius * np.exp(swelling * calibre(path))
        _draw_tube(canvas, field, course(path), radius, np.clip(brightness, 0.1, 1.2), profile)
    return _finish(rng, canvas, field, grain=rng.uniform(0.0, 0.1), grain_um=1.5 * capillary)


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
    shape : sequence of int
        (Z, Y, X) in voxels.
    seed : int
        Not negative; the same seed gives the same volume.
    voxel_size_um : sequence of float
        (z, y, x) in micrometres.
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
    field = _Field.checked(shape, voxel_size_um)
    rng = _generator("neuron", seed)
    drawn_size = 0.8 + 1.4 * rng.random() ** 2.5
    size = field.fitting_size(drawn_size if size is None else _positive(size, "size"))
    spacing = size * _given_or_drawn(spacing_um, rng, 14.0, 28.0, "spacing_um")
    spacing = min(spacing, 0.35 * field.breadth_um)
    tip = size * _given_or_drawn(tip_radius_um, rng, 0.5, 1.0, "tip_radius_um")
    density = _given_or_drawn(spines_per_um, rng, 0.1, 0.5, "spines_per_um") / size

    margin = 0.7 * spacing
    points = _scatter(rng, field, spacing, margin, thinning=rng.uniform(0.1, 0.4))
    n_somata = int(np.clip(rng.poisson(field.volume_um3 / (110 * size) ** 3), 1, 12))
    somata = rng.uniform(0.25, 0.75, (n_somata, 3)) * field.extent_um
    if n_somata > 1:
        somata[1:] = rng.uniform(0.0, 1.0, (n_somata - 1, 3)) * field.extent_um
    n_passing = int(rng.integers(1, 3 + len(points) // 40))
    passing = _points_on_hull(rng, field, margin, n_passing)
    soma_radius = min(size * rng.uniform(5.0, 8.0), 0.14 * field.breadth_um)
    nearest = cKDTree(somata).query(points)[0]
    points = points[nearest > 1.3 * soma_radius]

    tree = _grow_trees(points, np.concatenate([somata, passing]), balance=rng.uniform(0.2, 0.65))
    nodes = _relax(tree, rounds=1)
    radii = _murray_radii(
        tree,
        tips_um=tip * np.exp(0.2 * rng.standard_normal(len(nodes))),
        exponent=rng.uniform(2.0, 3.0),
        limit_um=3.0 * tip,
    )
    course = _Course(rng, amplitude_um=spacing * rng.uniform(0.06, 0.16), wavelength_um=2 * spacing)
    calibre = _Waves(rng, 24, (0.4 * spacing, 2 * spacing))
    staining = _Waves(rng, 24, (0.5 * spacing, 4 * spacing))
    tree_brightness = np.concatenate(
        [rng.uniform(0.55, 0.85, n_somata), rng.uniform(0.25, 0.7, n_passing)]
    )
    varicosity = rng.uniform(0.05, 0.25)
    fading_um = rng.uniform(1.5, 4.0) * field.breadth_um
    has_spines = np.concatenate([np.ones(n_somata, bool), rng.random(n_passing) < 0.5])

    canvas = field.canvas()
    for branch in _branches(tree, radii):
        step = field.step_um(tip)
        path, radius = _sample_branch(nodes[branch.nodes], branch.radii_um, step)
        along = branch.distance_um + step * np.arange(len(path))
        stem = branch.tree < n_somata
        radius = radius * np.exp(varicosity * calibre(path))
        if stem:
            radius = radius * (1 + 1.2 * np.exp(-along / (1.5 * soma_radius)))
        brightness = tree_brightness[branch.tree] * np.exp(0.2 * staining(path) - along / fading_um)
        brightness = np.clip(brightness, 0.12, 1.1)
        path = course(path)
        _draw_tube(canvas, field, path, radius, brightness, 0.2)
        if has_spines[branch.tree]:
            clear = 1.5 * soma_radius if stem else 0.0
            _draw_spines(rng, canvas, field, path, radius, brightness, along > clear, density, size)
    for centre, own in zip(course(somata), tree_brightness, strict=False):
        _draw_cell(
            canvas,
            field,
            centre,
            semi_axes_um=soma_radius * np.exp(0.15 * rng.standard_normal(3)),
            rotation=Rotation.random(rng=rng),
            irregularity=_Waves(rng, 8, (1.5, 3.0)),
            brightness=min(1.2, own + rng.uniform(0.15, 0.4)),
            nucleus=rng.choice([1.0, rng.uniform(0.6, 0.95)]),
        )
    return _finish(rng, canvas, field, grain=rng.uniform(0.0, 0.12), grain_um=1.5 * size)


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
    shape : sequence of int
        (Z, Y, X) in voxels.
    seed : int
        Not negative; the same seed gives the same volume.
    voxel_size_um : sequence of float
        (z, y, x) in micrometres.
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
    field = _Field.checked(shape, voxel_size_um)
    rng = _generator("cells", seed)
    drawn_radius = 3.0 * 4.0 ** (rng.random() ** 1.6)
    radius = drawn_radius if radius_um is None else _positive(radius_um, "radius_um")
    radius = min(radius * field.fitting_size(1.0), 0.12 * field.breadth_um)
    crowding = _given_or_drawn(crowding, rng, 0.05, 0.22, "crowding")
    if crowding > 0.5:
        raise ValueError(f"crowding must be at most 0.5, not {crowding:g}")
    elongation = rng.uniform(0.05, 0.3)
    spread = rng.uniform(0.08, 0.25)
    cytoplasmic = rng.random() < 0.35
    mixed = rng.random() < 0.3
    brightness_spread = rng.uniform(0.15, 0.45)
    texture_contrast = rng.uniform(0.08, 0.3)
    chromatin = _smooth_noise(rng, field, max(0.35 * radius, 1.5 * field.pitch_um))
    fine = _smooth_noise(rng, field, max(0.15 * radius, 1.2 * field.pitch_um))
    texture = np.exp(texture_contrast * (0.7 * chromatin + 0.7 * fine))
    gradient = _Waves(rng, 12, (field.breadth_um, 3 * field.breadth_um))

    canvas = field.canvas()
    for centre, own_radius in zip(*_pack(rng, field, radius, spread, crowding), strict=True):
        semi_axes = own_radius * np.exp(elongation * rng.standard_normal(3))
        rotation = Rotation.random(rng=rng)
        nuclear = not cytoplasmic if not mixed else rng.random() < 0.6
        own = np.exp(brightness_spread * rng.standard_normal() + 0.15 * gradient(centre[None])[0])
        _draw_cell(
            canvas,
            field,
            centre,
            semi_axes_um=semi_axes,
            rotation=rotation,
            irregularity=_Waves(rng, 8, (1.5, 3.5)),
            brightness=float(np.clip(0.55 * own, 0.12, 1.1)),
            nucleus=1.0 if nuclear else rng.uniform(0.25, 0.6),
            texture=texture,
            holes=rng.uniform(-0.6, 0.6, (rng.integers(0, 4) if nuclear else 0, 3)),
        )
    return _finish(rng, canvas, field, grain=0.0, grain_um=radius)


PHANTOMS: dict[str, Callable[..., np.ndarray]] = {
    "vessels": draw_vessels,
    "neuron": draw_neuron,
    "cells": draw_cells,
}


def draw_phantom(
    kind: str,
    shape: Sequence[int],
    seed: int,
    voxel_size_um: Sequence[float] = (1.0, 1.0, 1.0),
) -> np.ndarray:
    """Draw a phantom of a kind by its name, with everything else drawn from the seed.

    Structures have their usual size in micrometres, whatever the voxel size; in a field smaller
    than about 55 um they shrink with the field, so that several are in view.

    Parameters
    ----------
    kind : str
        A key of `PHANTOMS`.
    shape : sequence of int
        (Z, Y, X) in voxels.
    seed : int
        Not negative.
    voxel_size_um : sequence of float
        (z, y, x) in micrometres.

    Returns
    -------
    numpy.ndarray, shape (Z, Y, X), float32
        Relative brightness, peak 1.

    Raises
    ------
    ValueError
        The kind is unknown, or the shape, the seed or the voxel size is not valid.
    """
    if kind not in PHANTOMS:
        raise ValueError(f'phantom "{kind}" is unknown; choose one of {", ".join(PHANTOMS)}')
    return PHANTOMS[kind](shape, seed, voxel_size_um)


@dataclass(frozen=True)
class _Field:
    """The sampled volume; voxel (k, j, i) has its centre at (k, j, i) * voxel_um."""

    shape: tuple[int, int, int]
    voxel_um: np.ndarray

    @classmethod
    def checked(cls, shape: Sequence[int], voxel_size_um: Sequence[float]) -> _Field:
        if len(shape) != 3 or any(int(n) != n or n < 1 for n in shape):
            raise ValueError(f"shape must be three positive whole numbers (Z, Y, X), not {shape}")
        voxel = np.asarray(voxel_size_um, float)
        if voxel.shape != (3,) or not np.all(np.isfinite(voxel) & (voxel > 0)):
            raise ValueError(
                f"voxel size must be three positive numbers (z, y, x) in um, not {voxel_size_um}"
            )
        return cls(tuple(int(n) for n in shape), voxel)

    @property
    def extent_um(self) -> np.ndarray:
        return self.voxel_um * self.shape

    @property
    def volume_um3(self) -> float:
        return float(np.prod(self.extent_um))

    @property
    def breadth_um(self) -> float:
        return float(np.cbrt(self.volume_um3))

    @property
    def pitch_um(self) -> float:
        return float(np.cbrt(np.prod(self.voxel_um)))

    def canvas(self) -> np.ndarray:
        return np.zeros(self.shape, np.float32)

    def fitting_size(self, size: float) -> float:
        return size * min(1.0, self.breadth_um / _FIELD_AT_FULL_SIZE_UM)

    def step_um(self, radius_um: float) -> float:
        return 1.5 * max(self.pitch_um, 0.5 * radius_um)

    def window(self, low_um: np.ndarray, high_um: np.ndarray):
        """Return slices and coordinates of the voxels in a box, or None if there are none."""
        first = np.maximum(np.ceil(low_um / self.voxel_um).astype(int), 0)
        stop = np.minimum(np.floor(high_um / self.voxel_um).astype(int) + 1, self.shape)
        if np.any(first >= stop):
            return None
        axes = [np.arange(a, b) * v for a, b, v in zip(first, stop, self.voxel_um, strict=True)]
        window = tuple(slice(a, b) for a, b in zip(first, stop, strict=True))
        return window, (axes[0][:, None, None], axes[1][None, :, None], axes[2][None, None, :])


class _Waves:
    """A random smooth function of the position, zero mean and unit variance: a sum of waves."""

    def __init__(self, rng: np.random.Generator, n_waves: int, wavelengths: tuple[float, float]):
        direction = rng.standard_normal((n_waves, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        length = np.exp(rng.uniform(*np.log(wavelengths), n_waves))
        self.vectors = 2 * np.pi * direction / length[:, None]
        self.phases = rng.uniform(0, 2 * np.pi, n_waves)
        self.amplitude = np.sqrt(2 / n_waves)

    def __call__(self, position: np.ndarray) -> np.ndarray:
        return self.amplitude * np.sin(position @ self.vectors.T + self.phases).sum(axis=-1)


class _Course:
    """A smooth random displacement of space that makes straight branches tortuous."""

    def __init__(self, rng: np.random.Generator, amplitude_um: float, wavelength_um: float):
        self.amplitude_um = amplitude_um
        self.axes = [_Waves(rng, 16, (0.4 * wavelength_um, 2 * wavelength_um)) for _ in range(3)]

    def __call__(self, position: np.ndarray) -> np.ndarray:
        shift = np.stack([wave(position) for wave in self.axes], axis=-1)
        return position + self.amplitude_um * shift


@dataclass(frozen=True)
class _Trees:
    """Rooted trees; a node comes after its parent, roots come first and have parent -1."""

    nodes: np.ndarray
    parent: np.ndarray
    tree: np.ndarray
    distance_um: np.ndarray


@dataclass(frozen=True)
class _Branch:
    """A path through nodes that is drawn in one stroke."""

    nodes: np.ndarray
    radii_um: np.ndarray
    tree: int
    distance_um: float


def _generator(kind: str, seed: int) -> np.random.Generator:
    if int(seed) != seed or seed < 0:
        raise ValueError(f"seed must be a whole number, 0 or more, not {seed}")
    return np.random.default_rng([*kind.encode(), int(seed)])


def _positive(value: float, name: str) -> float:
    if not (np.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be a positive number, not {value}")
    return float(value)


def _given_or_drawn(
    value: float | None, rng: np.random.Generator, low: float, high: float, name: str
) -> float:
    """Return a given positive value, else one drawn log-uniformly; draws in both cases."""
    drawn = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    return drawn if value is None else _positive(value, name)


def _scatter(
    rng: np.random.Generator, field: _Field, spacing_um: float, margin_um: float, thinning: float
) -> np.ndarray:
    """Scatter points (N, 3) over the field and a margin around it, from a jittered grid."""
    extent = field.extent_um + 2 * margin_um
    spacing = max(spacing_um, float(np.cbrt(np.prod(extent) / _MAX_NODES)))
    counts = np.maximum(1, np.round(extent / spacing).astype(int))
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in counts), indexing="ij"), axis=-1)
    points = grid.reshape(-1, 3) + 0.5 + rng.uniform(-0.45, 0.45, (grid.size // 3, 3))
    points = points[rng.permutation(len(points))] * (extent / counts) - margin_um
    keep = rng.random(len(points)) >= thinning
    keep[0] = True
    return points[keep]


def _points_on_hull(
    rng: np.random.Generator, field: _Field, margin_um: float, n_points: int
) -> np.ndarray:
    """Return points (N, 3) on the faces of the field enlarged by a margin."""
    points = rng.uniform(0, 1, (n_points, 3))
    points[np.arange(n_points), rng.integers(0, 3, n_points)] = rng.integers(0, 2, n_points)
    return points * (field.extent_um + 2 * margin_um) - margin_um


def _grow_trees(points: np.ndarray, roots: np.ndarray, balance: float) -> _Trees:
    """Connect all points to the roots, each where wire plus balanced path length is least.

    The greedy algorithm of Cuntz et al. (2010): the cost of a connection is its length plus
    `balance` times the length of the path from the root to the point of contact.
    """
    nodes = np.concatenate([roots, points])
    n_roots, n_nodes = len(roots), len(nodes)
    path = np.zeros(n_nodes)
    parent = np.full(n_nodes, -1)
    tree = np.concatenate([np.arange(n_roots), np.zeros(len(points), int)])
    distance = np.linalg.norm(points[:, None] - roots[None], axis=-1)
    contact = distance.argmin(axis=1)
    cost = distance.min(axis=1)
    order = list(range(n_roots))
    for _ in range(len(points)):
        new = int(cost.argmin())
        node, hook = n_roots + new, contact[new]
        parent[node], tree[node] = hook, tree[hook]
        path[node] = path[hook] + np.linalg.norm(nodes[node] - nodes[hook])
        order.append(node)
        cost[new] = np.inf
        through = np.linalg.norm(points - nodes[node], axis=1) + balance * path[node]
        better = (through < cost) & np.isfinite(cost)
        cost[better], contact[better] = through[better], node
    order = np.array(order)
    rank = np.empty(n_nodes, int)
    rank[order] = np.arange(n_nodes)
    parent = parent[order]
    parent[n_roots:] = rank[parent[n_roots:]]
    return _Trees(nodes[order], parent, tree[order], path[order])


def _relax(tree: _Trees, rounds: int) -> np.ndarray:
    """Pull inner nodes towards their neighbours, which opens the right angles at branchings."""
    nodes = tree.nodes.copy()
    child = np.flatnonzero(tree.parent >= 0)
    parent = tree.parent[child]
    for _ in range(rounds):
        total, count = np.zeros_like(nodes), np.zeros(len(nodes))
        np.add.at(total, parent, nodes[child])
        np.add.at(count, parent, 1)
        inner = (count > 0) & (tree.parent >= 0)
        mean = (total[inner] + nodes[tree.parent[inner]]) / (count[inner] + 1)[:, None]
        nodes[inner] = 0.55 * nodes[inner] + 0.45 * mean
    return nodes


def _murray_radii(
    tree: _Trees, tips_um: np.ndarray, exponent: float, limit_um: float
) -> np.ndarray:
    """Return each node's radius (N,) by Murray's law from the tips to the roots, up to a limit."""
    power = np.zeros(len(tree.nodes))
    for node in range(len(power) - 1, -1, -1):
        if power[node] == 0:
            power[node] = tips_um[node] ** exponent
        if tree.parent[node] >= 0:
            power[tree.parent[node]] += power[node]
    return np.minimum(power ** (1 / exponent), limit_um)


def _branches(tree: _Trees, radii_um: np.ndarray) -> list[_Branch]:
    """Cut trees into strokes that follow the widest child from a branching to a tip."""
    children: list[list[int]] = [[] for _ in tree.nodes]
    for node, parent in enumerate(tree.parent):
        if parent >= 0:
            children[parent].append(node)
    starts = [(root, child) for root in np.flatnonzero(tree.parent < 0) for child in children[root]]
    branches = []
    while starts:
        parent, node = starts.pop()
        path = [parent, node]
        while children[node]:
            widest = max(children[node], key=lambda child: radii_um[child])
            starts += [(node, child) for child in children[node] if child != widest]
            path.append(widest)
            node = widest
        radii = radii_um[path].copy()
        # A side branch leaves with its own calibre, not with that of the trunk.
        radii[0] = min(radii[0], 1.15 * radii[1])
        branches.append(
            _Branch(np.array(path), radii, int(tree.tree[node]), float(tree.distance_um[parent]))
        )
    return branches


def _anastomoses(
    rng: np.random.Generator,
    tree: _Trees,
    nodes: np.ndarray,
    radii_um: np.ndarray,
    reach_um: float,
) -> list[_Branch]:
    """Join some tips to a neighbouring vessel, since capillaries form loops and rarely end."""
    is_tip = np.ones(len(nodes), bool)
    is_tip[tree.parent[tree.parent >= 0]] = False
    joined = []
    search = cKDTree(nodes)
    for tip in np.flatnonzero(is_tip & (rng.random(len(nodes)) < rng.uniform(0.4, 0.9))):
        distance, near = search.query(nodes[tip], k=min(6, len(nodes)))
        near = np.atleast_1d(near)[np.atleast_1d(distance) < reach_um]
        others = [n for n in near if n not in (tip, tree.parent[tip])]
        if others:
            path = np.array([tip, others[0]])
            radius = np.full(2, radii_um[tip])
            joined.append(_Branch(path, radius, int(tree.tree[tip]), float(tree.distance_um[tip])))
    return joined


def _sample_branch(
    nodes: np.ndarray, radii_um: np.ndarray, step_um: float
) -> tuple[np.ndarray, np.ndarray]:
    """Sample a smooth curve through nodes about every `step_um`: points (N, 3) and radii (N,)."""
    length = np.linalg.norm(np.diff(nodes, axis=0), axis=1)
    keep = np.concatenate([[True], length > 1e-6])
    nodes, radii_um = nodes[keep], radii_um[keep]
    # Centripetal parameters keep the spline from overshooting at sharp bends.
    knots = np.concatenate([[0.0], np.cumsum(np.sqrt(length[keep[1:]]))])
    count = max(2, int(np.ceil(length.sum() / step_um)) + 1)
    dense = np.linspace(0, knots[-1], 4 * count)
    curve = CubicHermiteSpline(knots, nodes, np.gradient(nodes, knots, axis=0))(dense)
    arc = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1))])
    at = np.interp(np.linspace(0, arc[-1], count), arc, dense)
    points = np.stack([np.interp(at, dense, curve[:, axis]) for axis in range(3)], axis=1)
    return points, np.interp(at, knots, radii_um)


def _draw_tube(
    canvas: np.ndarray,
    field: _Field,
    path_um: np.ndarray,
    radii_um: np.ndarray,
    brightness: np.ndarray,
    dome: float,
) -> None:
    """Draw a chain of tapered capsules; `dome` is how much dimmer the wall is than the axis.

    The edge is a ramp one voxel wide in the direction in which it is crossed. A structure thinner
    than a voxel keeps that width and loses brightness in proportion to its cross-section.
    """
    finest = 0.5 * field.pitch_um
    faint = np.minimum(1.0, radii_um / finest) ** 2
    radii = np.maximum(radii_um, finest)
    reach = np.maximum(radii[:-1], radii[1:])[:, None] + 0.5 * field.voxel_um
    low = np.minimum(path_um[:-1], path_um[1:]) - reach
    high = np.maximum(path_um[:-1], path_um[1:]) + reach
    inside = np.all((high >= 0) & (low <= field.extent_um), axis=1)
    light = brightness * faint
    smallest = 1e-3 * field.pitch_um
    for i in np.flatnonzero(inside):
        found = field.window(low[i], high[i])
        if found is None:
            continue
        window, position = found
        axis = path_um[i + 1] - path_um[i]
        start = [x - x0 for x, x0 in zip(position, path_um[i], strict=True)]
        squared = max(float(axis @ axis), 1e-12)
        share = np.clip(sum(s * a for s, a in zip(start, axis, strict=True)) / squared, 0, 1)
        away = [(s - share * a) ** 2 for s, a in zip(start, axis, strict=True)]
        distance = np.sqrt(away[0] + away[1] + away[2]) + smallest
        ramp = np.sqrt(sum(d * v**2 for d, v in zip(away, field.voxel_um, strict=True)))
        ramp = (ramp + smallest * field.pitch_um) / distance
        radius = radii[i] + share * (radii[i + 1] - radii[i])
        cover = np.clip((radius - distance) / ramp + 0.5, 0, 1)
        level = light[i] + share * (light[i + 1] - light[i])
        value = cover * level * (1 - dome * np.minimum(distance / radius, 1) ** 2)
        np.maximum(canvas[window], value, out=canvas[window], casting="same_kind")


def _draw_spines(
    rng: np.random.Generator,
    canvas: np.ndarray,
    field: _Field,
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
        _draw_tube(
            canvas, field, np.stack([base, tip]), np.full(2, neck), np.full(2, 0.9 * light), 0.0
        )
        _draw_tube(canvas, field, np.stack([tip, tip]), np.full(2, head), np.full(2, light), 0.2)


def _pack(
    rng: np.random.Generator, field: _Field, radius_um: float, spread: float, crowding: float
) -> tuple[np.ndarray, np.ndarray]:
    """Place spheres at random without overlap: centres (N, 3) and radii (N,)."""
    extent = field.extent_um + radius_um
    per_cell = 4 / 3 * np.pi * radius_um**3 * np.exp(4.5 * spread**2)
    wanted = int(np.clip(crowding * np.prod(extent) / per_cell, 6, _MAX_NODES))
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


def _draw_cell(
    canvas: np.ndarray,
    field: _Field,
    centre_um: np.ndarray,
    *,
    semi_axes_um: np.ndarray,
    rotation: Rotation,
    irregularity: _Waves,
    brightness: float,
    nucleus: float,
    texture: np.ndarray | None = None,
    holes: np.ndarray | None = None,
) -> None:
    """Draw one uneven ellipsoid.

    `nucleus` is the brightness of the inner part relative to the rest, `texture` an image of the
    field to multiply with, `holes` (N, 3) the centres of dark nucleoli in units of the semi-axes.
    """
    reach = 1.15 * semi_axes_um.max() + 0.5 * field.voxel_um
    found = field.window(centre_um - reach, centre_um + reach)
    if found is None:
        return
    window, position = found
    shape = np.broadcast_shapes(*(x.shape for x in position))
    offset = np.stack(
        [np.broadcast_to(x - c, shape) for x, c in zip(position, centre_um, strict=True)], axis=-1
    )
    turn = rotation.as_matrix()
    unit = (offset @ turn) / semi_axes_um
    rho = np.linalg.norm(unit, axis=-1) + 1e-6
    direction = unit / rho[..., None]
    surface = 1 + 0.05 * np.clip(irregularity(direction), -2, 2)
    gradient = (unit / semi_axes_um) @ turn.T
    steepness = np.linalg.norm(gradient, axis=-1) + 1e-9
    # First-order distance to the ellipsoid, and the width of a voxel along that direction.
    depth = (surface - rho) * rho / steepness
    ramp = np.linalg.norm(gradient * field.voxel_um, axis=-1) / steepness + 1e-9
    value = brightness * np.clip(depth / ramp + 0.5, 0, 1)
    if nucleus != 1.0:
        value *= 1 - (1 - nucleus) / (1 + np.exp((rho - 0.6) * 14))
    if texture is not None:
        value *= texture[window]
    for hole in () if holes is None else holes:
        value *= 1 - 0.55 * np.exp(-np.sum((unit - hole) ** 2, axis=-1) / (2 * 0.16**2))
    np.maximum(canvas[window], value, out=canvas[window], casting="same_kind")


def _smooth_noise(rng: np.random.Generator, field: _Field, length_um: float) -> np.ndarray:
    """Return Gaussian noise (Z, Y, X) of unit variance: cubic B-splines on random coefficients."""
    bases = [
        _spline_basis(n, spacing)
        for n, spacing in zip(field.shape, np.maximum(length_um / field.voxel_um, 1.0), strict=True)
    ]
    noise = rng.standard_normal([basis.shape[1] for basis in bases]).astype(np.float32)
    for axis, basis in enumerate(bases):
        across = np.moveaxis(noise, axis, 0)
        along = basis @ across.reshape(len(across), -1)
        noise = np.moveaxis(along.reshape(-1, *across.shape[1:]), 0, axis)
    return noise


def _spline_basis(n_samples: int, spacing: float) -> csr_array:
    """Return cubic B-splines at every sample, rows scaled to norm 1: shape (n_samples, n_knots)."""
    at = np.arange(n_samples)[:, None] / spacing
    knots = np.arange(-1, int(np.ceil(at[-1, 0])) + 2)[None, :]
    t = np.abs(at - knots)
    basis = np.where(t < 1, 2 / 3 - t**2 + t**3 / 2, np.maximum(2 - t, 0) ** 3 / 6)
    # Four weights per row: the sparse product is faster, and starts no threads beside torch's.
    return csr_array((basis / np.linalg.norm(basis, axis=1, keepdims=True)).astype(np.float32))


def _finish(
    rng: np.random.Generator, canvas: np.ndarray, field: _Field, grain: float, grain_um: float
) -> np.ndarray:
    """Add grain, uneven illumination, optical blur and a dim background; scale the peak to 1."""
    if grain > 0:
        canvas *= np.exp(grain * _smooth_noise(rng, field, max(grain_um, 1.5 * field.pitch_um)))
    uneven = rng.uniform(0.02, 0.12)
    canvas *= np.exp(uneven * _smooth_noise(rng, field, 0.7 * field.breadth_um))
    canvas = gaussian_filter(canvas, _OPTICAL_BLUR_VOXELS, mode="nearest", truncate=4)
    peak = float(canvas.max())
    if peak <= 0:
        raise ValueError(
            f"no structure meets the field of {field.shape} voxels; draw a larger field"
        )
    level = rng.uniform(0.008, 0.022)
    background = level * np.exp(0.25 * _smooth_noise(rng, field, 0.3 * field.breadth_um))
    volume = canvas / peak + background
    return (volume / volume.max()).astype(np.float32)
