"""Dice: how far the masks of two volumes overlap, at one threshold for both, and at several."""

from __future__ import annotations

import numpy as np
import pandas as pd

SWEEP = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
"""Thresholds of the sweep in units of Otsu's threshold of the ground truth."""


def slice_overlap(guess: np.ndarray, true: np.ndarray, threshold: float) -> dict[str, int]:
    """Count the voxels above each threshold of the sweep in one slice.

    Parameters
    ----------
    guess, true : numpy.ndarray, shape (Y, X)
        A slice of the estimate and of the truth.
    threshold : float
        Threshold that the sweep multiplies.

    Returns
    -------
    dict
        ``overlap_F`` (in both masks) and ``sizes_F`` (sum of both) for each factor F of `SWEEP`.
    """
    both, counts = np.minimum(guess, true), {}
    for factor in SWEEP:
        level = factor * threshold
        counts[f"overlap_{factor:g}"] = int(np.count_nonzero(both > level))
        sizes = (np.count_nonzero(mask) for mask in (guess > level, true > level))
        counts[f"sizes_{factor:g}"] = int(sum(sizes))
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
