"""The loop of every long fit: schedule, progress, checkpoints, and going on where it was."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from besselflow.checkpoint import load_checkpoint, save_checkpoint
from besselflow.job import Progress

_CURVE_POINTS = 100
_GRADIENT_LIMIT = 1.0


@dataclass(frozen=True)
class Plan:
    """How long to optimise, how fast, and where to resume from.

    Attributes
    ----------
    steps, warm_up : int
        Optimiser steps, and how many of them the learning rate rises over.
    learning_rate : float
        Peak of the learning rate, which decays to zero along a cosine.
    rate_key : str
        Configuration key of the learning rate, for the message about a divergence.
    checkpoint : pathlib.Path
        File to resume from, and to write to now and then.
    fingerprint : str
        Identifies settings and data; a checkpoint with another one is not resumed from.
    checkpoint_seconds : float
        Seconds between two checkpoints.
    """

    steps: int
    warm_up: int
    learning_rate: float
    rate_key: str
    checkpoint: Path
    fingerprint: str
    checkpoint_seconds: float

    def rate_of(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        rise = min(1.0, (step + 1) / self.warm_up)
        return self.learning_rate * rise * 0.5 * (1 + math.cos(math.pi * step / self.steps))


class MovingAverage:
    """An exponential average of a network's weights, which is better than the last of them.

    Parameters
    ----------
    network : torch.nn.Module
        The network to follow.
    decay : float
        Share of the average that a step keeps; less in the first steps.
    """

    def __init__(self, network: torch.nn.Module, decay: float):
        self._network, self._decay = network, decay
        self._weights = {k: v.detach().clone() for k, v in network.state_dict().items()}

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """Take in the weights after a number of steps."""
        keep = min(self._decay, step / (step + 10))
        for key, value in self._network.state_dict().items():
            self._weights[key].lerp_(value, 1 - keep)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the averaged weights."""
        return self._weights

    def load_state_dict(self, weights: dict[str, torch.Tensor]) -> None:
        """Go on from averaged weights."""
        for key, value in weights.items():
            self._weights[key].copy_(value)


def optimise(
    loss_of_step: Callable[[int], torch.Tensor],
    network: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
    plan: Plan,
    label: str,
    quantity: str,
    average: MovingAverage | None = None,
) -> tuple[list[list[float]], float]:
    """Take all steps that are left to take.

    Parameters
    ----------
    loss_of_step : callable
        Loss of a step, counted from 0. It must depend on the step and the network alone, so that a
        resumed run equals an undisturbed one.
    network : torch.nn.Module
        What is optimised.
    optimiser : torch.optim.Optimizer
        Holds the parameters of the network.
    plan : Plan
        Length, learning rate and checkpoints.
    label, quantity : str
        What the progress lines call the work and the loss.
    average : MovingAverage or None
        Told after each step.

    Returns
    -------
    curve : list of [step, loss]
        Means over equal numbers of steps.
    seconds : float
        Time spent, earlier runs included.

    Raises
    ------
    RuntimeError
        The loss is no longer a finite number.
    """
    started = time.monotonic()
    parts: dict[str, Any] = {"network": network, "optimiser": optimiser}
    if average is not None:
        parts["average"] = average
    step, curve, spent = 0, [], 0.0
    state = load_checkpoint(plan.checkpoint, plan.fingerprint)
    if state is not None:
        for name, part in parts.items():
            part.load_state_dict(state[name])
        step, curve, spent = state["step"], state["curve"], state["seconds"]
    progress = Progress(label, plan.steps, step)
    every = max(1, plan.steps // _CURVE_POINTS)
    saved, running = time.monotonic(), []
    while step < plan.steps:
        for group in optimiser.param_groups:
            group["lr"] = plan.rate_of(step)
        optimiser.zero_grad(set_to_none=True)
        loss = loss_of_step(step)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), _GRADIENT_LIMIT)
        optimiser.step()
        step += 1
        if average is not None:
            average.follow(step)
        running.append(loss.detach())
        if step % every and step < plan.steps:
            continue
        mean, running = float(torch.stack(running).mean()), []
        if not math.isfinite(mean):
            raise RuntimeError(
                f"the {label} diverged at step {step}; lower {plan.rate_key} and run again"
            )
        curve.append([step, mean])
        progress.update(step, f"{quantity} {mean:.3g}")
        if time.monotonic() - saved > plan.checkpoint_seconds and step < plan.steps:
            saved = time.monotonic()
            facts = {"step": step, "curve": curve, "seconds": spent + saved - started}
            states = {name: part.state_dict() for name, part in parts.items()}
            save_checkpoint(plan.checkpoint, plan.fingerprint, facts | states)
    return curve, spent + time.monotonic() - started
