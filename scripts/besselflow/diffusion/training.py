"""Train the diffusion prior on simulated acquisitions of training volumes."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from besselflow.baselines.spectral import fit_spectral_model, posterior_mean
from besselflow.config import Prior, Spectral
from besselflow.corrections import intensity_scale
from besselflow.diffusion.geometry import Geometry
from besselflow.diffusion.network import STATE_REACH, Denoiser, SliceConditions, gather_conditions
from besselflow.fingerprint import fingerprint
from besselflow.job import Progress, logger
from besselflow.optimisation import MovingAverage, Plan, optimise
from besselflow.store import atomic_path

# Photons of a bright pixel in simulated acquisitions: from barely usable to nearly noise-free.
_PHOTON_RANGE = (40.0, 4000.0)
_SIMULATIONS_PER_VOLUME = 2
_SIGMA_RANGE = (0.003, 1.0)
_ERROR_LEVELS = 12
_WARM_UP_STEPS = 50
_AVERAGE_DECAY = 0.995


@dataclass(frozen=True)
class TrainingPair:
    """A training volume and a simulated acquisition of it, intensities relative to the scale."""

    volume: torch.Tensor
    conditions: SliceConditions


@dataclass(frozen=True)
class DiffusionPrior:
    """A trained denoiser and what is known about it.

    Attributes
    ----------
    denoiser : Denoiser
        In evaluation mode.
    error_levels, errors : list of float
        Noise levels, and the root mean square error of the denoiser at each of them on training
        volumes, relative to the intensity scale.
    info : dict
        What it was trained on, settings, loss curve, duration.
    """

    denoiser: Denoiser
    error_levels: list[float]
    errors: list[float]
    info: dict[str, Any] = field(default_factory=dict)

    def error_at(self, sigma: float) -> float:
        """Interpolate the expected error of a denoised slice at a noise level."""
        levels = np.log(self.error_levels)
        return float(np.exp(np.interp(math.log(sigma), levels, np.log(self.errors))))


def simulate_pairs(
    volumes: dict[str, np.ndarray],
    geometry: Geometry,
    seed: int,
    spectral: Spectral | None = None,
) -> list[TrainingPair]:
    """Simulate acquisitions of training volumes and reconstruct them spectrally.

    Noise levels are drawn at random, and so is where the first projection lies, so that one prior
    serves all samples of a geometry.

    Parameters
    ----------
    volumes : dict
        Name -> (Z, Y, X) intensities above background, any scale.
    geometry : Geometry
        Beam, step and voxels.
    seed : int
        Seed of noise levels, phases and noise.
    spectral : Spectral, optional
        Settings of the spectral reconstruction, those of the samples.
    """
    spectral = spectral or Spectral()
    pairs = []
    progress = Progress("simulating", len(volumes) * _SIMULATIONS_PER_VOLUME)
    for number, volume in enumerate(volumes.values()):
        for repeat in range(_SIMULATIONS_PER_VOLUME):
            rng = np.random.default_rng((seed, number, repeat))
            pairs.append(_simulate_pair(volume, geometry, rng, spectral))
            progress.update(len(pairs))
    return pairs


def _simulate_pair(
    volume: np.ndarray, geometry: Geometry, rng: np.random.Generator, settings: Spectral
) -> TrainingPair:
    positions, grid, operator = geometry.acquisition_of(len(volume), rng.random())
    clean = operator.forward(np.maximum(volume, 0).astype(np.float32))
    photons = math.exp(rng.uniform(*np.log(_PHOTON_RANGE))) / intensity_scale(clean)
    counts = rng.poisson(clean * photons) + rng.normal(0, 0.5, clean.shape)
    measured = counts.astype(np.float32)
    scale = intensity_scale(measured)
    model = fit_spectral_model([measured], operator, geometry.voxel_size_um, settings.anisotropy)
    spectral = posterior_mean(measured, operator, model, geometry.voxel_size_um)
    conditions = SliceConditions.of(
        torch.from_numpy(spectral / scale),
        torch.from_numpy(measured / scale),
        torch.from_numpy(positions),
        torch.from_numpy(grid.centres_um),
        math.sqrt(model.noise_variance) / scale,
    )
    truth = torch.from_numpy((volume * (photons / scale)).astype(np.float32))
    return TrainingPair(truth, conditions)


def train_prior(
    volumes: dict[str, np.ndarray],
    geometry: Geometry,
    settings: Prior,
    seed: int,
    checkpoint: Path,
    device: torch.device,
    spectral: Spectral | None = None,
) -> DiffusionPrior:
    """Train a denoiser for one geometry.

    Parameters
    ----------
    volumes : dict
        Name -> (Z, Y, X) intensities above background, on the voxels of the geometry.
    geometry : Geometry
        Beam, step and voxels.
    settings : Prior
        Network and optimiser.
    seed : int
        Seed of everything random.
    checkpoint : pathlib.Path
        File to resume from, and to write to now and then.
    device : torch.device
        Where to compute.
    spectral : Spectral, optional
        Settings of the spectral reconstruction, those of the samples.

    Returns
    -------
    DiffusionPrior

    Raises
    ------
    RuntimeError
        The training diverged.
    """
    spectral = spectral or Spectral()
    pairs = simulate_pairs(volumes, geometry, seed, spectral)
    error = math.sqrt(
        np.mean([float((p.conditions.spectral - p.volume).square().mean()) for p in pairs])
    )
    torch.manual_seed(seed)
    denoiser = Denoiser(settings.channels, max(error, 1e-3)).to(device)
    average = MovingAverage(denoiser, _AVERAGE_DECAY)
    optimiser = torch.optim.AdamW(denoiser.parameters(), lr=settings.learning_rate)
    identity = fingerprint(
        settings.model_dump(exclude={"checkpoint_seconds"}),
        spectral.model_dump(),
        geometry.as_dict(),
        seed,
        *volumes.values(),
    )

    def loss_of_step(step: int) -> torch.Tensor:
        rng = np.random.default_rng((seed, 1, step))
        return _weighted_loss(denoiser, _draw_batch(pairs, settings, rng, device))

    plan = Plan(
        settings.steps,
        _WARM_UP_STEPS,
        "prior.learning_rate",
        checkpoint,
        identity,
        settings.checkpoint_seconds,
    )
    curve, seconds = optimise(
        loss_of_step, denoiser, [optimiser], plan, "training", "loss", average
    )
    denoiser.load_state_dict(average.state_dict())
    denoiser.eval()
    levels, errors = _measure_errors(denoiser, pairs, settings, seed, device)
    logger.info(
        "spectral error %.3g, denoised from pure noise %.3g of the scale", error, errors[-1]
    )
    info = {
        "trained_on": list(volumes),
        "geometry": geometry.as_dict(),
        "steps": settings.steps,
        "curve": curve,
        "seconds": seconds,
        "parameters": sum(p.numel() for p in denoiser.parameters()),
        "spectral_error": error,
        "fingerprint": identity,
    }
    return DiffusionPrior(denoiser, levels, errors, info)


@dataclass(frozen=True)
class _Batch:
    """Gathered patches: noisy (n, 3, y, x), clean (n, y, x), sigma (n,), conditions."""

    noisy: torch.Tensor
    clean: torch.Tensor
    sigma: torch.Tensor
    spectral: torch.Tensor
    other: torch.Tensor


def _draw_batch(
    pairs: list[TrainingPair],
    settings: Prior,
    rng: np.random.Generator,
    device: torch.device,
    sigma: float | None = None,
) -> _Batch:
    """Draw random slices and patches, flipped and transposed at random."""
    patch = min(settings.patch, *(min(pair.volume.shape[1:]) for pair in pairs))
    items: list[tuple[torch.Tensor, ...]] = []
    levels = []
    for _ in range(settings.batch):
        pair = pairs[rng.integers(len(pairs))]
        depth, height, width = pair.volume.shape
        z = torch.tensor([int(rng.integers(depth))])
        y, x = int(rng.integers(height - patch + 1)), int(rng.integers(width - patch + 1))
        window = (slice(None), slice(y, y + patch), slice(x, x + patch))
        level = sigma or math.exp(rng.uniform(*np.log(_SIGMA_RANGE)))
        cropped = SliceConditions(
            pair.conditions.spectral[window],
            pair.conditions.below[window],
            pair.conditions.above[window],
            pair.conditions.place,
            pair.conditions.noise,
        )
        spectral, other = gather_conditions(cropped, z)
        near = [min(max(int(z) + d, 0), depth - 1) for d in range(-STATE_REACH, STATE_REACH + 1)]
        around = pair.volume[window][near]
        noise = torch.from_numpy(rng.standard_normal(around.shape, dtype=np.float32))
        # The mirrored neighbours beyond the ends are the end slices: they share their noise, too.
        for index, slice_index in enumerate(near):
            noise[index] = noise[near.index(slice_index)]
        tensors = (around + level * noise, around[STATE_REACH], spectral[0], other[0])
        flips = [axis for axis in (-2, -1) if rng.random() < 0.5]
        swap = rng.random() < 0.5
        items.append(
            tuple((t.flip(flips).transpose(-2, -1) if swap else t.flip(flips)) for t in tensors)
        )
        levels.append(level)
    noisy, clean, spectral, other = (
        torch.stack(part).to(device) for part in zip(*items, strict=True)
    )
    return _Batch(noisy, clean, torch.tensor(levels, device=device), spectral, other)


def _weighted_loss(denoiser: Denoiser, batch: _Batch) -> torch.Tensor:
    """Return the mean squared error in units of what the linear estimate leaves over."""
    estimate = denoiser.denoise(batch.noisy, batch.sigma, batch.spectral, batch.other)
    error = denoiser.spectral_error
    left = (error * batch.sigma) ** 2 / (error**2 + batch.sigma**2)
    return ((estimate - batch.clean).square().mean(dim=(1, 2)) / left).mean()


@torch.no_grad()
def _measure_errors(
    denoiser: Denoiser,
    pairs: list[TrainingPair],
    settings: Prior,
    seed: int,
    device: torch.device,
) -> tuple[list[float], list[float]]:
    levels = np.geomspace(*_SIGMA_RANGE, _ERROR_LEVELS)
    errors = []
    for number, level in enumerate(levels):
        rng = np.random.default_rng((seed, 2, number))
        batch = _draw_batch(pairs, settings, rng, device, sigma=float(level))
        estimate = denoiser.denoise(batch.noisy, batch.sigma, batch.spectral, batch.other)
        errors.append(math.sqrt(float((estimate - batch.clean).square().mean())))
    return levels.tolist(), errors


def save_prior(path: Path | str, prior: DiffusionPrior) -> None:
    """Write weights and facts as one safetensors file, which holds no code."""
    metadata = {
        "channels": json.dumps(prior.denoiser.channels),
        "spectral_error": repr(prior.denoiser.spectral_error),
        "error_levels": json.dumps(prior.error_levels),
        "errors": json.dumps(prior.errors),
        "info": json.dumps(prior.info),
    }
    tensors = {key: value.contiguous().cpu() for key, value in prior.denoiser.state_dict().items()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata)


def load_prior(path: Path | str, device: torch.device) -> DiffusionPrior:
    """Read a prior written by `save_prior`.

    Raises
    ------
    RuntimeError
        The file is not a prior; the message says to delete it.
    """
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            metadata = file.metadata()
            tensors = {key: file.get_tensor(key) for key in file.keys()}
        denoiser = Denoiser(json.loads(metadata["channels"]), float(metadata["spectral_error"]))
        denoiser.load_state_dict(tensors)
        errors = json.loads(metadata["error_levels"]), json.loads(metadata["errors"])
        info = json.loads(metadata["info"])
    except Exception as error:
        raise RuntimeError(
            f"{path}: not a readable prior ({error}); delete the file and run again"
        ) from error
    return DiffusionPrior(denoiser.to(device).eval(), *errors, info)
