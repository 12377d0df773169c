r"""How likely projections are if one is displaced or dimmer than another, given a common spectrum.

Neighbouring projections see different depths, so that none can be registered to another as if they
were pictures of the same thing. What they have in common follows from the spectral Gaussian process
(`besselflow.baselines.spectral_model`): at each lateral frequency f, the P-vector z of all
projections has the covariance M. A displacement :math:`d_p` turns the phase of its entries, and a
gain :math:`e^{\gamma_p}` scales them, so that with the precision :math:`W = M^{-1}`

.. math:: -\log p(z \mid d, \gamma) = \frac12 \sum_f \tilde z^H W \tilde z + n \sum_p \gamma_p
          + \mathrm{const}, \qquad \tilde z_p = e^{-\gamma_p} e^{2 \pi i f \cdot d_p} z_p,

for n modes. Its minimum registers every projection against what all the others predict of it, all
at once. Only frequencies at which structure exceeds the noise take part, and never the mean.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import scipy.fft

from besselflow.baselines.spectral_model import AxialBasis, SpectralModel
from besselflow.corrections.taper import taper
from besselflow.projection import AxialProjection

_RINGS = 48
_TAPER = 0.25


@dataclass(frozen=True)
class RegionModes:
    """The Fourier modes of a region, in rings of equal covariance.

    Attributes
    ----------
    modes : numpy.ndarray, shape (P, K), complex
        Scaled such that their covariance is that of the model.
    weights : numpy.ndarray, shape (K,)
        2 where a mode stands for its complex conjugate as well, else 1.
    frequency : numpy.ndarray, shape (2, K)
        (y, x) in cycles per pixel.
    bounds : list of slice
        The modes of each ring.
    precision : numpy.ndarray, shape (R, P, P)
        W of each ring.
    """

    modes: np.ndarray
    weights: np.ndarray
    frequency: np.ndarray
    bounds: list[slice]
    precision: np.ndarray

    @classmethod
    def of(
        cls,
        region: np.ndarray,
        operator: AxialProjection,
        model: SpectralModel,
        voxel_size_um: tuple[float, float, float],
        least_signal: float = 1.0,
    ) -> RegionModes:
        """Transform a region.

        Parameters
        ----------
        region : numpy.ndarray, shape (P, Y, X)
            Intensities.
        operator : AxialProjection
            How the volume was measured.
        model : SpectralModel
            Prior and noise.
        voxel_size_um : tuple of float
            (z, y, x) voxel size.
        least_signal : float
            Rings in which the structure of a projection has less than this times the power of the
            noise are left out.
        """
        count, height, width = region.shape
        window = taper((height, width), _TAPER)
        mean = (region * window).sum(axis=(1, 2)) / window.sum()
        centred = region - mean[:, None, None]
        scale = 1 / np.sqrt((window**2).sum())
        modes = scipy.fft.rfft2(centred * (window * scale)).reshape(count, -1)
        fy, fx = np.fft.fftfreq(height), np.fft.rfftfreq(width)
        frequency = np.stack(np.broadcast_arrays(fy[:, None], fx)).reshape(2, -1)
        paired = (np.arange(len(fx)) > 0) & (2 * np.arange(len(fx)) != width)
        weights = np.tile(np.where(paired, 2.0, 1.0), height)
        squared = (frequency[0] / voxel_size_um[1]) ** 2 + (frequency[1] / voxel_size_um[2]) ** 2
        gain = _blur_gain(operator, (height, width))
        highest = squared.max()
        ring = np.minimum(_RINGS * np.sqrt(squared / highest), _RINGS - 1).astype(int)
        order = np.argsort(ring, kind="stable")
        edges = np.searchsorted(ring[order], np.arange(_RINGS + 1))
        basis = AxialBasis.of(operator, voxel_size_um[0])
        noise = model.noise_variance * operator.relative_noise
        chosen, precisions, kept = [], [], []
        start = 0
        for low, high in itertools.pairwise(edges):
            own = order[low:high]
            own = own[squared[own] > 0]
            if not len(own):
                continue
            mean = np.array([squared[own].mean()])
            density = model.density_of(mean, basis.frequency_squared) * gain[own].mean()
            signal = basis.data_covariance(density)[0]
            if np.diag(signal).mean() < least_signal * np.diag(noise).mean():
                continue
            precisions.append(np.linalg.inv(signal + noise))
            kept.append(own)
            chosen.append(slice(start, start + len(own)))
            start += len(own)
        kept = np.concatenate(kept) if kept else np.zeros(0, int)
        return cls(
            modes[:, kept],
            weights[kept],
            frequency[:, kept],
            chosen,
            np.array(precisions).reshape(-1, count, count),
        )

    @property
    def count(self) -> float:
        """Number of real modes n."""
        return float(self.weights.sum())

    def displaced(self, displacement: np.ndarray) -> np.ndarray:
        """Return the modes with displacements (P, 2) in pixels taken back, shape (P, K)."""
        return self.modes * np.exp(2j * np.pi * (displacement @ self.frequency))

    def by_displacement(
        self, displacement: np.ndarray, smoothing: float = 0.0
    ) -> tuple[float, np.ndarray, np.ndarray]:
        """Return half the quadratic form, its gradient (P, 2) and its Hessian (P, P, 2, 2).

        Parameters
        ----------
        displacement : numpy.ndarray, shape (P, 2)
            In pixels.
        smoothing : float
            Standard deviation, in pixels, of a blur that both sides of every comparison see.
        """
        modes = self.displaced(displacement)
        reach = np.exp(-((2 * np.pi * smoothing) ** 2) * (self.frequency**2).sum(axis=0))
        factors = self.weights * reach
        value, gradient = 0.0, np.zeros(displacement.shape)
        count = len(displacement)
        hessian = np.zeros((count, count, 2, 2))
        for part, precision in zip(self.bounds, self.precision, strict=True):
            own, weight = modes[:, part], factors[part]
            waves = 2 * np.pi * self.frequency[:, part]
            product = precision @ own
            value += 0.5 * float((weight * (own.conj() * product).real).sum())
            turned = weight * (own.conj() * product).imag
            gradient += turned @ waves.T
            for a in range(2):
                for b in range(a + 1):
                    scaled = own * (weight * waves[a] * waves[b])
                    hessian[..., a, b] += precision * (own.conj() @ scaled.T).real
        hessian[..., 0, 1] = hessian[..., 1, 0]
        off = hessian.copy()
        index = np.arange(count)
        off[index, index] = 0
        hessian = off
        hessian[index, index] = -off.sum(axis=1)
        return value, gradient, hessian

    def by_gain(self, log_gain: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Return the negative log-likelihood, its gradient (P,) and its Hessian (P, P).

        Parameters
        ----------
        log_gain : numpy.ndarray, shape (P,)
        """
        shrunk = np.exp(-log_gain)
        forms = np.zeros((len(log_gain), len(log_gain)))
        for part, precision in zip(self.bounds, self.precision, strict=True):
            own = self.modes[:, part]
            forms += precision * ((own * self.weights[part]) @ own.conj().T).real
        forms *= shrunk[:, None] * shrunk
        sums = forms.sum(axis=1)
        value = 0.5 * sums.sum() + self.count * log_gain.sum()
        return float(value), self.count - sums, forms + np.diag(sums)


def _blur_gain(operator: AxialProjection, shape: tuple[int, int]) -> np.ndarray:
    """Return the squared eigenvalue of the lateral blur at the Fourier modes, flat."""
    height, width = shape
    columns = width // 2 + 1
    if operator.lateral is None:
        return np.ones(height * columns)
    # The cosine mode of index 2 k has the frequency of the Fourier mode k.
    transfer = operator.lateral.transfer(shape)
    rows = 2 * np.abs(np.fft.fftfreq(height) * height).round().astype(int)
    chosen = transfer[np.minimum(rows, height - 1)]
    return (chosen[:, np.minimum(2 * np.arange(columns), width - 1)] ** 2).ravel()
