"""Blood vessels: branching, tortuous tubes with loops between their tips."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial import cKDTree

from besselflow.phantoms.field import Field, finish, generator, given_or_drawn
from besselflow.phantoms.shapes import draw_tube
from besselflow.phantoms.trees import Branch, Trees, Variation, grow_trees, points_on_hull, scatter


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
    shape, seed, voxel_size_um
        As in `besselflow.phantoms.draw_phantom`.
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
    field = Field.checked(shape, voxel_size_um)
    rng = generator("vessels", seed)
    size = field.fitting_size(given_or_drawn(size, rng, 0.8, 1.4, "size"))
    spacing = size * given_or_drawn(spacing_um, rng, 10.0, 22.0, "spacing_um")
    spacing = min(spacing, 0.3 * field.breadth_um)
    share = spacing / size
    capillary = size * given_or_drawn(
        capillary_radius_um, rng, 0.07 * share, 0.125 * share, "capillary_radius_um"
    )
    margin = 0.8 * spacing
    points = scatter(rng, field, spacing, margin, thinning=rng.uniform(0.05, 0.3))
    n_trees = int(np.clip(rng.poisson(1 + len(points) / 80), 1, 40))
    roots = points_on_hull(rng, field, margin, n_trees)

    trees = grow_trees(
        rng,
        points,
        roots,
        balance=(0.05, 0.35),
        rounds=2,
        tip_um=capillary,
        tip_spread=0.15,
        exponent=(2.7, 3.4),
    )
    trees = trees.up_to(
        min(rng.uniform(2.5, 5.0) * capillary, 0.4 * spacing, 0.09 * field.breadth_um)
    )
    branches = trees.branches() + _anastomoses(rng, trees, reach_um=1.6 * spacing)

    varying = Variation(rng, spacing, calibre_from=0.5, staining_from=0.6)
    tree_brightness = rng.uniform(0.55, 1.0, n_trees)
    calibre_contrast = rng.uniform(0.0, 0.6)
    staining_contrast = rng.uniform(0.1, 0.3)
    branch_spread = rng.uniform(0.05, 0.25)
    profile = rng.uniform(0.0, 0.45)
    widest = trees.radii_um.max()

    canvas = field.canvas()
    for branch in branches:
        path, radius = trees.sampled(branch, field.step_um(capillary))
        own = tree_brightness[branch.tree] * np.exp(branch_spread * rng.standard_normal())
        brightness = (
            own
            * (1 - calibre_contrast + calibre_contrast * np.sqrt(radius / widest))
            * np.exp(staining_contrast * varying.staining(path))
        )
        # Wide vessels have even walls; a capillary swells where its cells' nuclei lie.
        swelling = 0.14 * np.sqrt(np.minimum(1, capillary / radius))
        radius = radius * np.exp(swelling * varying.calibre(path))
        brightness = np.clip(brightness, 0.1, 1.2)
        draw_tube(canvas, field, varying.course(path), radius, brightness, profile)
    return finish(rng, canvas, field, grain=rng.uniform(0.0, 0.1), grain_um=1.5 * capillary)


def _anastomoses(rng: np.random.Generator, trees: Trees, reach_um: float) -> list[Branch]:
    """Join some tips to a neighbouring vessel, since capillaries form loops and rarely end."""
    nodes, parent = trees.nodes, trees.parent
    is_tip = np.ones(len(nodes), bool)
    is_tip[parent[parent >= 0]] = False
    joined = []
    search = cKDTree(nodes)
    for tip in np.flatnonzero(is_tip & (rng.random(len(nodes)) < rng.uniform(0.4, 0.9))):
        distance, near = search.query(nodes[tip], k=min(6, len(nodes)))
        near = np.atleast_1d(near)[np.atleast_1d(distance) < reach_um]
        others = [n for n in near if n not in (tip, parent[tip])]
        if others:
            path = np.array([tip, others[0]])
            radius = np.full(2, trees.radii_um[tip])
            joined.append(Branch(path, radius, int(trees.tree[tip]), float(trees.distance_um[tip])))
    return joined
