r"""Trees of vessels and neurites: how they grow, how wide they are and what varies along them.

They grow as minimum spanning trees with a balancing factor (Cuntz et al. 2010,
doi:10.1371/journal.pcbi.1000877) through scattered supply points. Their radii follow Murray's law
(Murray 1926, doi:10.1073/pnas.12.3.207), :math:`r_0^\gamma = r_1^\gamma + r_2^\gamma`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.interpolate import CubicHermiteSpline

from besselflow.phantoms.field import MAX_NODES, Field, Waves


@dataclass(frozen=True)
class Trees:
    """Rooted trees; a node comes after its parent, roots come first and have parent -1."""

    nodes: np.ndarray
    parent: np.ndarray
    tree: np.ndarray
    distance_um: np.ndarray
    radii_um: np.ndarray

    def up_to(self, limit_um: float) -> Trees:
        """Return the trees with no radius above a limit."""
        return replace(self, radii_um=np.minimum(self.radii_um, limit_um))

    def branches(self) -> list[Branch]:
        """Cut the trees into strokes that follow the widest child from a branching to a tip."""
        children: list[list[int]] = [[] for _ in self.nodes]
        for node, parent in enumerate(self.parent):
            if parent >= 0:
                children[parent].append(node)
        roots = np.flatnonzero(self.parent < 0)
        starts = [(root, child) for root in roots for child in children[root]]
        strokes = []
        while starts:
            parent, node = starts.pop()
            path = [parent, node]
            while children[node]:
                widest = max(children[node], key=lambda child: self.radii_um[child])
                starts += [(node, child) for child in children[node] if child != widest]
                path.append(widest)
                node = widest
            radii = self.radii_um[path].copy()
            # A side branch leaves with its own calibre, not with that of the trunk.
            radii[0] = min(radii[0], 1.15 * radii[1])
            strokes.append(
                Branch(np.array(path), radii, int(self.tree[node]), float(self.distance_um[parent]))
            )
        return strokes

    def sampled(self, branch: Branch, step_um: float) -> tuple[np.ndarray, np.ndarray]:
        """Sample a smooth curve through a branch's nodes: points (N, 3) and radii (N,)."""
        nodes = self.nodes[branch.nodes]
        length = np.linalg.norm(np.diff(nodes, axis=0), axis=1)
        keep = np.concatenate([[True], length > 1e-6])
        nodes, radii = nodes[keep], branch.radii_um[keep]
        # Centripetal parameters keep the spline from overshooting at sharp bends.
        knots = np.concatenate([[0.0], np.cumsum(np.sqrt(length[keep[1:]]))])
        count = max(2, int(np.ceil(length.sum() / step_um)) + 1)
        dense = np.linspace(0, knots[-1], 4 * count)
        curve = CubicHermiteSpline(knots, nodes, np.gradient(nodes, knots, axis=0))(dense)
        arc = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1))])
        at = np.interp(np.linspace(0, arc[-1], count), arc, dense)
        points = np.stack([np.interp(at, dense, curve[:, axis]) for axis in range(3)], axis=1)
        return points, np.interp(at, knots, radii)


@dataclass(frozen=True)
class Branch:
    """A path through nodes that is drawn in one stroke."""

    nodes: np.ndarray
    radii_um: np.ndarray
    tree: int
    distance_um: float


class _Course:
    """A smooth random displacement of space that makes straight branches tortuous."""

    def __init__(self, rng: np.random.Generator, amplitude_um: float, wavelength_um: float):
        self.amplitude_um = amplitude_um
        self.axes = [Waves(rng, 16, (0.4 * wavelength_um, 2 * wavelength_um)) for _ in range(3)]

    def __call__(self, position: np.ndarray) -> np.ndarray:
        """Return where positions (..., 3) are displaced to."""
        shift = np.stack([wave(position) for wave in self.axes], axis=-1)
        return position + self.amplitude_um * shift


class Variation:
    """What varies along the branches of a phantom: their course, calibre and staining.

    `calibre_from` and `staining_from` are the shortest wavelengths, in units of the spacing.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        spacing_um: float,
        *,
        calibre_from: float,
        staining_from: float,
    ):
        amplitude = spacing_um * rng.uniform(0.06, 0.16)
        self.course = _Course(rng, amplitude, wavelength_um=2 * spacing_um)
        self.calibre = Waves(rng, 24, (calibre_from * spacing_um, 2 * spacing_um))
        self.staining = Waves(rng, 24, (staining_from * spacing_um, 4 * spacing_um))


def scatter(
    rng: np.random.Generator, field: Field, spacing_um: float, margin_um: float, thinning: float
) -> np.ndarray:
    """Scatter points over the field and a margin around it, from a jittered grid.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of the jitter and the order.
    field : Field
        Where to scatter.
    spacing_um : float
        Distance of the grid's points; larger where there would be too many.
    margin_um : float
        How far points may lie outside the field.
    thinning : float
        Share of the points to leave out, 0 to 1.

    Returns
    -------
    numpy.ndarray, shape (N, 3)
        At least one position in um, in random order.
    """
    extent = field.extent_um + 2 * margin_um
    spacing = max(spacing_um, float(np.cbrt(np.prod(extent) / MAX_NODES)))
    counts = np.maximum(1, np.round(extent / spacing).astype(int))
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in counts), indexing="ij"), axis=-1)
    points = grid.reshape(-1, 3) + 0.5 + rng.uniform(-0.45, 0.45, (grid.size // 3, 3))
    points = points[rng.permutation(len(points))] * (extent / counts) - margin_um
    keep = rng.random(len(points)) >= thinning
    keep[0] = True
    return points[keep]


def points_on_hull(
    rng: np.random.Generator, field: Field, margin_um: float, n_points: int
) -> np.ndarray:
    """Draw points on the faces of the field enlarged by a margin.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of the positions.
    field : Field
        Whose faces are meant.
    margin_um : float
        How far outside the field the faces lie.
    n_points : int
        How many to draw.

    Returns
    -------
    numpy.ndarray, shape (n_points, 3)
        Positions in um.
    """
    points = rng.uniform(0, 1, (n_points, 3))
    points[np.arange(n_points), rng.integers(0, 3, n_points)] = rng.integers(0, 2, n_points)
    return points * (field.extent_um + 2 * margin_um) - margin_um


def grow_trees(
    rng: np.random.Generator,
    points: np.ndarray,
    roots: np.ndarray,
    *,
    balance: tuple[float, float],
    rounds: int,
    tip_um: float,
    tip_spread: float,
    exponent: tuple[float, float],
) -> Trees:
    """Grow trees from roots through points, with radii by Murray's law.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of what is drawn from a range.
    points : numpy.ndarray, shape (N, 3)
        Where branches lead, in um.
    roots : numpy.ndarray, shape (M, 3)
        Where trees start, in um.
    balance : tuple of float
        Range of the factor by which the length of the path to the root counts beside that of the
        wire.
    rounds : int
        How often nodes are pulled towards their neighbours.
    tip_um : float
        Median radius of the tips.
    tip_spread : float
        Standard deviation of the logarithm of the tips' radii.
    exponent : tuple of float
        Range of the exponent in Murray's law.

    Returns
    -------
    Trees
        All M trees, the radii without a limit.
    """
    nodes, parent, tree, distance = _connect(points, roots, rng.uniform(*balance))
    nodes = _relax(nodes, parent, rounds)
    tips = tip_um * np.exp(tip_spread * rng.standard_normal(len(nodes)))
    radii = _murray_radii(parent, tips, rng.uniform(*exponent))
    return Trees(nodes, parent, tree, distance, radii)


def _connect(
    points: np.ndarray, roots: np.ndarray, balance: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Connect all points to the roots, each where wire plus balanced path length is least.

    The greedy algorithm of Cuntz et al. (2010): the cost of a connection is its length plus
    `balance` times the length of the path from the root to the point of contact. Returns the first
    four arrays of `Trees`.
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
    return nodes[order], parent, tree[order], path[order]


def _relax(nodes: np.ndarray, parent: np.ndarray, rounds: int) -> np.ndarray:
    """Pull inner nodes towards their neighbours, which opens the right angles at branchings."""
    nodes = nodes.copy()
    child = np.flatnonzero(parent >= 0)
    for _ in range(rounds):
        total, count = np.zeros_like(nodes), np.zeros(len(nodes))
        np.add.at(total, parent[child], nodes[child])
        np.add.at(count, parent[child], 1)
        inner = (count > 0) & (parent >= 0)
        mean = (total[inner] + nodes[parent[inner]]) / (count[inner] + 1)[:, None]
        nodes[inner] = 0.55 * nodes[inner] + 0.45 * mean
    return nodes


def _murray_radii(parent: np.ndarray, tips_um: np.ndarray, exponent: float) -> np.ndarray:
    """Return each node's radius (N,) by Murray's law from the tips to the roots."""
    power = np.zeros(len(parent))
    for node in range(len(power) - 1, -1, -1):
        if power[node] == 0:
            power[node] = tips_um[node] ** exponent
        if parent[node] >= 0:
            power[parent[node]] += power[node]
    return power ** (1 / exponent)
