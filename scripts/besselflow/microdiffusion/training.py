r"""Train the network on the projections of one sample: no slice is known, so none is learnt from.

What is noised is :math:`x_0 = (1 - w) y_p + w (A v)_p`: a projection, and what the INR would have
shown there. The loss is the mean squared error of the estimated noise (Ho et al., Denoising
diffusion probabilistic models, NeurIPS 2020, eq. 14). The condition is the projection itself, which
is the nearest that was acquired, and the depths that it collects light from. The INR was fitted
before, as published, or is fitted in the same steps (`besselflow.microdiffusion.joint`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from besselflow.config import Microdiffusion
from besselflow.device import compute_precision
from besselflow.errors import on_one_line
from besselflow.fingerprint import fingerprint
from besselflow.microdiffusion.joint import JointFits
from besselflow.microdiffusion.network import ConditionalUnet
from besselflow.microdiffusion.schedule import Schedule
from besselflow.optimisation import Plan, optimise
from besselflow.weights import load_weights, save_weights

_WARM_UP_STEPS = 50
_WEIGHT_DECAY = 1e-4
_ARCHITECTURE = ("channels", "octaves", "use_image_embedding", "use_position_embedding")
# What sampling alone depends on.
_SAMPLING = {"guidance", "sampling_steps", "eta", "checkpoint_seconds"}


@dataclass(frozen=True)
class TrainingImages:
    """What the network of one sample learns from, intensities as from `to_range`.

    Attributes
    ----------
    projections, guides : numpy.ndarray, shape (n, Y, X)
        Acquired projections, and the same projections of the INR; None where it is fitted jointly.
    weights : numpy.ndarray, shape (n, Z)
        Share of each slice in the light of each projection; sums are 1.
    """

    projections: np.ndarray
    guides: np.ndarray | None
    weights: np.ndarray


@dataclass(frozen=True)
class TrainedNetwork:
    """A trained network.

    Attributes
    ----------
    network : ConditionalUnet
        In evaluation mode.
    info : dict
        Curve of the loss, steps, duration, number of projections and weights; and the curve of each
        INR that was fitted jointly.
    """

    network: ConditionalUnet
    info: dict[str, Any]


def build_network(settings: Microdiffusion) -> ConditionalUnet:
    """Build the network that the settings describe, with random weights."""
    return ConditionalUnet(*(getattr(settings, key) for key in _ARCHITECTURE))


def to_device(network: ConditionalUnet, device: torch.device, precision: str) -> ConditionalUnet:
    """Move a network to where it computes, in a precision as for `compute_precision`."""
    network.precision = compute_precision(precision, device)
    # The U-Net alone: of some sizes, the gradient of the embedding's strided convolutions ends
    # PyTorch 2.13 on the CPU with a segmentation fault in that layout.
    network.unet.to(memory_format=torch.channels_last)
    return network.to(device)


def interpolate_states(state: torch.Tensor, guide: torch.Tensor, inr_weight: float) -> torch.Tensor:
    """Return (1 - w) state + w guide."""
    return torch.lerp(state, guide, inr_weight)


def kept_conditions(count: int, dropout: float, rng: np.random.Generator) -> np.ndarray:
    """Draw which of the conditions of a batch are kept, each with the probability 1 - dropout."""
    return rng.random(count) >= dropout


def train_network(
    images: TrainingImages,
    settings: Microdiffusion,
    seed: int,
    checkpoint: Path,
    device: torch.device,
    joint: JointFits | None = None,
) -> TrainedNetwork:
    """Train the network of one sample.

    Parameters
    ----------
    images : TrainingImages
        Projections of all work units that are learnt from.
    settings : Microdiffusion
        Schedule, network and optimiser.
    seed : int
        Seed of everything random.
    checkpoint : pathlib.Path
        File to resume from, and to write to now and then.
    device : torch.device
        Where to compute.
    joint : JointFits or None
        INRs that are fitted in the same steps.

    Raises
    ------
    RuntimeError
        The training diverged.
    """
    torch.manual_seed(seed)
    network = to_device(build_network(settings), device, settings.precision)
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=settings.learning_rate, weight_decay=_WEIGHT_DECAY
    )
    schedule = Schedule.of(settings)
    count, *size = images.projections.shape
    batch = settings.images_per_step(math.prod(size))
    tensor = lambda array: torch.as_tensor(array, dtype=torch.float32, device=device)  # noqa: E731

    def guides_of(chosen: np.ndarray) -> torch.Tensor:
        return tensor(images.guides[chosen]) if joint is None else joint.project(chosen)

    def loss_of_step(step: int) -> torch.Tensor:
        rng = np.random.default_rng((seed, step))
        chosen = rng.integers(count, size=batch)
        levels = rng.integers(settings.timesteps, size=batch)
        clean = projections = tensor(images.projections[chosen])
        if settings.inr_weight > 0:
            clean = interpolate_states(projections, guides_of(chosen), settings.inr_weight)
        noise = tensor(rng.standard_normal(tuple(clean.shape), dtype=np.float32))
        kept = tensor(kept_conditions(batch, settings.condition_dropout, rng))
        positions = network.embed_positions(tensor(images.weights[chosen]))
        condition = torch.cat([network.embed_images(projections), positions], dim=1)
        estimate = network(
            schedule.noised(clean, noise, levels),
            torch.as_tensor(levels, device=device),
            condition * kept[:, None],
        )
        return (estimate - noise).square().mean()

    identity = fingerprint(
        settings.model_dump(exclude=_SAMPLING),
        seed,
        images.projections,
        images.guides,
        images.weights,
        *(() if joint is None else joint.identity),
    )
    rates = ["microdiffusion.learning_rate", *(["inr.learning_rate"] if joint else [])]
    plan = Plan(
        settings.steps,
        _WARM_UP_STEPS,
        " or ".join(rates),
        checkpoint,
        identity,
        settings.checkpoint_seconds,
    )
    network.train()
    curve, seconds = optimise(
        loss_of_step,
        network,
        [optimiser],
        plan,
        "training",
        "loss",
        companions=() if joint is None else joint.learners(),
    )
    info = {
        "projections": count,
        "steps": settings.steps,
        "curve": [point[:2] for point in curve],
        "seconds": seconds,
        "parameters": sum(weight.numel() for weight in network.parameters()),
    }
    if joint is not None:
        numbers = range(2, 2 + len(joint.fits))
        info["inr_curves"] = [[[point[0], point[n]] for point in curve] for n in numbers]
    return TrainedNetwork(network.eval(), info)


def spread_out(items: Sequence, most: int) -> list:
    """Return at most some of the items, evenly spread over all of them."""
    count = min(len(items), most)
    return [items[i] for i in np.linspace(0, len(items) - 1, count).round().astype(int)]


def save_network(path: Path | str, trained: TrainedNetwork, settings: Microdiffusion) -> None:
    """Write weights and facts as one safetensors file, which holds no code."""
    architecture = settings.model_dump(include=set(_ARCHITECTURE))
    metadata = {"architecture": json.dumps(architecture), "info": json.dumps(trained.info)}
    state = trained.network.state_dict()
    save_weights(path, {key: value.cpu().numpy() for key, value in state.items()}, metadata)


def load_network(path: Path | str, device: torch.device, precision: str = "auto") -> TrainedNetwork:
    """Read a network written by `save_network`.

    Parameters
    ----------
    path : path
        The file.
    device : torch.device
        Where it is to compute.
    precision : str
        Of its hidden layers, as for `besselflow.device.compute_precision`.

    Raises
    ------
    RuntimeError
        The file is not such a network; the message says to delete it.
    """
    try:
        tensors, metadata = load_weights(path)
        network = build_network(Microdiffusion(**json.loads(metadata["architecture"])))
        network.load_state_dict({key: torch.from_numpy(value) for key, value in tensors.items()})
        info = json.loads(metadata["info"])
    except Exception as error:
        raise RuntimeError(
            f"{path}: not a readable network ({on_one_line(error)}); delete the file and run again"
        ) from error
    return TrainedNetwork(to_device(network, device, precision).eval(), info)
