"""Linear interpolation between projections: what a stack looks like without any reconstruction."""

from __future__ import annotations

import numpy as np


def interpolate(
    projections: np.ndarray, positions_um: np.ndarray, centres_um: np.ndarray
) -> np.ndarray:
    """Interpolate linearly between the stage positions, constant beyond the outermost ones.

    Parameters
    ----------
    projections : numpy.ndarray, shape (P, Y, X)
        Intensities.
    positions_um : numpy.ndarray, shape (P,)
        Increasing stage positions.
    centres_um : numpy.ndarray, shape (Z,)
        Centres of the slices.

    Returns
    -------
    numpy.ndarray, shape (Z, Y, X), float32
        Interpolated intensities.
    """
    return np.einsum(
        "zp,pyx->zyx",
        interpolation_weights(positions_um, centres_um).astype(np.float32),
        projections.astype(np.float32),
        optimize=True,
    )


def interpolation_weights(positions_um: np.ndarray, centres_um: np.ndarray) -> np.ndarray:
    """Return the weight of each projection in each slice, shape (Z, P); rows sum to 1."""
    identity = np.eye(len(positions_um))
    return np.stack([np.interp(centres_um, positions_um, row) for row in identity], axis=1)
