r"""The marginal likelihood of the spectral Gaussian process, and its maximum.

The likelihood needs no more of the data than their P x P scatter matrices in rings of lateral
frequency. Its gradient is closed-form: with the covariance :math:`M` and the scatter :math:`T` of
n modes, a change of S at an axial frequency changes the negative log-likelihood by half the inner
product of :math:`n M^{-1} - M^{-1} T M^{-1}` and the change of M.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import scipy
import scipy.fft

from besselflow.baselines.spectral_model import (
    AxialBasis,
    SpectralModel,
    lateral_frequency_squared,
)
from besselflow.projection import AxialProjection

_RINGS = 64
_LEAST_SMOOTHNESS = 0.5
_LEAST_SHARE = 1e-8
# Projections say little about the correlation along z: within a factor of 1.5 of isotropic is taken
# for likely, and more than 4 is not believed.
_ANISOTROPY_SPREAD = np.log(1.5)
_ANISOTROPY_LIMIT = np.log(4.0)


@dataclass(frozen=True)
class _Rings:
    """What the likelihood needs of the data: one entry per ring of lateral frequency.

    Attributes
    ----------
    count : numpy.ndarray, shape (R,)
        Cosine modes in the ring.
    scatter : numpy.ndarray, shape (R, P, P)
        Sum of their outer products.
    frequency_squared, gain : numpy.ndarray, shape (R,)
        Means of their squared frequency, and of the squared eigenvalue of the lateral blur. The
        scatter is expected to be that of the mean gain; how the gain varies within a ring is not
        used.
    noise : numpy.ndarray, shape (P, P)
        Covariance of the noise, in units of the noise variance.
    """

    count: np.ndarray
    scatter: np.ndarray
    frequency_squared: np.ndarray
    gain: np.ndarray
    noise: np.ndarray


def fit_spectral_model(
    regions: Iterable[np.ndarray],
    operator: AxialProjection,
    voxel_size_um: tuple[float, float, float],
    anisotropy: float | Literal["auto"] = 1.0,
) -> SpectralModel:
    """Fit prior and noise by marginal likelihood.

    Parameters
    ----------
    regions : iterable of numpy.ndarray, shape (P, y, x)
        Lateral regions of the projections.
    operator : AxialProjection
        How the volume was measured.
    voxel_size_um : tuple of float
        (z, y, x) voxel size.
    anisotropy : float or "auto"
        Correlation length along z divided by that along y and x. "auto" fits it, too, between 1/4
        and 4 and under a log-normal prior around 1: where the projections say nothing about it, it
        stays 1.

    Returns
    -------
    SpectralModel

    Raises
    ------
    ValueError
        The projections are constant, so that nothing can be fitted.
    """
    regions = list(regions)
    if not any(np.ptp(region, axis=(1, 2)).any() for region in regions):
        raise ValueError(
            "all projections are constant, so no structure can be reconstructed; "
            "check that the acquisition holds an image"
        )
    row_sums = operator.matrix.sum(axis=1)
    mean = float(np.mean([region.mean(axis=(1, 2)) / row_sums for region in regions]))
    rings = _collect(regions, mean, operator, voxel_size_um)
    likelihood = _Likelihood(rings, AxialBasis.of(operator, voxel_size_um[0]), mean, anisotropy)
    voxel = min(voxel_size_um)
    bounds = [
        np.log([1e-3, 1e7]),
        np.log([0.3 * voxel, 300 * voxel]),
        np.log([0.3, 20.0]),
        np.log([1e-7, 10.0]),
    ]
    starts = [np.log([100.0, length * voxel, 1.5, 0.05]) for length in (1.5, 6.0)]
    if anisotropy == "auto":
        bounds.append(np.array([-_ANISOTROPY_LIMIT, _ANISOTROPY_LIMIT]))
        starts = [np.append(start, 0.0) for start in starts]
    fits = [
        scipy.optimize.minimize(
            likelihood, start, method="L-BFGS-B", jac=True, bounds=bounds, tol=1e-10
        )
        for start in starts
    ]
    return likelihood.model_of(min(fits, key=lambda fit: fit.fun).x)


def fit_amplitude(
    residual: np.ndarray,
    operator: AxialProjection,
    voxel_size_um: tuple[float, float, float],
    model: SpectralModel,
) -> SpectralModel:
    """Fit how much of a sample's spectrum is still in what an estimate of it leaves over.

    Shape of the spectrum and noise are those of the sample; the amplitude alone is fitted, by
    marginal likelihood. More freedom would let structures shorter than the sample's take the noise.

    Parameters
    ----------
    residual : numpy.ndarray, shape (P, Y, X)
        Measured projections less those of the estimate.
    operator : AxialProjection
        How the volume was measured.
    voxel_size_um : tuple of float
        (z, y, x) voxel size.
    model : SpectralModel
        Fitted to the projections themselves.

    Returns
    -------
    SpectralModel
        Of mean 0; its amplitude lies between 1e-8 and 1 of the sample's.
    """
    rings = _collect([residual], 0.0, operator, voxel_size_um)
    basis = AxialBasis.of(operator, voxel_size_um[0])
    likelihood = _Likelihood(rings, basis, 0.0, model.anisotropy)

    def negative_log_likelihood(log_share: float) -> float:
        return likelihood.value_of(replace(model, amplitude=np.exp(log_share) * model.amplitude))

    bounds = (np.log(_LEAST_SHARE), 0.0)
    best = scipy.optimize.minimize_scalar(
        negative_log_likelihood, bounds=bounds, method="bounded"
    ).x
    return replace(model, amplitude=float(np.exp(best)) * model.amplitude, mean=0.0)


def _collect(
    regions: list[np.ndarray],
    mean: float,
    operator: AxialProjection,
    voxel_size_um: tuple[float, float, float],
) -> _Rings:
    """Sum up the cosine modes of all regions by ring; one region is transformed at a time."""
    n = operator.n_projections
    row_sums = operator.matrix.sum(axis=1)
    edges = _ring_edges(voxel_size_um)
    count, frequency, gain = np.zeros(_RINGS), np.zeros(_RINGS), np.zeros(_RINGS)
    scatter = np.zeros((_RINGS, n, n))
    for region in regions:
        shape = region.shape[1:]
        centred = region.astype(np.float64) - mean * row_sums[:, None, None]
        vectors = scipy.fft.dctn(centred, axes=(1, 2), norm="ortho", overwrite_x=True)
        squared = lateral_frequency_squared(shape, voxel_size_um).ravel()
        ring = np.clip(np.searchsorted(edges, squared, side="right") - 1, 0, _RINGS - 1)
        order = np.argsort(ring, kind="stable")
        vectors = vectors.reshape(n, -1)[:, order]
        bounds = np.searchsorted(ring[order], np.arange(_RINGS + 1))
        for index in range(_RINGS):
            chosen = vectors[:, bounds[index] : bounds[index + 1]]
            scatter[index] += chosen @ chosen.T
        own = np.bincount(ring, minlength=_RINGS)
        count += own
        frequency += np.bincount(ring, squared, _RINGS)
        if operator.lateral is None:
            gain += own
        else:
            transfer = operator.lateral.transfer(shape).ravel()
            gain += np.bincount(ring, transfer**2, _RINGS)
    used = count > 0
    count = count[used]
    noise = operator.relative_noise
    return _Rings(count, scatter[used], frequency[used] / count, gain[used] / count, noise)


def _ring_edges(voxel_size_um: tuple[float, float, float]) -> np.ndarray:
    """Return lower edges of the rings in squared frequency, narrow at low frequency."""
    highest = 0.25 / voxel_size_um[1] ** 2 + 0.25 / voxel_size_um[2] ** 2
    return highest * (np.arange(_RINGS) / _RINGS) ** 4


class _Likelihood:
    """The negative log-likelihood per mode and its gradient, as `minimize` wants them.

    The parameters are logarithms of: amplitude and noise relative to the variance of the data,
    correlation length in micrometres, smoothness above its least, and, where it is fitted, the
    anisotropy.
    """

    def __init__(
        self,
        rings: _Rings,
        basis: AxialBasis,
        mean: float,
        anisotropy: float | Literal["auto"],
    ):
        self._rings, self._basis, self._mean, self._anisotropy = rings, basis, mean, anisotropy
        self._modes = rings.count.sum()
        total = float(np.trace(rings.scatter.sum(axis=0)))
        self._variance = total / float(self._modes * len(rings.noise))
        # The upper triangle stands for both.
        row, column = np.triu_indices(len(rings.noise))
        self._doubled = basis.products * np.where(row == column, 1.0, 2.0)
        self._triangle = row, column

    def model_of(self, theta: np.ndarray) -> SpectralModel:
        """Return the model that the parameters stand for."""
        amplitude, length, smoothness, noise = np.exp(theta[:4]).tolist()
        return SpectralModel(
            amplitude * self._variance,
            length,
            _LEAST_SMOOTHNESS + smoothness,
            noise * self._variance,
            self._mean,
            float(np.exp(theta[4])) if self._anisotropy == "auto" else float(self._anisotropy),
        )

    def value_of(self, model: SpectralModel) -> float:
        """Return the value for any model."""
        _, covariance, determinant = self._covariance(model)
        solved = np.linalg.solve(covariance, self._rings.scatter)
        value = self._rings.count * determinant + np.trace(solved, axis1=1, axis2=2)
        return 0.5 * float(value.sum()) / self._modes

    def _covariance(self, model: SpectralModel) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the density, the covariance of the data, and its log-determinant, by ring."""
        rings, basis = self._rings, self._basis
        density = model.density_of(rings.frequency_squared, basis.frequency_squared)
        # For matrices as small as these, threads of a BLAS library that wait for each other on a
        # busy machine cost far more than they save; einsum has none.
        triangle = np.einsum("rf,ft->rt", density * rings.gain[:, None], basis.products)
        covariance = triangle[:, basis.entries]
        covariance += model.noise_variance * rings.noise
        lower = np.linalg.cholesky(covariance)
        determinant = 2 * np.log(np.diagonal(lower, axis1=1, axis2=2)).sum(axis=1)
        return density, covariance, determinant

    def __call__(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """Return value and gradient."""
        model, rings, basis = self.model_of(theta), self._rings, self._basis
        density, covariance, determinant = self._covariance(model)
        inverse = np.linalg.inv(covariance)
        whitened = inverse @ rings.scatter
        value = (rings.count * determinant).sum() + np.trace(whitened, axis1=1, axis2=2).sum()
        by_covariance = rings.count[:, None, None] * inverse - whitened @ inverse
        by_noise = np.diagonal(by_covariance, axis1=1, axis2=2) * np.diagonal(rings.noise)
        by_noise = model.noise_variance * by_noise.sum(axis=1).sum()
        by_density = np.einsum("rt,ft->rf", by_covariance[:, *self._triangle], self._doubled)
        by_log = by_density * density * rings.gain[:, None]
        # Derivatives of log S by the logarithms of the parameters.
        axial = model.anisotropy**2 * basis.frequency_squared
        scale = (2 * np.pi * model.length_um) ** 2
        ratio = scale * (rings.frequency_squared[:, None] + axial)
        slope = -2 * model.smoothness / (1 + ratio)
        gradient = [
            by_log.sum(),
            (by_log * slope * ratio).sum(),
            -(model.smoothness - _LEAST_SMOOTHNESS) * (by_log * np.log1p(ratio)).sum(),
            by_noise,
        ]
        if self._anisotropy == "auto":
            unlikely = theta[4] / _ANISOTROPY_SPREAD
            value += unlikely**2
            gradient.append(
                (by_log * slope * scale * axial).sum() + 2 * unlikely / _ANISOTROPY_SPREAD
            )
        return 0.5 * float(value) / self._modes, 0.5 * np.array(gradient) / self._modes
