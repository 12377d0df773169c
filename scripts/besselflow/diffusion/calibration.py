"""From the spread of a few samples to a standard deviation that can be believed.

A network that was trained on volumes of finite number is surer than it should be, and the spread of
four samples is a rough estimate itself. On training volumes the error is known: voxels are sorted
by their spread, and each class of them is given the standard deviation whose 90 % interval holds
90 % of its errors. What lies between the classes is interpolated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.ndimage import gaussian_filter

_CLASSES, _FEWEST = 24, 200
# Below this quantile of the spreads, all are one class.
_LOWEST_QUANTILE = 0.01
_INTERVAL, _DEVIATIONS = 0.9, 1.6448536
_SMALLEST = 1e-6
# Over so many voxels the squared spread is averaged, for that of few samples is a noisy figure.
_SMOOTHING = 1.0


@dataclass(frozen=True)
class Calibration:
    """Standard deviation as a function of the spread, both relative to the scale.

    Attributes
    ----------
    spreads, stds : sequence of float
        Increasing spreads, and the standard deviation at each of them; beyond the ends the ratio
        stays what it is there.
    """

    spreads: Sequence[float]
    stds: Sequence[float]

    @classmethod
    def fit(cls, errors: Sequence[np.ndarray], spreads: Sequence[np.ndarray]) -> Calibration:
        """Fit the curve to known errors.

        Parameters
        ----------
        errors, spreads : sequence of numpy.ndarray
            Errors of posterior means, and spreads as from `spread_of`, of the same shapes.
        """
        error = np.abs(np.concatenate([np.ravel(each) for each in errors]))
        spread = np.concatenate([np.ravel(each) for each in spreads])
        order = np.argsort(spread)
        levels, stds = [], []
        for low, high in pairwise(_bounds(spread[order])):
            chosen = order[low:high]
            level = max(float(np.median(spread[chosen])), _SMALLEST)
            bound = float(np.quantile(error[chosen], _INTERVAL)) / _DEVIATIONS
            if levels and level <= levels[-1]:
                continue
            levels.append(level)
            stds.append(max(bound, stds[-1] if stds else _SMALLEST))
        return cls(tuple(levels), tuple(stds))

    def __call__(self, spread: np.ndarray) -> np.ndarray:
        """Return the standard deviation of voxels, float32."""
        known, stds = np.log(self.spreads), np.log(self.stds)
        at = np.log(np.maximum(spread, _SMALLEST))
        beyond = np.minimum(at - known[0], 0) + np.maximum(at - known[-1], 0)
        return np.exp(np.interp(at, known, stds) + beyond).astype(np.float32)


def _bounds(spread: np.ndarray) -> list[int]:
    """Cut sorted spreads into classes of equal ratio, none of too few voxels."""
    low, high = np.quantile(spread, [_LOWEST_QUANTILE, 1.0]).clip(_SMALLEST)
    edges = np.geomspace(low, high, _CLASSES + 1)[1:-1]
    bounds = [0]
    for bound in np.searchsorted(spread, edges).tolist():
        if bound - bounds[-1] >= _FEWEST and len(spread) - bound >= _FEWEST:
            bounds.append(bound)
    return [*bounds, len(spread)]


def spread_of(variance: np.ndarray) -> np.ndarray:
    """Return the root of the variance of some samples, averaged over neighbouring voxels."""
    return np.sqrt(np.maximum(gaussian_filter(variance, _SMOOTHING), 0))
