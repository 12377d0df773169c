"""Blocks of neighbouring slices: what the denoiser sees and estimates at once.

A block lies around a projection, so that a beam's depth comes to lie the same way in every block,
and neighbouring blocks overlap. What the microscope measured there is told by the rows of the
operator themselves, which describe any beam at any stage position.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch

SLICES = 8
"""Slices that a block estimates."""
REACH = 8
"""Further slices that it sees on either side."""
CONTEXT = SLICES + 2 * REACH
"""Slices that it sees."""
NEAREST = 5
"""Projections that it sees."""
GEOMETRY_VALUES = NEAREST * CONTEXT
"""Weights that describe how it was measured."""

# Neighbouring blocks share at least this many slices, over which they are blended.
_OVERLAP = 1


@dataclass(frozen=True)
class Block:
    """Some neighbouring slices, and how they were measured.

    Attributes
    ----------
    start : int
        First slice that is estimated; it may lie before the volume, or its end behind it.
    slices : torch.Tensor, shape (CONTEXT,)
        Indices of the slices that are seen, mirrored at the ends of the volume.
    nearest : torch.Tensor, shape (NEAREST,)
        Indices of the nearest projections, in the order of depth.
    geometry : torch.Tensor, shape (NEAREST, CONTEXT)
        Their weights on these slices, times `SLICES`; 0 beyond the volume, and for what repeats
        a projection because there are too few.
    """

    start: int
    slices: torch.Tensor
    nearest: torch.Tensor
    geometry: torch.Tensor

    def inside(self, n_slices: int) -> tuple[slice, slice]:
        """Return which slices of the volume are estimated, and where they lie in the block."""
        first, last = max(self.start, 0), min(self.start + SLICES, n_slices)
        return slice(first, last), slice(first - self.start, last - self.start)

    def turned_over(self) -> Block:
        """Return the same block with z running the other way, as its estimate then does."""
        return replace(
            self,
            slices=self.slices.flip(0),
            nearest=self.nearest.flip(0),
            geometry=self.geometry.flip(0, 1),
        )

    def to(self, device: torch.device) -> Block:
        """Return the block on a device."""
        moved = {name: getattr(self, name).to(device) for name in ("slices", "nearest", "geometry")}
        return replace(self, **moved)


def lay_blocks(matrix: np.ndarray, positions_um: np.ndarray, centres_um: np.ndarray) -> list[Block]:
    """Cover a volume with blocks.

    Parameters
    ----------
    matrix : numpy.ndarray, shape (P, Z)
        Axial weights of the operator.
    positions_um : numpy.ndarray, shape (P,)
        Stage positions, in any order.
    centres_um : numpy.ndarray, shape (Z,)
        Equidistant centres of the slices.

    Returns
    -------
    list of Block
        From low to high z; every slice lies in at least one.
    """
    n_slices = len(centres_um)
    spacing = float(centres_um[1] - centres_um[0]) if n_slices > 1 else 1.0
    places = (np.asarray(positions_um) - centres_um[0]) / spacing
    order = np.argsort(places, kind="stable")
    starts = {math.floor(c + 0.5) - SLICES // 2 for c in _centres(places[order], n_slices)}
    # A projection beyond the volume still collects light from it, but its block does not lie there.
    inside = [start for start in sorted(starts) if -SLICES < start < n_slices]
    return [_block(start, matrix, places, order, n_slices) for start in inside]


def _centres(places: np.ndarray, n_slices: int) -> list[float]:
    """Place block centres on projections, as far apart as may be, and between them in gaps."""
    furthest = SLICES - _OVERLAP
    places = np.clip(places, 0, n_slices - 1).tolist()
    centres = [places[0]]
    for place, following in pairwise([*places[1:], math.inf]):
        gap = place - centres[-1]
        if following - centres[-1] <= furthest:
            continue
        parts = max(1, math.ceil(gap / furthest))
        begin = centres[-1]
        centres += [begin + gap * (i + 1) / parts for i in range(parts)]
    while centres[0] > SLICES / 2 - 1:
        centres.insert(0, centres[0] - furthest + 1)
    while centres[-1] < n_slices - SLICES / 2:
        centres.append(centres[-1] + furthest - 1)
    return centres


def _block(
    start: int, matrix: np.ndarray, places: np.ndarray, order: np.ndarray, n_slices: int
) -> Block:
    seen = np.arange(start - REACH, start + SLICES + REACH)
    middle = start + (SLICES - 1) / 2
    near = np.sort(np.argsort(np.abs(places[order] - middle), kind="stable")[:NEAREST])
    nearest = order[near]
    slices = mirror(seen, n_slices)
    rows = matrix[nearest][:, slices] * ((seen >= 0) & (seen < n_slices))
    missing = NEAREST - len(nearest)
    rows = np.concatenate([rows, np.zeros((missing, CONTEXT))])
    nearest = np.concatenate([nearest, np.repeat(nearest[-1:], missing)])
    return Block(
        start,
        torch.from_numpy(slices),
        torch.from_numpy(nearest),
        torch.from_numpy((SLICES * rows).astype(np.float32)),
    )


def mirror(index: np.ndarray, length: int) -> np.ndarray:
    """Reflect slice indices beyond either end back into the volume."""
    index = index % (2 * length)
    return np.where(index >= length, 2 * length - 1 - index, index)


def blend_window(device: torch.device) -> torch.Tensor:
    """Return the weight of each slice of a block where blocks overlap, shape (SLICES,)."""
    return torch.hann_window(SLICES + 2, periodic=False, device=device)[1:-1]
