r"""Do no harm: how far the prior is followed on a sample, decided by data that it did not see.

A prior helps where it knows the structures, and invents them where it doesn't. Which of both is the
case, the sample itself tells: some neighbouring projections are replaced by their means
(`besselflow.thinning`), the prior and the INR reconstruct from what is left, and of all mixtures

.. math:: v = \sum_m w_m v_m, \qquad w_m \ge 0, \quad \sum_m w_m = 1,

the one is taken that predicts the differences of these neighbours best: it places light best
within the length of a beam, which is what a prior is for. What a volume predicts is linear in
it, so that the weights are a small least-squares problem with an exact solution (stacking: Wolpert,
Neural Networks 5, 1992; Breiman, Machine Learning 24, 1996). Few pixels decide, and a prior that is
followed too far does more harm than one that is followed too little: of its weight, the standard
error is taken off.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np

PRIOR = "prior"
"""Name of the volume that the prior gave, among those that are mixed."""

# Edge length of blocks of pixels whose errors go together.
_ALIKE_PIXELS = 8


def stacking_weights(
    predictions: Mapping[str, np.ndarray], measured: np.ndarray, variance: np.ndarray
) -> dict[str, float]:
    """Return the mixture that predicts measurements best.

    Parameters
    ----------
    predictions : mapping
        Name -> what each volume predicts, any shape.
    measured, variance : numpy.ndarray
        What was measured, and the variance of its noise, of the same shape.

    Returns
    -------
    dict
        Name -> weight; not negative, the sum is 1.
    """
    names = list(predictions)
    weight = 1 / np.sqrt(np.asarray(variance, dtype=np.float64).ravel())
    target = np.asarray(measured, dtype=np.float64).ravel()
    errors = np.stack(
        [weight * (np.asarray(predictions[name], np.float64).ravel() - target) for name in names]
    )
    # With weights that sum to 1, the error of the mixture is the mixture of the errors.
    gram = errors @ errors.T / target.size
    ridged = gram + (1e-12 * np.trace(gram) or 1.0) * np.eye(len(names))
    best, found = np.inf, np.zeros(len(names))
    for count in range(1, len(names) + 1):
        for chosen in combinations(range(len(names)), count):
            part = ridged[np.ix_(chosen, chosen)]
            solved = np.linalg.solve(part, np.ones(count))
            if solved.sum() <= 0 or (solved < -1e-9).any():
                continue
            weights = np.zeros(len(names))
            weights[list(chosen)] = np.maximum(solved, 0) / np.maximum(solved, 0).sum()
            value = weights @ gram @ weights
            # Of equally good mixtures, the one of fewer volumes.
            if value < best * (1 - 1e-9):
                best, found = value, weights
    return dict(zip(names, map(float, found), strict=True))


def cautious_weights(
    predictions: Mapping[str, np.ndarray], measured: np.ndarray, variance: np.ndarray
) -> dict[str, float]:
    r"""Return the mixture that predicts measurements best, less what is uncertain of the prior.

    With the error r of the best mixture without the prior and the difference d of the prior's error
    from it, the prior's weight is :math:`w = -\sum r d / \sum d^2`, and the variance of that
    :math:`\sum_b (\sum_{i \in b} (r + w d)_i d_i)^2 / (\sum d^2)^2` over blocks b of 8 x 8
    pixels and all depths, within which errors go together (White, Econometrica 48, 1980).

    Parameters
    ----------
    predictions : mapping
        Name -> what each volume predicts, shape (N, Y, X); that of the prior is among them.
    measured, variance : numpy.ndarray, shape (N, Y, X)
        What was measured, and the variance of its noise.

    Returns
    -------
    dict
        Name -> weight; not negative, the sum is 1.
    """
    rest = {name: each for name, each in predictions.items() if name != PRIOR}
    shares = stacking_weights(rest, measured, variance)
    noise = np.sqrt(np.asarray(variance, dtype=np.float64))
    error = sum(share * np.asarray(rest[name], np.float64) for name, share in shares.items())
    apart = (np.asarray(predictions[PRIOR], np.float64) - error) / noise
    error = (error - measured) / noise
    power = (apart**2).sum()
    weight = 0.0
    if power > 0:
        best = -(error * apart).sum() / power
        slopes = ((error + best * apart) * apart).sum(axis=0)
        starts = [np.arange(0, length, _ALIKE_PIXELS) for length in slopes.shape]
        blocks = np.add.reduceat(np.add.reduceat(slopes, starts[0], axis=0), starts[1], axis=1)
        weight = float(np.clip(best - np.sqrt((blocks**2).sum()) / power, 0, 1))
    return {name: weight if name == PRIOR else (1 - weight) * shares[name] for name in predictions}


def mix(
    volumes: Mapping[str, np.ndarray], std: np.ndarray, weights: Mapping[str, float]
) -> tuple[np.ndarray, np.ndarray]:
    r"""Mix volumes, and state how uncertain the mixture is.

    Each volume is one opinion, right with the probability of its weight, up to the deviation
    :math:`s` that posterior samples show. The variance is that of the mixture distribution,
    :math:`s^2 + \sum_m w_m (v_m - v)^2`. The deviation counts for volumes without a prior, too: an
    error that depends on the structure is closer to the truth than one that doesn't, and whether
    the data contradict it is judged apart from how well the means predict.

    Parameters
    ----------
    volumes : mapping
        Name -> volume, shape (Z, Y, X).
    std : numpy.ndarray, shape (Z, Y, X)
        Deviation of the posterior samples.
    weights : mapping
        Name -> weight; the sum is 1.

    Returns
    -------
    mean, std : numpy.ndarray, shape (Z, Y, X), float32
    """
    used = [name for name in volumes if weights[name] > 0]
    mean = sum(np.float32(weights[name]) * np.asarray(volumes[name]) for name in used)
    apart = sum(
        np.float32(weights[name]) * np.square(np.asarray(volumes[name]) - mean) for name in used
    )
    return mean.astype(np.float32), np.sqrt(np.square(std) + apart).astype(np.float32)
