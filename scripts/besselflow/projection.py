r"""The axial projection operator: what a stepped Bessel beam measures of a volume.

A projection at the stage position :math:`z_p` integrates the volume along z,

.. math:: y_p(y, x) = \sum_z A_{pz} \, v(z, y, x), \qquad
          A_{pz} = \int_{z - \Delta/2}^{z + \Delta/2} h(u - z_p) \, du,

with the axial profile :math:`h` of the beam. The matrix is the same for every pixel, so that every
solve is one of size P x P or smaller, shared by all pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from besselflow.beam import AxialProfile


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
    """The operator as a matrix over z, applied to arrays whose third-last axis is z or p.

    All methods take numpy arrays or torch tensors of shape (..., Z, Y, X) or (..., P, Y, X), and
    return the same kind, device and precision.

    Attributes
    ----------
    matrix : numpy.ndarray, shape (P, Z)
        Weight of each slice in each projection, float64.
    """

    matrix: np.ndarray

    @classmethod
    def from_geometry(
        cls, profile: AxialProfile, positions_um: np.ndarray, grid: AxialGrid
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
        return cls(matrix)

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

    @cached_property
    def _eigen(self) -> tuple[np.ndarray, np.ndarray]:
        values, vectors = np.linalg.eigh(self.matrix @ self.matrix.T)
        return np.maximum(values, 0.0), vectors

    def forward(self, volume):
        """Return A v, shape (..., P, Y, X)."""
        return _apply(self.matrix, volume)

    def adjoint(self, projections):
        """Return A^T y, shape (..., Z, Y, X)."""
        return _apply(self.matrix.T, projections)

    def pinv(self, projections, rcond: float = 1e-6):
        """Return the minimum-norm solution A^T (A A^T)^+ y, shape (..., Z, Y, X).

        Parameters
        ----------
        projections : array, shape (..., P, Y, X)
        rcond : float
            Eigenvalues of A A^T below this share of the largest count as zero.
        """
        values, vectors = self._eigen
        keep = values > rcond * values.max()
        inverse = np.where(keep, 1 / np.where(keep, values, 1.0), 0.0)
        return _apply(self.matrix.T @ (vectors * inverse) @ vectors.T, projections)

    def prox(self, volume, projections, ratio: float):
        r"""Return the exact minimiser of :math:`|Av - y|^2 + ratio \, |v - v_0|^2`.

        By the Woodbury identity it is
        :math:`v_0 + A^T (A A^T + ratio \, I)^{-1} (y - A v_0)`, one P x P solve for all pixels.

        Parameters
        ----------
        volume : array, shape (..., Z, Y, X)
            The point :math:`v_0` to stay close to.
        projections : array, shape (..., P, Y, X)
            Measured projections y.
        ratio : float
            Noise variance of a projection divided by the variance of the volume around
            :math:`v_0`. 0 projects onto the volumes that agree with the data exactly.
        """
        if ratio == 0:
            return volume + self.pinv(projections - self.forward(volume))
        values, vectors = self._eigen
        gain = self.matrix.T @ (vectors / (values + ratio)) @ vectors.T
        return volume + _apply(gain, projections - self.forward(volume))


def _apply(matrix: np.ndarray, array):
    """Multiply a matrix into the third-last axis of a numpy array or torch tensor."""
    if isinstance(array, np.ndarray):
        dtype = array.dtype if array.dtype in (np.float32, np.float64) else np.float64
        return np.einsum("pz,...zyx->...pyx", matrix.astype(dtype), array, optimize=True)
    import torch

    weights = torch.as_tensor(matrix, dtype=array.dtype, device=array.device)
    return torch.einsum("pz,...zyx->...pyx", weights, array)
