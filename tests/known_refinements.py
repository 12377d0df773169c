"""Refinements whose answers are known: an oracle in the place of the denoiser, and its problems."""

import numpy as np
import torch

from besselflow.beam import box_profile
from besselflow.config import Refine
from besselflow.diffusion.blocks import REACH, SLICES
from besselflow.diffusion.prior import DiffusionPrior
from besselflow.diffusion.sampling import RefinementProblem, sample_posterior
from besselflow.phantoms import draw_phantom
from besselflow.projection import AxialGrid, AxialProjection

CPU = torch.device("cpu")
VOXEL = (1.0, 1.0, 1.0)
NOISE = 0.02
OWN = slice(REACH, REACH + SLICES)


class Oracle:
    """Stands for a denoiser that knows what to answer, and keeps the states that it was shown.

    The spectral estimate of the problems here is the number of each slice, which tells it where
    the blocks lie that it is asked for.
    """

    multiple, reach = 1, 0

    def __init__(self, answer, share=1.0):
        self.answer, self.share, self.states, self.calls = answer, share, [], []

    def __call__(self, noisy, sigma, inr, spectral, projections, geometry, noise):
        self.calls.append((noisy, sigma, inr, spectral, projections, geometry, noise))
        level, z = float(sigma[0]), spectral[:, OWN, 0, 0].round().long()
        if not self.states or self.states[-1][0] != level:
            self.states.append((level, torch.full_like(self.known(level), torch.nan)))
        self.states[-1][1][z] = noisy[:, OWN]
        return self.share * self.known(level)[z] + (1 - self.share) * noisy[:, OWN]

    def known(self, level):
        return self.answer(level) if callable(self.answer) else self.answer


def problem_of(truth, positions, inr=None, variance=NOISE**2):
    grid = AxialGrid(0.0, 1.0, len(truth))
    operator = AxialProjection.from_geometry(box_profile(6.0), positions, grid)
    clean = operator.forward(truth.numpy())
    errors = NOISE * np.random.default_rng(0).standard_normal(clean.shape)
    numbers = np.broadcast_to(np.arange(len(truth))[:, None, None], truth.shape)
    return RefinementProblem(
        inr=0.5 * truth.numpy() if inr is None else inr,
        spectral=numbers.astype(np.float32),
        projections=(clean + errors).astype(np.float32),
        operator=operator,
        positions_um=positions,
        centres_um=grid.centres_um,
        noise=NOISE,
        variance=np.full(clean.shape, variance, np.float32),
    )


def vessels():
    """Return what most of these problems are of."""
    return torch.from_numpy(draw_phantom("vessels", (24, 40, 40), 2, VOXEL))


def problem_of_vessels():
    """Image it with a box beam of 6 slices, stepped by 6."""
    return problem_of(vessels(), np.arange(2.5, 24, 6.0))


def sample(problem, denoiser, seed=0, error=1e-3, calibration=None, checkpoint=None, **options):
    prior = DiffusionPrior(denoiser, [0.003, 1.0], [error, error], {}, calibration)
    settings = Refine(**{"evaluations": 6, "samples": 1, **options})
    return sample_posterior(problem, prior, settings, seed, CPU, checkpoint=checkpoint)
