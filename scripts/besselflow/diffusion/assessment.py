"""How wrong a trained prior is where the truth is known, and how sure it may therefore be."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from besselflow.config import Refine
from besselflow.diffusion.calibration import Calibration
from besselflow.diffusion.network import Denoiser
from besselflow.diffusion.prior import BLIND, HIGHEST_NOISE, LOWEST_NOISE, DiffusionPrior
from besselflow.diffusion.sampling import DenoisedUnit, RefinementProblem, sample_posterior
from besselflow.diffusion.simulation import SimulatedAcquisition
from besselflow.job import logger
from besselflow.noise import pixel_variance

_ACQUISITIONS, _WINDOW = 12, 64
_ERROR_LEVELS = 6
_SMALLEST_ERROR, _HIGHEST_WEIGHT = 1e-4, 0.999
_IMAGES = ("truth", "inr", "spectral", "projections")


def problem_of(acquisition: SimulatedAcquisition) -> RefinementProblem:
    """Pose the refinement of a simulated acquisition."""
    operator = acquisition.operator
    expected = operator.forward(acquisition.spectral)
    mean = float(acquisition.projections.mean())
    return RefinementProblem(
        inr=acquisition.inr,
        spectral=acquisition.spectral,
        projections=acquisition.projections,
        operator=operator,
        positions_um=acquisition.positions_um,
        centres_um=acquisition.centres_um,
        noise=acquisition.noise,
        variance=pixel_variance(expected, acquisition.noise**2, mean),
    )


def assess(
    denoiser: Denoiser,
    info: Mapping[str, Any],
    acquisitions: Mapping[str, SimulatedAcquisition],
    settings: Refine,
    seed: int,
    device: torch.device,
) -> DiffusionPrior:
    """Measure the errors of a trained denoiser, and calibrate the spread of its samples.

    Both are measured in the rows of the training volumes that it has not learnt from.

    Parameters
    ----------
    denoiser : Denoiser
        In evaluation mode, on the device.
    info : mapping
        What is known of its training.
    acquisitions : mapping
        Name -> simulated acquisition; up to 12 are used, evenly spread.
    settings : Refine
        Evaluations and samples.
    seed : int
        Seed of all noise.
    device : torch.device
        Where to compute.
    """
    names = list(acquisitions)
    chosen = sorted({int(i) for i in np.linspace(0, len(names) - 1, _ACQUISITIONS)})
    parts = [unseen_part(acquisitions[names[index]], _WINDOW) for index in chosen]
    prior = DiffusionPrior(
        denoiser, *_correctable_errors(denoiser, parts, seed, device), dict(info)
    )
    errors, inr_errors, spreads, changes, deviations, sparseness = [], [], [], [], [], []
    for number, (part, rows) in enumerate(parts, start=1):
        label = f"calibrating {number} of {len(parts)}"
        problem = problem_of(part)
        found = sample_posterior(problem, prior, settings, seed + number, device, label)
        errors.append((found.mean - part.truth)[:, rows])
        inr_errors.append((part.inr - part.truth)[:, rows])
        spreads.append(found.spread[:, rows])
        changes.append((found.mean - part.inr)[:, rows])
        deviations.append((found.sample - found.mean)[:, rows])
        sparseness.append(problem.sparseness)
    root = lambda arrays: math.sqrt(np.mean([np.square(each).mean() for each in arrays]))  # noqa: E731
    prior.info["calibration_error"] = root(errors)
    prior.info["calibration_inr_error"] = root(inr_errors)
    logger.info(
        "where it has not learnt: error of the posterior mean %.3g of the scale, of the INR %.3g",
        *(prior.info["calibration_error"], prior.info["calibration_inr_error"]),
    )
    calibration = Calibration.fit(errors, spreads, changes, deviations, sparseness=sparseness)
    return replace(prior, calibration=calibration)


@torch.no_grad()
def _correctable_errors(
    denoiser: Denoiser,
    parts: list[tuple[SimulatedAcquisition, slice]],
    seed: int,
    device: torch.device,
) -> tuple[list[float], list[float]]:
    """Return noise levels, and the error at each of them that the data can correct.

    The best estimate of a projection is some way from the denoiser's towards what was measured: the
    share w of the residual that minimises the squared error. For an error of variance r^2 g in the
    projections that is independent of their noise n, w is r^2 g / (r^2 g + n^2). The error r that
    this gives for the measured w is what the data step may assume; it is smaller than the error
    that there is, for the denoiser knows the data already, noise and all.
    """
    levels = [*np.geomspace(LOWEST_NOISE, HIGHEST_NOISE, _ERROR_LEVELS).tolist(), BLIND]
    found = np.zeros((len(levels), len(parts)))
    for p, (part, rows) in enumerate(parts):
        unit = DenoisedUnit(problem_of(part), denoiser, device)
        truth = torch.from_numpy(part.truth).to(device)
        gain = part.operator.mean_squared_weight(part.truth.shape[1:])
        generator = torch.Generator(device).manual_seed(seed)
        for number, level in enumerate(levels):
            noise = torch.randn(truth.shape, generator=generator, device=device)
            state = truth + level * noise
            estimate = unit.blind() if level == BLIND else unit.denoise(state[None], level)[0]
            error = unit.operator.forward(estimate - truth)[:, rows]
            residual = (unit.operator.forward(estimate) - unit.projections)[:, rows]
            weight = float((error * residual).sum() / residual.square().sum().clamp(min=1e-30))
            weight = min(max(weight, 0.0), _HIGHEST_WEIGHT)
            found[number, p] = part.noise * math.sqrt(weight / (1 - weight) / gain)
    return levels, np.maximum(np.median(found, axis=1), _SMALLEST_ERROR).tolist()


def unseen_part(acquisition: SimulatedAcquisition, size: int) -> tuple[SimulatedAcquisition, slice]:
    """Cut out a window with the rows that no prior learns from, and say which rows of it they are.

    Parameters
    ----------
    acquisition : SimulatedAcquisition
        The whole.
    size : int
        Edge length of the window in pixels; it lies at the end of the rows, in their middle.
    """
    rows, columns = acquisition.truth.shape[1:]
    first, left = max(rows - size, 0), max(columns - size, 0) // 2
    window = (slice(None), slice(first, None), slice(left, left + size))
    images = {name: getattr(acquisition, name)[window] for name in _IMAGES}
    return replace(acquisition, **images), slice(acquisition.learnt_rows.stop - first, None)
