"""Acquisitions and priors so small that they are made in milliseconds, for tests of the prior."""

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d

from besselflow.beam import box_profile
from besselflow.diffusion.geometry import Geometry
from besselflow.diffusion.network import Denoiser
from besselflow.diffusion.prior import DiffusionPrior, save_prior
from besselflow.diffusion.simulation import SimulatedAcquisition
from besselflow.phantoms import draw_phantom

VOXEL = (1.0, 1.0, 1.0)


def tiny_denoiser(seed=0, inr_error=0.1):
    """Return a network in which every weight is random."""
    return randomised(Denoiser([8, 16], 1, inr_error), seed)


def randomised(denoiser, seed=0):
    """Make every weight random: none is zero by its initialisation any more."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return denoiser.eval()


def write_tiny_prior(path, **info):
    """Write a prior that has learnt nothing: its network is as it was initialised."""
    torch.manual_seed(0)
    info = {"trained_on": ["nothing"]} | info
    prior = DiffusionPrior(Denoiser([8, 16], 1, 0.1), [0.003, 1.0], [0.003, 0.1], info)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_prior(path, prior)
    return path


def toy_acquisition(seed, shape=(24, 20, 18), noise=0.02, length=6.0, step=6.0):
    """Image a phantom; its INR is the truth blurred along z, as if a fit had found no more."""
    geometry = Geometry.of(box_profile(length), np.array([0.0, step]), VOXEL)
    truth = draw_phantom("vessels", shape, seed, VOXEL)
    truth = (truth / np.percentile(truth, 99.9)).astype(np.float32)
    positions, grid, operator = geometry.acquisition_of(shape[0], 0.3)
    clean = operator.forward(truth)
    errors = np.random.default_rng(seed).standard_normal(clean.shape)
    return SimulatedAcquisition(
        truth=truth,
        inr=gaussian_filter1d(truth, 2.0, axis=0),
        spectral=gaussian_filter1d(truth, 3.0, axis=0),
        projections=(clean + noise * errors).astype(np.float32),
        matrix=operator.matrix,
        positions_um=positions,
        centres_um=grid.centres_um,
        noise=noise,
    )
