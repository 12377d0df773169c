r"""The prior of the spectral Gaussian process, and the operator in its axial Fourier basis.

The power spectral density depends on the frequency alone,

.. math:: S(f) = a \left(1 + (f / f_0)^2\right)^{-s}, \qquad f_0 = 1 / (2 \pi \ell), \qquad
          f^2 = f_y^2 + f_x^2 + (\gamma f_z)^2,

with amplitude a, correlation length :math:`\ell` and smoothness s (the spectrum of a Matern
covariance; Rasmussen & Williams, Gaussian Processes for Machine Learning, 2006, eq. 4.15).
:math:`\gamma` is the correlation length along z divided by that along y and x: 1 where the sample
looks the same from all sides.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import scipy.fft

from besselflow.projection import AxialProjection


@dataclass(frozen=True)
class SpectralModel:
    """Prior and noise of the spectral Gaussian process.

    Attributes
    ----------
    amplitude : float
        Power spectral density at frequency 0, intensity squared times voxels.
    length_um : float
        Correlation length along y and x in micrometres.
    smoothness : float
        Exponent s of the spectrum; the spectrum falls as f^(-2 s).
    noise_variance : float
        Variance of the noise of a projection, intensity squared.
    mean : float
        Constant mean of the volume.
    anisotropy : float
        Correlation length along z divided by that along y and x.
    """

    amplitude: float
    length_um: float
    smoothness: float
    noise_variance: float
    mean: float
    anisotropy: float = 1.0

    def density(self, frequency_squared: np.ndarray) -> np.ndarray:
        """Return S at squared lateral frequencies in (cycles/um)^2."""
        ratio = frequency_squared * (2 * np.pi * self.length_um) ** 2
        return self.amplitude * np.exp(-self.smoothness * np.log1p(ratio))

    def density_of(self, lateral_squared: np.ndarray, axial_squared: np.ndarray) -> np.ndarray:
        """Return S at all pairs of squared lateral and axial frequencies, (K,) and (F,) -> (K, F).

        Both in (cycles/um)^2.
        """
        return self.density(lateral_squared[:, None] + self.anisotropy**2 * axial_squared)

    def cutoff_per_um(self) -> float:
        """Return the lateral frequency in cycles/um at which S has fallen to the noise."""
        ratio = max(self.amplitude / self.noise_variance, 1.0 + 1e-9)
        return np.sqrt(ratio ** (1 / self.smoothness) - 1) / (2 * np.pi * self.length_um)

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> SpectralModel:
        """Inverse of `as_record`; further entries are ignored, and a missing anisotropy is 1."""
        values = {"anisotropy": 1.0, **record}
        return cls(**{name: values[name] for name in cls.__dataclass_fields__})

    def as_record(self) -> dict[str, float]:
        """Return the parameters as plain numbers."""
        return {key: float(value) for key, value in asdict(self).items()}


@dataclass(frozen=True)
class AxialBasis:
    """The axial weights in the Fourier basis of a periodic domain twice as deep as the volume.

    The prior is stationary along z on that domain, of which the volume is one half: its two ends
    are neighbours across the other half only, and nothing is assumed beyond them. C_k is the prior
    covariance of the Z coefficients of one lateral cosine mode k, whose spectrum is S at the axial
    frequencies, shape (F,).

    Attributes
    ----------
    spectrum : numpy.ndarray, shape (P, F), complex
        Fourier transform of the weights.
    weights : numpy.ndarray, shape (F,)
        What a frequency contributes to a variance: 2 / period, where it stands for its negative,
        too, else 1 / period.
    frequency_squared : numpy.ndarray, shape (F,)
        In (cycles/um)^2.
    products : numpy.ndarray, shape (F, P (P + 1) / 2)
        What S adds to each entry of A C_k A^T, of which only the upper triangle is kept.
    entries : numpy.ndarray, shape (P, P)
        Column of `products` that holds each entry.
    n_slices, period : int
        Slices of the volume, and of the domain.
    """

    spectrum: np.ndarray
    weights: np.ndarray
    frequency_squared: np.ndarray
    products: np.ndarray
    entries: np.ndarray
    n_slices: int
    period: int

    @classmethod
    def of(cls, operator: AxialProjection, spacing_um: float) -> AxialBasis:
        """Transform the axial weights of an operator on slices of a spacing in micrometres."""
        period = scipy.fft.next_fast_len(2 * operator.n_slices, real=True)
        period += period % 2
        spectrum = scipy.fft.rfft(operator.matrix, n=period, axis=1)
        weights = np.full(spectrum.shape[1], 2.0 / period)
        weights[[0, -1]] = 1.0 / period
        count = operator.n_projections
        row, column = np.triu_indices(count)
        entries = np.empty((count, count), int)
        entries[row, column] = entries[column, row] = np.arange(len(row))
        products = (spectrum[row] * spectrum[column].conj()).real * weights
        frequency = scipy.fft.rfftfreq(period, spacing_um)
        return cls(
            spectrum,
            weights,
            frequency**2,
            np.ascontiguousarray(products.T),
            entries,
            operator.n_slices,
            period,
        )

    def data_covariance(self, densities: np.ndarray) -> np.ndarray:
        """Return A C_k A^T, shape (K, P, P), from S_k at the axial frequencies, shape (K, F)."""
        return (densities @ self.products)[:, self.entries]

    def volume(self, coefficients: np.ndarray, densities: np.ndarray) -> np.ndarray:
        """Return C_k A^T w_k, shape (K, Z), from w, shape (K, P), and S_k, shape (K, F)."""
        halves = (coefficients @ self.spectrum.real) * densities
        spectrum = np.empty(halves.shape, complex)
        spectrum.real = halves
        np.multiply(coefficients @ self.spectrum.imag, densities, out=spectrum.imag)
        return scipy.fft.irfft(spectrum, n=self.period, axis=1)[:, : self.n_slices]

    def cross_covariance(self, densities: np.ndarray) -> np.ndarray:
        """Return A C_k, shape (K, P, Z), from S_k, shape (K, F)."""
        spectra = self.spectrum * densities[:, None, :]
        return scipy.fft.irfft(spectra, n=self.period, axis=2)[..., : self.n_slices]

    def prior_variance(self, densities: np.ndarray) -> np.ndarray:
        """Return the diagonal entry of C_k, shape (K,), the same for all slices, from S_k."""
        return densities @ self.weights


def lateral_frequency_squared(
    shape: tuple[int, int], voxel_size_um: tuple[float, float, float]
) -> np.ndarray:
    """Return the squared frequency of each cosine mode in (cycles/um)^2, shape (Y, X)."""
    y = np.arange(shape[0]) / (2 * shape[0] * voxel_size_um[1])
    x = np.arange(shape[1]) / (2 * shape[1] * voxel_size_um[2])
    return y[:, None] ** 2 + x[None, :] ** 2
