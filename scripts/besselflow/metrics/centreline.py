"""Centre-line Dice: whether vessels and neurites are followed, however thick they are drawn.

After Shit et al., "clDice, a Novel Topology-Preserving Loss Function for Tubular Structure
Segmentation", CVPR 2021 (arXiv 2003.07311), with the skeleton of Lee et al., CVGIP 56, 462 (1994)
as scikit-image computes it: the harmonic mean of the share of the result's centre lines that lies
within the true mask, and of the share of the true centre lines that lies within the result's mask.
Both masks are cut at the one threshold of the ground truth. Skeletons are computed block by block,
with a halo in which the ends that thinning leaves at a cut are thrown away.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import dask.array as da
import numpy as np
from scipy.ndimage import distance_transform_edt, label
from skimage.morphology import skeletonize

BLOCK = (96, 1024, 1024)
"""Voxels of a block without its halo, of which masks alone are held. What a halo touches is decoded
for several blocks: the wider they are, the less often."""

_HALO = 24
# What is judged to be thin, in whole chunks of a volume.
_SMALL_BLOCK = (128, 128, 128)
# Blocks that are looked at; a larger volume is not read whole to find the fullest of them.
_MOST_BLOCKS = 64
_THIN = 15.0
_NECK = 0.7
_FEWEST_VOXELS = 10


def score_centrelines(
    volumes: Mapping[str, da.Array],
    truth: da.Array,
    scored: np.ndarray,
    thresholds: np.ndarray,
    block: tuple[int, int, int] = BLOCK,
) -> dict[str, float]:
    """Return the centre-line Dice of several volumes.

    Parameters
    ----------
    volumes : mapping of str to dask.array.Array, shape (T, C, Z, Y, X)
        Method -> its volume.
    truth : dask.array.Array, shape (T, C, Z, Y, X)
        Ground truth.
    scored : numpy.ndarray of bool, shape (Z,)
        Slices to score, which follow each other.
    thresholds : numpy.ndarray, shape (C,)
        What is brighter belongs to the mask, of truth and volumes alike.
    block : tuple of int
        Voxels of a block without its halo, along (z, y, x).

    Returns
    -------
    dict
        Method -> mean over times and channels. 1 where neither volume has a centre line, 0 where
        one of them has none.
    """
    found: dict[str, list[float]] = {name: [] for name in volumes}
    for t, channel in np.ndindex(*truth.shape[:2]):
        counts = {name: np.zeros(4, np.int64) for name in volumes}
        for place, core in _blocks(scored, truth.shape[3:], block):
            mask, lines = _mask_and_lines(truth[t, channel, *place], thresholds[channel], core)
            for name, volume in volumes.items():
                own, own_lines = _mask_and_lines(
                    volume[t, channel, *place], thresholds[channel], core
                )
                pairs = (own_lines & mask, own_lines, lines & own, lines)
                counts[name] += [np.count_nonzero(pair) for pair in pairs]
        for name, (inside, own_length, followed, length) in counts.items():
            found[name].append(_harmonic_mean(inside, own_length, followed, length))
    return {name: float(np.mean(values)) for name, values in found.items()}


def is_thin(truth: da.Array, scored: np.ndarray, thresholds: np.ndarray) -> bool:
    """Say whether the mask of a ground truth consists of lines, as vessels and neurites do.

    It does where its parts are on average at least fifteen times longer than they are thick, see
    `slenderness`: our phantoms of vessels and neurons are, and those of round cells are not, even
    where they touch. Cells of which only the membrane is bright can pass for lines. The block with
    the largest mask at the first time point is judged, of 64 that are spread over a large volume.

    Parameters
    ----------
    truth : dask.array.Array, shape (T, C, Z, Y, X)
        Ground truth.
    scored : numpy.ndarray of bool, shape (Z,)
        Slices to score, which follow each other.
    thresholds : numpy.ndarray, shape (C,)
        What is brighter belongs to the mask.
    """
    best, fullest = None, 0
    places = [place for place, _ in _blocks(scored, truth.shape[3:], _SMALL_BLOCK, halo=0)]
    spread = np.linspace(0, len(places) - 1, min(len(places), _MOST_BLOCKS)).round().astype(int)
    for channel in range(truth.shape[1]):
        for place in (places[number] for number in spread):
            mask = np.asarray(truth[0, channel, *place] > thresholds[channel])
            if np.count_nonzero(mask) > fullest:
                best, fullest = mask, np.count_nonzero(mask)
    return best is not None and slenderness(best) >= _THIN


def slenderness(mask: np.ndarray) -> float:
    """Return how many times longer than thick the parts of a mask are.

    The thickness is twice the median distance of the centre lines from the surface. The length of a
    part is the number of voxels of its centre line. Parts are separate where the mask is thinner
    than 0.7 of that, so that cells that touch are not a string. Parts count by their length.

    Parameters
    ----------
    mask : numpy.ndarray of bool, shape (Z, Y, X)
        Mask; 0 where it is empty.
    """
    lines = skeletonize(mask) > 0
    if np.count_nonzero(lines) < _FEWEST_VOXELS:
        return 0.0
    depth = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1, 1:-1]
    radius = np.median(depth[lines])
    core = depth > _NECK * radius
    part = label(core, np.ones((3, 3, 3)))[0][lines & core]
    return float(np.mean(np.bincount(part)[part]) / (2 * radius))


def _mask_and_lines(
    values: da.Array, threshold: float, core: tuple[slice, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Return mask and centre lines of the core of a block."""
    # Chunk by chunk: the values of all of it would take four times as much.
    mask = np.asarray(values > threshold)
    return mask[core], (skeletonize(mask) > 0)[core] if mask.any() else mask[core]


def _blocks(
    scored: np.ndarray, lateral: tuple[int, int], edges: tuple[int, int, int], halo: int = _HALO
) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """Yield the slices of a block with its halo, and of its core inside of that."""
    first, last = np.flatnonzero(scored)[[0, -1]]
    limits = [(int(first), int(last) + 1), (0, lateral[0]), (0, lateral[1])]
    counts = [
        math.ceil((high - low) / edge) for (low, high), edge in zip(limits, edges, strict=True)
    ]
    for place in np.ndindex(*counts):
        block, core = [], []
        for index, (low, high), edge in zip(place, limits, edges, strict=True):
            start = low + index * edge
            stop = min(start + edge, high)
            outer = max(start - halo, low), min(stop + halo, high)
            block.append(slice(*outer))
            core.append(slice(start - outer[0], stop - outer[0]))
        yield tuple(block), tuple(core)


def _harmonic_mean(inside: int, own_length: int, followed: int, length: int) -> float:
    if not own_length and not length:
        return 1.0
    if not own_length or not length:
        return 0.0
    precision, sensitivity = inside / own_length, followed / length
    total = precision + sensitivity
    return 2 * precision * sensitivity / total if total else 0.0
