r"""Sample volumes from the prior, starting at the INR and agreeing with the data at every step.

The first estimate is made with the INR in the place of the state, and is the mean of those of four
views, mirrored along y and x: the posterior mean. Each sample then starts from this estimate and
noise, :math:`x = D_0 + \sigma_1 n`, and walks down a geometric series of noise levels. At each
level the denoiser estimates all slices of the unit, and the estimate D is replaced by the exact
minimiser of

.. math:: \sum (A v - y)^2 / \sigma_y^2 + |v - D|^2 / r^2,

with the measured noise :math:`\sigma_y^2` of each pixel and the error r of the denoiser that the
data can correct. The denoiser has seen the data, so that its errors go along with their noise, and
less is left to correct than its misfit suggests: how much, is measured on training volumes
(`besselflow.diffusion.assessment`). On a sample unlike these, the disagreement of D with the
projections shows a larger error, and the data weigh more. The step to the next level is ancestral
(Song et al., Denoising diffusion implicit models, ICLR 2021, with eta = 1).

The mean of few samples would have the same expectation as the first estimate and a far larger
variance (Rao-Blackwell). From the spread of the samples, and from how far the mean lies from the
INR, comes the standard deviation. Of one of the samples, the deviation from the mean of all is
kept, as large as the calibration says, and made to agree with the data once more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from besselflow.batches import Batches, batch_size, in_tiles, tile_size
from besselflow.checkpoint import Keeper
from besselflow.config import Refine
from besselflow.diffusion.blocks import Block, blend_window, lay_blocks
from besselflow.diffusion.calibration import sparseness, spread_of
from besselflow.diffusion.network import Denoiser
from besselflow.diffusion.prior import BLIND, HIGHEST_NOISE, DiffusionPrior
from besselflow.fingerprint import fingerprint
from besselflow.job import Progress
from besselflow.projection import AxialProjection
from besselflow.tiling import margined_spans

VIEWS = ((), (-1,), (-2,), (-2, -1))
"""Axes along which each view of the first estimate is mirrored."""
_LAST_NOISE = 0.005
_PIXELS_AT_ONCE = 4 * 128 * 128
# The features of all levels of the default network, roughly.
_BYTES_PER_PIXEL = 4096
_CHECKPOINT_SECONDS = 30.0
# Its state, that of the step before, and the estimates that are blended.
_BYTES_PER_SAMPLE_VOXEL = 16
_VOLUMES = ("blind", "states", "first", "total", "squares")


@dataclass(frozen=True)
class RefinementProblem:
    """One work unit to refine, intensities relative to the scale.

    Attributes
    ----------
    inr, spectral : numpy.ndarray, shape (Z, Y, X)
        What the sampling starts from, and what else the denoiser is conditioned on.
    projections : numpy.ndarray, shape (P, Y, X)
        Measured intensities.
    operator : AxialProjection
        How the volume was measured.
    positions_um, centres_um : numpy.ndarray
        Stage positions (P,) and slices (Z,).
    noise : float
        Mean standard deviation of the noise of a projection.
    variance : numpy.ndarray, shape (P, Y, X)
        Variance of the noise of each pixel.
    masked : numpy.ndarray of bool, shape (P, Y, X), or None
        Pixels that hold no measurement; their variance is so large that they hardly count.
    saturated : numpy.ndarray of bool, shape (P, Y, X), or None
        Those of them that are lower bounds, and count wherever less than that is predicted.
    shown : numpy.ndarray, shape (P, Y, X), or None
        What the denoiser, which has learnt from full projections, sees of these; None for the
        projections themselves.
    """

    inr: np.ndarray
    spectral: np.ndarray
    projections: np.ndarray
    operator: AxialProjection
    positions_um: np.ndarray
    centres_um: np.ndarray
    noise: float
    variance: np.ndarray
    masked: np.ndarray | None = None
    saturated: np.ndarray | None = None
    shown: np.ndarray | None = None

    @property
    def sparseness(self) -> float:
        """How far apart the projections lie, relative to the beam; see `sparseness`."""
        spacing = (
            float(self.centres_um[1] - self.centres_um[0]) if len(self.centres_um) > 1 else 1.0
        )
        return sparseness(self.operator.matrix, self.positions_um, spacing)

    def identity(self, prior: DiffusionPrior, settings: Refine, seed: int) -> str:
        """Return what tells the samples of this problem from all others."""
        lateral = self.operator.lateral
        return fingerprint(
            settings.model_dump(exclude={"trust"}),
            seed,
            self.noise,
            *(self.inr, self.spectral, self.projections, self.variance),
            *(self.masked, self.saturated, self.shown),
            *(self.operator.matrix, None if lateral is None else lateral.kernel),
            *(self.positions_um, self.centres_um),
            *(prior.denoiser.inr_error, prior.error_levels, prior.errors),
            *(weights.cpu().numpy() for weights in prior.denoiser.state_dict().values()),
        )


@dataclass(frozen=True)
class Posterior:
    """What sampling found of one unit, intensities relative to the scale.

    Attributes
    ----------
    mean : numpy.ndarray, shape (Z, Y, X)
        Posterior mean.
    spread, std : numpy.ndarray, shape (Z, Y, X)
        Spread of the samples, and the standard deviation that the prior's calibration makes of it
        and of the change from the INR.
    sample : numpy.ndarray, shape (Z, Y, X)
        The first of the samples around this mean, as far from it as the calibration says.
    record : dict
        Evaluations, samples, and the errors that the steps assumed.
    """

    mean: np.ndarray
    spread: np.ndarray
    std: np.ndarray
    sample: np.ndarray
    record: dict[str, Any]


class DenoisedUnit:
    """A unit on the device, with everything that the denoiser needs to know about it."""

    def __init__(self, problem: RefinementProblem, denoiser: Denoiser, device: torch.device):
        tensor = lambda array: torch.as_tensor(array, dtype=torch.float32).to(device)  # noqa: E731
        self.denoiser, self.device = denoiser, device
        self.inr, self.spectral = tensor(problem.inr), tensor(problem.spectral)
        self.projections, self.variance = tensor(problem.projections), tensor(problem.variance)
        masked = np.zeros(1, bool) if problem.masked is None else problem.masked
        kept = np.broadcast_to(~masked, problem.projections.shape)
        self.kept = torch.from_numpy(np.array(kept)).to(device)
        self.saturated = None
        if problem.saturated is not None:
            self.saturated = torch.from_numpy(problem.saturated).to(device)
        self.shown = self.projections if problem.shown is None else tensor(problem.shown)
        self.operator, self.noise = problem.operator, problem.noise
        self.blocks = lay_blocks(problem.operator.matrix, problem.positions_um, problem.centres_um)
        multiple = denoiser.multiple
        self.margin = -(-denoiser.reach // multiple) * multiple
        edge = max(self.inr.shape[1:])
        self.tile = tile_size(edge, _BYTES_PER_PIXEL, self.margin, device)
        self.in_batches = Batches(device)

    def blind(self) -> torch.Tensor:
        """Estimate the posterior mean (Z, Y, X), with the INR in the place of a state."""
        return sum(self.denoise(self.inr[None], BLIND, axes)[0] for axes in VIEWS) / len(VIEWS)

    def denoise(
        self, states: torch.Tensor, sigma: float, mirrored: tuple[int, ...] = ()
    ) -> torch.Tensor:
        """Estimate the clean volume from each state, blending neighbouring blocks.

        Parameters
        ----------
        states : torch.Tensor, shape (N, Z, Y, X)
            Volumes with noise.
        sigma : float
            Its level.
        mirrored : tuple of int
            Axes along which the denoiser sees everything mirrored.
        """
        images = [each.flip(mirrored) for each in (states, self.inr, self.spectral, self.shown)]
        in_these = lambda tile: self._denoise_in_tiles(images, sigma, tile)  # noqa: E731
        estimate, self.tile = in_tiles(in_these, self.tile, self.denoiser.multiple)
        return estimate.flip(mirrored)

    def _denoise_in_tiles(
        self, images: list[torch.Tensor], sigma: float, tile: int
    ) -> torch.Tensor:
        """Denoise tile by tile, seeing as much around each as can matter to it."""
        count, depth, height, width = images[0].shape
        window = blend_window(self.device)[:, None, None]
        total = torch.zeros_like(images[0])
        weight = torch.zeros(depth, 1, 1, device=self.device)
        # Blocks of all states together.
        items = [(number, block) for number in range(count) for block in self.blocks]
        for block in self.blocks:
            inside, own = block.inside(depth)
            weight[inside] += window[own]
        for rows in margined_spans(height, tile, self.margin):
            for columns in margined_spans(width, tile, self.margin):
                seen = [image[..., rows.seen, columns.seen] for image in images]
                estimate_of = lambda part, s=seen: self._estimate(s, sigma, items[part])  # noqa: E731
                size = seen[1][0].numel()
                for part, estimates in self.in_batches(
                    estimate_of, len(items), _BYTES_PER_PIXEL * size, _PIXELS_AT_ONCE // size
                ):
                    for (number, block), estimate in zip(items[part], estimates, strict=True):
                        inside, own = block.inside(depth)
                        kept = estimate[own, rows.own, columns.own]
                        total[number, inside, rows.kept, columns.kept] += window[own] * kept
        return total / weight

    def _estimate(
        self, images: list[torch.Tensor], sigma: float, items: list[tuple[int, Block]]
    ) -> torch.Tensor:
        states, inr, spectral, shown = images
        numbers, blocks = zip(*items, strict=True)
        which = torch.tensor(numbers, device=self.device)[:, None]
        slices = torch.stack([block.slices for block in blocks]).to(self.device)
        nearest = torch.stack([block.nearest for block in blocks]).to(self.device)
        geometry = torch.stack([block.geometry for block in blocks]).to(self.device)
        filled = lambda value: torch.full((len(blocks),), value, device=self.device)  # noqa: E731
        return self.denoiser(
            states[which, slices],
            filled(float(sigma)),
            inr[slices],
            spectral[slices],
            shown[nearest],
            geometry,
            filled(float(self.noise)),
        )

    def agree(self, denoised: torch.Tensor, known: float) -> tuple[torch.Tensor, float]:
        """Make an estimate agree with the data.

        Parameters
        ----------
        denoised : torch.Tensor, shape (Z, Y, X)
            The estimate.
        known : float
            Its error on training volumes that the data can correct.

        Returns
        -------
        torch.Tensor, shape (Z, Y, X)
            What agrees.
        float
            The error that the estimate was trusted with.
        """
        error = max(known, self.apparent_error(denoised))
        ratio, measured = self.variance / error**2, self.projections
        if self.saturated is not None:
            # More than a lower bound is no disagreement.
            predicted = self.operator.forward(denoised)
            measured = torch.where(self.saturated, predicted.maximum(measured), measured)
        return self.operator.prox(denoised, measured, ratio), error

    def apparent_error(self, denoised: torch.Tensor) -> float:
        """Estimate the error of a volume from its disagreement with the projections.

        If the error were white with variance r^2, the residual would have the variance
        noise^2 + r^2 times the sum of squared weights of a measured pixel. 0 where the residual is
        no larger than the noise.
        """
        residual = (self.operator.forward(denoised) - self.projections).square()
        excess = float((residual - self.variance)[self.kept].mean())
        gain = self.operator.mean_squared_weight(tuple(self.projections.shape[-2:]))
        return math.sqrt(max(excess, 0.0) / gain)


@dataclass
class _Drawn:
    """What was drawn so far.

    Attributes
    ----------
    step : int
        Steps of all samples together that were taken; those that are drawn together take one.
    blind : torch.Tensor, shape (Z, Y, X)
        The first estimate.
    states : torch.Tensor, shape (N, Z, Y, X)
        States of the samples that are being drawn.
    first, total, squares : torch.Tensor, shape (Z, Y, X)
        The first that was, and sums over all that were.
    error : float
        What the last estimate was trusted with.
    generators : list of torch.Generator
        Of the noise of each.
    """

    step: int
    blind: torch.Tensor
    states: torch.Tensor
    first: torch.Tensor
    total: torch.Tensor
    squares: torch.Tensor
    error: float
    generators: list[torch.Generator]

    @classmethod
    def begin(cls, unit: DenoisedUnit) -> _Drawn:
        """Make the first estimate, and no sample."""
        nothing = [torch.zeros_like(unit.inr) for _ in range(3)]
        return cls(0, unit.blind(), unit.inr[None], *nothing, 0.0, [])

    @classmethod
    def restored(cls, kept: Mapping[str, Any], device: torch.device) -> _Drawn:
        """Go on from what `state_dict` gave."""
        generators = [torch.Generator(device).set_state(each) for each in kept["generators"]]
        volumes = (kept[name].to(device) for name in _VOLUMES)
        return cls(kept["step"], *volumes, kept["error"], generators)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        volumes = {name: getattr(self, name) for name in _VOLUMES}
        generators = [each.get_state() for each in self.generators]
        return {"step": self.step, "error": self.error, "generators": generators} | volumes

    def take_step(
        self,
        unit: DenoisedUnit,
        prior: DiffusionPrior,
        sigmas: Sequence[float],
        groups: Sequence[Sequence[int]],
        seed: int,
    ) -> None:
        """Start samples or go on with them, from one of the noise levels to the next or the end.

        Parameters
        ----------
        unit : DenoisedUnit
            What they are samples of.
        prior : DiffusionPrior
            Whose denoiser it is.
        sigmas : sequence of float
            The noise levels.
        groups : sequence of sequences of int
            Which samples are drawn together, in order.
        seed : int
            Of all noise; each sample has its own, whichever it is drawn with.
        """
        number, index = divmod(self.step, len(sigmas))
        sigma, shape = sigmas[index], unit.inr.shape
        draw = lambda own: torch.randn(shape, generator=own, device=unit.device)  # noqa: E731
        if index == 0:
            seeds = [(seed << 16) + sample for sample in groups[number]]
            self.generators = [torch.Generator(unit.device).manual_seed(each) for each in seeds]
            self.states = torch.stack([self.blind + sigma * draw(own) for own in self.generators])
        estimates = unit.denoise(self.states, sigma)
        for place, (sample, own) in enumerate(zip(groups[number], self.generators, strict=True)):
            estimate, self.error = unit.agree(estimates[place], prior.error_at(sigma))
            if index + 1 < len(sigmas):
                following = sigmas[index + 1]
                fresh = following * math.sqrt(1 - (following / sigma) ** 2)
                kept = math.sqrt(following**2 - fresh**2)
                left = self.states[place] - estimate
                self.states[place] = estimate + (kept / sigma) * left + fresh * draw(own)
            else:
                self.first = estimate.clone() if sample == 0 else self.first
                self.total += estimate
                self.squares += estimate.square()
        self.step += 1


@torch.no_grad()
def sample_posterior(
    problem: RefinementProblem,
    prior: DiffusionPrior,
    settings: Refine,
    seed: int,
    device: torch.device,
    label: str = "sampling",
    checkpoint: Path | None = None,
) -> Posterior:
    """Draw posterior samples of one unit and return their mean and spread.

    Parameters
    ----------
    problem : RefinementProblem
        INR, conditions, data and operator.
    prior : DiffusionPrior
        Trained denoiser.
    settings : Refine
        Evaluations and samples.
    seed : int
        Seed of all noise.
    device : torch.device
        Where to compute.
    label : str
        What the progress lines call the work.
    checkpoint : pathlib.Path or None
        File to resume from, and to write to now and then and at the end.
    """
    unit = DenoisedUnit(problem, prior.denoiser, device)
    groups = drawn_together(settings.samples, unit.inr.numel(), device)
    identity = problem.identity(prior, settings, seed) if checkpoint else ""
    keeper = Keeper(checkpoint, identity, _CHECKPOINT_SECONDS)
    kept = keeper.load()
    if kept is not None:
        # As they were begun, whatever memory is free now.
        groups = kept["groups"]
    sigmas = noise_levels(settings.evaluations - 1)
    steps = len(groups) * len(sigmas)
    drawn = _Drawn.begin(unit) if kept is None else _Drawn.restored(kept, device)
    done = 0 if kept is None else len(VIEWS) + drawn.step
    progress = Progress(label, len(VIEWS) + steps, done)
    mean, error = unit.agree(drawn.blind, prior.error_at(BLIND))
    while drawn.step < steps:
        drawn.take_step(unit, prior, sigmas, groups, seed)
        progress.update(len(VIEWS) + drawn.step)
        keeper.save({"groups": groups} | drawn.state_dict(), finished=drawn.step == steps)
    total, squares, first = drawn.total, drawn.squares, drawn.first
    count = settings.samples
    variance = (squares / count - (total / count).square()).clamp(min=0)
    spread = spread_of((variance * count / max(count - 1, 1)).cpu().numpy())
    record = {
        "evaluations": settings.evaluations,
        "samples": count,
        "assumed_error": error,
        "training_error": prior.error_at(BLIND),
        "assumed_error_of_a_sample": drawn.error,
        "seconds": keeper.seconds,
    }
    deviation = first - mean
    if count > 1:
        deviation = (first - total / count) * math.sqrt(count / (count - 1))
    if prior.calibration is None:
        found = mean.cpu().numpy()
        return Posterior(found, spread, spread, found + deviation.cpu().numpy(), record)
    seen = spread, (mean - unit.inr).cpu().numpy(), problem.sparseness
    enlarged = torch.from_numpy(prior.calibration.enlarge(deviation.cpu().numpy(), *seen))
    believable, _ = unit.agree(mean + enlarged.to(device), prior.error_at(BLIND))
    std, sample = prior.calibration(*seen), believable.cpu().numpy()
    return Posterior(mean.cpu().numpy(), spread, std, sample, record)


def drawn_together(samples: int, voxels: int, device: torch.device) -> list[list[int]]:
    """Say which samples are drawn together: on a GPU, as many as its free memory holds.

    Parameters
    ----------
    samples, voxels : int
        Number of samples, and of voxels of each.
    device : torch.device
        Where they are drawn; on the CPU, whose caches and not its memory decide, each by itself.
    """
    size = batch_size(_BYTES_PER_SAMPLE_VOXEL * voxels, device, 1)
    return [list(range(start, min(start + size, samples))) for start in range(0, samples, size)]


def noise_levels(count: int) -> list[float]:
    """Return the noise levels of the states of a sample, falling, relative to the scale."""
    return np.geomspace(HIGHEST_NOISE, _LAST_NOISE, count).tolist()
