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

from besselflow.metrics.patches import iterate_bands


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
    guess, true : numpy.ndarray, shape (Y, X)
        A slice of the estimate and of the truth.
    """
    means = guess.mean(dtype=np.float64), true.mean(dtype=np.float64)
    sums = np.zeros(3)
    for x, y in iterate_bands(guess, true):
        x -= means[0]
        y -= means[1]
        sums += [np.vdot(x, x), np.vdot(x, y), np.vdot(y, y)]
    names = ("guess_guess", "guess_true", "true_true")
    products = dict(zip(names, (sums / guess.size).tolist(), strict=True))
    return {"mean_guess": float(means[0]), "mean_true": float(means[1])} | products


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
