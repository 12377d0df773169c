r"""Sample volumes from the prior, starting at the INR and agreeing with the data at every step.

Sampling starts from :math:`x = v_\mathrm{INR} + \sigma_1 n` and walks down a geometric series of
noise levels. At each level the denoiser estimates all slices of the unit, and the estimate D is
replaced by the exact minimiser of

.. math:: |A v - y|^2 / \sigma_y^2 + |v - D|^2 / r^2,

with the measured noise :math:`\sigma_y` and the error r of the denoiser. r is the larger of the
error on training volumes and the error that the disagreement of D with the projections shows: on a
sample unlike the training volumes the data weigh more. Before that, D is drawn towards the INR by a
fixed weight (guidance), so that what the prior knows nothing about stays close to what was fitted
to this sample alone. The step to the next level is ancestral
(Song et al., Denoising diffusion implicit models, ICLR 2021, with eta = 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from besselflow.config import Refine
from besselflow.diffusion.network import SliceConditions
from besselflow.diffusion.training import DiffusionPrior
from besselflow.job import Progress
from besselflow.projection import AxialProjection

_LAST_NOISE = 0.01
_PIXELS_AT_ONCE = 16 * 128 * 128


@dataclass(frozen=True)
class RefinementProblem:
    """One work unit to refine, intensities relative to the scale.

    Attributes
    ----------
    inr, spectral : numpy.ndarray, shape (Z, Y, X)
        What the sampling starts from, and what the denoiser is conditioned on.
    projections : numpy.ndarray, shape (P, Y, X)
        Measured intensities.
    operator : AxialProjection
        How the volume was measured.
    positions_um, centres_um : numpy.ndarray
        Stage positions (P,) and slices (Z,).
    noise : float
        Standard deviation of the noise of a projection.
    """

    inr: np.ndarray
    spectral: np.ndarray
    projections: np.ndarray
    operator: AxialProjection
    positions_um: np.ndarray
    centres_um: np.ndarray
    noise: float


@torch.no_grad()
def sample_posterior(
    problem: RefinementProblem,
    prior: DiffusionPrior,
    settings: Refine,
    seed: int,
    device: torch.device,
    label: str = "sampling",
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Draw posterior samples of one unit and return their mean and spread.

    Parameters
    ----------
    problem : RefinementProblem
        What to refine.
    prior : DiffusionPrior
        Trained for the geometry of the acquisition.
    settings : Refine
        Number of evaluations and samples, and the noise to start with.
    seed : int
        Seed of the noise.
    device : torch.device
        Where to compute.
    label : str
        What the progress lines call it.

    Returns
    -------
    mean, std : numpy.ndarray, shape (Z, Y, X), float32
        Mean of the samples, and standard deviation: of the samples, and of the mixture of INR and
        prior that the guidance makes of two answers that may differ.
    record : dict
        Facts for the report.
    """
    as_tensor = lambda array: torch.as_tensor(array, device=device)  # noqa: E731
    projections = as_tensor(problem.projections)
    conditions = SliceConditions.of(
        as_tensor(problem.spectral),
        projections,
        as_tensor(problem.positions_um),
        as_tensor(problem.centres_um),
        problem.noise,
    )
    sigmas = noise_levels(settings)
    inr = as_tensor(problem.inr)
    progress = Progress(label, settings.samples * len(sigmas))
    total = torch.zeros_like(conditions.spectral)
    squares = torch.zeros_like(total)
    unguided_total = torch.zeros_like(total)
    trust = []
    for number in range(settings.samples):
        generator = torch.Generator().manual_seed((seed << 16) + number)
        draw = lambda g=generator: torch.randn(problem.inr.shape, generator=g).to(device)  # noqa: E731
        state = inr + sigmas[0] * draw()
        for index, sigma in enumerate(sigmas):
            unguided = _denoise_all(prior, state, sigma, conditions)
            denoised = unguided.lerp(inr, settings.inr_weight)
            error = max(prior.error_at(sigma), apparent_error(denoised, projections, problem))
            trust.append(error)
            estimate = problem.operator.prox(denoised, projections, (problem.noise / error) ** 2)
            if index + 1 < len(sigmas):
                following = sigmas[index + 1]
                fresh = following * math.sqrt(1 - (following / sigma) ** 2)
                kept = math.sqrt(following**2 - fresh**2)
                state = estimate + (kept / sigma) * (state - estimate) + fresh * draw()
            progress.update(number * len(sigmas) + index + 1)
        total += estimate
        squares += estimate.square()
        unguided_total += unguided
    count = settings.samples
    mean = total / count
    variance = (squares / count - mean.square()).clamp(min=0) * (count / max(count - 1, 1))
    weight = settings.inr_weight
    variance += weight * (1 - weight) * (unguided_total / count - inr).square()
    record = {
        "evaluations": len(sigmas),
        "samples": count,
        "start_noise": sigmas[0],
        "assumed_error": trust[len(sigmas) - 1],
        "training_error": prior.error_at(sigmas[-1]),
    }
    return mean.cpu().numpy(), variance.sqrt().cpu().numpy(), record


def noise_levels(settings: Refine) -> list[float]:
    """Return the noise levels of the network evaluations, falling, relative to the scale."""
    last = min(_LAST_NOISE, settings.start_noise)
    levels = np.geomspace(settings.start_noise, last, settings.evaluations)
    # Where start and end are equal, rounding would let a level rise.
    return np.minimum.accumulate(levels).tolist()


def apparent_error(
    denoised: torch.Tensor, projections: torch.Tensor, problem: RefinementProblem
) -> float:
    """Estimate the error of a denoised volume from its disagreement with the projections.

    If the error were white with variance r^2, the residual would have the variance
    noise^2 + r^2 times the sum of squared weights of a measured pixel.

    Parameters
    ----------
    denoised : torch.Tensor, shape (Z, Y, X)
    projections : torch.Tensor, shape (P, Y, X)
    problem : RefinementProblem

    Returns
    -------
    float
        r, relative to the scale; 0 where the residual is no larger than the noise.
    """
    operator = problem.operator
    residual = float((operator.forward(denoised) - projections).square().mean())
    gain = operator.mean_squared_weight(tuple(projections.shape[-2:]))
    return math.sqrt(max(residual - problem.noise**2, 0.0) / gain)


def _denoise_all(
    prior: DiffusionPrior, state: torch.Tensor, sigma: float, conditions: SliceConditions
) -> torch.Tensor:
    depth, height, width = state.shape
    batch = max(1, _PIXELS_AT_ONCE // (height * width))
    parts = []
    for z in torch.arange(depth, device=state.device).split(batch):
        level = torch.full((len(z),), sigma, device=state.device)
        parts.append(prior.denoiser(state, level, conditions, z))
    return torch.cat(parts)
