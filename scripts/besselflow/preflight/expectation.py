r"""The PSNR that the spectral reconstruction can be expected to reach, without ground truth.

The mean squared error of a linear estimate depends on the sample through its second moments alone.
Those the spectral model fits, so that the mean over y and x of its posterior variance is the
expected squared error of a slice, also for samples that are far from Gaussian.

The peak of the truth is the peak of the reconstruction of the crops, times how much stronger the
structures of the truth are than those of a posterior mean: of the prior variance v, the posterior
mean has the share :math:`R = 1 - u / v` with the posterior variance u of the slice of the peak, so
that the amplitudes are as 1 to :math:`\sqrt R`.

What this leaves out (negative values are clipped before scoring, and dark slices have smaller
errors) shifts the PSNR by an amount that was measured once, on phantoms
(`tests/benchmarks/preflight_agreement.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from besselflow.baselines.spectral import SpectralModel, posterior_mean, posterior_std
from besselflow.baselines.spectral_model import AxialBasis, lateral_frequency_squared
from besselflow.projection import AxialGrid, AxialProjection
from besselflow.scored import PSNR_CAP_DB, scored_slices

BIAS_DB = 1.6
"""Measured less expected PSNR on phantoms, without this term and to a third of a decibel."""

SPREAD_DB = 1.5
"""Root-mean-square error of the expectation on volumes that `BIAS_DB` was not taken from."""

_LEAST_DETERMINED = 0.05


@dataclass(frozen=True)
class Expectation:
    """Expected quality.

    Attributes
    ----------
    psnr_db : float
        Expected mean over the slices of the PSNR of the spectral reconstruction.
    spread_db : float
        Root-mean-square error of that expectation where it was tested.
    """

    psnr_db: float
    spread_db: float


def expect_quality(
    crops: np.ndarray,
    operator: AxialProjection,
    grid: AxialGrid,
    positions_um: np.ndarray,
    voxel_size_um: tuple[float, float, float],
    model: SpectralModel,
) -> Expectation | None:
    """Predict the score that `scripts/evaluate.py` would give the method `spectral`.

    Parameters
    ----------
    crops : numpy.ndarray, shape (N, P, y, x)
        Intensities.
    operator : AxialProjection
        How the volume was measured.
    grid : AxialGrid
        Slices of the volume.
    positions_um : numpy.ndarray, shape (P,)
        Stage positions; slices between the first and the last are scored.
    voxel_size_um : tuple of float
        (z, y, x) voxel size.
    model : SpectralModel
        Fitted to the crops.

    Returns
    -------
    Expectation or None
        None where no slice is to be scored, or nothing bright was found.
    """
    scored = scored_slices(grid, positions_um)
    if not scored.any():
        return None
    shape = crops.shape[2:]
    std = posterior_std(shape, operator, model, voxel_size_um)[scored]
    variance = (std.astype(np.float64) ** 2).mean(axis=(1, 2))
    basis = AxialBasis.of(operator, voxel_size_um[0])
    lateral = lateral_frequency_squared(shape, voxel_size_um).ravel()
    prior = basis.prior_variance(model.density_of(lateral, basis.frequency_squared)).mean()
    brightest = np.max(
        [
            posterior_mean(crop, operator, model, voxel_size_um)[scored].max(axis=(1, 2))
            for crop in crops
        ],
        axis=0,
    )
    place = int(np.argmax(brightest))
    if brightest[place] <= 0:
        return None
    determined = max(1 - variance[place] / prior, _LEAST_DETERMINED)
    squared_peak = float(brightest[place]) ** 2 / determined
    error = np.maximum(variance, 10 ** (-PSNR_CAP_DB / 10) * squared_peak)
    return Expectation(float(np.mean(10 * np.log10(squared_peak / error))) + BIAS_DB, SPREAD_DB)
