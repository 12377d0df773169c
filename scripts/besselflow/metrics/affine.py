r"""The error that is left after the best affine map of the intensities.

A method may find the right structures on another scale of intensity, or above another background.
With :math:`a, b` from least squares over all scored voxels, neither volume being clipped, the error
of :math:`a x + b` tells structure from scale, as the scale-invariant PSNR of Weigert et al., Nat.
Methods 15, 1090 (2018) does for single images. Centred moments of single slices, combined
afterwards, give everything in one pass over the volume, without the cancellation that plain sums of
squares suffer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class AffineFit:
    """The least-squares map from an estimate to the truth.

    Attributes
    ----------
    scale, offset : float
        Truth is nearest to ``scale * estimate + offset``.
    squares : numpy.ndarray, shape (Z,)
        Mean squared error of each slice that is left.
    """

    scale: float
    offset: float
    squares: np.ndarray


def slice_moments(guess: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Return means, and mean products of the deviations from them, of one slice.

    Parameters
    ----------
    guess, true : numpy.ndarray, shape (Y, X), float64
        A slice of the estimate and of the truth.
    """
    mean_guess, mean_true = float(guess.mean()), float(true.mean())
    guess, true = guess - mean_guess, true - mean_true
    return {
        "mean_guess": mean_guess,
        "mean_true": mean_true,
        "guess_guess": float(np.mean(guess * guess)),
        "guess_true": float(np.mean(guess * true)),
        "true_true": float(np.mean(true * true)),
    }


def fit_affine(slices: pd.DataFrame) -> AffineFit:
    """Fit scale and offset over all slices of a stack.

    Parameters
    ----------
    slices : pandas.DataFrame
        What `slice_moments` says of slices of one size, one per row.

    Returns
    -------
    AffineFit
        With scale 0 where the estimate is constant.
    """
    x, y = slices["mean_guess"].to_numpy(), slices["mean_true"].to_numpy()
    from_x, from_y = x - x.mean(), y - y.mean()
    variance = float(slices["guess_guess"].mean() + np.mean(from_x**2))
    covariance = float(slices["guess_true"].mean() + np.mean(from_x * from_y))
    # Rounding gives even a constant estimate some variance.
    rounding = (1e-12 * np.abs(x).max()) ** 2
    scale = covariance / variance if variance > rounding else 0.0
    squares = (
        (scale * from_x - from_y) ** 2
        + scale**2 * slices["guess_guess"]
        - 2 * scale * slices["guess_true"]
        + slices["true_true"]
    )
    offset = float(y.mean() - scale * x.mean())
    return AffineFit(scale, offset, np.maximum(squares.to_numpy(), 0))
