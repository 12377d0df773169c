"""A window without edges, for the spectra of images that don't continue beyond their borders."""

import numpy as np
import scipy


def taper(shape: tuple[int, int], share: float) -> np.ndarray:
    """Return the product of two tapered cosine (Tukey) windows.

    Parameters
    ----------
    shape : tuple of int
        (Y, X).
    share : float
        Part of each side within which the window falls from 1 to 0.

    Returns
    -------
    ndarray
        (Y, X).
    """
    y, x = (scipy.signal.windows.tukey(size, share) for size in shape)
    return y[:, None] * x
