r"""Offset and gain of the detector from the mean-variance line of the data (photon transfer).

The variance of counts c of mean m is :math:`g (m - o) + \sigma^2`, with the gain g, the offset o
and the read noise :math:`\sigma`. Single images hold both: a filter D that takes smooth structure
away leaves a residual r whose expected square is :math:`\sum_k D_k^2 \mathrm{Var}(c_k)`, which is
on the same line at the mean :math:`\sum_k D_k^2 m_k / \sum_k D_k^2`, however m varies within the
filter. (Local variances of single images: Foi et al., Practical Poissonian-Gaussian noise modeling
and fitting for single-image raw-data, IEEE Trans. Image Process. 17, 2008; a filter against
structure: Immerkaer, Fast noise variance estimation, Comput. Vis. Image Underst. 64, 1996.)

Pixels are grouped by the mean of a ring around the filter, whose noise is independent of that
within: groups by the pixels' own noisy counts would bend the line. Read noise and offset are one
number on the line: the offset is where the variance vanishes, :math:`o - \sigma^2 / g`, for which
photons and variance are equal at every brightness.
"""

from __future__ import annotations

from dataclasses import dataclass

import dask.array as da
import numpy as np
from scipy.ndimage import binary_dilation, convolve1d, uniform_filter

from besselflow.corrections.hot_pixels import find_hot_pixels
from besselflow.corrections.saturation import saturation_level

_FINE = np.array([1.0, -4.0, 6.0, -4.0, 1.0])
_FINEST = np.array([1.0, -6.0, 15.0, -20.0, 15.0, -6.0, 1.0])
_RING = 11
_MOST_IMAGES = 48
_GROUPS = 24
_FEWEST_PIXELS = 400
_FEWEST_GROUPS = 5
_PARTS = 10
_STRIPS = 5
_LARGEST_ERROR = 0.1
_LARGEST_DISAGREEMENT = 0.15
_LARGEST_BEND = 0.3
_ERRORS = 3.0


@dataclass(frozen=True)
class PhotonTransfer:
    """The mean-variance line of one channel.

    Attributes
    ----------
    offset, gain : float
        Counts at which the variance vanishes, and counts per photon.
    offset_error, gain_error : float
        Standard errors, by leaving out parts of the images (jackknife).
    means, variances : list of float
        Points of the line, in counts and counts squared.
    """

    offset: float
    gain: float
    offset_error: float
    gain_error: float
    means: list[float]
    variances: list[float]


def estimate_photon_transfer(images: da.Array) -> PhotonTransfer | str:
    """Estimate offset and gain from images of one channel.

    Parameters
    ----------
    images : dask.array.Array, shape (N, Y, X)
        Raw counts at all depths and times; at most 48 of them are looked at, one at a time.

    Returns
    -------
    PhotonTransfer or str
        Why there is no line, where the brightness varies too little, or where neighbouring pixels
        share structure or noise.
    """
    count, height, width = images.shape
    if min(height, width) < 2 * _RING:
        return f"the images are smaller than {2 * _RING} pixels"
    chosen = np.unique(np.linspace(0, count - 1, min(count, _MOST_IMAGES)).round().astype(int))
    level, hot = saturation_level(images[chosen]), find_hot_pixels(images)
    edges = _group_edges(images, chosen)
    if edges is None:
        return "all pixels are equally bright"
    sums = {len(kernel): np.zeros((_PARTS, 3, _GROUPS)) for kernel in (_FINE, _FINEST)}
    for number, index in enumerate(chosen):
        image = np.asarray(images[int(index)], dtype=np.float64)
        bad = np.zeros(image.shape, bool) if hot is None else hot
        if level is not None:
            bad = bad | (image >= level)
        for kernel in (_FINE, _FINEST):
            _add(sums[len(kernel)], image, bad, kernel, edges, number * _STRIPS)
    coarse, fine = (_fit(sums[len(kernel)]) for kernel in (_FINE, _FINEST))
    if coarse is None or fine is None:
        return "too few pixels, or too little range of brightness"
    if not fine.gain > 0 or fine.gain_error > _LARGEST_ERROR * fine.gain:
        return (
            f"the slope of the variance, {fine.gain:.3g} ± {fine.gain_error:.2g} counts per photon,"
            " is too uncertain"
        )
    if abs(coarse.gain - fine.gain) > _LARGEST_DISAGREEMENT * fine.gain:
        return (
            f"filters of 5 and 7 pixels find {coarse.gain:.3g} and {fine.gain:.3g} counts per "
            "photon, as where structure is as fine as the pixels or neighbours share their noise"
        )
    bend, error = _bend(sums[len(_FINEST)])
    if abs(bend) > max(_LARGEST_BEND, _ERRORS * error):
        return (
            "the variance does not grow in proportion to the brightness: its slope changes by "
            f"{bend:.0%} from the faint to the bright, as where structure is as fine as the pixels"
        )
    return fine


def _group_edges(images: da.Array, chosen: np.ndarray) -> np.ndarray | None:
    """Return the limits of the groups, equally spaced between faint and bright rings."""
    looked_at = chosen[:: max(1, len(chosen) // 8)]
    rings = [_ring_mean(np.asarray(images[int(i)], np.float64), 7)[::2, ::2] for i in looked_at]
    low, high = np.percentile(np.stack(rings), [0.1, 99.95])
    return np.linspace(low, high, _GROUPS + 1) if high > low else None


def _ring_mean(image: np.ndarray, inner: int) -> np.ndarray:
    outer = uniform_filter(image, _RING, mode="mirror") * _RING**2
    return (outer - uniform_filter(image, inner, mode="mirror") * inner**2) / (_RING**2 - inner**2)


def _add(
    sums: np.ndarray,
    image: np.ndarray,
    bad: np.ndarray,
    kernel: np.ndarray,
    edges: np.ndarray,
    first_part: int,
) -> None:
    """Add pixels, means and squared residuals of an image to the sums (part, 3, group)."""
    weights = kernel**2 / (kernel**2).sum()
    residual, mean = image, image
    for axis in (0, 1):
        residual = convolve1d(residual, kernel / np.linalg.norm(kernel), axis, mode="mirror")
        mean = convolve1d(mean, weights, axis, mode="mirror")
    used = np.ones(image.shape, bool)
    if bad.any():
        used = ~binary_dilation(bad, np.ones((_RING, _RING), bool))
    border = _RING // 2
    inside = np.zeros_like(used)
    inside[border:-border, border:-border] = True
    group = np.digitize(_ring_mean(image, len(kernel)), edges) - 1
    used &= inside & (group >= 0) & (group < len(edges) - 1)
    strip = np.arange(len(image)) * _STRIPS // len(image)
    part = np.broadcast_to(((first_part + strip) % _PARTS)[:, None], image.shape)
    place = part[used] * _GROUPS + group[used]
    for which, values in enumerate((np.ones_like(mean), mean, residual**2)):
        added = np.bincount(place, values[used], _PARTS * _GROUPS)
        sums[:, which] += added.reshape(_PARTS, _GROUPS)


def _fit(sums: np.ndarray) -> PhotonTransfer | None:
    """Fit the line to all parts, and to all but each for the errors."""
    total = sums.sum(axis=0)
    used = total[0] >= _FEWEST_PIXELS
    if used.sum() < _FEWEST_GROUPS:
        return None
    gain, offset = _line(total[:, used])
    left_out = np.array([_line((total - part)[:, used]) for part in sums])
    errors = np.sqrt((_PARTS - 1) * left_out.var(axis=0))
    means, variances = total[1:, used] / total[0, used]
    return PhotonTransfer(
        offset=float(offset),
        gain=float(gain),
        offset_error=float(errors[1]),
        gain_error=float(errors[0]),
        means=[float(v) for v in means],
        variances=[float(v) for v in variances],
    )


def _bend(sums: np.ndarray) -> tuple[float, float]:
    """Return the relative change of the slope over the range, and its error."""
    total = sums.sum(axis=0)
    used = total[0] >= _FEWEST_PIXELS

    def change(group_sums: np.ndarray) -> float:
        pixels = np.maximum(group_sums[0], 1)
        mean, variance = group_sums[1] / pixels, group_sums[2] / pixels
        along = (mean - mean.min()) / np.ptp(mean)
        weights = np.sqrt(pixels) / np.maximum(variance, 1e-3 * variance.max())
        curved, slope, _ = np.polyfit(along, variance, 2, w=weights)
        return 2 * curved / max(abs(slope + curved), 1e-12)

    left_out = np.array([change((total - part)[:, used]) for part in sums])
    return change(total[:, used]), float(np.sqrt((_PARTS - 1) * left_out.var()))


def _line(sums: np.ndarray) -> tuple[float, float]:
    """Return slope and zero of the variances over the means, outliers weighing less (Huber)."""
    pixels = np.maximum(sums[0], 1)
    mean, variance = sums[1] / pixels, sums[2] / pixels
    expected = np.maximum(variance, 1e-12)
    robust = np.ones_like(mean)
    for _ in range(30):
        weight = robust * pixels / expected**2
        centre = np.average(mean, weights=weight)
        slope = np.sum(weight * (mean - centre) * variance) / np.sum(weight * (mean - centre) ** 2)
        level = np.average(variance, weights=weight)
        fitted = level + slope * (mean - centre)
        expected = np.maximum(fitted, 1e-3 * variance.max() + 1e-12)
        # Squares of neighbouring residuals are correlated; only relative sizes matter here.
        deviation = (variance - fitted) * np.sqrt(pixels) / expected
        scale = 1.4826 * np.median(np.abs(deviation)) + 1e-12
        robust = 1 / np.maximum(1, np.abs(deviation) / (1.345 * scale))
    return slope, centre - level / slope if slope else np.nan
