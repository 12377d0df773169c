"""The loop of every long fit: schedule, progress, checkpoints, and going on where it was."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from besselflow.checkpoint import load_checkpoint, save_checkpoint
from besselflow.errors import on_one_line
from besselflow.job import Progress, logger

_CURVE_POINTS = 100
_GRADIENT_LIMIT = 1.0
# The held-out error is a mean over this many points of the curve, and must have fallen by this
# share within so many of them for the fit to go on as planned.
_SMOOTHED = 5
_PATIENCE = 20
_WORTHWHILE = 0.002
# A fit may stand still at its start, before the network has found the structures.
_EARLIEST = 0.4
# It stands there as long as it leaves so many times the variance of the noise unexplained.
_UNEXPLAINED = 2.0
# Share of the remaining steps that are taken where a fit ends early.
_RUSH = 0.3


@dataclass(frozen=True)
class Course:
    """Where an optimisation ends, and from which step on it hurries there."""

    turn: int
    end: int


@dataclass(frozen=True)
class Plan:
    """How long to optimise, how fast, and where to resume from.

    Attributes
    ----------
    steps, warm_up : int
        Optimiser steps, and how many of them the learning rate rises over.
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
    rate_key: str
    checkpoint: Path
    fingerprint: str
    checkpoint_seconds: float

    def rate_of(self, step: int, course: Course, warm_up: int | None = None) -> float:
        """Return the share of the peak learning rate at a step, counted from 0.

        It rises linearly, then falls along a cosine; where the fit ends early, what is left of the
        cosine is passed through faster. Who has a warm-up of its own has the rest in common.
        """
        rise = min(1.0, (step + 1) / (warm_up or self.warm_up))
        phase = step / self.steps
        if step >= course.turn:
            start = course.turn / self.steps
            phase = start + (1 - start) * (step - course.turn) / (course.end - course.turn)
        return rise * 0.5 * (1 + math.cos(math.pi * phase))

    def course_after(self, step: int, curve: list[list[float]]) -> Course | None:
        """Return an earlier end, if the held-out errors of the curve so far no longer fall.

        Both these and the losses are in units of the variance of the noise.
        """
        if step < _EARLIEST * self.steps or len(curve) < _PATIENCE + _SMOOTHED:
            return None
        errors, losses = ([point[column] for point in curve] for column in (2, 1))
        recent = sum(errors[-_SMOOTHED:]) / _SMOOTHED
        before = sum(errors[-_PATIENCE - _SMOOTHED : -_PATIENCE]) / _SMOOTHED
        unexplained = sum(losses[-_SMOOTHED:]) / _SMOOTHED
        if recent < (1 - _WORTHWHILE) * before or unexplained > _UNEXPLAINED:
            return None
        return Course(step, step + math.ceil(_RUSH * (self.steps - step)))


@dataclass(frozen=True)
class Learner:
    """A network, and how it learns.

    Attributes
    ----------
    network : torch.nn.Module
        What is optimised.
    optimisers : sequence of torch.optim.Optimizer
        Hold the parameters of the network; their learning rates are the peaks.
    loss_of_step : callable
        Loss of a step, counted from 0. It must depend on the step and the networks alone, so that a
        resumed run equals an undisturbed one.
    warm_up : int
        Steps that the learning rate rises over.
    quantity : str
        What the progress lines call the loss.
    """

    network: torch.nn.Module
    optimisers: Sequence[torch.optim.Optimizer]
    loss_of_step: Callable[[int], torch.Tensor]
    warm_up: int
    quantity: str

    def groups(self) -> Iterator[dict[str, Any]]:
        """Yield what holds a learning rate."""
        for optimiser in self.optimisers:
            yield from optimiser.param_groups

    def take_step(self) -> None:
        """Step along the gradient that was collected, whose length is limited."""
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), _GRADIENT_LIMIT)
        for optimiser in self.optimisers:
            optimiser.step()

    def parts(self, prefix: str) -> dict[str, Any]:
        """Return what a checkpoint holds, by name."""
        parts: dict[str, Any] = {f"{prefix}network": self.network}
        return parts | {
            f"{prefix}optimiser-{i}": optimiser for i, optimiser in enumerate(self.optimisers)
        }


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
        self._decay, self._followed = decay, list(network.state_dict().values())
        self._weights = {k: v.detach().clone() for k, v in network.state_dict().items()}

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """Take in the weights after a number of steps."""
        # All weights at once: one by one, a GPU waits for what is small and many.
        update = get_ema_multi_avg_fn(min(self._decay, step / (step + 10)))
        update(list(self._weights.values()), self._followed, step)

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
    optimisers: Sequence[torch.optim.Optimizer],
    plan: Plan,
    label: str,
    quantity: str,
    average: MovingAverage | None = None,
    held_out: Callable[[], float] | None = None,
    companions: Sequence[Learner] = (),
) -> tuple[list[list[float]], float]:
    """Take all steps that are left to take.

    Parameters
    ----------
    loss_of_step : callable
        Loss of a step, counted from 0. It must depend on the step and the network alone, so that a
        resumed run equals an undisturbed one.
    network : torch.nn.Module
        What is optimised.
    optimisers : sequence of torch.optim.Optimizer
        Hold the parameters of the network; their learning rates are the peaks.
    plan : Plan
        Length, course of the learning rate, and checkpoints.
    label, quantity : str
        What the progress lines call the work and the loss.
    average : MovingAverage or None
        Told after each step.
    held_out : callable or None
        Error on data that the loss does not see, both in units of the variance of the noise. Where
        it no longer falls, the fit ends early.
    companions : sequence of Learner
        Take their steps beside the network, along the gradient of their own losses plus that of the
        network's loss, where it depends on them. They exclude `held_out`.

    Returns
    -------
    curve : list of [step, loss, ...]
        Losses are means over equal numbers of steps; held-out error or losses of the companions
        follow.
    seconds : float
        Time spent, earlier runs included.

    Raises
    ------
    RuntimeError
        The loss is no longer a finite number.
    """
    started = time.monotonic()
    learners = [Learner(network, optimisers, loss_of_step, plan.warm_up, quantity), *companions]
    parts: dict[str, Any] = {}
    for number, learner in enumerate(learners):
        parts |= learner.parts(f"companion-{number}-" if number else "")
        for group in learner.groups():
            group["peak"] = group["lr"]
    if average is not None:
        parts["average"] = average
    step, course, curve, spent = 0, Course(plan.steps, plan.steps), [], 0.0
    state = load_checkpoint(plan.checkpoint, plan.fingerprint)
    if state is not None:
        _restore(parts, state, plan.checkpoint)
        step, course = state["step"], Course(*state["course"])
        curve, spent = state["curve"], state["seconds"]
    progress = Progress(label, course.end, step)
    every = max(1, plan.steps // _CURVE_POINTS)
    saved, running = time.monotonic(), []
    while step < course.end:
        losses = []
        for learner in learners:
            learner.network.zero_grad(set_to_none=True)
            for group in learner.groups():
                group["lr"] = group["peak"] * plan.rate_of(step, course, learner.warm_up)
        # One after the other, so that what a gradient needs is held for one loss only.
        for learner in learners:
            loss = learner.loss_of_step(step)
            loss.backward()
            losses.append(loss.detach())
        for learner in learners:
            learner.take_step()
        step += 1
        if average is not None:
            average.follow(step)
        running.append(torch.stack(losses))
        if step % every and step < course.end:
            continue
        means, running = torch.stack(running).mean(dim=0).tolist(), []
        if not all(map(math.isfinite, means)):
            raise RuntimeError(
                f"the {label} diverged at step {step}; lower {plan.rate_key} and run again"
            )
        curve.append([step, *means])
        detail = f"{quantity} {means[0]:.3g}"
        if companions:
            detail += f", {companions[0].quantity} {sum(means[1:]) / len(companions):.3g}"
        if held_out is not None:
            curve[-1].append(held_out())
            detail += f", held out {curve[-1][2]:.3g}"
            earlier = plan.course_after(step, curve) if course.turn > step else None
            if earlier is not None:
                logger.info(
                    "%s: the held-out error no longer falls, so it ends at step %d instead of %d",
                    *(label, earlier.end, plan.steps),
                )
                course, progress.total = earlier, earlier.end
        progress.update(step, detail)
        if time.monotonic() - saved > plan.checkpoint_seconds:
            saved = time.monotonic()
            facts = {"step": step, "course": [course.turn, course.end], "curve": curve}
            facts["seconds"] = spent + saved - started
            states = {name: part.state_dict() for name, part in parts.items()}
            save_checkpoint(plan.checkpoint, plan.fingerprint, facts | states)
    return curve, spent + time.monotonic() - started


def _restore(parts: dict[str, Any], state: dict[str, Any], checkpoint: Path) -> None:
    try:
        for name, part in parts.items():
            part.load_state_dict(state[name])
    except Exception as error:
        # What was loaded up to there can't be taken back here: a new start needs new parts.
        raise RuntimeError(
            f"{checkpoint}: can't be resumed from ({on_one_line(error)}), as when another version "
            "of BesselFlow wrote it; delete the file and run again"
        ) from error
