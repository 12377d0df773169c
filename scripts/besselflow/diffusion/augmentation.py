"""Views of a training patch: turned, stretched, mirrored, brighter or darker.

Training volumes are few, and a network of millions of weights soon knows them by heart. The axial
operator acts on every lateral position alike: what a lateral rotation or stretch makes of a volume
is measured as the same rotation or stretch of its projections, so that the simulated acquisition of
a turned volume is at hand without a new simulation.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from besselflow.diffusion.geometry import STRETCH

_WARPED_SHARE = 0.5
# Largest logarithm of the stretch of one axis against the other, and of the brightness.
_SQUEEZE, _GAIN = 0.125, 0.4
# A warped view is sampled from a window that is larger by this factor: the corners of a patch that
# is turned and stretched lie outside of it. What is outside of the window is mirrored.
_MARGIN = 1.5


@dataclass(frozen=True)
class View:
    """How a patch is looked at.

    Attributes
    ----------
    warp : tuple of tuple of float, or None
        2 x 2 matrix that maps (x, y) of the view to (x, y) of the volume; None for the patch as
        it lies there.
    flipped : tuple of bool
        Whether y and x are flipped.
    transposed : bool
        Whether y and x are exchanged.
    upside_down : bool
        Whether z is flipped.
    gain : float
        Factor of all intensities, which also is that of the noise.
    """

    warp: tuple[tuple[float, float], tuple[float, float]] | None
    flipped: tuple[bool, bool]
    transposed: bool
    upside_down: bool
    gain: float

    @classmethod
    def draw(cls, rng: np.random.Generator, stretched: bool = True) -> View:
        """Draw a view; where the size of things must stay, it is turned but not stretched."""
        warp = None
        if rng.random() < _WARPED_SHARE:
            angle = rng.uniform(0, 2 * math.pi)
            zoom, ratio = rng.uniform(-STRETCH, STRETCH), rng.uniform(-_SQUEEZE, _SQUEEZE)
            factors = np.exp((zoom + ratio, zoom - ratio)) if stretched else np.ones(2)
            cosine, sine = math.cos(angle), math.sin(angle)
            matrix = np.array([[cosine, -sine], [sine, cosine]]) * factors
            warp = tuple(map(tuple, matrix.tolist()))
        flipped = (bool(rng.random() < 0.5), bool(rng.random() < 0.5))
        turns = bool(rng.random() < 0.5), bool(rng.random() < 0.5)
        return cls(warp, flipped, *turns, math.exp(rng.uniform(-_GAIN, _GAIN)))

    def window(
        self, corner: tuple[int, int], size: int, whole: tuple[int, int]
    ) -> tuple[slice, slice]:
        """Return the rows and columns that a view of a patch needs.

        Parameters
        ----------
        corner : tuple of int
            First row and column of the patch.
        size : int
            Its edge length.
        whole : tuple of int
            Rows and columns of the images.
        """
        if self.warp is None:
            return tuple(slice(start, start + size) for start in corner)
        needed = min(round(_MARGIN * size), *whole)
        starts = [
            min(max(start + size // 2 - needed // 2, 0), length - needed)
            for start, length in zip(corner, whole, strict=True)
        ]
        return tuple(slice(start, start + needed) for start in starts)

    def of(self, images: torch.Tensor, size: int) -> torch.Tensor:
        """Return the view of a window, apart from the flip along z.

        Parameters
        ----------
        images : torch.Tensor, shape (n, Y, X)
            The window.
        size : int
            Edge length of the patch.

        Returns
        -------
        torch.Tensor, shape (n, size, size)
        """
        return look([images], [self], size)[0]


def look(windows: Sequence[torch.Tensor], views: Sequence[View], size: int) -> torch.Tensor:
    """Return the views of windows, apart from the flips along z.

    Parameters
    ----------
    windows : sequence of torch.Tensor, shapes (n, Y, X)
        What each view needs (`View.window`); n is the same for all.
    views : sequence of View
        One per window.
    size : int
        Edge length of the patches.

    Returns
    -------
    torch.Tensor, shape (number of windows, n, size, size)
    """
    images, alike = list(windows), defaultdict(list)
    for number, view in enumerate(views):
        if view.warp is not None:
            alike[images[number].shape].append(number)
    for numbers in alike.values():
        warped = _warp([images[i] for i in numbers], [views[i].warp for i in numbers], size)
        for number, image in zip(numbers, warped, strict=True):
            images[number] = image
    for number, view in enumerate(views):
        flips = [axis for axis, flip in zip((-2, -1), view.flipped, strict=True) if flip]
        image = images[number].flip(flips) if flips else images[number]
        images[number] = image.transpose(-2, -1) if view.transposed else image
    batch = torch.stack(images)
    gains = torch.tensor([view.gain for view in views], dtype=batch.dtype, device=batch.device)
    return gains[:, None, None, None] * batch


def _warp(
    images: list[torch.Tensor], warps: list[tuple[tuple[float, float], ...]], size: int
) -> torch.Tensor:
    """Turn and stretch images of one shape (n, Y, X) to (number of images, n, size, size)."""
    batch = torch.stack(images)
    # The coordinates of both images run from -1 to 1, whatever their size.
    matrices = torch.zeros(len(warps), 2, 3)
    matrices[:, :, :2] = torch.tensor(warps) * (size / batch.shape[-1])
    grid = torch.nn.functional.affine_grid(
        matrices.to(batch.device), [len(warps), 1, size, size], align_corners=False
    )
    return torch.nn.functional.grid_sample(
        batch, grid, "bicubic", "reflection", align_corners=False
    )
