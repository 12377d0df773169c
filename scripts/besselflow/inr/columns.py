"""The measured pixel columns of one work unit, as a coordinate network is fitted to them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint

from besselflow.batches import Batches
from besselflow.inr.network import CoordinateNetwork
from besselflow.projection import AxialProjection

_RENDER_COLUMNS = 2048
# Voxels whose activations are held at once where whole images need a gradient: some 200 MB.
_GRADIENT_VOXELS = 65536
# Features, their encoding, and what an activation takes in between.
_ACTIVATIONS = 6
# Curvature of the output function, and the darkest mean that the fit may start from.
_SQUAREPLUS = 0.4
_DARKEST_START = 0.05
_FEWEST_HELD_OUT, _MOST_HELD_OUT = 32, 256
# Smallest patch where the beam blurs laterally.
_PATCH = 8
# Weights of the six slices around each one in the published smoothing along z.
NEIGHBOUR_WEIGHTS = (0.05, 0.15, 0.3, 0.3, 0.15, 0.05)


@dataclass(frozen=True)
class Batch:
    """The columns of one step.

    Attributes
    ----------
    columns : torch.Tensor, shape (B, h, w)
        Columns whose light reaches the measured pixels.
    targets : torch.Tensor, shape (B, s, s)
        Measured pixels; a patch without a rim of the kernel's radius.
    """

    columns: torch.Tensor
    targets: torch.Tensor

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        return Batch(self.columns.to(device), self.targets.to(device))


@dataclass(frozen=True)
class BatchPlan:
    """Draws the columns of each step, as a function of the step alone, so that runs resume.

    Without a lateral blur, columns are drawn one by one. With one, a pixel is measured from the
    light of its neighbours, so that whole patches are drawn, whose rims are evaluated with them.

    Attributes
    ----------
    shape : tuple of int
        (Y, X) of the unit.
    columns : int
        Measured pixels per step, roughly.
    radius : tuple of int
        Radius of the lateral kernel in pixels along (y, x); 0 without one.
    seed : int
        Seed of the order.
    """

    shape: tuple[int, int]
    columns: int
    radius: tuple[int, int]
    seed: int

    def of_step(self, step: int) -> Batch:
        """Return the batch of a step, counted from 0."""
        if self.radius == (0, 0):
            chosen = self._draw(step, math.prod(self.shape), self.columns)[:, None, None]
            return Batch(chosen, chosen)
        side = min(max(_PATCH, *self.radius), *self.shape)
        rows, cols = (math.ceil(length / side) + 1 for length in self.shape)
        wanted = max(1, round(self.columns / side**2))
        chosen = self._draw(step, rows * cols, wanted)
        # The lattice of patches lies elsewhere in every epoch, so that their edges move.
        epoch = step // (rows * cols // min(wanted, rows * cols))
        shift = torch.randint(0, side, (2,), generator=self._generator(epoch, 1))
        top = (chosen // cols * side - shift[0]).clamp(0, self.shape[0] - side)
        left = (chosen % cols * side - shift[1]).clamp(0, self.shape[1] - side)
        return self._patches(top, left, side)

    def held_out(self, share: float) -> Batch:
        """Return the batch from which a share of all pixels is left out of the fit."""
        wanted = int(share * math.prod(self.shape))
        wanted = min(max(wanted, _FEWEST_HELD_OUT), _MOST_HELD_OUT)
        # A step that no fit takes; its columns are as random as those of any other.
        return BatchPlan(self.shape, wanted, self.radius, self.seed + 1).of_step(0)

    def _draw(self, step: int, count: int, wanted: int) -> torch.Tensor:
        """Return a step's share of all `count` places; every epoch takes each of them once."""
        wanted = min(wanted, count)
        epoch, position = divmod(step, count // wanted)
        order = torch.randperm(count, generator=self._generator(epoch, 0))
        return order[position * wanted : (position + 1) * wanted]

    def _generator(self, epoch: int, stream: int) -> torch.Generator:
        return torch.Generator().manual_seed((self.seed << 20) + 2 * epoch + stream + 1)

    def _patches(self, top: torch.Tensor, left: torch.Tensor, side: int) -> Batch:
        def indices(rims: tuple[int, int]) -> torch.Tensor:
            rows = _mirrored(top[:, None] + torch.arange(-rims[0], side + rims[0]), self.shape[0])
            cols = _mirrored(left[:, None] + torch.arange(-rims[1], side + rims[1]), self.shape[1])
            return rows[:, :, None] * self.shape[1] + cols[:, None, :]

        return Batch(indices(self.radius), indices((0, 0)))


def _mirrored(index: torch.Tensor, length: int) -> torch.Tensor:
    """Return indices beyond the edges as those of the mirror image there."""
    index = torch.remainder(index, 2 * length)
    return torch.minimum(index, 2 * length - 1 - index)


@dataclass(frozen=True)
class UnitColumns:
    """The unit as pixel columns on the device.

    Attributes
    ----------
    z_um, yx_um : torch.Tensor, shapes (Z,) and (Y X, 2)
        Depths, and lateral positions of the columns, from the middle of the unit.
    measured, precision : torch.Tensor, shape (Y X, P)
        Intensities, and one over their variances.
    matrix : torch.Tensor, shape (P, Z)
        Axial part of the operator.
    kernel : torch.Tensor, shape (1, 1, ky, kx), or None
        Lateral part of the operator.
    unit, shift : float
        Intensity that an output of 1 stands for, and the output that stands for the mean.
    positive : bool
        Whether the intensity cannot be negative.
    shape : tuple of int
        (Z, Y, X).
    saturated : torch.Tensor of bool, shape (Y X, P), or None
        Intensities that are lower bounds.
    """

    z_um: torch.Tensor
    yx_um: torch.Tensor
    measured: torch.Tensor
    precision: torch.Tensor
    matrix: torch.Tensor
    kernel: torch.Tensor | None
    unit: float
    shift: float
    positive: bool
    shape: tuple[int, int, int]
    saturated: torch.Tensor | None = None

    @classmethod
    def of(
        cls,
        projections: np.ndarray,
        variance: np.ndarray,
        operator: AxialProjection,
        voxel_size_um: tuple[float, float, float],
        scale: float,
        mean: float,
        positive: bool,
        device: torch.device,
        saturated: np.ndarray | None = None,
    ) -> UnitColumns:
        """Arrange one unit.

        Parameters
        ----------
        projections, variance : numpy.ndarray, shape (P, Y, X)
            Measured intensities, and the variance of their noise.
        operator : AxialProjection
            How the volume was measured.
        voxel_size_um : tuple of float
            (z, y, x) voxel size.
        scale, mean : float
            Intensity that counts as bright in this sample, and its mean intensity.
        positive : bool
            Whether to allow no negative light.
        device : torch.device
            Where to compute.
        saturated : numpy.ndarray of bool, shape (P, Y, X), or None
            Intensities that are lower bounds.
        """
        p, y, x = projections.shape
        slices = operator.n_slices
        dz, dy, dx = voxel_size_um
        unit = 0.1 * scale
        relative_mean = max(mean / unit, _DARKEST_START)
        rows, cols = np.mgrid[:y, :x]
        centred = [(rows - (y - 1) / 2) * dy, (cols - (x - 1) / 2) * dx]

        def tensor(values: np.ndarray) -> torch.Tensor:
            return torch.as_tensor(values, dtype=torch.float32, device=device)

        kernel = None if operator.lateral is None else operator.lateral.kernel
        return cls(
            z_um=tensor((np.arange(slices) - (slices - 1) / 2) * dz),
            yx_um=tensor(np.stack([c.ravel() for c in centred], axis=1)),
            measured=tensor(projections.reshape(p, -1).T),
            precision=tensor(1 / variance.reshape(p, -1).T),
            matrix=tensor(operator.matrix),
            kernel=None if kernel is None else tensor(kernel[None, None]),
            unit=unit,
            # An output of 0 stands for the mean intensity, where the fit can start from.
            shift=relative_mean - (_SQUAREPLUS / (4 * relative_mean) if positive else 0.0),
            positive=positive,
            shape=(slices, y, x),
            saturated=None
            if saturated is None
            else torch.from_numpy(saturated.reshape(p, -1).T.copy()).to(device),
        )

    def intensity(
        self, network: CoordinateNetwork, columns: torch.Tensor, z_um: torch.Tensor
    ) -> torch.Tensor:
        """Return intensities (N, Z) of N columns at depths (Z,).

        A positive output passes through squareplus (Barron, arXiv 2112.11687). Its tail falls so
        slowly that a network which starts in the dark of a sparse sample finds the bright
        structures; behind softplus it can die.
        """
        output = 4 * network(z_um, self.yx_um[columns]) + self.shift
        if not self.positive:
            return output * self.unit
        return (output + torch.sqrt(output.square() + _SQUAREPLUS)) * (0.5 * self.unit)

    def squared_error(self, network: CoordinateNetwork, batch: Batch) -> torch.Tensor:
        """Return squared differences of predicted and measured projections, (B, s, s, P).

        Of a lower bound, it is 0 where more than that is predicted.
        """
        seen = self.intensity(network, batch.columns.flatten(), self.z_um) @ self.matrix.T
        predicted = seen.reshape(*batch.columns.shape, -1)
        if self.kernel is not None:
            # The kernel equals its mirror images, so that a correlation is a convolution.
            images = predicted.permute(0, 3, 1, 2).flatten(0, 1)[:, None]
            blurred = torch.nn.functional.conv2d(images, self.kernel)
            count, patches = predicted.shape[-1], len(predicted)
            predicted = blurred.reshape(patches, count, *blurred.shape[2:]).permute(0, 2, 3, 1)
        difference = predicted - self.measured[batch.targets]
        if self.saturated is not None:
            exceeded = self.saturated[batch.targets] & (difference > 0)
            difference = difference.masked_fill(exceeded, 0.0)
        return difference.square()

    def project(
        self, network: CoordinateNetwork, weights: torch.Tensor, neighbour_average: bool
    ) -> torch.Tensor:
        """Sum the slices of the network's volume with weights, so that gradients pass.

        Slices without a weight are not evaluated. The activations of one block of columns after the
        other are computed again for the gradient, so that memory does not grow with the image.

        Parameters
        ----------
        network : CoordinateNetwork
        weights : torch.Tensor, shape (n, Z)
        neighbour_average : bool
            As in `render`.

        Returns
        -------
        torch.Tensor, shape (n, Y, X)
        """
        z_um, smooth = self._depths(neighbour_average)
        if smooth is not None:
            weights = weights @ smooth
        used = (weights != 0).any(dim=0)
        z_um, weights = z_um[used], weights[:, used]

        def images_of(columns: torch.Tensor) -> torch.Tensor:
            return self.intensity(network, columns, z_um) @ weights.T

        columns = torch.arange(len(self.yx_um), device=z_um.device)
        parts = columns.split(max(1, _GRADIENT_VOXELS // max(1, len(z_um))))
        images = [
            checkpoint(images_of, part, use_reentrant=False, preserve_rng_state=False)
            for part in parts
        ]
        return torch.cat(images).T.reshape(-1, *self.shape[1:])

    @torch.no_grad()
    def render(self, network: CoordinateNetwork, neighbour_average: bool) -> np.ndarray:
        """Evaluate the network at every voxel.

        Parameters
        ----------
        network : CoordinateNetwork
        neighbour_average : bool
            Average each slice with its neighbours. The six weights are centred between two slices,
            so that the network is evaluated there.

        Returns
        -------
        numpy.ndarray, shape (Z, Y, X), float32
        """
        z_um, smooth = self._depths(neighbour_average)
        columns = torch.arange(len(self.yx_um), device=z_um.device)

        def intensity_of(part: slice) -> torch.Tensor:
            values = self.intensity(network, columns[part], z_um)
            return (values if smooth is None else values @ smooth.T).cpu()

        width = max((len(matrix) for matrix in network.hidden_matrices()), default=1)
        bytes_per_column = _ACTIVATIONS * 4 * width * len(z_um)
        parts = Batches(z_um.device)(intensity_of, len(columns), bytes_per_column, _RENDER_COLUMNS)
        return torch.cat([values for _, values in parts]).T.reshape(self.shape).contiguous().numpy()

    def _depths(self, neighbour_average: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return where slices are evaluated, (Z',), and what averages them, (Z, Z') or None."""
        z_um, count = self.z_um, len(NEIGHBOUR_WEIGHTS)
        if not neighbour_average:
            return z_um, None
        spacing = z_um[1] - z_um[0] if len(z_um) > 1 else z_um.new_tensor(1.0)
        steps = torch.arange(len(z_um) + count - 1, device=z_um.device) - (count - 1) / 2
        smooth = z_um.new_zeros(len(z_um), len(steps))
        for k, weight in enumerate(NEIGHBOUR_WEIGHTS):
            smooth.diagonal(k).fill_(weight)
        return z_um[0] + spacing * steps, smooth
