r"""How far a noisy series of estimates is believed: empirical Bayes with a test against nothing.

The estimates u have the errors V; the true values are drawn from :math:`N(0, \tau^2 K)`. The scale
:math:`\tau` maximises the marginal likelihood :math:`N(u; 0, V + \tau^2 K)` (Morris, Parametric
empirical Bayes inference, JASA 1983), and what is believed is the posterior mean. Where the
likelihood is not much larger than without any disturbance, nothing is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

_SCALES = np.geomspace(1e-3, 1e4, 57)
LEAST_EVIDENCE = 8.0
"""Twice the gain of log-likelihood that is needed: by chance, fewer than 1 of 200 reach it."""


@dataclass(frozen=True)
class Believed:
    """What is believed of a series.

    Attributes
    ----------
    values : numpy.ndarray, shape (A, P)
        Posterior mean; 0 where there is no evidence.
    errors : numpy.ndarray, shape (A, P)
        Posterior standard deviation.
    evidence : float
        Twice the logarithm of the likelihood ratio against no disturbance.
    kind : str
        Which prior explained it best.
    """

    values: np.ndarray
    errors: np.ndarray
    evidence: float
    kind: str

    @property
    def is_certain(self) -> bool:
        """Whether the evidence suffices."""
        return self.evidence > LEAST_EVIDENCE


def believe(
    estimates: np.ndarray,
    errors: Sequence[np.ndarray],
    ignored: np.ndarray,
    priors: Mapping[str, np.ndarray],
) -> Believed:
    """Shrink series that share a prior.

    Parameters
    ----------
    estimates : numpy.ndarray, shape (A, P)
        Series, such as displacements along y and along x.
    errors : sequence of numpy.ndarray, shape (P, P)
        Covariance V of the error of each.
    ignored : numpy.ndarray, shape (P, k)
        Directions that the data can't tell, such as a constant; nothing is believed of them.
    priors : mapping
        Kind -> covariance K, shape (P, P).
    """
    count = estimates.shape[1]
    complete, _ = np.linalg.qr(np.hstack([ignored, np.eye(count)]))
    basis = complete[:, ignored.shape[1] : count]
    series = [basis.T @ own for own in estimates]
    errors = [basis.T @ error @ basis for error in errors]
    unit = float(np.mean([np.median(np.diag(error)) for error in errors]))

    def log_likelihood(prior: np.ndarray) -> float:
        total = 0.0
        for own, error in zip(series, errors, strict=True):
            covariance = error + prior
            total -= np.linalg.slogdet(covariance)[1] + own @ np.linalg.solve(covariance, own)
        return total

    nothing = log_likelihood(np.zeros_like(errors[0]))
    best = (0.0, "none", np.zeros_like(errors[0]))
    for kind, prior in priors.items():
        projected = basis.T @ prior @ basis
        projected /= np.mean(np.diag(projected))
        for scale in _SCALES:
            gained = log_likelihood(scale * unit * projected) - nothing
            if gained > best[0]:
                best = (float(gained), kind, scale * unit * projected)
    evidence, kind, prior = best
    values, spreads = [], []
    for own, error in zip(series, errors, strict=True):
        share = np.linalg.solve(error + prior, prior).T
        values.append(basis @ (share @ own))
        spreads.append(np.sqrt(np.maximum(np.diag(basis @ (share @ error) @ basis.T), 0)))
    if evidence <= LEAST_EVIDENCE:
        values = [np.zeros(count) for _ in values]
    return Believed(np.array(values), np.array(spreads), evidence, kind)


def sandwich(hessian: np.ndarray, gradients: np.ndarray, parts: np.ndarray) -> np.ndarray:
    r"""Return the covariance of the error of an estimate whose likelihood is only nearly right.

    It is :math:`H^{-1}`, scaled in each of its directions by how much more the slopes in separate
    parts of the data scatter than the curvature says (Huber, 1967). Since the parts are fewer than
    the directions, the scale is a power of the curvature, fitted to all of them: structures that go
    on in depth make smooth series err more than others.

    Parameters
    ----------
    hessian : numpy.ndarray, shape (P, P)
        Curvature of the negative log-likelihood.
    gradients : numpy.ndarray, shape (B, P)
        Slopes in the parts, at the estimate.
    parts : numpy.ndarray, shape (P, P)
        Sum of the curvatures of the parts.
    """
    centred = gradients - gradients.mean(axis=0)
    scatter = centred.T @ centred * len(gradients) / (len(gradients) - 1)
    values, vectors = np.linalg.eigh(parts)
    used = values > 1e-6 * values.max()
    ratio = np.einsum("pk,pq,qk->k", vectors, scatter, vectors)[used] / values[used]
    slope, level = np.polyfit(np.log(values[used]), np.log(np.maximum(ratio, 1e-6)), 1)
    values, vectors = np.linalg.eigh(hessian)
    values = np.maximum(values, 1e-6 * values.max())
    scale = np.maximum(1.0, np.exp(level) * values ** min(slope, 0.0))
    return (vectors * (scale / values)) @ vectors.T
