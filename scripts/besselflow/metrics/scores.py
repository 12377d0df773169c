r"""Scores of a volume against its ground truth, slice by slice.

Every score is taken over the slices between the first and the last stage position. PSNR, SSIM and
Dice compare both volumes clipped to 0..peak of the ground truth, with that peak as the data range.
A volume is read a few slices at a time, so that memory does not grow with its depth, and what every
slice contributes to a score becomes a row of a table that all scores are computed from.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import dask.array as da
import numpy as np
import pandas as pd
from skimage.metrics import structural_similarity

from besselflow.errors import InputError
from besselflow.metrics.affine import fit_affine, slice_moments
from besselflow.metrics.blocks import check_finite, iterate_blocks, read_slices
from besselflow.metrics.bootstrap import draw_weights, interval
from besselflow.metrics.micro_ssim import slice_similarity
from besselflow.metrics.overlap import dice, slice_overlap, sweep_dice
from besselflow.metrics.patches import iterate_bands, iterate_patches
from besselflow.metrics.published import slice_published
from besselflow.metrics.reference import Reference, describe_truth
from besselflow.metrics.survey import survey_stack
from besselflow.scored import PSNR_CAP_DB

METRIC_COLUMNS = ["sample", "method", "metric", "value"]
"""Columns of a table of scores, one score per row."""

COVERAGE = {"coverage_50": 0.6744897501960817, "coverage_90": 1.6448536269514722}
"""Half-widths, in standard deviations, of the central normal intervals of 50 % and 90 %."""


@dataclass(frozen=True)
class Scores:
    """Scores of one volume.

    Attributes
    ----------
    summary : dict
        Metric -> value: ``psnr``, ``psnr_3d`` and ``psnr_affine`` in dB, ``scale`` and ``offset``
        of the affine map, ``ssim``, ``micro_ssim``, ``dice``, ``dice_best``, ``published_psnr`` in
        dB, ``published_dice``, ``X_lower`` and ``X_upper`` of the interval of score X where there
        are enough slices, and, for a method with a standard deviation, ``coverage_50`` and
        ``coverage_90`` as shares of 1.
    slices : pandas.DataFrame
        One row per scored slice: ``t``, ``c``, ``z`` (indices), ``psnr`` (dB), ``ssim``, and what
        the slice adds to the other scores.
    sweep : pandas.DataFrame
        ``threshold`` (in units of that of ``dice``) and ``dice``.
    """

    summary: dict[str, float]
    slices: pd.DataFrame
    sweep: pd.DataFrame


def score_volume(
    estimate: da.Array,
    truth: da.Array,
    scored: np.ndarray,
    ssim_window: int,
    std: da.Array | None = None,
    reference: Reference | None = None,
    alike_slices: int = 1,
) -> Scores:
    r"""Score a volume against its ground truth.

    Per slice, :math:`\mathrm{PSNR} = 10 \log_{10}(\mathrm{peak}^2 / \mathrm{MSE})`, at most
    `PSNR_CAP_DB`, which is also the value of a slice without error; ``psnr`` is its mean over
    slices and ``psnr_3d`` the same formula with the MSE over all scored slices. ``ssim`` is the
    mean over slices of Wang et al., IEEE Trans. Image Process. 13, 600 (2004), with a uniform
    window. ``dice`` is :math:`2|A \cap B| / (|A| + |B|)` of the voxels above the one threshold of
    the ground truth, and 1 where both masks are empty; ``dice_best`` is the best of the sweep. All
    are averaged over times and channels. See `besselflow.metrics.affine` for ``psnr_affine``,
    ``scale`` and ``offset``, `besselflow.metrics.micro_ssim` for ``micro_ssim`` (left out where the
    truth is constant), `besselflow.metrics.published` for ``published_psnr`` and
    ``published_dice``, and `besselflow.metrics.bootstrap` for the intervals of ``psnr``,
    ``psnr_3d``, ``ssim`` and ``dice``.

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
    alike_slices : int
        How many neighbouring slices have similar errors: the block of the bootstrap.

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
    check_shapes(estimate, truth, std, ssim_window)
    reference = reference or describe_truth(truth, scored)
    stacks = []
    for t, channel in np.ndindex(*truth.shape[:2]):
        rows = _score_stack(estimate, truth, std, t, channel, scored, ssim_window, reference)
        stacks.append(_add_affine(rows, reference.peak[channel]))
    slices = pd.concat(stacks, ignore_index=True)
    sweep = sweep_dice(stacks)
    headline = _headline(stacks, reference.peak)
    summary = {name: float(score(_EVERY)[0]) for name, score in headline.items()}
    summary |= _further_scores(stacks) | {"dice_best": float(sweep["dice"].max())}
    weights = draw_weights(int(scored.sum()), alike_slices)
    for name, score in headline.items() if weights is not None else ():
        summary[f"{name}_lower"], summary[f"{name}_upper"] = interval(score, weights)
    return Scores(summary, slices, sweep)


_EVERY = np.ones((1, 1))


def check_shapes(
    estimate: da.Array, truth: da.Array, std: da.Array | None, ssim_window: int
) -> None:
    """Complain about volumes that can't be compared; see `score_volume`."""
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


def _score_stack(
    estimate: da.Array,
    truth: da.Array,
    std: da.Array | None,
    t: int,
    channel: int,
    scored: np.ndarray,
    window: int,
    reference: Reference,
) -> pd.DataFrame:
    """Return what every scored slice of one time and channel contributes, one row each."""
    peak, threshold = reference.peak[channel], reference.threshold[channel]
    survey = survey_stack(estimate, truth, t, channel, scored, window)
    rows = []
    for index, block in iterate_blocks(estimate, t, channel, scored):
        true_block = read_slices(truth, t, channel, index)
        covered = _count_covered(block, true_block, std, t, channel, index)
        for place, z in enumerate(index):
            guess, true = block[place], true_block[place]
            square = slice_square(guess, true, peak)
            ssim = slice_ssim(guess, true, window, peak)
            row = {"t": t, "c": channel, "z": int(z), "psnr": psnr(square, peak), "ssim": ssim}
            row |= {"square": square, "voxels": true.size}
            if survey.scaling is not None:
                row["micro_ssim"] = slice_similarity(guess, true, window, survey.scaling)
            row |= slice_overlap(guess, true, threshold, peak) | slice_moments(guess, true)
            row |= slice_published(guess, true, survey.extremes, survey.true_extremes)
            rows.append(row | {name: int(counts[place]) for name, counts in covered.items()})
    return pd.DataFrame(rows)


def slice_square(guess: np.ndarray, true: np.ndarray, peak: float) -> float:
    """Return the mean squared error of a slice (Y, X), both images clipped to 0..peak."""
    total = 0.0
    for pair in iterate_bands(guess, true):
        one, other = (np.clip(part, 0, peak, out=part) for part in pair)
        one -= other
        total += float(np.vdot(one, one))
    return total / guess.size


def slice_ssim(guess: np.ndarray, true: np.ndarray, window: int, peak: float) -> float:
    """Return the structural similarity of a slice, as of ``structural_similarity`` of all of it.

    Both images are clipped to 0..peak.

    Parameters
    ----------
    guess, true : numpy.ndarray, shape (Y, X)
        A slice of the estimate and of the truth.
    window : int
        Edge length of the window in pixels, odd.
    peak : float
        Data range.
    """
    total, count = 0.0, 0
    for pixels, windows in iterate_patches(true.shape, window):
        number = math.prod(each.stop - each.start for each in windows)
        pair = (np.clip(image[pixels].astype(np.float64), 0, peak) for image in (guess, true))
        mean = structural_similarity(*pair, win_size=window, data_range=peak)
        total, count = total + number * mean, count + number
    return float(total / count)


def _count_covered(
    block: np.ndarray,
    true_block: np.ndarray,
    std: da.Array | None,
    t: int,
    channel: int,
    index: np.ndarray,
) -> dict[str, np.ndarray]:
    """Count the voxels of each slice whose true value lies within each interval."""
    if std is None:
        return {}
    spread = read_slices(std, t, channel, index)
    check_finite(spread, "the uncertainty", t, channel, index)
    counts = {name: np.zeros(len(index), np.int64) for name in COVERAGE}
    for place, images in enumerate(zip(block, true_block, spread, strict=True)):
        for guess, true, own in iterate_bands(*images):
            distance = np.abs(guess - true)
            for name, width in COVERAGE.items():
                counts[name][place] += np.count_nonzero(distance <= width * own)
    return counts


def _add_affine(rows: pd.DataFrame, peak: float) -> pd.DataFrame:
    fit = fit_affine(rows)
    decibels = [psnr(square, peak) for square in fit.squares]
    return rows.assign(psnr_affine=decibels, scale=fit.scale, offset=fit.offset)


def _headline(
    stacks: list[pd.DataFrame], peaks: np.ndarray
) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Return the scores that get an interval, as functions of the weights of the slices."""
    columns = ("psnr", "ssim", "square", "overlap_1", "sizes_1")
    tables = {name: np.array([rows[name] for rows in stacks], float) for name in columns}
    own_peaks = np.array([peaks[rows["c"].iloc[0]] for rows in stacks])[:, None]

    def mean(name: str, weights: np.ndarray) -> np.ndarray:
        values = tables[name]
        every = np.broadcast_to(weights, (len(weights), values.shape[1]))
        return values @ every.T / every.sum(axis=1)

    def psnr_3d(weights: np.ndarray) -> np.ndarray:
        relative = mean("square", weights) / own_peaks**2
        floor = 10 ** (-PSNR_CAP_DB / 10)
        return -10 * np.log10(np.maximum(relative, floor)).mean(axis=0)

    def dice_of(weights: np.ndarray) -> np.ndarray:
        overlap, sizes = mean("overlap_1", weights), mean("sizes_1", weights)
        filled = np.where(sizes > 0, sizes, 1)
        return np.where(sizes > 0, 2 * overlap / filled, 1.0).mean(axis=0)

    return {
        "psnr": lambda weights: mean("psnr", weights).mean(axis=0),
        "psnr_3d": psnr_3d,
        "ssim": lambda weights: mean("ssim", weights).mean(axis=0),
        "dice": dice_of,
    }


def _further_scores(stacks: list[pd.DataFrame]) -> dict[str, float]:
    """Average the other scores over slices, and over times and channels."""
    found: dict[str, list[float]] = {}
    for rows in stacks:
        own = {name: rows[name].mean() for name in ("psnr_affine", "scale", "offset")}
        if "micro_ssim" in rows:
            own["micro_ssim"] = rows["micro_ssim"].mean()
        squares = rows["published_square"]
        own["published_psnr"] = np.mean([psnr(square, 1.0) for square in squares])
        own["published_dice"] = dice(*rows[["published_overlap", "published_sizes"]].sum())
        # In the same order in every process, which the order of a set is not.
        for name in filter(rows.__contains__, COVERAGE):
            own[name] = rows[name].sum() / rows["voxels"].sum()
        for name, value in own.items():
            found.setdefault(name, []).append(float(value))
    return {name: float(np.mean(values)) for name, values in found.items()}


def psnr(square: float, peak: float) -> float:
    """Return the peak signal-to-noise ratio in dB of a mean squared error, at most the cap."""
    if square == 0:
        return PSNR_CAP_DB
    return min(PSNR_CAP_DB, float(10 * np.log10(peak**2 / square)))
