r"""The variational reconstruction: photon noise, no negative light, and a Hessian penalty.

One solve minimises

.. math:: \frac12 \sum \frac{(A v - y)^2}{\sigma_y^2} + \lambda \sum |H v|_F
          \quad \text{subject to} \quad v \ge 0,

with the variance :math:`\sigma_y^2` of each measured pixel and the Frobenius norm of the Hessian at
each voxel, which keeps ridges and blobs where a gradient penalty would make steps (Lefkimmiatis,
Ward & Unser, Hessian Schatten-norm regularization for linear inverse problems, IEEE TIP 2013, with
p = 2).

It is convex, and solved by the alternating direction method of multipliers with a copy of the
volume for each term (Afonso, Bioucas-Dias & Figueiredo, An augmented Lagrangian approach to the
constrained optimization formulation of imaging inverse problems, IEEE TIP 2011), over-relaxed
(Eckstein & Bertsekas, Mathematical Programming 1992). Every step is exact: the data step is the
proximal step of the operator, the Hessian shrinks voxel by voxel, and because
:math:`H^T H` is the square of a Laplacian with mirror boundaries, the copies are joined by a
division between two cosine transforms. It ends when a duality gap is small (see `_Solver.gap`).

No weight of the penalty is good for everything: one that suppresses the noise takes contrast in
depth, of which projections see little. Bregman iteration gives it back (Osher, Burger, Goldfarb, Xu
& Yin, An iterative regularization method for total variation-based image restoration, Multiscale
Modeling & Simulation 2005): after a solve with a large weight, what it has left unexplained is
added to the data of the next one,

.. math:: y_{k+1} = y_k + (y - A v_k).

The volumes approach the data from the smooth side, strong structures first and noise last, and the
number of rounds takes the place of the weight. It is derived from the data by splitting their
noise: with :math:`y' = y + a \sigma_y n` and :math:`y'' = y - \sigma_y n / a` for fresh Gaussian
noise n, the two are independent, so that the misfit to y'' of a volume fitted to y' is its error
in predicting new projections plus a constant (Leiner et al., Data fission, JASA 2023).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import scipy.fft
import torch

from besselflow.job import Progress
from besselflow.projection import AxialProjection

ROUND_WEIGHT = 0.4
"""Weight of the penalty in each Bregman round, in units of the noise."""
_MOST_ROUNDS = 12
_ROUNDS_WITHOUT_GAIN = 2
_SPLIT = 0.5
_RELAXATION = 1.7
# The steps of the solver: Hessians up to this many times the noise shrink to zero at first ...
_SHRINKAGE = 2.0
# ... and how firmly the copies are held: for no negative light; for the data, by the operator's
# norm; and for the projections of a blurred operator.
_HOLD_POSITIVE = 0.01
_HOLD_DATA = 0.2
_HOLD_PIXELS = 1.0
_ITERATIONS_PER_CHECK = 5
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
    noise : float
        Typical standard deviation of a projected pixel, the unit of intensity in which a weight is
        meant: it then means the same at every light level. It must be the same for all tiles of a
        volume, or the penalty differs between them.
    masked : numpy.ndarray of bool, shape (P, Y, X), or None
        Pixels that hold no measurement. Their variance says how little they count; here they are
        left out of what is said about the misfit.
    saturated : numpy.ndarray of bool, shape (P, Y, X), or None
        Those of them that are lower bounds: only volumes that predict less are at odds with them.
    """

    projections: np.ndarray
    variance: np.ndarray
    operator: AxialProjection
    voxel_size_um: tuple[float, float, float]
    start: np.ndarray
    noise: float
    masked: np.ndarray | None = None
    saturated: np.ndarray | None = None

    @property
    def kept(self) -> np.ndarray:
        """Boolean (P, Y, X): the pixels that hold a measurement."""
        shape = self.projections.shape
        return np.ones(shape, bool) if self.masked is None else ~self.masked


@dataclass(frozen=True)
class Convergence:
    """When a solve ends.

    Attributes
    ----------
    iterations : int
        Most iterations.
    tolerance : float
        Duality gap, as a share of the objective, that is small enough.
    """

    iterations: int
    tolerance: float


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
        Value of the functional per voxel, in the last round.
    gap : float
        The objective exceeds its minimum by at most this share of itself, in the last round.
    iterations : int
        Iterations of all rounds.
    """

    volume: np.ndarray
    chi2: float
    objective: float
    gap: float
    iterations: int


def solve_variational(
    problem: VariationalProblem,
    weight: float,
    until: Convergence,
    rounds: int = 1,
    progress: Progress | None = None,
) -> VariationalFit:
    """Minimise the functional, or run several Bregman rounds of it.

    Parameters
    ----------
    problem : VariationalProblem
        What to reconstruct.
    weight : float
        Weight of the penalty, with intensities in units of the noise.
    until : Convergence
        When a round ends.
    rounds : int
        Number of Bregman rounds; 1 minimises the functional itself.
    progress : Progress or None
        Told of every few iterations; its total is `rounds` times the most iterations.
    """
    for number, fit in enumerate(bregman(problem, weight, until, rounds, progress), start=1):
        if number == rounds:
            return fit
    raise ValueError(f"{rounds} rounds; at least 1 is needed")


def bregman(
    problem: VariationalProblem,
    weight: float,
    until: Convergence,
    rounds: int,
    progress: Progress | None = None,
) -> Iterator[VariationalFit]:
    """Yield the solution after each Bregman round; the parameters are as above."""
    solver = _Solver(problem, weight)
    measured = solver.to_units(problem.projections)
    kept = torch.from_numpy(problem.kept)
    aimed, iterations = measured, 0

    def report(number: int, done: int, gap: float) -> None:
        if progress is not None:
            # A round that ends early counts as a whole one.
            at = (number - 1) * until.iterations + done
            progress.update(at, f"round {number} of {rounds}, duality gap {gap:.2g}")

    for number in range(1, rounds + 1):
        gap = solver.run(aimed, until, partial(report, number))
        iterations += solver.iterations
        residual = solver.raised(measured, solver.volume) - problem.operator.forward(solver.volume)
        chi2 = float((residual.square() / solver.variance)[kept].mean())
        volume = (solver.volume * problem.noise).numpy()
        objective = solver.objective(aimed) / volume.size
        report(number, until.iterations, gap)
        yield VariationalFit(volume, chi2, objective, gap, iterations)
        aimed = aimed + residual


def choose_rounds(
    problem: VariationalProblem, until: Convergence, seed: int
) -> tuple[int, dict[str, float]]:
    """Choose the number of Bregman rounds by how well new projections are predicted.

    All pixels count alike in the prediction, bright ones as much as dark ones: weighed by their
    noise, as in the fit, the dark ones decide, and bright structures are still too faint.

    Parameters
    ----------
    problem : VariationalProblem
        A representative region; a few thousand pixels suffice.
    until : Convergence
        When a round ends.
    seed : int
        Seed of the noise that splits the data.

    Returns
    -------
    rounds : int
    errors : dict
        Number of rounds (as text) -> squared error of the prediction as a share of the noise
        variance. It is an estimate, and may fall below 0 where it is small.
    """
    measured, variance, kept = problem.projections, problem.variance, problem.kept
    noise = np.random.default_rng(seed).standard_normal(measured.shape, dtype=np.float32)
    noise *= np.sqrt(variance)
    training = replace(
        problem,
        projections=measured + _SPLIT * noise,
        variance=variance * (1 + _SPLIT**2),
        noise=problem.noise * math.sqrt(1 + _SPLIT**2),
    )
    unseen = measured - noise / _SPLIT
    constant = 1 + 1 / _SPLIT**2
    errors: list[float] = []
    for fit in bregman(training, ROUND_WEIGHT, until, _MOST_ROUNDS):
        misfit = problem.operator.forward(fit.volume) - unseen
        total = np.sum(misfit[kept] ** 2, dtype=np.float64)
        total /= np.sum(variance[kept], dtype=np.float64)
        errors.append(float(total) - constant)
        if len(errors) - 1 - int(np.argmin(errors)) >= _ROUNDS_WITHOUT_GAIN:
            break
    named = {str(number): error for number, error in enumerate(errors, start=1)}
    return 1 + int(np.argmin(errors)), named


class _Solver:
    r"""The iteration; it keeps its state from one run to the next, which then starts from there.

    With the copies :math:`z_1 = H v, z_2 = v \ge 0, z_3 = v` (data) and their scaled multipliers u,
    the first pair is kept as its sum w and the share s of it that is the multiplier:
    :math:`u_1 = s w, z_1 = (1 - s) w`.
    """

    def __init__(self, problem: VariationalProblem, weight: float) -> None:
        self.operator, self.weight, self.noise = problem.operator, weight, problem.noise
        self.variance = self.to_units(problem.variance) / problem.noise
        self.scales = _axis_scales(problem.voxel_size_um)
        start = self.to_units(problem.start)
        self.laplacian_squared = _laplacian_modes(start.shape, self.scales) ** 2
        self.hold_hessian = weight / _SHRINKAGE
        self.hold_positive = _HOLD_POSITIVE
        norm = float(np.linalg.norm(problem.operator.matrix, 2) ** 2)
        self.hold_data = _HOLD_DATA * norm
        modes = self.hold_hessian * self.laplacian_squared + self.hold_positive + self.hold_data
        self.join = (1 / modes).astype(np.float32)
        self.w, self.share = hessian(start, self.scales), torch.zeros_like(start)
        self.volume, self.positive_dual = start.clamp(min=0), torch.zeros_like(start)
        self.fitted, self.data_dual = start, torch.zeros_like(start)
        self.saturated = None if problem.saturated is None else torch.from_numpy(problem.saturated)
        # The misfit by its variance, as the multiplier of the projections.
        self.weighed = torch.zeros_like(self.variance)
        self.iterations = 0

    def to_units(self, intensities: np.ndarray) -> torch.Tensor:
        """Return intensities in units of the noise."""
        return torch.from_numpy(np.asarray(intensities / self.noise, np.float32))

    def run(
        self, aimed: torch.Tensor, until: Convergence, report: Callable[[int, float], None]
    ) -> float:
        """Iterate until the gap for these data is small, and return the gap."""
        for iteration in range(1, until.iterations + 1):
            self._step(self.raised(aimed, self.fitted))
            if iteration % _ITERATIONS_PER_CHECK == 0 or iteration == until.iterations:
                gap = self.gap(aimed)
                report(iteration, gap)
                if gap <= until.tolerance:
                    break
        self.iterations = iteration
        return gap

    def raised(self, aimed: torch.Tensor, volume: torch.Tensor) -> torch.Tensor:
        """Raise lower bounds to what a volume predicts, where that is more.

        The misfit of that volume to them is its misfit to the bounds, with the same gradient, and
        that of any other is no smaller: each step is one of majorisation and minimisation (Hunter &
        Lange, A tutorial on MM algorithms, The American Statistician 2004).
        """
        if self.saturated is None:
            return aimed
        predicted = self.operator.forward(volume)
        return torch.where(self.saturated, torch.maximum(aimed, predicted), aimed)

    def _step(self, aimed: torch.Tensor) -> None:
        held = hessian_adjoint(self.w * (1 - 2 * self.share), self.scales).mul_(self.hold_hessian)
        held.add_(self.volume - self.positive_dual, alpha=self.hold_positive)
        held.add_(self.fitted - self.data_dual, alpha=self.hold_data)
        joined = _divide_modes(held, self.join)
        old = 1 - _RELAXATION
        self.w *= old * (1 - self.share) + self.share
        self.w.add_(hessian(joined, self.scales), alpha=_RELAXATION)
        threshold = self.weight / self.hold_hessian
        self.share = (threshold / _norm(self.w).clamp_(min=1e-12)).clamp_(max=1)
        raised = _RELAXATION * joined + old * self.volume + self.positive_dual
        self.volume = raised.clamp(min=0)
        self.positive_dual = raised - self.volume
        raised = _RELAXATION * joined + old * self.fitted + self.data_dual
        if self.operator.lateral is None:
            self.fitted = self.operator.prox(raised, aimed, self.variance * self.hold_data)
            self.weighed = (self.operator.forward(self.fitted) - aimed) / self.variance
        else:
            self._blurred_data_step(raised, aimed)
        self.data_dual = raised - self.fitted

    def _blurred_data_step(self, raised: torch.Tensor, aimed: torch.Tensor) -> None:
        """Take the data step with a copy of the projections, which have a noise of their own.

        A blur and the noise of each pixel have no closed-form step together; one after another
        they have.
        """
        before, hold = self.operator.forward(self.fitted), _HOLD_PIXELS
        dual = -self.weighed / hold
        precision = 1 / self.variance
        copy = (precision * aimed + hold * (before - dual)) / (precision + hold)
        lifted = _RELAXATION * copy + (1 - _RELAXATION) * before + dual
        self.fitted = self.operator.prox(raised, lifted, self.hold_data / hold)
        self.weighed = hold * (self.operator.forward(self.fitted) - lifted)

    def objective(self, aimed: torch.Tensor) -> float:
        """Return the value of the functional at the volume."""
        misfit = self.operator.forward(self.volume) - self.raised(aimed, self.volume)
        misfit = misfit.square() / self.variance
        penalty = _norm(hessian(self.volume, self.scales))
        return 0.5 * _sum(misfit) + self.weight * _sum(penalty)

    def gap(self, aimed: torch.Tensor) -> float:
        r"""Return a bound of how far the objective is above its minimum, as a share of it.

        The dual problem is to maximise :math:`-q \cdot y - \sum \sigma_y^2 q^2 / 2` over q and p
        with :math:`A^T q + H^T p \ge 0` and :math:`|p| \le \lambda`; every such pair bounds the
        minimum from below. The iteration's pair misses the first constraint a little. It is met by
        raising q by a constant and p by a Hessian, whose adjoint then is what is missing, and the
        second by shrinking both. With lower bounds, it is the gap of the problem in which they are
        raised to what the volume predicts: a volume that solves that one solves this one, too.
        """
        aimed = self.raised(aimed, self.volume)
        q = self.weighed.clone()
        p = self.w * (self.share * self.hold_hessian)
        missing = self.operator.adjoint(q).add_(hessian_adjoint(p, self.scales))
        missing.neg_().clamp_(min=0)
        weights = self.operator.matrix.sum(axis=0)
        constant = _sum(missing) / missing.numel() / float(weights.mean())
        missing -= torch.from_numpy(constant * weights).float()[:, None, None]
        modes = self.laplacian_squared.copy()
        modes[0, 0, 0] = np.inf  # The rest has no mean.
        p += hessian(_divide_modes(missing, (1 / modes).astype(np.float32)), self.scales)
        q += constant
        largest = min(1.0, self.weight / max(float(_norm(p).max()), 1e-12))
        slope, bend = -_sum(q * aimed), _sum(q.square() * self.variance)
        scale = min(largest, max(0.0, slope / max(bend, 1e-12)))
        bound = scale * slope - 0.5 * scale**2 * bend
        objective = self.objective(aimed)
        return max(0.0, objective - bound) / max(objective, 1e-12)


def _sum(values: torch.Tensor) -> float:
    return float(values.sum(dtype=torch.float64))


def _norm(fields: torch.Tensor) -> torch.Tensor:
    """Return the norm over the first axis; torch's own is ten times slower there."""
    squares = fields[0].square()
    for field in fields[1:]:
        squares.addcmul_(field, field)
    return squares.sqrt_()


def _laplacian_modes(shape: tuple[int, ...], scales: tuple[float, float, float]) -> np.ndarray:
    """Return the eigenvalues (Z, Y, X) of the negative Laplacian in the cosine modes."""
    waves = [
        2 * scale**2 * (1 - np.cos(np.pi * np.arange(n) / n))
        for n, scale in zip(shape, scales, strict=True)
    ]
    return waves[0][:, None, None] + waves[1][:, None] + waves[2]


def _divide_modes(volume: torch.Tensor, factors: np.ndarray) -> torch.Tensor:
    """Multiply the cosine modes of a volume, which is overwritten, by factors."""
    workers = torch.get_num_threads()
    modes = scipy.fft.dctn(volume.numpy(), norm="ortho", overwrite_x=True, workers=workers)
    modes *= factors
    return torch.from_numpy(scipy.fft.idctn(modes, norm="ortho", overwrite_x=True, workers=workers))


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
