"""The images that the network sees: scaled by the projections, beside those of the INR."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import correlate1d

from besselflow.inr.columns import NEIGHBOUR_WEIGHTS


def to_range(intensity: np.ndarray, scale: float) -> np.ndarray:
    """Map darkness to -1 and the bright of the sample's projections to 1, in single precision."""
    return (np.asarray(intensity) * np.float32(2 / scale) - 1).astype(np.float32)


def to_intensity(values: np.ndarray, scale: float) -> np.ndarray:
    """Inverse of `to_range`, without negative light."""
    return np.maximum((values + 1) * np.float32(scale / 2), 0)


def smooth_neighbours(volume: np.ndarray) -> np.ndarray:
    """Average each slice with its neighbours, as published.

    The six published weights are centred between two slices. Seen from a slice, and with the
    volume between two slices as their mean, they are seven.

    Parameters
    ----------
    volume : numpy.ndarray, shape (Z, Y, X)
        The ends are continued by their mirror images.
    """
    weights = np.convolve(NEIGHBOUR_WEIGHTS, [0.5, 0.5])
    return correlate1d(volume, weights, axis=0, mode="reflect")


def nearest_projections(positions_um: np.ndarray, centres_um: np.ndarray) -> np.ndarray:
    """Return which acquired projection (Z,) is nearest to each slice; of two, the first."""
    return np.abs(centres_um[:, None] - np.asarray(positions_um)[None]).argmin(axis=1)
