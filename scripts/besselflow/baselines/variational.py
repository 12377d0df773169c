r"""The variational reconstruction: photon noise, no negative light, and a Hessian penalty.

The volume minimises

.. math:: \frac12 \sum \frac{(A v - y)^2}{\sigma_y^2} + \lambda \sum |H v|_F
          \quad \text{subject to} \quad v \ge 0,

with the variance :math:`\sigma_y^2` of each measured pixel and the Frobenius norm of the Hessian at
each voxel, which keeps ridges and blobs where a gradient penalty would make steps (Lefkimmiatis,
Ward & Unser, Hessian Schatten-norm regularization for linear inverse problems, IEEE TIP 2013, with
p = 2). It is convex, and solved from the spectral solution by the relaxed primal-dual splitting of
Condat (JOTA 2013, algorithm 3.1).

The weight is derived from the data by splitting their noise: with
:math:`y_1 = y + a \sigma_y n` and :math:`y_2 = y - \sigma_y n / a` for fresh Gaussian noise n, the
two are independent, so that the misfit to :math:`y_2` of a volume fitted to :math:`y_1` is its
error in predicting new projections plus a constant (Leiner et al., Data fission, JASA 2023). The
weight that predicts projections best is larger than the one that is best in depth, of which
projections see little; the share of it that is used was chosen on training volumes
(tests/benchmarks/README.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from besselflow.job import Progress
from besselflow.projection import AxialProjection

_RELAXATION = 1.8
_WEIGHTS = tuple(np.geomspace(0.02, 0.32, 5).tolist())
_WEIGHT_SHARE = 0.5
_SPLIT = 0.5
_ITERATIONS_TO_CHOOSE = 80
_AXES = (-3, -2, -1)
_MIXED = ((0, 1), (0, 2), (1, 2))


@dataclass(frozen=True)
class VariationalProblem:
    """One work unit to reconstruct.

    Attributes
    ----------
    projections, variance : numpy.ndarray, shape (P, Y, X)
        Measured intensities, and their noise variance.
    operator : AxialProjection
        How the volume was measured.
    voxel_size_um : tuple of float
        (z, y, x) voxel size.
    start : numpy.ndarray, shape (Z, Y, X)
        Where the iteration starts, such as the spectral solution.
    """

    projections: np.ndarray
    variance: np.ndarray
    operator: AxialProjection
    voxel_size_um: tuple[float, float, float]
    start: np.ndarray


@dataclass(frozen=True)
class VariationalFit:
    """A solution and how far it has converged.

    Attributes
    ----------
    volume : numpy.ndarray, shape (Z, Y, X), float32
        Not negative.
    chi2 : float
        Mean squared residual in units of the noise.
    objective : float
        Value of the functional per voxel.
    residual : float
        Relative change of the volume in the last iteration.
    """

    volume: np.ndarray
    chi2: float
    objective: float
    residual: float


def solve_variational(
    problem: VariationalProblem, weight: float, iterations: int, progress: Progress | None = None
) -> VariationalFit:
    """Minimise the functional.

    Parameters
    ----------
    problem : VariationalProblem
        What to reconstruct.
    weight : float
        Weight of the penalty, in units of the noise: intensities are divided by the root of the
        mean variance first, so that a weight means the same at every light level.
    iterations : int
        Number of iterations.
    progress : Progress or None
        Told after each iteration.
    """
    unit = math.sqrt(float(problem.variance.mean()))
    measured = torch.from_numpy(np.asarray(problem.projections / unit, np.float32))
    precision = torch.from_numpy(np.asarray(unit**2 / problem.variance, np.float32))
    volume = torch.from_numpy(np.maximum(problem.start / unit, 0).astype(np.float32))
    scales = _axis_scales(problem.voxel_size_um)
    # Largest eigenvalues of the Hessian's normal operator and of the data term's.
    hessian_norm = (4 * sum(scale**2 for scale in scales)) ** 2
    data_norm = float(np.linalg.norm(problem.operator.matrix, 2) ** 2) * float(precision.max())
    # Both parts of the step condition 1/tau - sigma |H|^2 >= data_norm / 2 get an equal share.
    sigma = data_norm / 2 / hessian_norm
    tau = 1 / (data_norm / 2 + sigma * hessian_norm)
    dual = torch.zeros((6, *volume.shape))
    change = math.inf
    for iteration in range(iterations):
        misfit = precision * (problem.operator.forward(volume) - measured)
        gradient = problem.operator.adjoint(misfit) + hessian_adjoint(dual, scales)
        proposed = (volume - tau * gradient).clamp_(min=0)
        raised = dual + sigma * hessian(2 * proposed - volume, scales)
        raised /= (raised.square().sum(dim=0).sqrt() / weight).clamp_(min=1)
        step = proposed - volume
        change = float(step.norm() / volume.norm().clamp(min=1e-12))
        volume = volume + _RELAXATION * step
        dual += _RELAXATION * (raised - dual)
        if progress is not None:
            progress.update(iteration + 1, f"change {change:.2g}")
    volume.clamp_(min=0)
    residual = (problem.operator.forward(volume) - measured).square() * precision
    penalty = hessian(volume, scales).square().sum(dim=0).sqrt().sum()
    objective = 0.5 * float(residual.sum()) + weight * float(penalty)
    return VariationalFit(
        (volume * unit).numpy(),
        float(residual.mean()),
        objective / volume.numel(),
        change,
    )


def choose_weight(problem: VariationalProblem, seed: int) -> tuple[float, dict[str, float]]:
    """Choose the weight of the penalty by how well new projections are predicted.

    Parameters
    ----------
    problem : VariationalProblem
        A representative region; a few thousand pixels suffice.
    seed : int
        Seed of the noise that splits the data.

    Returns
    -------
    weight : float
    errors : dict
        Weight (as text) -> mean squared error of the prediction in units of the noise, up to a
        constant that is the same for all.
    """
    measured, variance = problem.projections, problem.variance
    noise = np.random.default_rng(seed).standard_normal(measured.shape, dtype=np.float32)
    noise *= np.sqrt(variance)
    training = replace(
        problem,
        projections=measured + _SPLIT * noise,
        variance=variance * (1 + _SPLIT**2),
    )
    unseen = measured - noise / _SPLIT
    errors = {}
    for weight in _WEIGHTS:
        fit = solve_variational(training, weight, _ITERATIONS_TO_CHOOSE)
        predicted = problem.operator.forward(fit.volume)
        errors[weight] = float(np.mean((predicted - unseen) ** 2 / variance))
    best = _WEIGHT_SHARE * min(errors, key=errors.get)
    return best, {f"{weight:.3g}": error for weight, error in errors.items()}


def _axis_scales(voxel_size_um: tuple[float, float, float]) -> tuple[float, float, float]:
    """Return the factors that turn differences of neighbours into derivatives, at most 1."""
    smallest = min(voxel_size_um)
    return tuple(smallest / size for size in voxel_size_um)


def hessian(volume: torch.Tensor, scales: tuple[float, float, float]) -> torch.Tensor:
    """Return the second differences with mirror boundaries.

    Parameters
    ----------
    volume : torch.Tensor, shape (Z, Y, X)
    scales : tuple of float
        Factor of a difference along (z, y, x).

    Returns
    -------
    torch.Tensor, shape (6, Z, Y, X)
        zz, yy, xx, and zy, zx, yx times the root of 2, so that the norm over the first axis is the
        Frobenius norm of the Hessian.
    """
    out = torch.empty((6, *volume.shape), dtype=volume.dtype)
    for i, axis in enumerate(_AXES):
        slope = _difference(volume, axis) * scales[i]
        out[i] = _difference_adjoint(slope, axis) * -scales[i]
        for k, (a, b) in enumerate(_MIXED):
            if a == i:
                out[3 + k] = _difference(slope, _AXES[b]) * (scales[b] * math.sqrt(2))
    return out


def hessian_adjoint(fields: torch.Tensor, scales: tuple[float, float, float]) -> torch.Tensor:
    """Return the adjoint of `hessian` applied to fields of shape (6, Z, Y, X)."""
    volume = torch.zeros_like(fields[0])
    for i, axis in enumerate(_AXES):
        slope = _difference(fields[i], axis) * -scales[i]
        for k, (a, b) in enumerate(_MIXED):
            if a == i:
                mixed = _difference_adjoint(fields[3 + k], _AXES[b])
                slope += mixed * (scales[b] * math.sqrt(2))
        volume += _difference_adjoint(slope, axis) * scales[i]
    return volume


def _difference(volume: torch.Tensor, axis: int) -> torch.Tensor:
    """Return the differences to the next neighbour, 0 at the end."""
    out = torch.zeros_like(volume)
    n = volume.shape[axis]
    torch.sub(
        volume.narrow(axis, 1, n - 1), volume.narrow(axis, 0, n - 1), out=out.narrow(axis, 0, n - 1)
    )
    return out


def _difference_adjoint(field: torch.Tensor, axis: int) -> torch.Tensor:
    out = torch.zeros_like(field)
    n = field.shape[axis]
    inner = field.narrow(axis, 0, n - 1)
    out.narrow(axis, 1, n - 1).add_(inner)
    out.narrow(axis, 0, n - 1).sub_(inner)
    return out
