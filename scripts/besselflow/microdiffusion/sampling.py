r"""Sample the slices of one work unit, each by itself, from noise that is mixed with the INR.

Before every step, the state becomes :math:`(1 - w) x_t + w v_\mathrm{INR}`, as published. With the
published w = 0.9 and without noise in the INR, the result can differ from the INR little: by a
tenth of what the steps before made, and by the last noise level, 1 % of the bright. Of the state
before the last six steps, a millionth is left: levels that leave no trace are not visited.

The noise is estimated with classifier-free guidance,
:math:`\hat\epsilon = (1 + g) \epsilon(x, c) - g \, \epsilon(x, \varnothing)` (Ho & Salimans, 2022,
eq. 6). Unlike in the authors' released code, a slice is conditioned on the nearest projection that
was acquired, not on one around itself that was not, and intensities are scaled by the projections,
not by the ground truth.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from besselflow.batches import Batches
from besselflow.checkpoint import Keeper
from besselflow.config import Microdiffusion
from besselflow.fingerprint import fingerprint
from besselflow.job import Progress
from besselflow.microdiffusion.images import nearest_projections
from besselflow.microdiffusion.network import ConditionalUnet
from besselflow.microdiffusion.schedule import Schedule
from besselflow.microdiffusion.training import interpolate_states

_PIXELS_AT_ONCE = 16 * 128 * 128
# The features of all levels of the default network, roughly.
_BYTES_PER_PIXEL = 4096


@dataclass(frozen=True)
class SlicesProblem:
    """One work unit, intensities as from `to_range`.

    Attributes
    ----------
    inr : numpy.ndarray, shape (Z, Y, X)
        Slices of the INR.
    projections : numpy.ndarray, shape (P, Y, X)
        Acquired projections.
    positions_um, centres_um : numpy.ndarray
        Stage positions (P,) and slices (Z,).
    """

    inr: np.ndarray
    projections: np.ndarray
    positions_um: np.ndarray
    centres_um: np.ndarray

    def identity(self, network: ConditionalUnet, settings: Microdiffusion, seed: int) -> str:
        """Return what tells the slices that are sampled of this problem from all others."""
        return fingerprint(
            settings.model_dump(exclude={"checkpoint_seconds"}),
            seed,
            *(self.inr, self.projections, self.positions_um, self.centres_um),
            *(weights.cpu().numpy() for weights in network.state_dict().values()),
        )


@torch.no_grad()
def sample_slices(
    problem: SlicesProblem,
    network: ConditionalUnet,
    settings: Microdiffusion,
    seed: int,
    device: torch.device,
    label: str = "sampling",
    checkpoint: Path | None = None,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Sample every slice of a unit once.

    Parameters
    ----------
    problem : SlicesProblem
        What to sample.
    network : ConditionalUnet
        Trained on the sample's projections, in evaluation mode.
    settings : Microdiffusion
        Schedule, guidance, interpolation and number of steps.
    seed : int
        Seed of the noise.
    device : torch.device
        Where to compute.
    label : str
        What the progress lines call it.
    checkpoint : pathlib.Path or None
        File to resume from, and to write to now and then and at the end.

    Returns
    -------
    volume : numpy.ndarray, shape (Z, Y, X), float32
    record : dict
        Facts for the report.
    """
    schedule = Schedule.of(settings)
    levels = schedule.visited(settings.level_count)[-settings.levels_that_count :]
    inr = torch.as_tensor(problem.inr, device=device)
    condition = _conditions(problem, network, device)
    guided = settings.guidance > 0 and network.condition_size > 0
    identity = problem.identity(network, settings, seed) if checkpoint else ""
    keeper = Keeper(checkpoint, identity, settings.checkpoint_seconds)
    kept = keeper.load()
    # Each level has a noise of its own, whichever were visited before.
    generator = torch.Generator()

    def draw(level: int) -> torch.Tensor:
        generator.manual_seed((seed << 16) + level)
        return torch.randn(problem.inr.shape, generator=generator).to(device)

    done, state = 0, draw(levels[0])
    if kept is not None:
        done, state = kept["step"], kept["state"].to(device)
    progress, in_batches = Progress(label, len(levels), done), Batches(device)
    for number, level in list(enumerate(levels, start=1))[done:]:
        state = interpolate_states(state, inr, settings.inr_weight)
        estimate = _estimate_noise(
            network, state, level, condition, settings.guidance if guided else 0.0, in_batches
        )
        following = levels[number] if number < len(levels) else None
        # Noise that a step takes no share of need not be drawn.
        noisy = following is not None and settings.eta > 0
        fresh = draw(following) if noisy else torch.zeros_like(state)
        state = schedule.step(state, estimate, level, following, settings.eta, fresh)
        progress.update(number)
        keeper.save({"step": number, "state": state}, finished=number == len(levels))
    record = {
        "seconds": keeper.seconds,
        "evaluations": len(levels) * (2 if guided else 1),
        "levels_visited": len(levels),
        "levels": settings.level_count,
        "inr_weight": settings.inr_weight,
        "inr_training": settings.inr_training,
        "guidance": settings.guidance if guided else 0.0,
        "neighbour_average": settings.neighbour_average,
        "image_embedding": settings.use_image_embedding,
        "position_embedding": settings.use_position_embedding,
    }
    return state.cpu().numpy(), record


def guide(conditional: torch.Tensor, unconditional: torch.Tensor, weight: float) -> torch.Tensor:
    """Return (1 + g) conditional - g unconditional."""
    return torch.lerp(unconditional, conditional, 1 + weight)


def _conditions(
    problem: SlicesProblem, network: ConditionalUnet, device: torch.device
) -> torch.Tensor:
    """Return the condition of every slice, (Z, features)."""
    images = torch.as_tensor(problem.projections, device=device)
    embedded = torch.cat([network.embed_images(image[None]) for image in images])
    nearest = nearest_projections(problem.positions_um, problem.centres_um)
    positions = network.embed_positions(torch.eye(len(problem.inr), device=device))
    return torch.cat([embedded[torch.as_tensor(nearest, device=device)], positions], dim=1)


def _estimate_noise(
    network: ConditionalUnet,
    state: torch.Tensor,
    level: int,
    condition: torch.Tensor,
    guidance: float,
    in_batches: Batches,
) -> torch.Tensor:
    def estimate_of(part: slice) -> torch.Tensor:
        some, known = state[part], condition[part]
        levels = torch.full((len(some),), level, device=state.device)
        estimate = network(some, levels, known)
        if guidance > 0:
            without = network(some, levels, torch.zeros_like(known))
            estimate = guide(estimate, without, guidance)
        return estimate

    pixels = state.shape[1] * state.shape[2]
    parts = in_batches(
        estimate_of, len(state), _BYTES_PER_PIXEL * pixels, _PIXELS_AT_ONCE // pixels
    )
    return torch.cat([estimate for _, estimate in parts])
