"""From a few samples to a standard deviation and to a sample that can be believed.

A network that was trained on volumes of finite number is surer than it should be, and the spread of
four samples is a rough estimate itself. How far the prior has moved the INR tells as much of how
wrong a voxel may be: from both comes the level of a voxel, see `Calibration.level`. On training
volumes the error is known: voxels are sorted by their level, and each class of them is given the
standard deviation whose 90 % interval holds 90 % of its errors. What lies between the classes is
interpolated.

A sample is to deviate from the mean as the truth does. Its deviation is enlarged like the standard
deviation, and in each ring of spatial frequency brought to the power that the error has there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from scipy.fft import dctn, idctn
from scipy.ndimage import gaussian_filter

_CLASSES, _FEWEST = 24, 200
# Below this quantile of the levels, all are one class.
_LOWEST_QUANTILE = 0.01
_INTERVAL, _DEVIATIONS = 0.9, 1.6448536
_SMALLEST = 1e-6
# Over so many voxels squares are averaged, for the spread of few samples is a noisy figure.
_SMOOTHING = 1.0
# Width of a ring in cycles per voxel, and how many there are; the last one has no upper bound.
_RING, _RINGS = 0.05, 12
_LEAST_GAIN, _MOST_GAIN = 0.1, 10.0

CHANGE_WEIGHT = 0.5
"""Weight of the squared change of the INR beside the variance of the samples, chosen on phantoms:
see "Calibration" in tests/benchmarks/SETTINGS.md."""


@dataclass(frozen=True)
class Calibration:
    """Standard deviation as a function of the level, both relative to the scale.

    Attributes
    ----------
    levels, stds : sequence of float
        Increasing levels, and the standard deviation at each of them; beyond the ends the ratio
        stays what it is there.
    gains : sequence of float
        Factors of the deviation of a sample in the rings of spatial frequency, beside that of the
        standard deviation; empty for 1.
    change_weight : float
        How much the change of the INR counts beside the spread; 0 where it does not.
    """

    levels: Sequence[float]
    stds: Sequence[float]
    gains: Sequence[float] = ()
    change_weight: float = 0.0

    @classmethod
    def fit(
        cls,
        errors: Sequence[np.ndarray],
        spreads: Sequence[np.ndarray],
        changes: Sequence[np.ndarray],
        deviations: Sequence[np.ndarray] = (),
        change_weight: float = CHANGE_WEIGHT,
    ) -> Calibration:
        """Fit curve and gains to known errors.

        Parameters
        ----------
        errors, spreads : sequence of numpy.ndarray, shape (Z, Y, X)
            Errors of posterior means, and spreads as from `spread_of`.
        changes : sequence of numpy.ndarray, shape (Z, Y, X)
            Posterior means less the INR.
        deviations : sequence of numpy.ndarray, shape (Z, Y, X)
            How a sample of each deviates from the mean of all; empty for no gains.
        change_weight : float
            See `level`.
        """
        curve = cls((), (), change_weight=change_weight)
        error = np.abs(np.concatenate([np.ravel(each) for each in errors]))
        own = [np.ravel(curve.level(*each)) for each in zip(spreads, changes, strict=True)]
        level = np.concatenate(own)
        order = np.argsort(level)
        levels, stds = [], []
        for low, high in pairwise(_bounds(level[order])):
            chosen = order[low:high]
            middle = max(float(np.median(level[chosen])), _SMALLEST)
            bound = float(np.quantile(error[chosen], _INTERVAL)) / _DEVIATIONS
            if levels and middle <= levels[-1]:
                continue
            levels.append(middle)
            stds.append(max(bound, stds[-1] if stds else _SMALLEST))
        curve = replace(curve, levels=tuple(levels), stds=tuple(stds))
        return curve.with_gains(errors, spreads, changes, deviations) if deviations else curve

    def with_gains(
        self,
        errors: Sequence[np.ndarray],
        spreads: Sequence[np.ndarray],
        changes: Sequence[np.ndarray],
        deviations: Sequence[np.ndarray],
    ) -> Calibration:
        """Fit the gains to known errors, and leave the curve as it is; see `fit`."""
        curve = replace(self, gains=())
        parts = zip(deviations, spreads, changes, strict=True)
        return replace(curve, gains=_gains(errors, [curve.enlarge(*each) for each in parts]))

    def level(self, spread: np.ndarray, change: np.ndarray) -> np.ndarray:
        r"""Return what the standard deviation depends on.

        With the spread s of a voxel and the mean square of the change c of the INR around it, that
        is :math:`\sqrt{s^2 + w \langle c^2 \rangle}`, with the weight w.

        Parameters
        ----------
        spread : numpy.ndarray, shape (Z, Y, X)
            As from `spread_of`.
        change : numpy.ndarray, shape (Z, Y, X)
            Posterior mean less the INR.
        """
        if not self.change_weight:
            return spread
        return np.sqrt(np.square(spread) + self.change_weight * _averaged(np.square(change)))

    def __call__(self, spread: np.ndarray, change: np.ndarray) -> np.ndarray:
        """Return the standard deviation of voxels, float32; see `level`."""
        known, stds = np.log(self.levels), np.log(self.stds)
        at = np.log(np.maximum(self.level(spread, change), _SMALLEST))
        beyond = np.minimum(at - known[0], 0) + np.maximum(at - known[-1], 0)
        return np.exp(np.interp(at, known, stds) + beyond).astype(np.float32)

    def enlarge(self, deviation: np.ndarray, spread: np.ndarray, change: np.ndarray) -> np.ndarray:
        """Make the deviation of a sample (Z, Y, X) from the mean one that can be believed."""
        enlarged = self(spread, change) / np.maximum(spread, _SMALLEST) * deviation
        if not self.gains:
            return enlarged.astype(np.float32)
        middles = (np.arange(len(self.gains)) + 0.5) * _RING
        gains = np.exp(np.interp(_frequencies(enlarged.shape), middles, np.log(self.gains)))
        return idctn(gains * dctn(enlarged, norm="ortho"), norm="ortho").astype(np.float32)


def _gains(errors: Sequence[np.ndarray], deviations: Sequence[np.ndarray]) -> tuple[float, ...]:
    """Return the square root of the power of errors relative to deviations, ring by ring.

    Volumes count alike, however large their errors are.
    """
    logs, counts = np.zeros(_RINGS), np.zeros(_RINGS)
    for error, deviation in zip(errors, deviations, strict=True):
        ring = np.minimum(_frequencies(error.shape) / _RING, _RINGS - 1).astype(int).ravel()
        power, own = (
            np.bincount(ring, np.square(dctn(each, norm="ortho")).ravel(), _RINGS)
            for each in (error, deviation)
        )
        found = (power > 0) & (own > 0)
        logs[found] += np.log(power[found] / own[found])
        counts[found] += 1
    gains = np.exp(0.5 * logs / np.maximum(counts, 1))
    return tuple(gains.clip(_LEAST_GAIN, _MOST_GAIN).tolist())


def _frequencies(shape: tuple[int, ...]) -> np.ndarray:
    """Return the spatial frequency of each cosine of a volume, in cycles per voxel."""
    axes = np.meshgrid(*(np.arange(n) / (2 * n) for n in shape), indexing="ij", sparse=True)
    return np.sqrt(sum(axis**2 for axis in axes))


def _bounds(level: np.ndarray) -> list[int]:
    """Cut sorted levels into classes of equal ratio, none of too few voxels."""
    low, high = np.quantile(level, [_LOWEST_QUANTILE, 1.0]).clip(_SMALLEST)
    edges = np.geomspace(low, high, _CLASSES + 1)[1:-1]
    bounds = [0]
    for bound in np.searchsorted(level, edges).tolist():
        if bound - bounds[-1] >= _FEWEST and len(level) - bound >= _FEWEST:
            bounds.append(bound)
    return [*bounds, len(level)]


def spread_of(variance: np.ndarray) -> np.ndarray:
    """Return the root of the variance of some samples, averaged over neighbouring voxels."""
    return np.sqrt(_averaged(variance))


def _averaged(squares: np.ndarray) -> np.ndarray:
    return np.maximum(gaussian_filter(squares, _SMOOTHING), 0)
