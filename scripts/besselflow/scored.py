"""Which slices are scored, and up to what: shared by scores and by what is expected of them."""

from __future__ import annotations

import numpy as np

from besselflow.projection import AxialGrid

PSNR_CAP_DB = 100.0
"""PSNR of a slice without error, and the highest that is ever reported."""


def scored_slices(grid: AxialGrid, positions_um: np.ndarray) -> np.ndarray:
    """Say which slices have their centre between the first and the last stage position.

    Parameters
    ----------
    grid : AxialGrid
        Slices of the volume.
    positions_um : numpy.ndarray, shape (P,)
        Stage positions in micrometres, in any order.

    Returns
    -------
    numpy.ndarray of bool, shape (Z,)
        Both ends count, within a thousandth of the slice spacing.
    """
    tolerance = 1e-3 * grid.spacing_um
    centres = grid.centres_um
    return (centres >= np.min(positions_um) - tolerance) & (
        centres <= np.max(positions_um) + tolerance
    )
