"""From a few samples to a standard deviation and to a sample that can be believed.

A network that was trained on volumes of finite number is surer than it should be, and the spread of
four samples is a rough estimate itself. How far the prior has moved the INR tells as much of how
wrong a voxel may be: from both comes the level of a voxel, see `Calibration.level`. On training
volumes the error is known: voxels are sorted by their level, and each class of them is given the
standard deviation whose 90 % interval holds 90 % of its errors. What lies between the classes is
interpolated. Where projections lie further apart, as after some were withheld, a prior errs more
than spread and change tell: all of it grows with a power of the `sparseness` of the acquisition.

A sample is to deviate from the mean as the truth does. Its deviation is enlarged like the standard
deviation, and in each ring of spatial frequency brought to the power that the error has there.
"""

from __future__ import annotations

import math
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
# Acquisitions that a line is drawn through, and how often it is drawn: the curve knows of it, too.
_FEWEST_POINTS, _ROUNDS = 4, 3
_LARGEST_EXPONENT = 3.0
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
    exponent : float
        Power of the sparseness of an acquisition that the standard deviation grows with.
    least_sparseness : float
        That of the densest acquisition that the exponent comes from: a denser one is not taken for
        more certain.
    """

    levels: Sequence[float]
    stds: Sequence[float]
    gains: Sequence[float] = ()
    change_weight: float = 0.0
    exponent: float = 0.0
    least_sparseness: float = 0.0

    @classmethod
    def fit(
        cls,
        errors: Sequence[np.ndarray],
        spreads: Sequence[np.ndarray],
        changes: Sequence[np.ndarray],
        deviations: Sequence[np.ndarray] = (),
        change_weight: float = CHANGE_WEIGHT,
        sparseness: Sequence[float] = (),
    ) -> Calibration:
        """Fit curve, exponent and gains to known errors.

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
        sparseness : sequence of float
            That of each acquisition, as from `sparseness`; empty where it is not to count.
        """
        curve = cls((), (), change_weight=change_weight)
        levels = [curve.level(*each) for each in zip(spreads, changes, strict=True)]
        curve = curve._through(errors, levels)
        if len(sparseness):
            curve = replace(curve, least_sparseness=float(min(sparseness)))
            for _ in range(_ROUNDS):
                ratios = [
                    _bound(np.abs(error) / curve(*parts))
                    for error, *parts in zip(errors, spreads, changes, sparseness, strict=True)
                ]
                slope = _certain_slope(np.log(sparseness), np.log(ratios))
                exponent = min(max(curve.exponent + slope, 0.0), _LARGEST_EXPONENT)
                factors = np.power(sparseness, exponent)
                scaled = [e / f for e, f in zip(errors, factors, strict=True)]
                curve = replace(curve, exponent=exponent)._through(scaled, levels)
        if not len(deviations):
            return curve
        return curve.with_gains(errors, spreads, changes, deviations, sparseness)

    def _through(self, errors: Sequence[np.ndarray], levels: Sequence[np.ndarray]) -> Calibration:
        """Fit the curve to errors at these levels, and leave all else as it is."""
        error = np.abs(np.concatenate([np.ravel(each) for each in errors]))
        level = np.concatenate([np.ravel(each) for each in levels])
        order = np.argsort(level)
        middles, stds = [], []
        for low, high in pairwise(_bounds(level[order])):
            chosen = order[low:high]
            middle = max(float(np.median(level[chosen])), _SMALLEST)
            if middles and middle <= middles[-1]:
                continue
            middles.append(middle)
            stds.append(max(_bound(error[chosen]), stds[-1] if stds else _SMALLEST))
        return replace(self, levels=tuple(middles), stds=tuple(stds))

    def with_gains(
        self,
        errors: Sequence[np.ndarray],
        spreads: Sequence[np.ndarray],
        changes: Sequence[np.ndarray],
        deviations: Sequence[np.ndarray],
        sparseness: Sequence[float] = (),
    ) -> Calibration:
        """Fit the gains to known errors, and leave the curve as it is; see `fit`."""
        curve = replace(self, gains=())
        known = sparseness if len(sparseness) else [1.0] * len(errors)
        parts = zip(deviations, spreads, changes, known, strict=True)
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

    def __call__(
        self, spread: np.ndarray, change: np.ndarray, sparseness: float = 1.0
    ) -> np.ndarray:
        """Return the standard deviation of voxels, float32; see `level` and `sparseness`."""
        known, stds = np.log(self.levels), np.log(self.stds)
        at = np.log(np.maximum(self.level(spread, change), _SMALLEST))
        beyond = np.minimum(at - known[0], 0) + np.maximum(at - known[-1], 0)
        raised = self.exponent * math.log(max(sparseness, self.least_sparseness))
        return np.exp(np.interp(at, known, stds) + beyond + raised).astype(np.float32)

    def enlarge(
        self,
        deviation: np.ndarray,
        spread: np.ndarray,
        change: np.ndarray,
        sparseness: float = 1.0,
    ) -> np.ndarray:
        """Make the deviation of a sample (Z, Y, X) from the mean one that can be believed."""
        enlarged = self(spread, change, sparseness) / np.maximum(spread, _SMALLEST) * deviation
        if not self.gains:
            return enlarged.astype(np.float32)
        middles = (np.arange(len(self.gains)) + 0.5) * _RING
        gains = np.exp(np.interp(_frequencies(enlarged.shape), middles, np.log(self.gains)))
        return idctn(gains * dctn(enlarged, norm="ortho"), norm="ortho").astype(np.float32)


def sparseness(matrix: np.ndarray, positions_um: np.ndarray, spacing_um: float) -> float:
    """Return how far apart projections lie, relative to how far each of them reaches along z.

    Parameters
    ----------
    matrix : numpy.ndarray, shape (P, Z)
        Axial weights.
    positions_um : numpy.ndarray, shape (P,)
        Stage positions.
    spacing_um : float
        Between slices.

    Returns
    -------
    float
        The distance of neighbours, mean over the depth, relative to the effective length of the
        beam, median over the projections; 1 for a single projection.
    """
    distances = np.diff(np.sort(positions_um))
    rows = np.asarray(matrix, float)
    # A projection that lies beyond the volume sees nothing of it.
    rows = rows[np.any(rows, axis=1)]
    if not len(rows) or not distances.sum() > 0:
        return 1.0
    lengths = spacing_um * np.sum(rows, axis=1) ** 2 / np.sum(np.square(rows), axis=1)
    return float(np.sum(distances**2) / np.sum(distances) / np.median(lengths))


def _bound(errors: np.ndarray) -> float:
    """Return the standard deviation whose 90 % interval holds 90 % of the sizes of errors."""
    return max(float(np.quantile(errors, _INTERVAL)) / _DEVIATIONS, _SMALLEST)


def _certain_slope(x: np.ndarray, y: np.ndarray) -> float:
    """Return the slope of a line through points, shrunk by the share of it that may be chance."""
    x, y = x - np.mean(x), y - np.mean(y)
    spread = float(np.sum(x**2))
    if len(x) < _FEWEST_POINTS or spread < _SMALLEST:
        return 0.0
    slope = float(np.sum(x * y)) / spread
    error = float(np.sum((y - slope * x) ** 2)) / (len(x) - 2) / spread
    return slope * max(1 - error / max(slope**2, _SMALLEST), 0.0)


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
