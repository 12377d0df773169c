r"""Do no harm: how far the prior is followed on a sample, decided by data that it did not see.

A prior helps where it knows the structures, and invents them where it doesn't. Which of both is the
case, the sample itself tells: some neighbouring projections are replaced by their means
(`besselflow.thinning`), the prior and the INR reconstruct from what is left, and of all mixtures

.. math:: v = \sum_m w_m v_m, \qquad w_m \ge 0, \quad \sum_m w_m = 1,

the one is taken that predicts the differences of these neighbours best: it places light best
within the length of a beam, which is what a prior is for. What a volume predicts is linear in
it, so that the weights are a small least-squares problem with an exact solution (stacking: Wolpert,
Neural Networks 5, 1992; Breiman, Machine Learning 24, 1996). Few pixels decide, and a prior that is
followed too far does more harm than one that is followed too little: the less certain its weight,
the more it is shrunk.
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


def prior_share(
    predictions: Mapping[str, np.ndarray], measured: np.ndarray, variance: np.ndarray
) -> tuple[float, float, dict[str, float]]:
    r"""Return the share of the prior in the mixture that predicts best, and how sure that is.

    With the error r of the best mixture without the prior and the difference d of the prior's error
    from it, the share is :math:`w = -\sum r d / \sum d^2`, and the variance of that
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
    share, error : float
        The share, which may be below 0 or above 1, and its standard error.
    rest : dict
        Name -> weight of all others without the prior.
    """
    others = {name: each for name, each in predictions.items() if name != PRIOR}
    rest = stacking_weights(others, measured, variance)
    noise = np.sqrt(np.asarray(variance, dtype=np.float64))
    error = sum(weight * np.asarray(others[name], np.float64) for name, weight in rest.items())
    apart = (np.asarray(predictions[PRIOR], np.float64) - error) / noise
    error = (error - measured) / noise
    power = (apart**2).sum()
    if power == 0:
        return 0.0, 0.0, rest
    share = -(error * apart).sum() / power
    slopes = ((error + share * apart) * apart).sum(axis=0)
    starts = [np.arange(0, length, _ALIKE_PIXELS) for length in slopes.shape]
    blocks = np.add.reduceat(np.add.reduceat(slopes, starts[0], axis=0), starts[1], axis=1)
    return float(share), float(np.sqrt((blocks**2).sum()) / power), rest


def shrink(share: float, error: float) -> float:
    r"""Return how far a prior is followed whose share is known with an error, from 0 to 1.

    The square of a share :math:`w` is too large by the square of its standard error :math:`s` on
    average. What is followed, :math:`w (1 - s^2 / w^2)`, is the multiple of the share that would
    have the least expected error if the corrected square were right (after James and Stein,
    Berkeley Symp. Math. Statist. Prob. 1, 361, 1961), and nothing where it is within its error.
    """
    return float(np.clip(share - error**2 / share, 0, 1)) if share > 0 else 0.0


def cautious_weights(
    predictions: Mapping[str, np.ndarray], measured: np.ndarray, variance: np.ndarray
) -> dict[str, float]:
    """Return the mixture that predicts measurements best, with less of an uncertain prior.

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
    share, error, rest = prior_share(predictions, measured, variance)
    weight = shrink(share, error)
    return {name: weight if name == PRIOR else (1 - weight) * rest[name] for name in predictions}


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
