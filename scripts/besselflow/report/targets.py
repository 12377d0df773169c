"""Where to look in a volume: the largest error, the least sure place, the brightest structures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import uniform_filter

from besselflow.report.pictures import Preview, brightest_position

# Edge of the neighbourhood that is averaged, as a share of the volume: one voxel may be noise.
_NEIGHBOURHOOD = 1 / 24


@dataclass(frozen=True)
class Target:
    """A place that is worth a look.

    Attributes
    ----------
    key, name : str
        ``suspect``, ``error``, ``uncertainty`` or ``bright``, and what the page calls it.
    place : int
        Index among the embedded time points and channels.
    z, y, x : int
        Voxel of the viewer.
    z_um : float
        Depth of the slice.
    overlay : str
        Which overlay shows why; empty for none.
    """

    key: str
    name: str
    place: int
    z: int
    y: int
    x: int
    z_um: float
    overlay: str = ""


def find_targets(
    place: int,
    reference: Preview,
    error: np.ndarray | None,
    spread: np.ndarray | None,
    suspect_um: float,
    positions_um: np.ndarray,
) -> Iterator[Target]:
    """Find what to look at in a volume.

    Parameters
    ----------
    place : int
        Index of the time point and channel.
    reference : Preview
        Ground truth, or else the final volume.
    error, spread : numpy.ndarray, shape (Z, Y, X), or None
        Absolute error and standard deviation of the final volume, where known.
    suspect_um : float
        The slice that deserves the first look.
    positions_um : numpy.ndarray, shape (P,)
        Stage positions; what lies beyond them is no surprise, and is left out.
    """
    z_um = reference.z_um
    near = reference.voxel_um[0] / 2
    inside = (z_um >= np.min(positions_um) - near) & (z_um <= np.max(positions_um) + near)
    bright = brightest_position(reference.values)
    z = int(np.abs(z_um - suspect_um).argmin())
    doubt, overlay = (error, "error") if error is not None else (spread, "uncertainty")
    if doubt is None:
        yield Target("suspect", "the slice to look at", place, z, *bright[1:], float(z_um[z]))
    else:
        y, x = _largest(doubt[z])
        yield Target("suspect", "the slice to look at", place, z, y, x, float(z_um[z]), overlay)
    named = (
        ("error", "the largest error", error),
        ("uncertainty", "the least sure place", spread),
    )
    for key, name, values in named:
        if values is not None:
            at = _largest(values, inside)
            yield Target(key, name, place, *at, float(z_um[at[0]]), key)
    yield Target("bright", "the brightest structures", place, *bright, float(z_um[bright[0]]))


def _largest(values: np.ndarray, inside: np.ndarray | None = None) -> tuple[int, ...]:
    """Find the largest mean over a lateral neighbourhood, among the slices `inside`."""
    width = max(3, round(max(values.shape) * _NEIGHBOURHOOD))
    size = (1,) * (values.ndim - 2) + (width, width)
    # Repeating the border instead would let its single pixels win.
    smooth = uniform_filter(values, size, mode="constant")
    if inside is not None and inside.any():
        smooth[~inside] = -np.inf
    return tuple(int(i) for i in np.unravel_index(int(smooth.argmax()), smooth.shape))
