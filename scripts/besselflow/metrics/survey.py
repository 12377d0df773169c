"""A first look at a stack and its truth: extremes, and an even sample of pixels of both."""

from __future__ import annotations

from dataclasses import dataclass

import dask.array as da
import numpy as np

from besselflow.metrics.blocks import check_finite, iterate_blocks, read_slices
from besselflow.metrics.micro_ssim import LocalMoments, Scaling, fit_scaling, sampled_moments

_SAMPLED_SLICES = 64
_SAMPLED_PIXELS = 2**19


@dataclass(frozen=True)
class Survey:
    """What must be known of a stack before its slices are scored.

    Attributes
    ----------
    extremes, true_extremes : tuple of float
        Lowest and highest intensity of the estimate and of the truth over the scored slices.
    scaling : Scaling or None
        How MicroSSIM makes them comparable; None where the truth is constant.
    """

    extremes: tuple[float, float]
    true_extremes: tuple[float, float]
    scaling: Scaling | None


def survey_stack(
    estimate: da.Array, truth: da.Array, t: int, channel: int, scored: np.ndarray, window: int
) -> Survey:
    """Read a stack and its truth once.

    Parameters
    ----------
    estimate, truth : dask.array.Array, shape (T, C, Z, Y, X)
        Volume and ground truth.
    t, channel : int
        Which stack of them to read.
    scored : numpy.ndarray of bool, shape (Z,)
        Slices to score.
    window : int
        Edge length of the window of MicroSSIM in pixels, odd.

    Raises
    ------
    ValueError
        The estimate holds a value that is not finite.
    """
    chosen = np.flatnonzero(scored)
    places = np.linspace(0, len(chosen) - 1, min(_SAMPLED_SLICES, len(chosen)))
    sampled = set(chosen[places.round().astype(int)].tolist())
    step = -(-len(sampled) * truth.shape[3] * truth.shape[4] // _SAMPLED_PIXELS)
    limits, pixels, moments = np.array([[np.inf, -np.inf]] * 2), ([], []), []
    for index, block in iterate_blocks(estimate, t, channel, scored):
        check_finite(block, "the volume", t, channel, index)
        pair = block, read_slices(truth, t, channel, index)
        for own, values in zip(limits, pair, strict=True):
            own[:] = min(own[0], values.min()), max(own[1], values.max())
        for place in (place for place, z in enumerate(index) if z in sampled):
            images = [values[place] for values in pair]
            for kept, image in zip(pixels, images, strict=True):
                kept.append(image.ravel()[::step].astype(np.float64))
            moments.append(sampled_moments(*images, window, step))
    scaling = fit_scaling(
        *(np.concatenate(kept) for kept in pixels), LocalMoments.joined(moments), tuple(limits[1])
    )
    return Survey(tuple(limits[0].tolist()), tuple(limits[1].tolist()), scaling)
