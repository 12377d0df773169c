r"""The spectral Gaussian process: the exact posterior mean under an isotropic stationary prior.

The volume is modelled as a constant plus a Gaussian process whose power spectral density depends on
the length of the 3D frequency alone,

.. math:: S(f) = a \left(1 + (f / f_0)^2\right)^{-s}, \qquad f_0 = 1 / (2 \pi \ell),

with amplitude a, correlation length :math:`\ell` and smoothness s (the spectrum of a Matern
covariance; Rasmussen & Williams, Gaussian Processes for Machine Learning, 2006, eq. 4.15). What the
projections don't see along z is thereby inferred from what they see laterally.

A cosine transform along y and x (mirror boundaries) decouples the lateral frequencies, since the
operator acts along z only. For each of them the measured P-vector is Gaussian with the covariance
:math:`M_k = A C_k A^T + \sigma^2 I`, and the posterior mean is :math:`C_k A^T M_k^{-1} y_k`.
The parameters maximise the marginal likelihood, which needs no more of the data than their P x P
scatter matrices in rings of lateral frequency.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np
import scipy.fft
from scipy.optimize import minimize

from besselflow.projection import AxialProjection

_RINGS = 64
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class SpectralModel:
    """Prior and noise of the spectral Gaussian process.

    Attributes
    ----------
    amplitude : float
        Power spectral density at frequency 0, intensity squared times voxels.
    length_um : float
        Correlation length in micrometres.
    smoothness : float
        Exponent s of the spectrum; the spectrum falls as f^(-2 s).
    noise_variance : float
        Variance of the noise of a projection, intensity squared.
    mean : float
        Constant mean of the volume.
    """

    amplitude: float
    length_um: float
    smoothness: float
    noise_variance: float
    mean: float

    def density(self, frequency_squared: np.ndarray) -> np.ndarray:
        """Return S at squared frequencies in (cycles/um)^2."""
        ratio = frequency_squared * (2 * np.pi * self.length_um) ** 2
        return self.amplitude * (1 + ratio) ** -self.smoothness

    def cutoff_per_um(self) -> float:
        """Return the frequency in cycles/um at which the spectrum has fallen to the noise."""
        ratio = max(self.amplitude / self.noise_variance, 1.0 + 1e-9)
        return np.sqrt(ratio ** (1 / self.smoothness) - 1) / (2 * np.pi * self.length_um)

    @classmethod
    def from_record(cls, record: dict[str, float]) -> SpectralModel:
        """Inverse of `as_record`; further entries are ignored."""
        return cls(*(record[name] for name in cls.__dataclass_fields__))

    def as_record(self) -> dict[str, float]:
        """Return the parameters as plain numbers."""
        return {key: float(value) for key, value in asdict(self).items()}


@dataclass(frozen=True)
class _AxialBasis:
    """The operator in the Fourier basis of a domain twice as deep, as real arrays.

    `rows` (P, 2 K) holds real and imaginary parts, `weights` (2 K,) the quadrature weights, and
    `frequency_squared` (2 K,) the axial frequencies, so that
    A C_k A^T = (rows * weights * S_k) @ rows.T.
    """

    rows: np.ndarray
    weights: np.ndarray
    frequency_squared: np.ndarray
    n_slices: int
    period: int

    @classmethod
    def of(cls, operator: AxialProjection, spacing_um: float) -> _AxialBasis:
        period = scipy.fft.next_fast_len(2 * operator.n_slices, real=True)
        period += period % 2
        spectrum = scipy.fft.rfft(operator.matrix, n=period, axis=1)
        multiplicity = np.full(spectrum.shape[1], 2.0)
        multiplicity[[0, -1]] = 1.0
        frequency = scipy.fft.rfftfreq(period, spacing_um)
        return cls(
            np.concatenate([spectrum.real, spectrum.imag], axis=1),
            np.tile(multiplicity / period, 2),
            np.tile(frequency**2, 2),
            operator.n_slices,
            period,
        )

    def data_covariance(self, densities: np.ndarray) -> np.ndarray:
        """Return A C_k A^T, shape (K, P, P), from S_k at the axial frequencies, shape (K, 2 F)."""
        products = self.rows[:, None, :] * self.rows[None, :, :]
        count = len(self.rows)
        flat = (densities * self.weights) @ products.reshape(count * count, -1).T
        return flat.reshape(-1, count, count)

    def volume(self, coefficients: np.ndarray, densities: np.ndarray) -> np.ndarray:
        """Return C_k A^T w_k, shape (K, Z), from w, shape (K, P)."""
        halves = (coefficients @ self.rows) * densities
        half = halves.shape[1] // 2
        spectrum = halves[:, :half] + 1j * halves[:, half:]
        return scipy.fft.irfft(spectrum, n=self.period, axis=1)[:, : self.n_slices]


def fit_spectral_model(
    regions: Iterable[np.ndarray],
    operator: AxialProjection,
    voxel_size_um: tuple[float, float, float],
) -> SpectralModel:
    """Fit prior and noise by marginal likelihood.

    Parameters
    ----------
    regions : iterable of numpy.ndarray, shape (P, y, x)
        Lateral regions of the projections; one region is in memory at a time.
    operator : AxialProjection
        How the volume was measured.
    voxel_size_um : tuple of float
        (z, y, x) voxel size.

    Returns
    -------
    SpectralModel

    Raises
    ------
    ValueError
        The projections are constant, so that nothing can be fitted.
    """
    basis = _AxialBasis.of(operator, voxel_size_um[0])
    row_sums = operator.matrix.sum(axis=1)
    ring_edges = _ring_edges(voxel_size_um)
    count = np.zeros(_RINGS)
    total_frequency = np.zeros(_RINGS)
    n = operator.n_projections
    scatter = np.zeros((_RINGS, n, n))
    regions = list(regions)
    if not any(np.ptp(region, axis=(1, 2)).any() for region in regions):
        raise ValueError(
            "all projections are constant, so no structure can be reconstructed; "
            "check that the acquisition holds an image"
        )
    mean = float(np.mean([region.mean(axis=(1, 2)) / row_sums for region in regions]))
    for region in regions:
        centred = region.astype(np.float64) - mean * row_sums[:, None, None]
        vectors = scipy.fft.dctn(centred, axes=(1, 2), norm="ortho").reshape(n, -1)
        squared = _lateral_frequency_squared(region.shape[1:], voxel_size_um).ravel()
        ring = np.clip(np.searchsorted(ring_edges, squared, side="right") - 1, 0, _RINGS - 1)
        order = np.argsort(ring, kind="stable")
        bounds = np.searchsorted(ring[order], np.arange(_RINGS + 1))
        for index in range(_RINGS):
            members = order[bounds[index] : bounds[index + 1]]
            chosen = vectors[:, members]
            scatter[index] += chosen @ chosen.T
            count[index] += len(members)
            total_frequency[index] += squared[members].sum()
    used = count > 0
    count, scatter = count[used], scatter[used]
    frequency_squared = total_frequency[used] / count
    variance = float(np.trace(scatter.sum(axis=0)) / (count.sum() * n))
    squared = frequency_squared[:, None] + basis.frequency_squared[None, :]
    identity = np.eye(n)

    def model_of(theta: np.ndarray) -> SpectralModel:
        amplitude, length, smoothness, noise = np.exp(theta)
        return SpectralModel(amplitude * variance, length, 0.5 + smoothness, noise * variance, mean)

    def negative_log_likelihood(theta: np.ndarray) -> float:
        model = model_of(theta)
        covariance = basis.data_covariance(model.density(squared))
        covariance += model.noise_variance * identity
        lower = np.linalg.cholesky(covariance)
        log_determinant = 2 * np.log(np.diagonal(lower, axis1=1, axis2=2)).sum(axis=1)
        trace = np.trace(np.linalg.solve(covariance, scatter), axis1=1, axis2=2)
        return 0.5 * float((count * log_determinant + trace).sum()) / count.sum()

    voxel = min(voxel_size_um)
    bounds = [
        np.log([1e-3, 1e7]),
        np.log([0.3 * voxel, 300 * voxel]),
        np.log([0.3, 20.0]),
        np.log([1e-7, 10.0]),
    ]
    starts = [np.log([100.0, length * voxel, 1.5, 0.05]) for length in (1.5, 6.0)]
    fits = [
        minimize(negative_log_likelihood, start, method="L-BFGS-B", bounds=bounds)
        for start in starts
    ]
    return model_of(min(fits, key=lambda fit: fit.fun).x)


def posterior_mean(
    projections: np.ndarray,
    operator: AxialProjection,
    model: SpectralModel,
    voxel_size_um: tuple[float, float, float],
) -> np.ndarray:
    """Return the exact posterior mean of the volume.

    Parameters
    ----------
    projections : numpy.ndarray, shape (P, Y, X)
        Measured intensities.
    operator : AxialProjection
        How the volume was measured.
    model : SpectralModel
        Prior and noise.
    voxel_size_um : tuple of float
        (z, y, x) voxel size.

    Returns
    -------
    numpy.ndarray, shape (Z, Y, X), float32
        Intensities; small negative values are possible.
    """
    basis = _AxialBasis.of(operator, voxel_size_um[0])
    n, shape = operator.n_projections, projections.shape[1:]
    row_sums = operator.matrix.sum(axis=1)
    centred = projections - (model.mean * row_sums[:, None, None])
    vectors = scipy.fft.dctn(centred.astype(np.float64), axes=(1, 2), norm="ortho")
    vectors = vectors.reshape(n, -1).T
    lateral = _lateral_frequency_squared(shape, voxel_size_um).ravel()
    result = np.empty((operator.n_slices, len(lateral)), dtype=np.float32)
    noise = model.noise_variance * np.eye(n)
    for start in range(0, len(lateral), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        density = model.density(lateral[part, None] + basis.frequency_squared[None, :])
        covariance = basis.data_covariance(density) + noise
        coefficients = np.linalg.solve(covariance, vectors[part, :, None])[..., 0]
        result[:, part] = basis.volume(coefficients, density).T
    volume = scipy.fft.idctn(
        result.reshape(-1, *shape), axes=(1, 2), norm="ortho", overwrite_x=True
    )
    return (volume + model.mean).astype(np.float32)


def _lateral_frequency_squared(
    shape: tuple[int, int], voxel_size_um: tuple[float, float, float]
) -> np.ndarray:
    """Return the squared frequency of each cosine mode in (cycles/um)^2, shape (Y, X)."""
    y = np.arange(shape[0]) / (2 * shape[0] * voxel_size_um[1])
    x = np.arange(shape[1]) / (2 * shape[1] * voxel_size_um[2])
    return y[:, None] ** 2 + x[None, :] ** 2


def _ring_edges(voxel_size_um: tuple[float, float, float]) -> np.ndarray:
    """Return lower edges of the rings in squared frequency, narrow at low frequency."""
    highest = 0.25 / voxel_size_um[1] ** 2 + 0.25 / voxel_size_um[2] ** 2
    return highest * (np.arange(_RINGS) / _RINGS) ** 4
