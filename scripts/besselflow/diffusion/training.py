"""Train the diffusion prior on simulated acquisitions of training volumes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from besselflow.checkpoint import load_checkpoint, save_checkpoint
from besselflow.config import Prior
from besselflow.device import compile_network, compute_precision
from besselflow.diffusion.augmentation import View, look
from besselflow.diffusion.blocks import CONTEXT, NEAREST, REACH, SLICES, Block, lay_blocks
from besselflow.diffusion.network import Denoiser
from besselflow.diffusion.prior import BLIND, HIGHEST_NOISE, LOWEST_NOISE
from besselflow.diffusion.simulation import SimulatedAcquisition, facts_of
from besselflow.fingerprint import fingerprint
from besselflow.landmarks import encode
from besselflow.muon import Muon
from besselflow.optimisation import MovingAverage, Plan, optimise

# Share of the training blocks that are estimated without a state. The estimate is the posterior
# mean of the volume, the figure that the prior is judged by, and the hardest to learn.
_BLIND_SHARE = 0.5
_WARM_UP_STEPS = 50
_AVERAGE_DECAY = 0.98
# Steps of Muon relative to AdamW's: those are of unit size per matrix, not per weight.
_MUON_RATE = 10.0
# Share of a weight that is taken off for each unit of steps: the volumes are few.
_WEIGHT_DECAY = 0.1
# Of so many random patches, the brightest is taken: most of a neuron's volume is dark.
_CANDIDATES = 2


@dataclass(frozen=True)
class TrainingBlocks:
    """What is learnt of a simulated acquisition, as tensors, cut into blocks.

    Attributes
    ----------
    images : torch.Tensor, shape (3 Z + P, Y, X)
        The slices of truth, INR and spectral estimate and the projections, one after the other, so
        that all that a block needs is gathered at once.
    noise : float
        As in `SimulatedAcquisition`.
    blurred : bool
        Whether the beam has a lateral blur, whose size is known.
    blocks, upside_down : list of Block
        As they lie in the volume, and the same turned over.
    needed, needed_upside_down : list of torch.Tensor, shape (3 CONTEXT + NEAREST,)
        Which of the images each of them needs.
    errors : list of float
        Root mean square error of the INR in the slices of each block.
    light : list of numpy.ndarray, shape (Y + 1, X + 1)
        Squares of the INR in the middle slice of each block, summed over all rows above and
        columns before each place.
    """

    images: torch.Tensor
    noise: float
    blurred: bool
    blocks: list[Block]
    upside_down: list[Block]
    needed: list[torch.Tensor]
    needed_upside_down: list[torch.Tensor]
    errors: list[float]
    light: list[np.ndarray]

    @classmethod
    def of(cls, acquisition: SimulatedAcquisition, device: torch.device) -> TrainingBlocks:
        """Move the learnt rows of an acquisition to a device."""
        a, rows = acquisition, acquisition.learnt_rows
        images = np.concatenate([v[:, rows] for v in (a.truth, a.inr, a.spectral, a.projections)])
        blocks = lay_blocks(a.matrix, a.positions_um, a.centres_um)
        upside_down = [block.turned_over() for block in blocks]
        squares = np.square(a.inr - a.truth)[:, rows].mean(axis=(1, 2))
        light = np.square(a.inr[[int(block.slices[CONTEXT // 2]) for block in blocks]][:, rows])
        light = light.cumsum(axis=1, dtype=np.float64).cumsum(axis=2)
        return cls(
            torch.from_numpy(images).to(device),
            a.noise,
            a.kernel is not None,
            [block.to(device) for block in blocks],
            [block.to(device) for block in upside_down],
            [_needed(block, len(squares)).to(device) for block in blocks],
            [_needed(block, len(squares)).to(device) for block in upside_down],
            [math.sqrt(squares[block.inside(len(squares))[0]].mean()) for block in blocks],
            list(np.pad(light, ((0, 0), (1, 0), (1, 0)))),
        )

    def mean_light(self, number: int, y: int, x: int, size: int) -> float:
        """Return the mean square of the INR in a patch of the middle slice of a block."""
        sums, far_y, far_x = self.light[number], y + size, x + size
        return (sums[far_y, far_x] - sums[y, far_x] - sums[far_y, x] + sums[y, x]) / size**2


def _needed(block: Block, n_slices: int) -> torch.Tensor:
    """Return the indices of the images of a block, in the order of `TrainingBlocks.images`."""
    of_volumes = [number * n_slices + block.slices for number in range(3)]
    return torch.cat([*of_volumes, 3 * n_slices + block.nearest])


def train_prior(
    acquisitions: Mapping[str, SimulatedAcquisition],
    settings: Prior,
    seed: int,
    checkpoint: Path,
    device: torch.device,
    kept: Path | None = None,
) -> tuple[Denoiser, dict[str, Any]]:
    """Train a denoiser, or take one that was trained so before.

    Parameters
    ----------
    acquisitions : mapping
        Name -> simulated acquisition.
    settings : Prior
        Network and optimiser.
    seed : int
        Seed of everything random.
    checkpoint : pathlib.Path
        File to resume from, and to write to now and then.
    device : torch.device
        Where to compute.
    kept : pathlib.Path or None
        File to keep the trained weights in. Where they are there already, and all that they
        depend on is as it was, they are taken.

    Returns
    -------
    denoiser : Denoiser
        In evaluation mode.
    info : dict
        What it was trained on, errors of the INR and the spectral estimate, steps, loss curve,
        duration.

    Raises
    ------
    RuntimeError
        The training diverged.
    """
    settings = settings.model_copy(update={"batch": settings.blocks_per_step(device.type != "cpu")})
    known = facts_of(list(acquisitions.values()))
    pairs = [TrainingBlocks.of(each, device) for each in acquisitions.values()]
    torch.manual_seed(seed)
    denoiser = Denoiser(settings.channels, settings.depth, max(known["inr_error"], 1e-3))
    denoiser.precision = compute_precision(settings.precision, device)
    denoiser.to(device, memory_format=torch.channels_last)
    if settings.compile:
        compile_network(denoiser.unet)
    average = MovingAverage(denoiser, _AVERAGE_DECAY)
    identity = fingerprint(
        settings.model_dump(exclude={"checkpoint_seconds", "compile", "acquisitions"}),
        seed,
        *(
            part
            for each in acquisitions.values()
            for part in (
                each.truth,
                each.inr,
                each.spectral,
                each.projections,
                each.matrix,
                each.noise,
            )
        ),
    )

    def loss_of_step(step: int) -> torch.Tensor:
        return _weighted_loss(denoiser, _draw_batch(pairs, settings, (seed, 1, step), device))

    plan = Plan(
        settings.steps,
        _WARM_UP_STEPS,
        "prior.learning_rate",
        checkpoint,
        identity,
        settings.checkpoint_seconds,
    )
    trained = load_checkpoint(kept, identity) if kept else None
    if trained is None:
        optimisers = _optimisers(denoiser, settings.learning_rate)
        curve, seconds = optimise(
            loss_of_step, denoiser, optimisers, plan, "training", "loss", average
        )
        trained = {"step": settings.steps, "curve": curve, "seconds": seconds}
        trained["weights"] = average.state_dict()
        if kept:
            save_checkpoint(kept, identity, trained)
    denoiser.load_state_dict(trained["weights"])
    denoiser.eval()
    info = known | {
        "trained_on": list(acquisitions),
        "digests": {name: each.digest for name, each in acquisitions.items() if each.digest},
        "landmarks": {
            name: encode(each.landmarks)
            for name, each in acquisitions.items()
            if len(each.landmarks)
        },
        "steps": settings.steps,
        "batch": settings.batch,
        "curve": trained["curve"],
        "seconds": trained["seconds"],
        "parameters": sum(p.numel() for p in denoiser.parameters()),
        "fingerprint": identity,
    }
    return denoiser, info


def _optimisers(denoiser: Denoiser, rate: float) -> list[torch.optim.Optimizer]:
    """Return Muon for the kernels between hidden channels, and AdamW for all other weights."""
    matrices = denoiser.unet.hidden_matrices()
    chosen = {id(matrix) for matrix in matrices}
    others = [weight for weight in denoiser.parameters() if id(weight) not in chosen]
    return [
        Muon(matrices, lr=_MUON_RATE * rate, weight_decay=_WEIGHT_DECAY),
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=_WEIGHT_DECAY / 10),
    ]


@dataclass(frozen=True)
class _Batch:
    """Gathered patches of blocks.

    Attributes
    ----------
    inputs : tuple of torch.Tensor
        What the denoiser takes.
    sigma : torch.Tensor, shape (n,)
        Noise levels.
    clean : torch.Tensor, shape (n, 8, y, x)
        What it should give.
    error : torch.Tensor, shape (n,)
        Errors of the INR in these slices.
    """

    inputs: tuple[torch.Tensor, ...]
    sigma: torch.Tensor
    clean: torch.Tensor
    error: torch.Tensor


def _draw_batch(
    pairs: list[TrainingBlocks],
    settings: Prior,
    seed: tuple[int, ...],
    device: torch.device,
) -> _Batch:
    """Draw random blocks, and random views of random patches of them.

    Places and views are drawn on the host. On a GPU, what is done to all blocks at once is then
    queued without waiting for it, so that the queue is full while the next batch is drawn.
    """
    rng = np.random.default_rng(seed)
    generator = torch.Generator(device).manual_seed(int(rng.integers(2**62)))
    patch = min(settings.patch, *(min(pair.images.shape[1:]) for pair in pairs))
    windows, views, blocks, levels, noises, errors = [], [], [], [], [], []
    for _ in range(settings.batch):
        pair, number, y, x = _draw_place(pairs, patch, rng)
        view = View.draw(rng, stretched=not pair.blurred)
        window = view.window((y, x), patch, tuple(pair.images.shape[1:]))
        needed = pair.needed_upside_down if view.upside_down else pair.needed
        windows.append(pair.images[:, *window].index_select(0, needed[number]))
        views.append(view)
        blocks.append((pair.upside_down if view.upside_down else pair.blocks)[number])
        blind = rng.random() < _BLIND_SHARE
        drawn = math.exp(rng.uniform(*np.log((LOWEST_NOISE, HIGHEST_NOISE))))
        levels.append(BLIND if blind else drawn)
        noises.append(view.gain * pair.noise)
        errors.append(view.gain * pair.errors[number])
    as_tensor = lambda values: torch.tensor(values, dtype=torch.float32, device=device)  # noqa: E731
    images = look(windows, views, patch)
    truth, inr, spectral, measured = images.split([CONTEXT] * 3 + [NEAREST], dim=1)
    level = as_tensor(levels)
    state = truth + level[:, None, None, None] * _noise_like(truth, blocks, generator)
    state = torch.where((level == BLIND)[:, None, None, None], inr, state)
    geometry = torch.stack([block.geometry for block in blocks])
    inputs = (state, level, inr, spectral, measured, geometry, as_tensor(noises))
    return _Batch(inputs, level, truth[:, REACH : REACH + SLICES], as_tensor(errors))


def _noise_like(
    truth: torch.Tensor, blocks: list[Block], generator: torch.Generator
) -> torch.Tensor:
    """Draw noise (n, CONTEXT, y, x), the same for a slice and its mirror image beyond the ends."""
    noise = torch.randn(truth.shape, generator=generator, device=truth.device)
    slices = torch.stack([block.slices for block in blocks])
    first = (slices[:, :, None] == slices[:, None, :]).int().argmax(dim=2)
    return noise[torch.arange(len(noise), device=noise.device)[:, None], first]


def _draw_place(
    pairs: list[TrainingBlocks], patch: int, rng: np.random.Generator
) -> tuple[TrainingBlocks, int, int, int]:
    """Draw a pair, the number of a block and the corner of a patch with light in it."""
    found = []
    for _ in range(_CANDIDATES):
        pair = pairs[rng.integers(len(pairs))]
        number = int(rng.integers(len(pair.blocks)))
        height, width = pair.images.shape[1:]
        y, x = int(rng.integers(height - patch + 1)), int(rng.integers(width - patch + 1))
        found.append((pair.mean_light(number, y, x, patch), (pair, number, y, x)))
    return max(found, key=lambda each: each[0])[1]


def _weighted_loss(denoiser: Denoiser, batch: _Batch) -> torch.Tensor:
    """Return the mean squared error in units of what the linear estimate leaves over.

    Each block counts by the error of the INR there: what is won is won in decibels, and the few
    blocks in gaps of the acquisition would otherwise outweigh all others.
    """
    estimate = denoiser(*batch.inputs)
    error, sigma = batch.error.clamp(min=0.1 * denoiser.inr_error), batch.sigma
    left = (error * sigma) ** 2 / (error**2 + sigma**2)
    return ((estimate - batch.clean).square().mean(dim=(1, 2, 3)) / left).mean()
