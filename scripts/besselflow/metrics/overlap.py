"""Dice: how far the masks of two volumes overlap, at one threshold for both, and at several."""

from __future__ import annotations

import numpy as np
import pandas as pd

from besselflow.metrics.patches import iterate_bands

SWEEP = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
"""Thresholds of the sweep in units of Otsu's threshold of the ground truth."""


def slice_overlap(
    guess: np.ndarray, true: np.ndarray, threshold: float, peak: float
) -> dict[str, int]:
    """Count the voxels above each threshold of the sweep in one slice.

    Parameters
    ----------
    guess, true : numpy.ndarray, shape (Y, X)
        A slice of the estimate and of the truth.
    threshold : float
        Threshold that the sweep multiplies.
    peak : float
        What is brighter counts as this.

    Returns
    -------
    dict
        ``overlap_F`` (in both masks) and ``sizes_F`` (sum of both) for each factor F of `SWEEP`.
    """
    levels = [factor * threshold for factor in SWEEP]
    overlaps, sizes = np.zeros((2, len(SWEEP)), np.int64)
    for pair in iterate_bands(guess, true):
        one, other = (np.clip(part, 0, peak, out=part) for part in pair)
        sizes += [
            np.count_nonzero(one > level) + np.count_nonzero(other > level) for level in levels
        ]
        both = np.minimum(one, other, out=one)
        overlaps += [np.count_nonzero(both > level) for level in levels]
    counts = {}
    for factor, overlap, size in zip(SWEEP, overlaps, sizes, strict=True):
        counts |= {f"overlap_{factor:g}": int(overlap), f"sizes_{factor:g}": int(size)}
    return counts


def dice(overlap: float, sizes: float) -> float:
    """Return twice the overlap over the sum of the sizes; 1 where both masks are empty."""
    return 2 * float(overlap) / float(sizes) if sizes else 1.0


def sweep_dice(stacks: list[pd.DataFrame]) -> pd.DataFrame:
    """Return Dice over the volume at every threshold of the sweep.

    Parameters
    ----------
    stacks : list of pandas.DataFrame
        Counts by `slice_overlap`, one table per time and channel.

    Returns
    -------
    pandas.DataFrame
        Columns ``threshold`` (in units of Otsu's threshold of the ground truth) and ``dice``, the
        mean over times and channels.
    """
    rows = []
    for factor in SWEEP:
        names = [f"overlap_{factor:g}", f"sizes_{factor:g}"]
        values = [dice(*stack[names].sum()) for stack in stacks]
        rows.append({"threshold": factor, "dice": float(np.mean(values))})
    return pd.DataFrame(rows)
