"""Saturated pixels: those at a value at which the detector's counts pile up."""

from __future__ import annotations

import dask
import dask.array as da
import numpy as np

_FEWEST = 8
_PILED_UP = 2.0
_WINDOW = 0.01
_MOST = 0.2


def saturation_level(counts: da.Array) -> float | None:
    """Find the value at which the counts are clipped.

    It is the largest value if it is the largest that the file's integers can hold, or if at least
    8 pixels have it, and twice as many as have any of the values within 1 % of the range below (or
    two steps of the detector, if these are wider): counts thin out towards the largest one unless
    they are clipped.

    Parameters
    ----------
    counts : dask.array.Array
        Raw counts of any shape.

    Returns
    -------
    float or None
        In counts; None where nothing is clipped, or where more than a fifth of the pixels have the
        largest value, which then is no detector's limit.
    """
    low, top = (float(v) for v in dask.compute(counts.min(), counts.max()))
    if top <= low:
        return None
    sample = np.unique(np.asarray(counts[tuple(slice(None, None, s) for s in _strides(counts))]))
    step = float(np.diff(sample).min()) if len(sample) > 1 else 0.0
    window = max(_WINDOW * (top - low), 2 * step)
    at_top, near = (
        int(v)
        for v in dask.compute(
            (counts == top).sum(), ((counts >= top - window) & (counts < top)).sum()
        )
    )
    if at_top > _MOST * counts.size:
        return None
    limited = counts.dtype.kind in "ui" and top == np.iinfo(counts.dtype).max
    piled_up = at_top >= _FEWEST and at_top > _PILED_UP * near
    return top if limited or piled_up else None


def _strides(counts: da.Array) -> list[int]:
    stride = max(1, round((counts.size / 2**20) ** 0.5))
    return [1] * (counts.ndim - 2) + [stride, stride]
