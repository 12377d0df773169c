r"""Fit the INR within the training of the diffusion model instead of before it.

Hui et al. (CVPR 2024) train the INR first, and compare with training both jointly. Their released
code only has the first: it loads a fitted INR and evaluates it inside the loss, so that the
gradient would reach its weights, which are saved beside those of the network; but the optimiser
holds none of them. So what follows is our reading of the second.

Both are trained from random weights and in the same steps, to lower

.. math:: \| \hat\epsilon(x_t, c) - \epsilon \|^2 + \sum_u L_u, \qquad
          x_0 = (1 - w) y_p + w (A v_u)_p,

where :math:`v_u` is the volume of the INR of the work unit u as it is at that step, and
:math:`L_u` its misfit to its own projections, by the loss of `besselflow.inr.fit`. So the INR of a
unit takes one step on its projections per step of the network, and the diffusion loss reaches it
through the projections that the network is shown. Both terms count as they are. The optimisers,
their rates and the limits of the gradients are those that both have by themselves; without the INR
in :math:`x_0` (w = 0) it is therefore fitted as it would have been alone. What is added at the end
of such a fit (`inr.leftover`) is added here, too, to the volume that guides the sampling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from besselflow.config import Inr, Microdiffusion
from besselflow.inr.fit import WARM_UP_STEPS, InrProblem, PreparedFit, prepare_fit
from besselflow.microdiffusion.images import smooth_neighbours
from besselflow.optimisation import Learner


@dataclass(frozen=True)
class JointFits:
    """The INRs of all work units of a sample, which learn beside the network.

    Attributes
    ----------
    problems : list of InrProblem
        The units, all of the same operator.
    fits : list of PreparedFit
        The network of each unit.
    settings : Inr
        How they are fitted.
    weights : torch.Tensor, shape (P, Z)
        Weight of each slice in each projection, of the smoothed volume.
    identity : list of str
        Fingerprint of each fit.
    """

    problems: list[InrProblem]
    fits: list[PreparedFit]
    settings: Inr
    weights: torch.Tensor
    identity: list[str]

    def project(self, chosen: np.ndarray) -> torch.Tensor:
        """Image the INRs as they are through the beam, so that gradients reach them.

        Parameters
        ----------
        chosen : numpy.ndarray of int, shape (n,)
            Which of the projections of all units, which lie one after the other.

        Returns
        -------
        torch.Tensor, shape (n, Y, X)
            As from `to_range`.
        """
        number, projection = np.divmod(chosen, len(self.weights))
        images: list[torch.Tensor] = [torch.empty(0)] * len(chosen)
        for unit in np.unique(number):
            places = np.flatnonzero(number == unit)
            problem, fit = self.problems[unit], self.fits[unit]
            weights = self.weights[torch.as_tensor(projection[places])]
            seen = fit.data.project(fit.network, weights, self.settings.neighbour_average)
            if problem.operator.lateral is not None:
                seen = problem.operator.lateral.apply(seen)
            for place, image in zip(places, seen * (2 / problem.scale) - 1, strict=True):
                images[place] = image
        return torch.stack(images)

    def learners(self) -> list[Learner]:
        """Return what takes a step of each INR."""
        return [
            Learner(fit.network, fit.optimisers, fit.loss_of_step, WARM_UP_STEPS, "misfit of INR")
            for fit in self.fits
        ]


def prepare_joint(
    problems: Sequence[InrProblem],
    settings: Microdiffusion,
    inr: Inr,
    seeds: Sequence[int],
    device: torch.device,
) -> JointFits:
    """Build the INRs of all work units, each for as many steps as the network takes.

    None starts from the time point before, and no measurement is held out: all end together.

    Parameters
    ----------
    problems : sequence of InrProblem
        The units, all of the same operator.
    settings : Microdiffusion
        Number of steps, and whether the network sees the INR averaged over neighbouring slices.
    inr : Inr
        Network and optimiser of the INR.
    seeds : sequence of int
        Seed of each unit, as for a fit by itself.
    device : torch.device
        Where to compute.
    """
    own = inr.model_copy(update={"steps": settings.steps, "held_out": 0.0})
    pairs = list(zip(problems, seeds, strict=True))
    weights = problems[0].operator.matrix
    if settings.neighbour_average:
        slices = weights.shape[1]
        weights = weights @ smooth_neighbours(np.eye(slices)[:, :, None])[:, :, 0]
    return JointFits(
        list(problems),
        [prepare_fit(problem, own, seed, device) for problem, seed in pairs],
        own,
        torch.as_tensor(weights, dtype=torch.float32, device=device),
        [problem.identity(own, seed, None) for problem, seed in pairs],
    )
