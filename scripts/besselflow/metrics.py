r"""Scores of a volume against its ground truth.

Every score is taken over the slices between the first and the last stage
position, after both volumes were clipped to 0..peak of the ground truth, and with that peak as the
data range. A volume is read a few slices at a time, so that memory does not grow with its depth.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import dask.array as da
import numpy as np
import pandas as pd
from skimage.filters import threshold_otsu
from skimage.metrics import structural_similarity

from besselflow.errors import InputError
from besselflow.projection import AxialGrid

METRIC_COLUMNS = ["sample", "method", "metric", "value"]
"""Columns of a table of scores, one score per row."""

PSNR_CAP_DB = 100.0
"""PSNR of a slice without error, and the highest that is ever reported."""

COVERAGE = {"coverage_50": 0.6744897501960817, "coverage_90": 1.6448536269514722}
"""Half-widths, in standard deviations, of the central normal intervals of 50 % and 90 %."""

_OTSU_BINS = 256
_BLOCK_VOXELS = 2**24


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


@dataclass(frozen=True)
class Scores:
    """Scores of one volume.

    Attributes
    ----------
    summary : dict
        Metric -> value: ``psnr`` and ``psnr_3d`` in dB, ``ssim``, ``dice``, and, for a method
        with a standard deviation, ``coverage_50`` and ``coverage_90`` as shares of 1.
    slices : pandas.DataFrame
        One row per scored slice: ``t``, ``c``, ``z`` (indices), ``psnr`` (dB), ``ssim``.
    """

    summary: dict[str, float]
    slices: pd.DataFrame


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
            for index, block in _blocks(truth, t, channel, every):
                _check_finite(block, "the ground truth", t, channel, index)
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
            for _, block in _blocks(truth, t, channel, scored):
                counts += np.histogram(np.maximum(block, 0), edges)[0]
        threshold[channel] = threshold_otsu(hist=(counts, (edges[:-1] + edges[1:]) / 2))
    return Reference(peak, threshold)


def score_volume(
    estimate: da.Array,
    truth: da.Array,
    scored: np.ndarray,
    ssim_window: int,
    std: da.Array | None = None,
    reference: Reference | None = None,
) -> Scores:
    r"""Score a volume against its ground truth.

    Per slice, :math:`\mathrm{PSNR} = 10 \log_{10}(\mathrm{peak}^2 / \mathrm{MSE})`, at most
    `PSNR_CAP_DB`, which is also the value of a slice without error; ``psnr`` is its mean over
    slices and ``psnr_3d`` the same formula with the MSE over all scored slices. ``ssim`` is the
    mean over slices of Wang et al., IEEE Trans. Image Process. 13, 600 (2004), with a uniform
    window. ``dice`` is :math:`2|A \cap B| / (|A| + |B|)` of the voxels above the one threshold of
    the ground truth, and 1 where both masks are empty. All are averaged over times and channels.

    The coverage of a standard deviation is the share of scored voxels whose true value lies within
    the central normal interval around the estimate as the method gave it, not clipped.

    Parameters
    ----------
    estimate, truth : dask.array.Array, shape (T, C, Z, Y, X)
        Volume and ground truth on the same grid and in the same unit.
    scored : numpy.ndarray of bool, shape (Z,)
        Slices to score.
    ssim_window : int
        Edge length of the SSIM window in pixels, odd.
    std : dask.array.Array, shape (T, C, Z, Y, X), optional
        Standard deviation of each voxel of the estimate.
    reference : Reference, optional
        Result of `describe_truth`, to spare reading the ground truth again for each method.

    Returns
    -------
    Scores

    Raises
    ------
    InputError
        The shapes differ, slices are smaller than the SSIM window, a channel of the ground truth
        has no signal, or no slice is to be scored.
    ValueError
        The estimate or its standard deviation holds a value that is not finite.
    """
    for name, array in (("volume", estimate), ("uncertainty", std)):
        if array is not None and array.shape != truth.shape:
            raise InputError(
                f"the {name} has the shape {array.shape}, the ground truth {truth.shape} "
                f"(t, c, z, y, x); give a ground truth on the grid of the volume"
            )
    if min(truth.shape[3:]) < ssim_window:
        raise InputError(
            f"slices of {truth.shape[3]} x {truth.shape[4]} pixels are smaller than the SSIM "
            f"window of {ssim_window}; lower evaluate.ssim_window"
        )
    reference = reference or describe_truth(truth, scored)
    rows: list[dict[str, float]] = []
    totals: list[dict[str, float]] = []
    for t in range(truth.shape[0]):
        for channel in range(truth.shape[1]):
            peak, threshold = reference.peak[channel], reference.threshold[channel]
            squares, overlap, sizes, voxels = 0.0, 0, 0, 0
            covered = dict.fromkeys(COVERAGE, 0)
            for index, block in _blocks(estimate, t, channel, scored):
                _check_finite(block, "the volume", t, channel, index)
                true_block = _read(truth, t, channel, index)
                if std is not None:
                    spread = _read(std, t, channel, index)
                    _check_finite(spread, "the uncertainty", t, channel, index)
                    distance = np.abs(block - true_block)
                    for name, width in COVERAGE.items():
                        covered[name] += int(np.count_nonzero(distance <= width * spread))
                for z, guess, true in zip(index, block, true_block, strict=True):
                    guess = np.clip(guess.astype(np.float64), 0, peak)
                    true = np.clip(true.astype(np.float64), 0, peak)
                    square = float(np.mean((guess - true) ** 2))
                    ssim = structural_similarity(guess, true, win_size=ssim_window, data_range=peak)
                    psnr = _psnr(square, peak)
                    rows.append({"t": t, "c": channel, "z": int(z), "psnr": psnr, "ssim": ssim})
                    guess_mask, true_mask = guess > threshold, true > threshold
                    overlap += int(np.count_nonzero(guess_mask & true_mask))
                    sizes += int(np.count_nonzero(guess_mask) + np.count_nonzero(true_mask))
                    squares += square * true.size
                    voxels += true.size
            total = {
                "psnr_3d": _psnr(squares / voxels, peak),
                "dice": 2 * overlap / sizes if sizes else 1.0,
            }
            if std is not None:
                total.update({name: count / voxels for name, count in covered.items()})
            totals.append(total)
    slices = pd.DataFrame(rows)
    averages = pd.DataFrame(totals).mean()
    summary = {
        "psnr": float(slices["psnr"].mean()),
        "psnr_3d": float(averages.pop("psnr_3d")),
        "ssim": float(slices["ssim"].mean()),
        **{str(name): float(value) for name, value in averages.items()},
    }
    return Scores(summary, slices)


def _blocks(
    volume: da.Array, t: int, channel: int, slices: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield indices and values of some chosen slices at a time, as many as memory allows."""
    chosen = np.flatnonzero(slices)
    count = max(1, _BLOCK_VOXELS // (volume.shape[3] * volume.shape[4]))
    for start in range(0, len(chosen), count):
        index = chosen[start : start + count]
        yield index, _read(volume, t, channel, index)


def _read(volume: da.Array, t: int, channel: int, index: np.ndarray) -> np.ndarray:
    """Read slices by way of one range, which Zarr can read without the rest of their shards."""
    block = np.asarray(volume[t, channel, index[0] : index[-1] + 1])
    return block[index - index[0]]


def _check_finite(block: np.ndarray, what: str, t: int, channel: int, index: np.ndarray) -> None:
    bad = np.argwhere(~np.isfinite(block))
    if bad.size:
        z, y, x = bad[0]
        raise ValueError(
            f"{what} holds {block[z, y, x]} at t {t}, channel {channel}, slice {index[z]}, "
            f"row {y}, column {x} of what was read; it can't be scored"
        )


def _psnr(square: float, peak: float) -> float:
    if square == 0:
        return PSNR_CAP_DB
    return min(PSNR_CAP_DB, float(10 * np.log10(peak**2 / square)))
