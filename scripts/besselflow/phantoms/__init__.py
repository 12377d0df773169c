"""Synthetic vessels, neurons and cells: volumes with known truth, drawn from a seed.

What varies along a structure (its course, calibre and brightness) is a random smooth function of
the position, so that branches stay joined where they meet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from besselflow.phantoms.cells import draw_cells
from besselflow.phantoms.neuron import draw_neuron
from besselflow.phantoms.vessels import draw_vessels

__all__ = ["PHANTOMS", "draw_cells", "draw_neuron", "draw_phantom", "draw_vessels"]

PHANTOMS: dict[str, Callable[..., np.ndarray]] = {
    "vessels": draw_vessels,
    "neuron": draw_neuron,
    "cells": draw_cells,
}


def draw_phantom(
    kind: str,
    shape: Sequence[int],
    seed: int,
    voxel_size_um: Sequence[float] = (1.0, 1.0, 1.0),
) -> np.ndarray:
    """Draw a phantom of a kind by its name, with everything else drawn from the seed.

    Structures have their usual size in micrometres, whatever the voxel size; in a field smaller
    than about 55 um they shrink with the field, so that several are in view.

    Parameters
    ----------
    kind : str
        A key of `PHANTOMS`.
    shape : sequence of int
        (Z, Y, X) in voxels.
    seed : int
        Not negative; the same seed gives the same volume.
    voxel_size_um : sequence of float
        (z, y, x) in micrometres.

    Returns
    -------
    numpy.ndarray, shape (Z, Y, X), float32
        Relative brightness, peak 1.

    Raises
    ------
    ValueError
        The kind is unknown, or the shape, the seed or the voxel size is not valid.
    """
    if kind not in PHANTOMS:
        raise ValueError(f'phantom "{kind}" is unknown; choose one of {", ".join(PHANTOMS)}')
    return PHANTOMS[kind](shape, seed, voxel_size_um)
