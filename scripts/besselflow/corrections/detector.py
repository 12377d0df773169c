"""From raw detector counts to intensities that the noise model understands."""

from __future__ import annotations

import numpy as np

_SCALE_PERCENTILE = 99.9


def counts_to_intensity(counts, offset: float | None, gain: float | None):
    """Subtract the detector offset and divide by the gain, where they are known.

    Parameters
    ----------
    counts : array
        Raw counts, numpy or dask, any shape.
    offset : float or None
        Counts of an unlit pixel; None counts as 0.
    gain : float or None
        Counts per photon; None leaves the intensity in counts.

    Returns
    -------
    array
        float32 intensity: photons where the gain is known, else counts above the offset.
    """
    intensity = counts.astype("float32") - (offset or 0.0)
    return (intensity / gain if gain else intensity).astype("float32")


def intensity_scale(projections: np.ndarray) -> float:
    """Return the intensity that counts as bright, from the projections alone.

    Samples and the training data of the prior are scaled alike by it.

    Parameters
    ----------
    projections : numpy.ndarray
        Any shape.
    """
    return max(float(np.percentile(projections, _SCALE_PERCENTILE)), 1e-6)
