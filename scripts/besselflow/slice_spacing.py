"""The distance of the output's slices where the user leaves it open."""

from __future__ import annotations

import numpy as np

SLICES_PER_STEP = 8


def default_spacing_um(positions_um: np.ndarray, pixel_size_um: tuple[float, float]) -> float:
    """Return the lateral voxel size, or the finest spacing that the stage step supports.

    Cubic voxels are what viewers and measurements expect. But slices far thinner than the stage
    step cost time and memory, and hold nothing that was measured: by the sampling theorem,
    projections a step apart carry axial frequencies of up to 1 / (2 step), and slices of an eighth
    of a step can hold four times as many, which leaves room for what the reconstruction infers
    from the sample's lateral structure. The benchmark, which these methods were chosen on, has six
    slices per step.

    Parameters
    ----------
    positions_um : numpy.ndarray, shape (P,)
        Stage positions in micrometres, in any order; the step is the median of their distances.
    pixel_size_um : tuple of float
        (y, x) in micrometres.

    Returns
    -------
    float
        Micrometres, to four digits.
    """
    lateral = float(np.mean(pixel_size_um))
    steps = np.diff(np.sort(np.asarray(positions_um, float)))
    finest = float(np.median(steps)) / SLICES_PER_STEP if len(steps) else 0.0
    return float(f"{max(lateral, finest):.4g}")


def with_spacing(
    voxel_size_um: tuple[float | None, float, float], positions_um: np.ndarray
) -> tuple[float, float, float]:
    """Return a voxel size (z, y, x) with the default spacing where z is None."""
    z, y, x = voxel_size_um
    return (default_spacing_um(positions_um, (y, x)) if z is None else z, y, x)
