r"""The uneven light that many acquisitions have in common, as one smooth multiplicative field.

What a microscope shows of sample i is :math:`f(x) s_i(x)`. One acquisition can't tell the light f
from the sample s; over many samples that lie anywhere in the field of view, structures are as
likely here as there, and what is left is the light.

The field is :math:`\log f = \sum_k b_k \phi_k`, with products :math:`\phi_k` of Legendre
polynomials up to the total degree 4 (a parabola is most of a vignetting, and cosines need many
terms for it). The mean image :math:`m_i` of an acquisition, which has the mean 1, is divided by the
field, and the coefficients are those for which a bounded function of what is left no longer depends
on the place (an M-estimator of scale, Huber & Ronchetti, Robust Statistics, 2009, ch. 5 and 6):

.. math:: \sum_i \langle \phi_k, \psi(s_i) \rangle = 0, \quad
          s_i = \frac{m_i / f}{\langle m_i / f \rangle}, \quad \psi(s) = \frac{s}{s + 0.3}.

That is unbiased for every function :math:`\psi`, and with a bounded one, a bright cell body counts
hardly more than a thin process, a bright sample no more than a faint one, and a saturated pixel
little less than it should. The standard errors come from the spread of the acquisitions (the
jackknife of the sandwich estimator), since the chance placement of structures, and not the noise,
is what makes the field uncertain.

Coefficients of one kind (tilt, curvature, astigmatism, degree 3, degree 4) are shrunk together by
their certainty, by the positive part of :math:`1 - 1.5 \sum \mathrm{var} / \sum b^2` (James &
Stein, Estimation with quadratic loss, 1961), so that even light gives a field of 1. A field is
*certain* where a kind exceeds its standard errors so far that even light would do so in fewer than
one of 100 sheets. What that reaches stands in `tests/benchmarks/SETTINGS.md`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.polynomial import legendre

FEWEST_ACQUISITIONS = 8
"""With fewer, the spread of the acquisitions says too little of the standard errors."""

HALVINGS = 20
"""How often the acquisitions are halved for the cross-check."""

_DEGREE = 4
_KNEE = 0.3
_STEPS = 50
_CONVERGED = 1e-6
_LONGEST_STEP = 0.5
_SHRINKAGE = 1.5
_CHANCE = 0.01
# Of a coefficient; what is smaller is rounding.
_LEAST_VARIANCE = 1e-12

_DEGREES = tuple((d - q, q) for d in range(1, _DEGREE + 1) for q in range(d + 1))


@dataclass(frozen=True)
class Shading:
    """A field of light, as it was estimated.

    Attributes
    ----------
    estimates : numpy.ndarray, shape (14,)
        Coefficients of the logarithm of the field, as the acquisitions show them.
    covariance : numpy.ndarray, shape (14, 14)
        Of their errors.
    acquisitions : int
        How many they come from.
    agreement : float
        Median correlation of the field of one half of the acquisitions with what the other half
        shows, over random halvings; 0 where a half shows an even field.
    """

    estimates: np.ndarray
    covariance: np.ndarray
    acquisitions: int
    agreement: float = 0.0

    @cached_property
    def coefficients(self) -> np.ndarray:
        """Coefficients, each kind shrunk by its certainty, shape (14,)."""
        return _shrink(self.estimates, self.covariance)

    @cached_property
    def chance(self) -> float:
        """Probability that light is even gives as clear a field in any of the five kinds."""
        # Whole samples are read without an estimate, and need not wait for its distributions.
        from scipy.stats import f as fisher

        chances = []
        for members, ratio in _ratios(self.estimates, self.covariance):
            own = members @ self.covariance @ members.T
            freedom = max(1.0, np.trace(own) ** 2 / max((own**2).sum(), 1e-300))
            chances.append(fisher.sf(ratio, freedom, self.acquisitions - 1))
        return float(min(1.0, len(chances) * min(chances)))

    @property
    def is_certain(self) -> bool:
        """Whether it is beyond chance that the light is uneven."""
        return self.chance <= _CHANCE

    @property
    def variation(self) -> float:
        """Standard deviation of the field, relative to its mean."""
        return float(np.sqrt((self.coefficients**2).sum()))

    @property
    def error(self) -> float:
        """Standard error of the field before it was shrunk, as a root mean square."""
        return float(np.sqrt(np.trace(self.covariance)))

    def field(self, shape: tuple[int, int]) -> np.ndarray:
        """Return the field (Y, X), with the mean 1."""
        matrix = np.zeros((_DEGREE + 1, _DEGREE + 1))
        matrix[tuple(np.transpose(_DEGREES))] = self.coefficients
        y, x = (_polynomials(n) for n in shape)
        light = np.exp(y @ matrix @ x.T)
        return light / light.mean()

    def error_map(self, shape: tuple[int, int]) -> np.ndarray:
        """Return the standard error (Y, X) at every pixel, relative to the field."""
        basis = _basis(shape)
        variance = np.einsum("kyx,kl,lyx->yx", basis, self.covariance, basis, optimize=True)
        return np.sqrt(np.maximum(variance, 0))


def estimate_shading(images: np.ndarray, halvings: int = HALVINGS, seed: int = 0) -> Shading:
    """Estimate the light that the mean images of many acquisitions have in common.

    Parameters
    ----------
    images : numpy.ndarray, shape (N, Y, X)
        Mean image of each acquisition above the detector's offset, on any scale; at least 8. Some
        64 pixels along an axis are enough.
    halvings : int
        How often the acquisitions are halved for the cross-check.
    seed : int
        Of the halvings.

    Raises
    ------
    ValueError
        There are fewer than 8 images.
    """
    if len(images) < FEWEST_ACQUISITIONS:
        raise ValueError(f"{len(images)} images are fewer than {FEWEST_ACQUISITIONS}")
    estimates, covariance = _fit(images)
    agreement = _compare_halves(images, halvings, np.random.default_rng(seed))
    return Shading(estimates, covariance, len(images), agreement)


def _fit(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return coefficients (K,) and their covariance (K, K)."""
    count, *shape = images.shape
    basis = _basis(tuple(shape)).reshape(len(_DEGREES), -1)
    flat = images.reshape(count, -1).astype(np.float64)
    found = np.zeros(len(basis))
    for _ in range(_STEPS):
        slopes, curvature, shares = _scores(flat / np.exp(found @ basis), basis)
        step = np.linalg.solve(curvature, slopes.sum(axis=0))
        found = found + step * min(1.0, _LONGEST_STEP / np.linalg.norm(step))
        if np.abs(step).max() < _CONVERGED:
            break
    # How far the estimate would move without an acquisition.
    moves = np.linalg.solve(curvature, slopes.T).T / (1 - shares)[:, None]
    moves -= moves.mean(axis=0)
    return found, moves.T @ moves * (count - 1) / count


def _scores(samples: np.ndarray, basis: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Say how samples (N, pixels) depend on the place.

    Returns
    -------
    slopes : numpy.ndarray, shape (N, K)
        Of the bounded function of each sample.
    curvature : numpy.ndarray, shape (K, K)
        How much less all slopes together become for every unit of a coefficient.
    shares : numpy.ndarray, shape (N,)
        Of each sample in the curvature.
    """
    pixels = samples.shape[1]
    samples = samples / samples.mean(axis=1, keepdims=True)
    bounded = np.maximum(samples, 0)
    bounded = bounded / (bounded + _KNEE)
    steepness = bounded * (1 - bounded)
    curvature = (basis * steepness.sum(axis=0)) @ basis.T / pixels
    # A sample is divided by its mean, which the field changes, too.
    curvature -= (steepness @ basis.T / pixels).T @ (samples @ basis.T / pixels)
    shares = steepness.mean(axis=1) / steepness.mean(axis=1).sum()
    centred = bounded - bounded.mean(axis=1, keepdims=True)
    return centred @ basis.T / pixels, curvature, shares


def _compare_halves(images: np.ndarray, halvings: int, rng: np.random.Generator) -> float:
    found = []
    for _ in range(halvings):
        order = rng.permutation(len(images))
        (own, covariance), (other, _) = (_fit(images[half]) for half in np.array_split(order, 2))
        shrunk = _shrink(own, covariance)
        length = np.linalg.norm(shrunk) * np.linalg.norm(other)
        found.append(shrunk @ other / length if length > 0 else 0.0)
    return float(np.median(found))


def _shrink(estimates: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    shrunk = np.zeros_like(estimates)
    for members, ratio in _ratios(estimates, covariance):
        shrunk += max(0.0, 1 - _SHRINKAGE / max(ratio, 1e-300)) * members.T @ members @ estimates
    return shrunk


def _ratios(estimates: np.ndarray, covariance: np.ndarray) -> list[tuple[np.ndarray, float]]:
    """Return of every kind its directions (m, K), and its squares in units of their variances."""
    found = []
    for members in _members():
        variance = max(np.trace(members @ covariance @ members.T), _LEAST_VARIANCE)
        found.append((members, float(((members @ estimates) ** 2).sum() / variance)))
    return found


def _members() -> list[np.ndarray]:
    """Return the directions (m, K) of every kind among the coefficients."""
    unit = dict(zip(_DEGREES, np.eye(len(_DEGREES)), strict=True))
    curvature = (unit[2, 0] + unit[0, 2]) / np.sqrt(2)
    astigmatism = (unit[2, 0] - unit[0, 2]) / np.sqrt(2)
    by_degree = [[unit[pq] for pq in _DEGREES if sum(pq) == degree] for degree in (1, 3, 4)]
    tilt, third, fourth = by_degree
    kinds = (tilt, [curvature], [astigmatism, unit[1, 1]], third, fourth)
    return [np.array(kind) for kind in kinds]


def _basis(shape: tuple[int, int]) -> np.ndarray:
    """Return the polynomials (K, Y, X), each with the mean 0 and the variance 1 over the image."""
    y, x = (_polynomials(n) for n in shape)
    return np.stack([np.outer(y[:, p], x[:, q]) for p, q in _DEGREES])


def _polynomials(count: int) -> np.ndarray:
    """Return the normalised Legendre polynomials (pixels, degree + 1) at the centres of pixels."""
    places = (2 * np.arange(count) + 1) / count - 1
    return legendre.legvander(places, _DEGREE) * np.sqrt(2 * np.arange(_DEGREE + 1) + 1)
