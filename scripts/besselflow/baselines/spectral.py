r"""The spectral Gaussian process: the exact posterior under a stationary prior.

The volume is modelled as a constant plus a Gaussian process whose power spectral density depends on
the 3D frequency alone (`besselflow.baselines.spectral_model`). What the projections don't see along
z is thereby inferred from what they see laterally.

A cosine transform along y and x (mirror boundaries) decouples the lateral frequencies, since the
operator acts on each of them alone: by the axial weights A, and by the eigenvalue :math:`b_k` of
the lateral blur (1 without one). For each frequency the measured P-vector is Gaussian with the
covariance :math:`M_k = b_k^2 A C_k A^T + \sigma^2 N`, where N is the identity unless some
projections are known to be noisier than others (`noise_factors` of the operator); the posterior
mean is :math:`b_k C_k A^T M_k^{-1} y_k` and the posterior covariance
:math:`C_k - b_k^2 C_k A^T M_k^{-1} A C_k` (Rasmussen & Williams, 2006, eqs. 2.23 and 2.24).
The parameters maximise the marginal likelihood (`besselflow.baselines.spectral_fit`).
"""

from __future__ import annotations

import numpy as np
import scipy.fft

from besselflow.baselines.spectral_fit import fit_amplitude, fit_spectral_model
from besselflow.baselines.spectral_model import (
    AxialBasis,
    SpectralModel,
    lateral_frequency_squared,
)
from besselflow.projection import AxialProjection

__all__ = [
    "SpectralModel",
    "fit_amplitude",
    "fit_spectral_model",
    "posterior_mean",
    "posterior_std",
]

_VALUES_AT_ONCE = 2**22


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
    basis = AxialBasis.of(operator, voxel_size_um[0])
    n, shape = operator.n_projections, projections.shape[1:]
    row_sums = operator.matrix.sum(axis=1)
    centred = projections.astype(np.float64) - (model.mean * row_sums[:, None, None])
    vectors = scipy.fft.dctn(centred, axes=(1, 2), norm="ortho", overwrite_x=True).reshape(n, -1)
    lateral = lateral_frequency_squared(shape, voxel_size_um).ravel()
    blur = None if operator.lateral is None else operator.lateral.transfer(shape).ravel()
    result = np.empty((operator.n_slices, len(lateral)), dtype=np.float32)
    noise = model.noise_variance * operator.relative_noise
    count = max(1, _VALUES_AT_ONCE // (n * n + 2 * basis.period))
    for start in range(0, len(lateral), count):
        part = slice(start, start + count)
        density = model.density_of(lateral[part], basis.frequency_squared)
        seen = density if blur is None else density * blur[part, None] ** 2
        covariance = basis.data_covariance(seen) + noise
        coefficients = np.linalg.solve(covariance, vectors[:, part].T[..., None])[..., 0]
        if blur is not None:
            coefficients *= blur[part, None]
        result[:, part] = basis.volume(coefficients, density).T
    volume = scipy.fft.idctn(
        result.reshape(-1, *shape), axes=(1, 2), norm="ortho", overwrite_x=True
    )
    volume += np.float32(model.mean)
    return volume


def posterior_std(
    shape: tuple[int, int],
    operator: AxialProjection,
    model: SpectralModel,
    voxel_size_um: tuple[float, float, float],
) -> np.ndarray:
    r"""Return the exact posterior standard deviation of each voxel.

    It is that of the model: noise of the same variance all over a projection, and a stationary
    prior. It does not depend on the measured values, and varies laterally only next to the edges.

    With the cosine modes :math:`\phi_k`, the variance of a voxel is
    :math:`\sum_k \phi_k(y, x)^2 V_k(z)`. Since :math:`2 \cos^2 = 1 + \cos 2 \cdot`, that sum is a
    cosine transform itself, with the frequencies doubled.

    Parameters
    ----------
    shape : tuple of int
        (Y, X) of the projections.
    operator : AxialProjection
        How the volume was measured.
    model : SpectralModel
        Prior and noise.
    voxel_size_um : tuple of float
        (z, y, x) voxel size.

    Returns
    -------
    numpy.ndarray, shape (Z, Y, X), float32
    """
    basis = AxialBasis.of(operator, voxel_size_um[0])
    lateral = lateral_frequency_squared(shape, voxel_size_um)
    gain = np.ones(shape) if operator.lateral is None else operator.lateral.transfer(shape) ** 2
    # Modes of equal frequency and gain have equal variances: in square pixels, at least every two.
    rounded = np.round(lateral / lateral.max(initial=1e-300), 12) + 1j * np.round(gain, 12)
    _, first, group = np.unique(rounded, return_index=True, return_inverse=True)
    lateral, gain = lateral.ravel()[first], gain.ravel()[first]
    variances = np.empty((len(first), operator.n_slices), np.float32)
    noise = model.noise_variance * operator.relative_noise
    count = max(1, _VALUES_AT_ONCE // (2 * operator.n_projections * basis.period))
    for start in range(0, len(first), count):
        part = slice(start, start + count)
        density = model.density_of(lateral[part], basis.frequency_squared)
        covariance = basis.data_covariance(density * gain[part, None]) + noise
        cross = basis.cross_covariance(density)
        seen = np.einsum("kpz,kpz->kz", np.linalg.solve(covariance, cross), cross)
        variances[part] = basis.prior_variance(density)[:, None] - gain[part, None] * seen
    result = variances.T[:, group.reshape(-1)].reshape(-1, *shape)
    for axis in (1, 2):
        result = _double_frequencies(result, axis)
    result = scipy.fft.idctn(result, axes=(1, 2), norm="ortho", overwrite_x=True)
    # What the data determine fully can come out a rounding error below zero.
    return np.sqrt(np.maximum(result, 0, out=result), out=result)


def _double_frequencies(variances: np.ndarray, axis: int) -> np.ndarray:
    r"""Turn weights of squared cosine modes into weights of cosine modes, along one axis.

    On N samples, :math:`\phi_k^2 = (1 + c_{2k}) / N` with :math:`c_j = \cos(\pi j (2n + 1) / 2N)`
    and :math:`\phi_0^2 = 1 / N`. Beyond the highest frequency, :math:`c_{2k} = -c_{2N - 2k}`, and
    :math:`c_N = 0`.
    """
    values = np.moveaxis(variances, axis, -1)
    length = values.shape[-1]
    doubled = np.zeros_like(values)
    low = (length + 1) // 2
    doubled[..., 2::2] = values[..., 1:low]
    high = np.arange(length // 2 + 1, length)
    doubled[..., 2 * (length - high)] -= values[..., high]
    # The orthonormal modes are c_0 / sqrt(N) and c_j sqrt(2 / N).
    doubled /= np.sqrt(2 * length)
    doubled[..., 0] = values.sum(axis=-1) / np.sqrt(length)
    return np.moveaxis(doubled, -1, axis)
