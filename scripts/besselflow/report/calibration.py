"""Whether a stated uncertainty is right: how many true values lie within the stated intervals."""

from __future__ import annotations

import math

import dask.array as da
import numpy as np
from scipy.special import ndtri

from besselflow.metrics.blocks import iterate_blocks

LEVELS = np.array([10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99])
"""Stated intervals, in per cent."""

_MOST_VOXELS = 2**27


def observe_coverage(
    estimate: da.Array, std: da.Array, truth: da.Array, scored: np.ndarray
) -> np.ndarray:
    """Count the true values within the central normal intervals around an estimate.

    Parameters
    ----------
    estimate, std, truth : dask.array.Array, shape (T, C, Z, Y, X)
        Volume, its standard deviation, and the ground truth, read a few slices at a time. Where
        there are more than 2^27 voxels to score, evenly spread slices are taken.
    scored : numpy.ndarray of bool, shape (Z,)
        Slices to look at.

    Returns
    -------
    numpy.ndarray, shape of `LEVELS`
        Observed coverage in per cent.
    """
    half_widths = ndtri(0.5 + LEVELS / 200)
    every = max(1, math.ceil(scored.sum() * math.prod(estimate.shape[3:]) / _MOST_VOXELS))
    taken = np.zeros_like(scored)
    taken[np.flatnonzero(scored)[::every]] = True
    inside, count = np.zeros(len(LEVELS)), 0
    for t, channel in np.ndindex(*estimate.shape[:2]):
        blocks = (iterate_blocks(volume, t, channel, taken) for volume in (estimate, std, truth))
        for (_, guess), (_, spread), (_, true) in zip(*blocks, strict=True):
            distance = np.abs(guess - true)
            inside += [np.count_nonzero(distance <= width * spread) for width in half_widths]
            count += distance.size
    return 100 * inside / count
