r"""What the spectral Gaussian process expects at pixels that hold no measurement.

The closed form of `besselflow.baselines.spectral` wants a full grid of measurements with equal
noise. Pixels that are excluded are therefore given the value at which they have no say: with the
covariance M of all measurements, that is the conditional mean
:math:`y_m = -W_{mm}^{-1} W_{mu} y_u` of the masked given the others, with the precision
:math:`W = M^{-1}` (Rasmussen & Williams, 2006, eq. A.6 and A.11 to A.13). The posterior mean of the
completed grid is then exactly the posterior mean given the unmasked pixels alone.

Of saturated pixels, a lower bound is known. They are given the most probable values that are not
below it: a pixel that the others predict to be brighter is like one that is masked, and one that
they predict to be darker is like one that was measured at its bound. Which pixels are of which kind
is found by a primal-dual active set (Hintermüller, Ito & Kunisch, The primal-dual active set
strategy as a semismooth Newton method, SIAM Journal on Optimization 2002).

W is applied between two cosine transforms, and each system is solved by conjugate gradients.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import scipy.fft

from besselflow.baselines.spectral_fit import fit_spectral_model
from besselflow.baselines.spectral_model import (
    AxialBasis,
    SpectralModel,
    lateral_frequency_squared,
)
from besselflow.projection import AxialProjection

_VALUES_AT_ONCE = 2**22
_RESIDUAL = 3e-3
_MOST_ITERATIONS = 60
# Saturated pixels lie side by side, where the system is far stiffer than at scattered ones: at the
# residual above, a good part of what it says of the middle of a bright structure is still to come.
_RESIDUAL_SATURATED = 3e-4
_MOST_ITERATIONS_SATURATED = 300
_MOST_CHANGES = 12
# Below this share of saturated pixels, the spectrum is hardly another.
_LEAST_TO_REFIT = 1e-3
# Numbers of 8 bytes, see `besselflow.resources`.
MOST_KEPT = 2**26


def fill_masked(
    projections: np.ndarray,
    masked: np.ndarray | None,
    operator: AxialProjection,
    model: SpectralModel,
    voxel_size_um: tuple[float, float, float],
    saturated: np.ndarray | None = None,
) -> np.ndarray:
    """Replace masked pixels by their conditional mean given all others, and given their bounds.

    Parameters
    ----------
    projections : numpy.ndarray, shape (P, Y, X)
        Measured intensities; those of saturated pixels are lower bounds, and those of all other
        masked pixels are not looked at.
    masked : numpy.ndarray of bool, shape (P, Y, X), or None
        Pixels that hold no measurement; None for none.
    operator : AxialProjection
        How the volume was measured.
    model : SpectralModel
        Prior and noise.
    voxel_size_um : tuple of float
        (z, y, x) voxel size.
    saturated : numpy.ndarray of bool, shape (P, Y, X), or None
        Those of the masked pixels that are lower bounds; None for none.

    Returns
    -------
    numpy.ndarray, shape (P, Y, X), float32
        The projections themselves where nothing is masked. The masked values are exact to a
        relative residual of 3e-3, and of 3e-4 with saturated pixels.
    """
    if masked is None or not masked.any():
        return projections
    precision = _Precision(projections.shape, operator, model, voxel_size_um)
    centre = model.mean * operator.matrix.sum(axis=1)[:, None, None]
    centred = projections - centre
    # A start far from the solution is no better than none.
    field = np.where(masked, 0.0, centred)
    if saturated is None or not saturated.any():
        field, _ = _relax(precision, field, masked)
    else:
        field = _raise(precision, field, centred, masked, saturated)
    filled = projections.astype(np.float32)
    filled[masked] = field[masked] + np.broadcast_to(centre, masked.shape)[masked]
    return filled


def fit_with_bounds(
    regions: list[np.ndarray],
    masked: list[np.ndarray | None],
    saturated: list[np.ndarray | None],
    operator: AxialProjection,
    voxel_size_um: tuple[float, float, float],
    anisotropy: float | Literal["auto"] = 1.0,
) -> SpectralModel:
    """Fit prior and noise by marginal likelihood, where some pixels are lower bounds.

    A structure without its top has another spectrum. Where more than a thousandth of the pixels are
    saturated, the fit is repeated on regions that the first one has completed: a step of
    expectation maximisation that leaves out the covariance of what is completed.

    Parameters
    ----------
    regions : list of numpy.ndarray, shape (P, y, x)
        Lateral regions of the projections.
    masked, saturated : list of numpy.ndarray of bool, shape (P, y, x), or None
        As in `fill_masked`, one for each region.
    operator : AxialProjection
        How the volume was measured.
    voxel_size_um : tuple of float
        (z, y, x) voxel size.
    anisotropy : float or "auto"
        As in `besselflow.baselines.spectral_fit.fit_spectral_model`.

    Raises
    ------
    ValueError
        The projections are constant, so that nothing can be fitted.
    """
    model = fit_spectral_model(regions, operator, voxel_size_um, anisotropy)
    count = sum(np.count_nonzero(own) for own in saturated if own is not None)
    if count <= _LEAST_TO_REFIT * sum(region.size for region in regions):
        return model
    completed = [
        fill_masked(region, own, operator, model, voxel_size_um, bounds)
        for region, own, bounds in zip(regions, masked, saturated, strict=True)
    ]
    return fit_spectral_model(completed, operator, voxel_size_um, anisotropy)


def _relax(
    precision: _Precision,
    field: np.ndarray,
    free: np.ndarray,
    relative: float = _RESIDUAL,
    iterations: int = _MOST_ITERATIONS,
    goal: float | None = None,
) -> tuple[np.ndarray, float]:
    """Let the free pixels of a field (P, Y, X) go to their conditional mean given the others.

    Returns the field, and the squared residual at which the iteration ends; by default, it is that
    of the start times the square of the relative one.
    """
    residual = -precision(field)[free]
    solved, direction = field[free], residual.copy()
    energy = residual @ residual
    goal = relative**2 * energy if goal is None else goal
    change = np.zeros(field.shape)
    for _ in range(iterations):
        if energy <= goal:
            break
        change[free] = direction
        product = precision(change)[free]
        step = energy / (direction @ product)
        solved += step * direction
        residual -= step * product
        before, energy = energy, residual @ residual
        direction = residual + (energy / before) * direction
    field = field.copy()
    field[free] = solved
    return field, goal


def _raise(
    precision: _Precision,
    field: np.ndarray,
    bounds: np.ndarray,
    masked: np.ndarray,
    saturated: np.ndarray,
) -> np.ndarray:
    """Return the most probable field whose saturated pixels are not below their bounds."""
    until = (_RESIDUAL_SATURATED, _MOST_ITERATIONS_SATURATED)
    free = masked
    field, goal = _relax(precision, field, free, *until)
    for _ in range(_MOST_CHANGES):
        below = free & saturated & (field < bounds)
        pulled_up = saturated & ~free & (precision(field) < 0)
        if not (below.any() or pulled_up.any()):
            break
        free = (free & ~below) | pulled_up
        field, _ = _relax(precision, np.where(below, bounds, field), free, *until, goal)
    return np.where(saturated, np.maximum(field, bounds), field)


class _Precision:
    """The inverse covariance of the measurements of a region."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        operator: AxialProjection,
        model: SpectralModel,
        voxel_size_um: tuple[float, float, float],
    ):
        basis = AxialBasis.of(operator, voxel_size_um[0])
        self._basis, self._model, self._count = basis, model, shape[0]
        self._noise = model.noise_variance * operator.relative_noise
        self._lateral = lateral_frequency_squared(shape[1:], voxel_size_um).ravel()
        self._gain = np.ones_like(self._lateral)
        if operator.lateral is not None:
            self._gain = operator.lateral.transfer(shape[1:]).ravel() ** 2
        pairs = _pair_modes(self._lateral, self._gain)
        at_once = max(1, _VALUES_AT_ONCE // (shape[0] ** 2 + 2 * basis.period))
        self._pairs = [pairs[start : start + at_once] for start in range(0, len(pairs), at_once)]
        # The inverses are used in every iteration, and kept where memory allows; half of each will
        # do, since they are symmetric.
        self._inverses, self._entries = None, None
        if len(pairs) * shape[0] * (shape[0] + 1) // 2 <= MOST_KEPT:
            if len(pairs) * shape[0] ** 2 > MOST_KEPT:
                self._entries = basis.entries
            self._inverses = [self._inverse(some) for some in self._pairs]

    def _inverse(self, pairs: np.ndarray) -> np.ndarray:
        inverse = np.linalg.inv(self._covariance(pairs))
        return inverse if self._entries is None else inverse[:, *np.triu_indices(self._count)]

    def _covariance(self, pairs: np.ndarray) -> np.ndarray:
        one = pairs[:, 0]
        density = self._model.density_of(self._lateral[one], self._basis.frequency_squared)
        return self._basis.data_covariance(density * self._gain[one, None]) + self._noise

    def __call__(self, residual: np.ndarray) -> np.ndarray:
        """Return W r, shape (P, Y, X)."""
        modes = scipy.fft.dctn(residual, axes=(1, 2), norm="ortho").reshape(self._count, -1)
        for index, pairs in enumerate(self._pairs):
            right = modes[:, pairs].transpose(1, 0, 2)
            if self._inverses is None:
                solved = np.linalg.solve(self._covariance(pairs), right)
            else:
                inverse = self._inverses[index]
                if self._entries is not None:
                    inverse = inverse[:, self._entries]
                solved = inverse @ right
            modes[:, pairs] = solved.transpose(1, 0, 2)
        modes = modes.reshape(residual.shape)
        return scipy.fft.idctn(modes, axes=(1, 2), norm="ortho", overwrite_x=True)


def _pair_modes(lateral: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Return pairs of modes (N, 2) of equal covariance; one without a partner is its own.

    In square images of square pixels, the modes (k, l) and (l, k) are such a pair.
    """
    order = np.lexsort((gain, lateral))
    last = np.append((np.diff(lateral[order]) != 0) | (np.diff(gain[order]) != 0), True)
    begins = np.append(0, np.flatnonzero(last)[:-1] + 1)
    place = np.arange(len(order)) - np.repeat(begins, np.diff(np.append(begins, len(order))))
    first = np.flatnonzero(place % 2 == 0)
    second = np.where(last[first], first, np.minimum(first + 1, len(order) - 1))
    return np.stack([order[first], order[second]], axis=1)
