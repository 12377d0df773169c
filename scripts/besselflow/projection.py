r"""The axial projection operator: what a stepped Bessel beam measures of a volume.

A projection at the stage position :math:`z_p` integrates the volume along z,

.. math:: y_p(y, x) = \sum_z A_{pz} \, v(z, y, x), \qquad
          A_{pz} = \int_{z - \Delta/2}^{z + \Delta/2} h(u - z_p) \, du,

with the axial profile :math:`h` of the beam. The matrix is the same for every pixel, so that every
solve is one of size P x P or smaller, shared by all pixels.

Where the beam has side lobes, every projection is blurred laterally as well: the operator is then
the axial weights times a blur (`besselflow.lateral`), :math:`A \otimes B`. The two act on different
axes, so that all solves stay closed-form between two cosine transforms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from besselflow.arrays import multiply
from besselflow.beam import AxialProfile
from besselflow.lateral import LateralBlur, scale_modes
from besselflow.proximal import solve_blurred, solve_pixels


@dataclass(frozen=True)
class AxialGrid:
    """The regular z grid of a volume.

    Attributes
    ----------
    first_um : float
        Centre of the first slice in micrometres, on the axis of the stage positions.
    spacing_um : float
        Distance of neighbouring slices in micrometres.
    n_slices : int
        Number of slices.
    """

    first_um: float
    spacing_um: float
    n_slices: int

    @property
    def centres_um(self) -> np.ndarray:
        """Centres of the slices in micrometres, shape (Z,)."""
        return self.first_um + self.spacing_um * np.arange(self.n_slices)

    @classmethod
    def covering(
        cls, profile: AxialProfile, positions_um: np.ndarray, spacing_um: float
    ) -> AxialGrid:
        """Return the smallest grid through z = 0 whose slices hold all that any projection sees.

        Parameters
        ----------
        profile : AxialProfile
            Axial profile of the beam.
        positions_um : numpy.ndarray, shape (P,)
            Stage positions.
        spacing_um : float
            Slice spacing.
        """
        low, high = profile.support_um
        tolerance = 1e-6
        first = math.ceil((np.min(positions_um) + low) / spacing_um - 0.5 + tolerance)
        last = math.floor((np.max(positions_um) + high) / spacing_um + 0.5 - tolerance)
        first, last = min(first, last), max(first, last)
        return cls(first * spacing_um, spacing_um, last - first + 1)


@dataclass(frozen=True)
class AxialProjection:
    """The operator: a matrix over z and, optionally, a blur of each projection.

    All methods take numpy arrays or torch tensors of shape (..., Z, Y, X) or (..., P, Y, X), with
    any number of leading axes such as t and c, and return the same kind, device and precision.

    Attributes
    ----------
    matrix : numpy.ndarray, shape (P, Z)
        Weight of each slice in each projection, float64.
    lateral : LateralBlur or None
        What the side lobes of the beam mix within each projection.
    noise_factors : numpy.ndarray or None, shape (P,)
        Noise variance of each projection in multiples of what later stages expect at its intensity:
        a dim projection that was made as bright as the others is noisier than they are. None where
        all are alike.
    """

    matrix: np.ndarray
    lateral: LateralBlur | None = None
    noise_factors: np.ndarray | None = None

    @classmethod
    def from_geometry(
        cls,
        profile: AxialProfile,
        positions_um: np.ndarray,
        grid: AxialGrid,
        lateral: LateralBlur | None = None,
    ) -> AxialProjection:
        """Integrate the profile over each slice, for real-valued stage positions.

        Parameters
        ----------
        profile : AxialProfile
            Axial profile of the beam.
        positions_um : numpy.ndarray, shape (P,)
            Stage positions in micrometres.
        grid : AxialGrid
            Slices of the volume.
        lateral : LateralBlur, optional
            Blur of each projection.

        Raises
        ------
        ValueError
            A projection sees no slice of the grid.
        """
        offset = grid.centres_um[None, :] - np.asarray(positions_um, float)[:, None]
        half = grid.spacing_um / 2
        matrix = profile.collected(offset - half, offset + half)
        blind = np.flatnonzero(matrix.sum(axis=1) <= 0)
        if blind.size:
            raise ValueError(
                f"projection {blind[0]} at {positions_um[blind[0]]:g} um sees no slice of the grid "
                f"from {grid.centres_um[0]:g} to {grid.centres_um[-1]:g} um; check the stage "
                f"positions and the slice spacing"
            )
        return cls(matrix, lateral)

    @property
    def n_projections(self) -> int:
        """Number of projections P."""
        return self.matrix.shape[0]

    @property
    def n_slices(self) -> int:
        """Number of slices Z."""
        return self.matrix.shape[1]

    @property
    def seen(self) -> np.ndarray:
        """Boolean (Z,): slices that at least one projection collects light from."""
        return self.matrix.max(axis=0) > 1e-9

    @property
    def relative_noise(self) -> np.ndarray:
        """Covariance of the projections' noise, in units of one noise variance, shape (P, P)."""
        if self.noise_factors is None:
            return np.eye(self.n_projections)
        return np.diag(self.noise_factors)

    def mean_squared_weight(self, shape: tuple[int, int]) -> float:
        """Return the sum of squared weights of a measured pixel, trace(A A^T) / (P Y X).

        Parameters
        ----------
        shape : tuple of int
            (Y, X) of the projections; a blur's weights depend on it next to the edges.
        """
        axial = float((self.matrix**2).sum() / self.n_projections)
        if self.lateral is None:
            return axial
        return axial * float(np.mean(self.lateral.transfer(shape) ** 2))

    @cached_property
    def _gram(self) -> np.ndarray:
        return self.matrix @ self.matrix.T

    @cached_property
    def _eigen(self) -> tuple[np.ndarray, np.ndarray]:
        values, vectors = np.linalg.eigh(self._gram)
        return np.maximum(values, 0.0), vectors

    def forward(self, volume):
        """Return A v, shape (..., P, Y, X)."""
        images = multiply(self.matrix, volume)
        return images if self.lateral is None else self.lateral.apply(images)

    def adjoint(self, projections):
        """Return A^T y, shape (..., Z, Y, X)."""
        if self.lateral is not None:
            projections = self.lateral.apply(projections)
        return multiply(self.matrix.T, projections)

    def pinv(self, projections, rcond: float = 1e-6):
        """Return the minimum-norm solution A^T (A A^T)^+ y, shape (..., Z, Y, X).

        Parameters
        ----------
        projections : array, shape (..., P, Y, X)
        rcond : float
            Eigenvalues of A A^T below this share of the largest count as zero: with a blur, those
            are products of an axial eigenvalue and the square of the blur's.
        """
        values = self._eigenvalues(projections)
        keep = values > rcond * values.max()
        return self._adjoint_of_modes(
            projections, np.where(keep, 1 / np.where(keep, values, 1.0), 0.0)
        )

    def prox(self, volume, projections, ratio):
        r"""Return the minimiser of :math:`\sum (Av - y)^2 / \mathrm{ratio} + |v - v_0|^2`.

        By the Woodbury identity it is
        :math:`v_0 + A^T (A A^T + R)^{-1} (y - A v_0)`, with the ratios on the diagonal of R. That
        is exact and closed-form for a single ratio (one eigenbasis for all pixels), and for a ratio
        per pixel without a blur (one P x P solve per pixel, banded where beams overlap little). A
        blur and a ratio per pixel together have no common basis: that system is solved by
        conjugate gradients to a relative residual of 1e-8 (1e-6 in single precision).

        Parameters
        ----------
        volume : array, shape (..., Z, Y, X)
            The point :math:`v_0` to stay close to.
        projections : array, shape (..., P, Y, X)
            Measured projections y.
        ratio : float or array, broadcastable to (..., P, Y, X)
            Noise variance of a projected pixel divided by the variance of the volume around
            :math:`v_0`. The number 0 projects onto the volumes that agree with the data exactly.

        Raises
        ------
        ValueError
            A ratio of a pixel is not positive.
        """
        misfit = projections - self.forward(volume)
        if np.ndim(ratio) > 0:
            if self.lateral is None:
                return volume + self.adjoint(solve_pixels(self._gram, misfit, ratio))
            squared = self.lateral.transfer(tuple(misfit.shape[-2:])) ** 2
            return volume + self.adjoint(solve_blurred(self._gram, squared, misfit, ratio))
        ratio = float(ratio)
        if ratio == 0:
            return volume + self.pinv(misfit)
        return volume + self._adjoint_of_modes(misfit, 1 / (self._eigenvalues(misfit) + ratio))

    def _eigenvalues(self, projections) -> np.ndarray:
        """Return those of A A^T: (P, 1, 1), or (P, Y, X) with a blur."""
        values = self._eigen[0][:, None, None]
        if self.lateral is None:
            return values
        return values * self.lateral.transfer(tuple(projections.shape[-2:])) ** 2

    def _adjoint_of_modes(self, projections, factors: np.ndarray):
        """Return A^T F y, with F diagonal in the eigenbasis of A A^T."""
        vectors = self._eigen[1]
        if self.lateral is None:
            return multiply(self.matrix.T @ (vectors * factors[:, 0, 0]) @ vectors.T, projections)
        factors = factors * self.lateral.transfer(tuple(projections.shape[-2:]))
        mixed = scale_modes(multiply(vectors.T, projections), factors)
        return multiply(self.matrix.T @ vectors, mixed)
