"""What a point-scanning microscope would have shown of a known volume in the same time.

A thin focus lights one slice at a time, where a Bessel beam lights all that it reaches. With equal
light and equal time, a stack of all Z slices in place of P projections has the share P / Z of the
exposure in each slice; a stack of P slices has all of it, and nothing between them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from besselflow.baselines.interpolation import interpolate
from besselflow.baselines.spectral import fit_spectral_model, posterior_mean
from besselflow.projection import AxialGrid, AxialProjection

POINT_SCANS: Mapping[str, str] = {
    "point-scan": "a stack of all slices in the same time",
    "point-scan-denoised": "the same stack, denoised (spectral)",
    "thin-slices": "as many slices as projections, interpolated",
}
"""Ways to scan -> what they are."""
READ_NOISE_PHOTONS = 0.5
"""Noise of the detector without light, as in the simulated acquisitions."""


def scan_points(
    truth: np.ndarray,
    positions_um: np.ndarray,
    grid: AxialGrid,
    voxel_size_um: tuple[float, float, float],
    seed: int,
) -> dict[str, np.ndarray]:
    """Scan a volume point by point for as long as the projections took.

    Parameters
    ----------
    truth : numpy.ndarray, shape (Z, Y, X)
        Expected photons of each voxel in the time of one projection.
    positions_um : numpy.ndarray, shape (P,)
        Stage positions of the projections.
    grid : AxialGrid
        Slices of the volume.
    voxel_size_um : tuple of float
        (z, y, x).
    seed : int
        Of the noise.

    Returns
    -------
    dict
        One of `POINT_SCANS` -> volume, shape (Z, Y, X), in the unit of `truth`.
    """
    rng = np.random.default_rng(seed)
    truth = np.maximum(truth, 0)
    share = min(1.0, len(positions_um) / len(truth))
    raw = _count(share * truth, rng) / np.float32(share)
    places = (np.asarray(positions_um) - grid.first_um) / grid.spacing_um
    chosen = np.unique(np.clip(np.round(places).astype(int), 0, len(truth) - 1))
    thin = interpolate(_count(truth[chosen], rng), grid.centres_um[chosen], grid.centres_um)
    denoised = denoise(raw, voxel_size_um)
    return dict(zip(POINT_SCANS, (raw, denoised, thin), strict=True))


def denoise(stack: np.ndarray, voxel_size_um: tuple[float, float, float]) -> np.ndarray:
    """Denoise a stack by the Gaussian process whose spectrum and noise are fitted to it.

    Parameters
    ----------
    stack : numpy.ndarray, shape (Z, Y, X)
        Intensities with noise; every slice is measured by itself.
    voxel_size_um : tuple of float
        (z, y, x).
    """
    operator = AxialProjection(np.eye(len(stack)))
    model = fit_spectral_model([stack], operator, voxel_size_um)
    return np.maximum(posterior_mean(stack, operator, model, voxel_size_um), 0)


def _count(photons: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    counts = rng.poisson(photons) + rng.normal(0, READ_NOISE_PHOTONS, photons.shape)
    return counts.astype(np.float32)
