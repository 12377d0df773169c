"""Confidence intervals of scores, by drawing blocks of slices again.

Errors of neighbouring slices are alike, because one projection saw them all: slices drawn one by
one would make the intervals too narrow. Whole runs of slices are drawn instead (the circular block
bootstrap, Politis and Romano, in "Exploring the limits of bootstrap", Wiley 1992), and the score is
computed again from each draw. The intervals tell how much a score would change with other slices of
the same sample; they say nothing of other samples.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

CONFIDENCE = 0.95
_DRAWS = 1000
_FEWEST_BLOCKS = 3
_SEED = 20240319


def draw_weights(n_slices: int, block: int, draws: int = _DRAWS) -> np.ndarray | None:
    """Draw blocks of consecutive slices with replacement.

    Parameters
    ----------
    n_slices : int
        Slices there are; the first follows the last.
    block : int
        Slices per block.
    draws : int
        How often to draw.

    Returns
    -------
    numpy.ndarray, shape (draws, n_slices), or None
        How often each slice was drawn; every row sums to `n_slices`. The same for the same numbers.
        None where there are fewer than three blocks, which is too few to tell.
    """
    if n_slices < _FEWEST_BLOCKS * block:
        return None
    rng = np.random.default_rng(_SEED)
    starts = rng.integers(n_slices, size=(draws, -(-n_slices // block)))
    drawn = (starts[..., None] + np.arange(block)) % n_slices
    drawn = drawn.reshape(draws, -1)[:, :n_slices]
    rows = np.repeat(np.arange(draws), n_slices)
    weights = np.zeros((draws, n_slices))
    np.add.at(weights, (rows, drawn.ravel()), 1)
    return weights


def interval(score: Callable[[np.ndarray], np.ndarray], weights: np.ndarray) -> tuple[float, float]:
    """Return the central interval of a score over the draws.

    Parameters
    ----------
    score : callable
        From weights, shape (draws, Z), to the score of each draw, shape (draws,).
    weights : numpy.ndarray, shape (draws, Z)
        Result of `draw_weights`.
    """
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(score(weights), [tail, 100 - tail])
    return float(low), float(high)
