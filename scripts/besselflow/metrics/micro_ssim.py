r"""MicroSSIM: structural similarity for micrographs, whose background and scale are arbitrary.

After Ashesh, Deschamps and Jug, "MicroSSIM: Improved Structural Similarity for Comparing Microscopy
Data", BIC at ECCV 2024 (arXiv 2408.08747). The background, the third percentile, is subtracted from
truth and estimate, both are divided by the peak of the truth above it, and the estimate is
multiplied by the :math:`\alpha` that makes the mean of

.. math:: \frac{(2 \alpha \mu_x \mu_y + C_1) (2 \alpha \sigma_{xy} + C_2)}
               {(\mu_x^2 + \alpha^2 \mu_y^2 + C_1) (\sigma_x^2 + \alpha^2 \sigma_y^2 + C_2)}

over all pixels the largest. The window is that of SSIM, and one data range, that of the truth over
all scored slices, serves every slice. Background and :math:`\alpha` come from an even sample of
pixels, which holds all of them in small volumes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import scipy
from numpy.lib.stride_tricks import sliding_window_view
from scipy.ndimage import uniform_filter

from besselflow.metrics.patches import iterate_patches

BACKGROUND_PERCENTILE = 3
_K1, _K2 = 0.01, 0.03
# Of sampled windows, so many pixels are copied at once.
_VALUES_AT_ONCE = 2**20


@dataclass(frozen=True)
class LocalMoments:
    """Means, variances and covariance of two images in a window around every pixel.

    Attributes
    ----------
    true, guess : numpy.ndarray
        Means of the truth and of the estimate.
    true_true, guess_guess, guess_true : numpy.ndarray
        Sample variances and covariance.
    """

    true: np.ndarray
    guess: np.ndarray
    true_true: np.ndarray
    guess_guess: np.ndarray
    guess_true: np.ndarray

    @classmethod
    def joined(cls, parts: list[LocalMoments]) -> LocalMoments:
        """Put several behind each other."""
        names = cls.__dataclass_fields__
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


@dataclass(frozen=True)
class Scaling:
    """How intensities are made comparable.

    Attributes
    ----------
    truth_background, background : float
        Intensity to subtract from the truth, and from the estimate.
    peak : float
        Peak of the truth above its background.
    alpha : float
        Factor of the estimate.
    data_range : float
        Range of the truth in units of `peak`.
    """

    truth_background: float
    background: float
    peak: float
    alpha: float
    data_range: float


def sampled_moments(guess: np.ndarray, true: np.ndarray, window: int, step: int) -> LocalMoments:
    """Take means over every `step`-th of the windows within an image, row by row.

    Parameters
    ----------
    guess, true : numpy.ndarray, shape (Y, X)
        A slice of the estimate and of the truth.
    window : int
        Edge length of the window in pixels, odd.
    step : int
        1 for all windows.
    """
    shape = tuple(length - window + 1 for length in guess.shape)
    places = np.arange(0, math.prod(shape), step)
    pair = [sliding_window_view(image, (window, window)) for image in (true, guess)]
    parts = []
    for some in np.array_split(places, -(-len(places) * window**2 // _VALUES_AT_ONCE)):
        rows, columns = np.unravel_index(some, shape)
        x, y = (each[rows, columns].reshape(len(some), -1).astype(np.float64) for each in pair)
        means = x.mean(axis=1), y.mean(axis=1)
        x, y = x - means[0][:, None], y - means[1][:, None]
        degrees = window**2 - 1
        products = ((x * x).sum(axis=1), (y * y).sum(axis=1), (x * y).sum(axis=1))
        parts.append(LocalMoments(*means, *(product / degrees for product in products)))
    return LocalMoments.joined(parts)


def slice_similarity(guess: np.ndarray, true: np.ndarray, window: int, scaling: Scaling) -> float:
    """Return the scaled similarity of a slice, the mean over every window within it.

    Parameters
    ----------
    guess, true : numpy.ndarray, shape (Y, X)
        A slice of the estimate and of the truth.
    window : int
        Edge length of the window in pixels, odd.
    scaling : Scaling
        Result of `fit_scaling`.
    """
    # Centred, so that a large background doesn't cancel the variances away.
    centres = guess.mean(dtype=np.float64), true.mean(dtype=np.float64)
    total, count = 0.0, 0
    for pixels, _ in iterate_patches(guess.shape, window):
        values = similarity(_patch_moments(guess[pixels], true[pixels], window, centres), scaling)
        total, count = total + values.sum(), count + values.size
    return float(total / count)


def _patch_moments(
    guess: np.ndarray, true: np.ndarray, window: int, centres: tuple[float, float]
) -> LocalMoments:
    """Take means over every window within a patch, as ``structural_similarity`` does."""
    edge = window // 2
    inner = slice(edge, -edge)
    mean = lambda image: uniform_filter(image, window)[inner, inner]  # noqa: E731
    sample = window**2 / (window**2 - 1)
    guess, true = guess - centres[0], true - centres[1]
    x, y = mean(true), mean(guess)
    return LocalMoments(
        x + centres[1],
        y + centres[0],
        sample * (mean(true * true) - x * x),
        sample * (mean(guess * guess) - y * y),
        sample * (mean(true * guess) - x * y),
    )


def fit_scaling(
    guess: np.ndarray, true: np.ndarray, moments: LocalMoments, extremes: tuple[float, float]
) -> Scaling | None:
    """Find backgrounds and factor from a sample of pixels.

    Parameters
    ----------
    guess, true : numpy.ndarray, shape (N,)
        Intensities of the estimate and of the truth.
    moments : LocalMoments, arrays of shape (M,)
        Moments around pixels of both.
    extremes : tuple of float
        Lowest and highest intensity of the truth.

    Returns
    -------
    Scaling or None
        None where the truth is constant, so that there is nothing to compare.
    """
    lowest, highest = extremes
    background = float(np.percentile(guess, BACKGROUND_PERCENTILE))
    truth_background = float(np.percentile(true, BACKGROUND_PERCENTILE))
    if highest <= truth_background:
        return None
    peak = highest - truth_background
    unscaled = Scaling(truth_background, background, peak, 1.0, (highest - lowest) / peak)
    return replace(unscaled, alpha=_best_factor(moments, unscaled))


def similarity(moments: LocalMoments, scaling: Scaling) -> np.ndarray:
    """Return the scaled similarity of every pixel.

    Parameters
    ----------
    moments : LocalMoments
        Of intensities as they are.
    scaling : Scaling
        Result of `fit_scaling`.
    """
    c1, c2 = (_K1 * scaling.data_range) ** 2, (_K2 * scaling.data_range) ** 2
    gain = scaling.alpha / scaling.peak
    x = (moments.true - scaling.truth_background) / scaling.peak
    y = (moments.guess - scaling.background) * gain
    luminance = (2 * x * y + c1) / (x**2 + y**2 + c1)
    covariance = moments.guess_true * gain / scaling.peak
    variances = moments.true_true / scaling.peak**2 + moments.guess_guess * gain**2
    return luminance * (2 * covariance + c2) / (variances + c2)


def _best_factor(moments: LocalMoments, unscaled: Scaling) -> float:
    """Search around the least-squares factor, coarsely by powers of two and then finely."""
    x = moments.true - unscaled.truth_background
    y = moments.guess - unscaled.background
    power = float(np.mean(y**2 + moments.guess_guess))
    product = float(np.mean(x * y + moments.guess_true))
    start = product / power if product > 0 and power > 0 else 1.0
    loss = lambda alpha: -float(similarity(moments, replace(unscaled, alpha=alpha)).mean())  # noqa: E731
    factors = start * 2.0 ** np.arange(-5, 5.5, 0.5)
    best = int(np.argmin([loss(factor) for factor in factors]))
    around = (factors[max(best - 1, 0)], factors[min(best + 1, len(factors) - 1)])
    tolerance = 1e-6 * factors[best]
    found = scipy.optimize.minimize_scalar(
        loss, bounds=around, method="bounded", options={"xatol": tolerance}
    )
    return float(found.x)
