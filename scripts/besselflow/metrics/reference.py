"""What is read off a ground truth once, and used for every method: region, range, threshold."""

from __future__ import annotations

from dataclasses import dataclass

import dask.array as da
import numpy as np
from skimage.filters import threshold_otsu

from besselflow.errors import InputError
from besselflow.metrics.blocks import check_finite, iterate_blocks

_OTSU_BINS = 256


@dataclass(frozen=True)
class Reference:
    """What is read off the ground truth once and used for every method.

    Attributes
    ----------
    peak : numpy.ndarray, shape (C,)
        Highest intensity of each channel over all times and slices; the data range.
    threshold : numpy.ndarray, shape (C,)
        Otsu's threshold of each channel over the scored slices.
    """

    peak: np.ndarray
    threshold: np.ndarray


def describe_truth(truth: da.Array, scored: np.ndarray) -> Reference:
    """Find the data range and the threshold of a ground truth.

    Otsu's threshold (Otsu, IEEE Trans. SMC 9, 62, 1979) comes from one histogram of 256 bins per
    channel over the scored slices of all times, as ``skimage.filters.threshold_otsu`` would find it
    on the whole array at once.

    Parameters
    ----------
    truth : dask.array.Array, shape (T, C, Z, Y, X)
        Ground truth, offset subtracted.
    scored : numpy.ndarray of bool, shape (Z,)
        Slices to score.

    Raises
    ------
    InputError
        A channel has no intensity above zero or holds values that are not finite, or no slice is
        to be scored.
    """
    if not scored.any():
        raise InputError(
            "no slice of the ground truth lies between the first and the last stage position; "
            "check that stage positions count from the centre of its first slice, in micrometres"
        )
    n_times, n_channels = truth.shape[:2]
    every = np.ones(truth.shape[2], bool)
    peak = np.full(n_channels, -np.inf)
    low, high = np.full(n_channels, np.inf), np.full(n_channels, -np.inf)
    for channel in range(n_channels):
        for t in range(n_times):
            for index, block in iterate_blocks(truth, t, channel, every):
                check_finite(block, "the ground truth", t, channel, index)
                peak[channel] = max(peak[channel], block.max())
                inside = np.maximum(block[scored[index]], 0)
                if inside.size:
                    low[channel] = min(low[channel], inside.min())
                    high[channel] = max(high[channel], inside.max())
        if peak[channel] <= 0:
            raise InputError(
                f"channel {channel} of the ground truth has no intensity above zero; check that "
                f"the offset in the sheet is not larger than its counts"
            )
    threshold = np.empty(n_channels)
    for channel in range(n_channels):
        if low[channel] == high[channel]:
            threshold[channel] = high[channel]
            continue
        edges = np.histogram_bin_edges([], _OTSU_BINS, (low[channel], high[channel]))
        counts = np.zeros(_OTSU_BINS, np.int64)
        for t in range(n_times):
            for _, block in iterate_blocks(truth, t, channel, scored):
                counts += np.histogram(np.maximum(block, 0), edges)[0]
        threshold[channel] = threshold_otsu(hist=(counts, (edges[:-1] + edges[1:]) / 2))
    return Reference(peak, threshold)
