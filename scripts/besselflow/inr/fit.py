"""Fit the coordinate network to the projections of one work unit, with resumable checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from besselflow.baselines.spectral import SpectralModel
from besselflow.config import Inr
from besselflow.inr.network import FourierMlp
from besselflow.noise import pixel_variance
from besselflow.optimisation import Plan, optimise
from besselflow.projection import AxialProjection

_WARM_UP_STEPS = 20
_RENDER_COLUMNS = 2048


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
    """

    projections: np.ndarray
    operator: AxialProjection
    voxel_size_um: tuple[float, float, float]
    scale: float
    spectral: SpectralModel
    expected: np.ndarray

    def noise_variance(self) -> np.ndarray:
        """Return the variance of each measured pixel, shape (P, Y, X)."""
        return pixel_variance(self.expected, self.spectral.noise_variance, self.spectral.mean)


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


_BANDWIDTH_SHARE = 0.07
_SQUAREPLUS = 0.4
_DARKEST_START = 0.05


def fit_inr(
    problem: InrProblem,
    settings: Inr,
    seed: int,
    checkpoint: Path,
    fingerprint: str,
    device: torch.device,
    label: str = "fit",
) -> tuple[np.ndarray, dict[str, Any]]:
    """Fit the network and render the volume.

    The loss is the mean squared difference of measured and predicted projections in units of each
    pixel's noise. A step sees whole pixel columns, so that the operator is applied exactly.

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

    Returns
    -------
    volume : numpy.ndarray, shape (Z, Y, X), float32
        Rendered intensities.
    record : dict
        Bandwidth, loss curve, reduced chi-square and duration of the fit.
    """
    bandwidth = (
        automatic_bandwidth(problem.spectral)
        if settings.bandwidth == "auto"
        else settings.bandwidth
    )
    generator = torch.Generator().manual_seed(seed)
    network = FourierMlp(
        settings.width, settings.depth, settings.features, bandwidth, generator
    ).to(device)
    optimiser = torch.optim.Adam(
        network.parameters(), lr=settings.learning_rate, betas=(0.9, 0.99), eps=1e-12
    )
    data = _Columns.of(problem, device)

    def loss_of_step(step: int) -> torch.Tensor:
        columns = _columns_of_step(step, len(data.yx_um), settings.columns, seed)
        return data.loss(network, columns.to(device))

    plan = Plan(
        settings.steps,
        _WARM_UP_STEPS,
        settings.learning_rate,
        "inr.learning_rate",
        checkpoint,
        fingerprint,
        settings.checkpoint_seconds,
    )
    curve, seconds = optimise(loss_of_step, network, optimiser, plan, label, "misfit")
    volume = data.render(network)
    residual = problem.operator.forward(volume) - problem.projections
    record = {
        "bandwidth_per_um": bandwidth,
        "curve": curve,
        "chi2": float(np.mean(residual**2 / problem.noise_variance())),
        "seconds": seconds,
        "parameters": sum(p.numel() for p in network.parameters()),
    }
    return volume, record


def _columns_of_step(step: int, count: int, wanted: int, seed: int) -> torch.Tensor:
    """Return the pixel columns of one step: a function of the step alone, so that runs resume."""
    wanted = min(wanted, count)
    per_epoch = count // wanted
    epoch, position = divmod(step, per_epoch)
    generator = torch.Generator().manual_seed((seed << 20) + epoch + 1)
    order = torch.randperm(count, generator=generator)
    return order[position * wanted : (position + 1) * wanted]


@dataclass(frozen=True)
class _Columns:
    """The unit as pixel columns on the device."""

    z_um: torch.Tensor
    yx_um: torch.Tensor
    measured: torch.Tensor
    matrix: torch.Tensor
    noise_sd: torch.Tensor
    unit: float
    shift: float
    shape: tuple[int, int, int]

    @classmethod
    def of(cls, problem: InrProblem, device: torch.device) -> _Columns:
        p, y, x = problem.projections.shape
        slices = problem.operator.n_slices
        dz, dy, dx = problem.voxel_size_um
        unit = 0.1 * problem.scale
        relative_mean = max(problem.spectral.mean / unit, _DARKEST_START)
        rows, cols = np.mgrid[:y, :x]
        centred = [(rows - (y - 1) / 2) * dy, (cols - (x - 1) / 2) * dx]
        as_tensor = lambda values: torch.as_tensor(values, dtype=torch.float32, device=device)  # noqa: E731
        return cls(
            z_um=as_tensor((np.arange(slices) - (slices - 1) / 2) * dz),
            yx_um=as_tensor(np.stack([c.ravel() for c in centred], axis=1)),
            measured=as_tensor(problem.projections.reshape(p, -1).T),
            matrix=as_tensor(problem.operator.matrix),
            noise_sd=as_tensor(np.sqrt(problem.noise_variance()).reshape(p, -1).T),
            unit=unit,
            # An output of 0 stands for the mean intensity, where the fit can start from.
            shift=relative_mean - _SQUAREPLUS / (4 * relative_mean),
            shape=(slices, y, x),
        )

    def intensity(self, network: FourierMlp, columns: torch.Tensor) -> torch.Tensor:
        """Return intensities (N, Z), which are positive: light is.

        The output passes through squareplus (Barron, arXiv 2112.11687). Its tail falls so slowly
        that a network which starts in the dark of a sparse sample finds the bright structures;
        behind softplus it can die.
        """
        output = 4 * network(self.z_um, self.yx_um[columns]) + self.shift
        return (output + torch.sqrt(output.square() + _SQUAREPLUS)) * (0.5 * self.unit)

    def loss(self, network: FourierMlp, columns: torch.Tensor) -> torch.Tensor:
        predicted = self.intensity(network, columns) @ self.matrix.T
        return (((predicted - self.measured[columns]) / self.noise_sd[columns]) ** 2).mean()

    @torch.no_grad()
    def render(self, network: FourierMlp) -> np.ndarray:
        everything = torch.arange(len(self.yx_um), device=self.yx_um.device)
        parts = [self.intensity(network, part).cpu() for part in everything.split(_RENDER_COLUMNS)]
        return torch.cat(parts).T.reshape(self.shape).contiguous().numpy()
