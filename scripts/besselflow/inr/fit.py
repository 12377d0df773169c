"""Fit the coordinate network to the projections of one work unit, with resumable checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from besselflow.baselines.spectral import SpectralModel, fit_amplitude, posterior_mean
from besselflow.config import Inr
from besselflow.device import compute_precision
from besselflow.fingerprint import fingerprint
from besselflow.inr.columns import BatchPlan, UnitColumns
from besselflow.inr.network import CoordinateNetwork, build_network
from besselflow.inr.steps import automatic_steps
from besselflow.muon import Muon
from besselflow.noise import EXCLUDED, pixel_variance, unknown
from besselflow.optimisation import Plan, optimise
from besselflow.projection import AxialProjection
from besselflow.store import Projections, UnitStores
from besselflow.tiling import Unit

WARM_UP_STEPS = 20
# Share of the frequency at which the spectrum falls to the noise.
_BANDWIDTH_SHARE = 0.07
_AXIAL_SHARE_ACROSS_GAPS = 0.5
# Steps of Muon relative to Adam's: those are of unit size per matrix, not per weight.
_MUON_RATE = 10.0
# A fit that starts from the one before needs fewer steps.
_WARM_STEPS = 0.4
_WARM_RATE = 0.5


@dataclass(frozen=True)
class InrProblem:
    """One work unit to fit.

    Attributes
    ----------
    projections : numpy.ndarray, shape (P, Y, X)
        Measured intensities.
    operator : AxialProjection
        How the volume was measured.
    voxel_size_um : tuple of float
        (z, y, x) voxel size.
    scale : float
        Intensity that counts as bright in this sample, from the projections.
    spectral : SpectralModel
        Spectrum, noise and mean that the spectral Gaussian process found in the sample.
    expected : numpy.ndarray, shape (P, Y, X)
        Projections of the spectral estimate, from which the noise of each pixel is judged.
    masked : numpy.ndarray of bool, shape (P, Y, X), or None
        Pixels that hold no measurement: their variance is so large that they hardly count.
    saturated : numpy.ndarray of bool, shape (P, Y, X), or None
        Those of them that are lower bounds, and count wherever less than that is predicted.
    """

    projections: np.ndarray
    operator: AxialProjection
    voxel_size_um: tuple[float, float, float]
    scale: float
    spectral: SpectralModel
    expected: np.ndarray
    masked: np.ndarray | None = None
    saturated: np.ndarray | None = None

    @classmethod
    def of_unit(cls, measured: Projections, spectral: UnitStores, unit: Unit) -> InrProblem:
        """Read a unit of a sample, and what the spectral Gaussian process found in it."""
        operator = measured.operator
        return cls(
            measured.unit_data(unit),
            operator,
            measured.voxel_size_um,
            measured.attributes["scale"][unit.t][unit.c],
            SpectralModel.from_record(spectral.records[unit.index]),
            operator.forward(np.asarray(spectral.arrays["volume"][unit.index])),
            measured.unit_masked(unit),
            measured.unit_saturated(unit),
        )

    def identity(self, settings: Inr, seed: int, start: dict[str, torch.Tensor] | None) -> str:
        """Return the fingerprint of all that a fit depends on."""
        lateral = self.operator.lateral
        return fingerprint(
            settings.model_dump(exclude={"checkpoint_seconds"}),
            seed,
            self.spectral.as_record(),
            self.operator.matrix,
            () if lateral is None else lateral.kernel,
            self.projections,
            () if self.masked is None else self.masked,
            *(() if self.saturated is None else (self.saturated,)),
            *(weight.numpy() for weight in (start or {}).values()),
        )

    @property
    def kept(self) -> np.ndarray:
        """Boolean (P, Y, X): the pixels that hold a measurement."""
        shape = self.projections.shape
        return np.ones(shape, bool) if self.masked is None else ~self.masked

    def noise_variance(self) -> np.ndarray:
        """Return the variance of each measured pixel, shape (P, Y, X)."""
        model, factors = self.spectral, self.operator.noise_factors
        left_out = unknown(self.masked, self.saturated)
        return pixel_variance(self.expected, model.noise_variance, model.mean, left_out, factors)


def automatic_bandwidth(model: SpectralModel) -> float:
    """Derive the standard deviation of the feature frequencies from the fitted spectrum.

    Parameters
    ----------
    model : SpectralModel
        Fit of the spectral Gaussian process to the same sample.

    Returns
    -------
    float
        Bandwidth in cycles per micrometre: a fixed share of the frequency at which the sample's
        spectrum falls to the noise. The share was chosen on training volumes and phantoms
        (tests/benchmarks/README.md).
    """
    return _BANDWIDTH_SHARE * float(model.cutoff_per_um())


def automatic_axial_share(operator: AxialProjection) -> float:
    """Return the bandwidth along z, as a share of that along y and x.

    Where slices between the first and the last that are seen are seen by no projection, only what
    varies slowly along z leads from one of their sides to the other, and the network would put
    anything in between that its frequencies allow. The share was chosen on training volumes
    (tests/benchmarks/SETTINGS.md).

    Parameters
    ----------
    operator : AxialProjection
        What the sample is seen through.
    """
    seen = np.flatnonzero(operator.seen)
    return 1.0 if (np.diff(seen) == 1).all() else _AXIAL_SHARE_ACROSS_GAPS


@dataclass(frozen=True)
class InrFit:
    """A fitted network.

    Attributes
    ----------
    volume : numpy.ndarray, shape (Z, Y, X), float32
        Rendered intensities, what was left over included.
    record : dict
        Bandwidth, share of the spectrum's power that was left over, curve of the loss and the
        held-out error, reduced chi-square, steps, duration and size of the network.
    weights : dict
        State of the network, for the fit of the next time point to start from.
    """

    volume: np.ndarray
    record: dict[str, Any]
    weights: dict[str, torch.Tensor]


@dataclass(frozen=True)
class PreparedFit:
    """A network and the data that it is to be fitted to, before the first step.

    Attributes
    ----------
    network : CoordinateNetwork
        On the device, for training.
    data : UnitColumns
        The unit.
    batches : BatchPlan
        Which columns a step sees.
    used : torch.Tensor, shape (Y X, P)
        Weight of each measurement in the loss.
    optimisers : list of torch.optim.Optimizer
        Hold the weights of the network.
    steps : int
        Steps to take.
    bandwidth_per_um, axial_bandwidth_per_um : float
        Standard deviation of the frequencies, laterally and along z.
    held_out : callable or None
        Error on the measurements that no step sees, where there are any.
    """

    network: CoordinateNetwork
    data: UnitColumns
    batches: BatchPlan
    used: torch.Tensor
    optimisers: list[torch.optim.Optimizer]
    steps: int
    bandwidth_per_um: float
    axial_bandwidth_per_um: float
    held_out: Callable[[], float] | None

    def loss_of_step(self, step: int) -> torch.Tensor:
        """Return the misfit of a step's columns, a scalar."""
        batch = self.batches.of_step(step).to(self.used.device)
        error = self.data.squared_error(self.network, batch)
        return (error * self.used[batch.targets]).mean()


def prepare_fit(
    problem: InrProblem,
    settings: Inr,
    seed: int,
    device: torch.device,
    start: dict[str, torch.Tensor] | None = None,
) -> PreparedFit:
    """Build the network of a fit, and arrange its data.

    Parameters
    ----------
    problem, settings, seed, device, start
        As for `fit_inr`.
    """
    p, y, x = problem.projections.shape
    bandwidth, axial_share = settings.bandwidth, 1.0
    if bandwidth == "auto":
        bandwidth = automatic_bandwidth(problem.spectral)
    if settings.bandwidth == "auto" and settings.encoding == "gaussian":
        axial_share = automatic_axial_share(problem.operator)
    extent_um = tuple(
        max(count, 2) * size / 2
        for count, size in zip(
            (problem.operator.n_slices, y, x), problem.voxel_size_um, strict=True
        )
    )
    generator = torch.Generator().manual_seed(seed)
    network = build_network(settings, bandwidth, extent_um, generator, axial_share)
    if start is not None:
        network.load_state_dict(start)
    network.to(device)
    network.precision = compute_precision(settings.precision, device)
    variance = problem.noise_variance()
    if settings.loss == "squares":
        mean, left_out = variance[problem.kept].mean(), unknown(problem.masked, problem.saturated)
        variance = np.full_like(variance, mean)
        if left_out is not None:
            variance[left_out] *= EXCLUDED
    data = UnitColumns.of(
        problem.projections,
        variance,
        problem.operator,
        problem.voxel_size_um,
        problem.scale,
        problem.spectral.mean,
        settings.output == "positive",
        device,
        problem.saturated,
    )
    lateral = problem.operator.lateral
    radius = (0, 0) if lateral is None else lateral.radius
    batches = BatchPlan((y, x), settings.columns, radius, seed)
    used, held_out = data.precision, None
    if settings.held_out > 0:
        left_out = _left_out(batches, settings.held_out, p, seed).to(device)
        check = batches.held_out(settings.held_out).to(device)
        used = data.precision * ~left_out
        # What is predicted well there must be a measurement.
        left_out &= torch.from_numpy(problem.kept.reshape(p, -1).T).to(device)
        weights = data.precision[check.targets] * left_out[check.targets]

        @torch.no_grad()
        def held_out() -> float:
            error = data.squared_error(network, check)
            return float((error * weights).sum() / left_out[check.targets].sum())

    steps = automatic_steps(y * x) if settings.steps == "auto" else settings.steps
    rate = settings.learning_rate
    if start is not None:
        steps, rate = max(1, round(_WARM_STEPS * steps)), _WARM_RATE * rate
    optimisers = _optimisers(network, settings.optimiser, rate)
    network.train()
    bandwidths = bandwidth, axial_share * bandwidth
    return PreparedFit(network, data, batches, used, optimisers, steps, *bandwidths, held_out)


def finish_fit(
    problem: InrProblem,
    settings: Inr,
    prepared: PreparedFit,
    curve: list[list[float]],
    seconds: float,
) -> InrFit:
    """Render the volume of a network that has taken its steps.

    Parameters
    ----------
    problem : InrProblem
        What it was fitted to.
    settings : Inr
        Whether to average neighbours, and to add what was left over.
    prepared : PreparedFit
        Its network.
    curve : list of [step, loss, ...]
        Course of the loss.
    seconds : float
        Time spent.
    """
    network = prepared.network.eval()
    volume, share = prepared.data.render(network, settings.neighbour_average), None
    if settings.leftover:
        volume, share = add_leftover(volume, problem)
        if settings.output == "positive":
            volume = np.maximum(volume, 0)
    residual = problem.operator.forward(volume) - problem.projections
    record = {
        "bandwidth_per_um": prepared.bandwidth_per_um,
        "axial_bandwidth_per_um": prepared.axial_bandwidth_per_um,
        "leftover_share": share,
        "curve": curve,
        "steps": curve[-1][0],
        "chi2": float(np.mean((residual**2 / problem.noise_variance())[problem.kept])),
        "seconds": seconds,
        "parameters": sum(weight.numel() for weight in network.parameters()),
    }
    weights = {name: value.cpu() for name, value in network.state_dict().items()}
    return InrFit(volume, record, weights)


def fit_inr(
    problem: InrProblem,
    settings: Inr,
    seed: int,
    checkpoint: Path,
    fingerprint: str,
    device: torch.device,
    label: str = "fit",
    start: dict[str, torch.Tensor] | None = None,
) -> InrFit:
    """Fit the network and render the volume.

    The loss is the mean squared difference of measured and predicted projections, in units of each
    pixel's noise unless the settings say otherwise. A step sees whole pixel columns, so that the
    operator is applied exactly.

    Parameters
    ----------
    problem : InrProblem
        What to fit.
    settings : Inr
        Network and optimiser.
    seed : int
        Seed of the weights, the frequencies and the order of the columns.
    checkpoint : pathlib.Path
        File to resume from, and to write to now and then.
    fingerprint : str
        Identifies settings and data; a checkpoint with another one is not resumed from.
    device : torch.device
        Where to compute.
    label : str
        What the progress lines call this fit.
    start : dict or None
        Weights of the fit of the time point before, of the same tile, channel and settings. The
        fit then takes fewer and smaller steps.
    """
    prepared = prepare_fit(problem, settings, seed, device, start)
    plan = Plan(
        prepared.steps,
        WARM_UP_STEPS,
        "inr.learning_rate",
        checkpoint,
        fingerprint,
        settings.checkpoint_seconds,
    )
    curve, seconds = optimise(
        prepared.loss_of_step,
        prepared.network,
        prepared.optimisers,
        plan,
        label,
        "misfit",
        held_out=prepared.held_out,
    )
    return finish_fit(problem, settings, prepared, curve, seconds)


def add_leftover(volume: np.ndarray, problem: InrProblem) -> tuple[np.ndarray, float]:
    """Add the posterior mean of what a volume leaves of the projections.

    A network that has not converged, or is too small for its sample, leaves structure in the
    residual. Its spectrum is taken to be that of the sample at a lower amplitude, which is fitted.

    Parameters
    ----------
    volume : numpy.ndarray, shape (Z, Y, X)
    problem : InrProblem

    Returns
    -------
    volume : numpy.ndarray, shape (Z, Y, X), float32
    share : float
        Amplitude of what was left over, relative to that of the sample.
    """
    operator, voxel_size_um = problem.operator, problem.voxel_size_um
    # Where nothing was measured, nothing is left over; of a lower bound, what is missing.
    residual = problem.projections - operator.forward(volume)
    if problem.masked is not None:
        residual[unknown(problem.masked, problem.saturated)] = 0
    if problem.saturated is not None:
        residual[problem.saturated] = np.maximum(residual[problem.saturated], 0)
    model = fit_amplitude(residual, operator, voxel_size_um, problem.spectral)
    added = posterior_mean(residual, operator, model, voxel_size_um)
    return volume + added, model.amplitude / problem.spectral.amplitude


def _left_out(batches: BatchPlan, share: float, n_projections: int, seed: int) -> torch.Tensor:
    """Return which measurements no step sees: half of those in the held-out pixels, (Y X, P)."""
    held = batches.held_out(share).targets.flatten()
    generator = torch.Generator().manual_seed(seed)
    out = torch.zeros(math.prod(batches.shape), n_projections, dtype=torch.bool)
    out[held] = torch.rand(len(held), n_projections, generator=generator) < 0.5
    return out


def _optimisers(network: CoordinateNetwork, kind: str, rate: float) -> list[torch.optim.Optimizer]:
    """Return Adam for all weights, or Muon for the hidden matrices and Adam for the others.

    Muon orthogonalises the steps of a matrix (Jordan et al., Muon: an optimizer for hidden layers
    in neural networks, 2024).
    """
    matrices = network.hidden_matrices() if kind == "muon" else []
    others = [w for w in network.parameters() if all(w is not m for m in matrices)]
    adam = torch.optim.Adam(others, lr=rate, betas=(0.9, 0.99), eps=1e-12)
    if not matrices:
        return [adam]
    return [Muon(matrices, lr=_MUON_RATE * rate, weight_decay=0.0), adam]
