r"""The brightness of single lines: the laser's flicker during a scan, as a gain of every line.

A line lasts so short a time that a laser which flickers makes it brighter or dimmer as a whole, and
its background with it. So :math:`I_{rx} = e^{\gamma_r} S_{rx}` with the sample S, and the relative
step from one line to the next is :math:`\gamma_{r+1} - \gamma_r` wherever along the line one looks,
but for what the sample changes there. The steps are sums over the line, in which every pixel counts
by its light and by how much the lines around it differ there. How far segments of the line disagree
says how uncertain a step is: a structure changes one segment, or those that it crosses, and flicker
all of them alike.

The gains are the most probable ones,

.. math:: \min_\gamma \sum_r (\gamma_{r+1} - \gamma_r - \delta_r)^2 / e_r^2
          + \sum_r \gamma_r^2 / \tau^2,

with the steps :math:`\delta_r \pm e_r` and the spread of the gains, tau. So the sample's own change
over many lines, which sums of steps can't be told from, is left as it is.

Offsets of lines, of a detector that drifts, would need another correction: a gain that is found in
the dark would change the bright structures. Where halves agree better on them, nothing is done.

Tau is what the left and the right half of an image agree on, in differences of fourth order, which
structures wider than a line hardly have; less what either half has in common with the other half of
the next image, which is a structure along the lines, because the laser knows nothing of it. Where
that is much, or differences of second order show more (flicker has no scale, and structures have),
nothing is corrected.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import scipy
import scipy.linalg
from scipy.ndimage import uniform_filter

_STEP = np.array([-1.0, 1.0])
_FINE = np.array([1.0, -4.0, 6.0, -4.0, 1.0]) / 6
_COARSER = np.array([-1.0, 2.0, -1.0]) / 2
_SEGMENTS = 8
_NEIGHBOURHOOD = (5, 9)
# Columns that are averaged at once, so that passes along columns stay in the cache.
_COLUMNS = 256
_SMALLEST = 32
_BLOCKS = 8
_ROUNDS = 40
_REFINEMENTS = 3
_CLIP = 3.0
_TOO_LARGE = 4.0
_REACH = 6
_FLOOR = 1e-6
_PRECISE = 1e-4
# Of a standard normal variable.
_MEDIAN_SQUARE = 0.455
# What these were chosen on is in tests/benchmarks/SETTINGS.md.
_LEAST, _MOST = 0.02, 0.25
_ERRORS = 4.0
_STRUCTURE_ERRORS = 3.0
_SHARED = 0.05
_COARSE = 1.3
_OFFSET = 1.1


@dataclass(frozen=True)
class LineNoise:
    """The flicker of an acquisition, as variances of the logarithm of the gains of lines.

    Attributes
    ----------
    variance : float
        What both halves of an image agree on, in differences of fourth order.
    coarse : float
        The same in differences of second order.
    shared : float
        What the halves of neighbouring images have in common, which is no flicker.
    offset : float
        How much better the halves agree on an offset of every line than on a gain, as a ratio.
    error, shared_error : float
        Standard errors of the difference of `variance` and `shared`, and of `shared`.
    """

    variance: float
    coarse: float
    shared: float
    offset: float
    error: float
    shared_error: float

    @property
    def spread(self) -> float:
        """Standard deviation of the logarithm of the gains."""
        return float(np.sqrt(max(self.variance - max(self.shared, 0.0), 0.0)))

    @property
    def why_not(self) -> str | None:
        """Why it is not corrected; None where it is certain."""
        found = f"found a flicker of {self.spread:.1%} from line to line, which is"
        if self.spread**2 < _ERRORS * self.error:
            return f"{found} not certain"
        if self.spread < _LEAST:
            return f"{found} too little to be taken back"
        if self.shared > max(_SHARED * self.variance, _STRUCTURE_ERRORS * self.shared_error):
            return "lines differ alike in neighbouring images, as structures along them do"
        if self.coarse > _COARSE * self.variance + _STRUCTURE_ERRORS * self.error:
            return "lines differ more from those further away, as structures along them do"
        if self.offset > _OFFSET:
            return "lines differ as much where there is no light, by offsets of the detector"
        if self.spread > _MOST:
            return f"lines differ by {self.spread:.0%}, more than a laser flickers"
        return None


def estimate_line_noise(
    pairs: Iterable[tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]],
) -> LineNoise | None:
    """Estimate how much lines flicker.

    Parameters
    ----------
    pairs : iterable of pairs of (numpy.ndarray, numpy.ndarray of bool), both of shape (Y, X)
        Intensities above the detector's offset and which of them are measurements, of two
        images that follow each other in depth or time.

    Returns
    -------
    LineNoise or None
        None where there is no pair, or images are smaller than 32 pixels, or hold no light.
    """
    halves = [[_halves(*image) for image in pair] for pair in pairs]
    if not halves or any(half is None for pair in halves for half in pair):
        return None
    # Kinds, values and variances, halves, pairs, images, lines.
    fine, coarse, offset = np.moveaxis(np.array(halves), (2, 3, 4), (0, 1, 2))
    if not np.isfinite(fine[1]).any():
        return None
    variance, parts, error = _common_variance(fine[:, 0], fine[:, 1], _FINE)
    shared, shared_parts, shared_error = _common_variance(fine[:, 0], fine[:, 1, :, ::-1], _FINE)
    return LineNoise(
        variance=variance,
        coarse=_common_variance(coarse[:, 0], coarse[:, 1], _COARSER)[0],
        shared=shared,
        error=max(error, float(np.sqrt(((parts - shared_parts) ** 2).sum()))),
        shared_error=shared_error,
        offset=_agreement(*offset) / max(_agreement(*fine), _FLOOR),
    )


def _agreement(values: np.ndarray, variances: np.ndarray) -> float:
    """Return how much of the misfit of either half the other one explains, by line."""
    return float((values.prod(axis=0) / np.sqrt(variances.prod(axis=0))).mean())


def _halves(image: np.ndarray, usable: np.ndarray) -> np.ndarray | None:
    """Return what halves of lines differ by from the lines around, (3, 2, 2, Y - 4).

    The axes are the kind (fourth and second order, and fourth as an offset), differences and their
    variances, and the left and right half.
    """
    if min(image.shape) < _SMALLEST:
        return None
    found = []
    for stencil, as_offset in ((_FINE, False), (_COARSER, False), (_FINE, True)):
        sums = _by_segment(image, usable, stencil, as_offset)
        difference, light = (part.reshape(len(part), 2, -1) for part in sums)
        # About the mean of each half: scatter about that of the line would give lines more weight
        # if their halves agree by chance.
        scatter = _scatter(difference, light)
        difference, light = difference.sum(axis=2).T, light.sum(axis=2).T
        with np.errstate(divide="ignore", invalid="ignore"):
            pair = np.where(light > 0, [difference / light, scatter / light], [[[0.0]], [[np.inf]]])
        found.append(pair[..., : len(image) - len(_FINE) + 1])
    return np.array(found)


def _common_variance(
    left: np.ndarray, right: np.ndarray, stencil: np.ndarray
) -> tuple[float, np.ndarray, float]:
    """Return the variance of the gains that two sides have in common.

    Each product of two differences is weighed by its own variance, and differences count at most as
    3 standard deviations, so that no single line decides.

    Parameters
    ----------
    left, right : numpy.ndarray, shape (2, N, 2, R)
        Relative differences and their variances: N pairs of images, R lines.
    stencil : numpy.ndarray
        Of the differences.

    Returns
    -------
    variance : float
    parts : numpy.ndarray
        What each block of lines contributes to its error.
    error : float
        From the scatter of the blocks, or from what is expected where they are too few.
    """
    scale = (stencil**2).sum()
    variance = _MOST**2
    for _ in range(_ROUNDS):
        products, weights = 1.0, 1.0
        for values, variances in (left, right):
            own = scale * variance + variances
            limit = _CLIP * np.sqrt(own)
            products = products * np.clip(values, -limit, limit)
            weights = weights / own
        mean = (weights * products).sum() / (scale * weights.sum())
        variance = max(float(mean), 0.0)
    # Differences of neighbouring lines share lines.
    repeats = (np.correlate(stencil, stencil, "full") ** 2).sum() / scale**2
    expected = np.sqrt(repeats / weights.sum()) / scale
    starts = np.linspace(0, products.shape[-1], _BLOCKS + 1).astype(int)[:-1]
    parts = weights / weights.sum() * (products / scale - mean)
    parts = np.add.reduceat(parts, starts, axis=-1)
    return float(mean), parts, max(float(expected), float(np.sqrt((parts**2).sum())))


def _by_segment(
    image: np.ndarray, usable: np.ndarray, stencil: np.ndarray, as_offset: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return differences of lines and the light that they are relative to, both (R, segments).

    Every pixel is weighed by its light over the mean squared difference around it, as the most
    probable relative difference asks for; or by the same light everywhere, for an offset.
    """
    rows = len(image) - len(stencil) + 1
    parts = [image[start : start + rows] for start in range(len(stencil))]
    difference = sum(factor * part for factor, part in zip(stencil, parts, strict=True))
    valid = np.logical_and.reduce([usable[i : i + rows] for i in range(len(stencil))])
    valid = valid.astype(np.float32)
    known = np.maximum(_local_mean(valid), 1e-6)
    light = _local_mean(valid * sum(parts) / len(parts)) / known
    squared = _local_mean(valid * difference**2) / known
    light = np.maximum(light, 0)
    squared = np.maximum(squared, max(_FLOOR * squared.mean(), (_FLOOR * light.mean()) ** 2, 1e-30))
    if as_offset:
        light = np.ones_like(light)
    weights = valid * light / squared
    starts = np.linspace(0, image.shape[1], _SEGMENTS + 1).astype(int)[:-1]
    return tuple(
        np.add.reduceat(weights * each, starts, axis=1, dtype=np.float64)
        for each in (difference, light)
    )


def _local_mean(image: np.ndarray) -> np.ndarray:
    """Return the mean around every pixel (Y, X), by bands of columns."""
    width, reach = image.shape[1], _NEIGHBOURHOOD[1] // 2
    mean = np.empty_like(image)
    for start in range(0, width, _COLUMNS):
        low, stop = max(start - reach, 0), min(start + _COLUMNS, width)
        band = np.ascontiguousarray(image[:, low : stop + reach])
        mean[:, start:stop] = uniform_filter(band, _NEIGHBOURHOOD)[:, start - low : stop - low]
    return mean


def _scatter(difference: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Return how much more segments disagree than pixels that differ independently, (R,).

    Parameters
    ----------
    difference, light : numpy.ndarray, shape (R, parts, segments)
        Segments are compared within each part of a line. Few of them say little of one line, so
        that what is usual counts as much as they do.
    """
    tiny = np.finfo(np.float64).tiny
    mean = difference.sum(axis=2) / np.maximum(light.sum(axis=2), tiny)
    left = (difference - mean[..., None] * light) ** 2 / np.maximum(light, tiny)
    freedom = light.shape[1] * (light.shape[2] - 1)
    own = left.sum(axis=(1, 2)) / freedom
    # The mean of a chi-squared distribution from its median (Wilson and Hilferty, PNAS 1931).
    usual = np.median(own) / (1 - 2 / (9 * freedom)) ** 3
    return np.maximum(0.5 * (own + usual), _FLOOR)


def line_log_gains(
    image: np.ndarray, usable: np.ndarray, spread: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the logarithm of the most probable gain of every line.

    Parameters
    ----------
    image : numpy.ndarray, shape (Y, X)
        Intensities above the detector's offset.
    usable : numpy.ndarray of bool, shape (Y, X)
        Which of them are measurements.
    spread : float
        Standard deviation of the logarithm of the gains.

    Returns
    -------
    log_gains : numpy.ndarray, shape (Y,)
    errors : numpy.ndarray, shape (Y,)
        Their standard errors, at most `spread`.
    """
    gains = np.zeros(len(image))
    for _ in range(_REFINEMENTS):
        even = image * np.exp(-gains, dtype=np.float32)[:, None]
        difference, light = _by_segment(even, usable, _STEP)
        scatter = _scatter(difference[:, None], light[:, None])
        light = light.sum(axis=1)
        lit = light > 0
        steps = np.diff(gains)
        steps[lit] += difference.sum(axis=1)[lit] / light[lit]
        variances = np.full(len(steps), np.inf)
        variances[lit] = np.maximum(scatter[lit] / light[lit], _PRECISE**2)
        variances *= _trend(steps, variances, spread)
        # What flicker can't explain is a structure that lies along the line.
        variances[steps**2 > _TOO_LARGE**2 * (variances + 2 * spread**2)] = np.inf
        bands = np.zeros((2, len(gains)))
        bands[1] = 1 / spread**2
        bands[1, 1:] += 1 / variances
        bands[1, :-1] += 1 / variances
        bands[0, 1:] = -1 / variances
        moments = np.zeros(len(gains))
        moments[1:] += steps / variances
        moments[:-1] -= steps / variances
        gains = scipy.linalg.solveh_banded(bands, moments)
    covariance = scipy.linalg.solveh_banded(bands, np.eye(len(gains)))
    return gains, np.sqrt(np.diag(covariance))


def _trend(steps: np.ndarray, variances: np.ndarray, spread: float) -> float:
    """Return by how much lines further apart differ more than their steps say, at least 1.

    The sample may change along y in all segments alike, and then from line to line by more than
    segments tell.
    """
    certain = np.isfinite(variances)
    if certain.sum() <= _REACH:
        return 1.0
    far = np.convolve(np.where(certain, steps, 0.0), np.ones(_REACH), "valid")
    expected = np.convolve(np.where(certain, variances, 0.0), np.ones(_REACH), "valid")
    excess = np.median(far**2) / _MEDIAN_SQUARE - 2 * spread**2
    return max(1.0, float(excess / np.median(expected)))
