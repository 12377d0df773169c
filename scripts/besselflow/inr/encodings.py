"""Encodings of a 3D coordinate, evaluated for whole pixel columns at once."""

from __future__ import annotations

import math

import torch
from torch import nn

# Node spacing of each level of the grid, as a multiple of the shortest structure's length.
_GRID_LEVELS = (8.0, 4.0, 2.0, 1.0, 0.5)
_GRID_CHANNELS = 4


class GaussianEncoding(nn.Module):
    r"""Gaussian Fourier features, :math:`[\cos 2\pi Bx, \sin 2\pi Bx]`.

    The entries of B are drawn from a normal distribution whose standard deviation is the bandwidth
    (Tancik et al., Fourier features let networks learn high frequency functions, NeurIPS 2020,
    eq. 5). It is the same along y and x, and along z where all depths are seen: structure that is
    resolved laterally is the only evidence there is of how the sample varies along z.

    Parameters
    ----------
    features : int
        Number of frequencies.
    bandwidth_per_um : float
        Standard deviation of the frequencies in cycles per micrometre.
    generator : torch.Generator
        Source of the frequencies.
    axial_share : float
        Standard deviation along z as a share of that along y and x.
    """

    def __init__(
        self,
        features: int,
        bandwidth_per_um: float,
        generator: torch.Generator,
        axial_share: float = 1.0,
    ):
        super().__init__()
        frequencies = torch.randn(features, 3, generator=generator) * bandwidth_per_um
        frequencies[:, 0] *= axial_share
        self.register_buffer("frequencies", frequencies)
        self.size = 2 * features

    def forward(self, z_um: torch.Tensor, yx_um: torch.Tensor) -> torch.Tensor:
        """Encode depths (Z,) at lateral positions (N, 2) as (N, Z, size)."""
        # cos and sin of a sum of phases: Z + N evaluations of them instead of Z * N.
        along_z = 2 * math.pi * z_um[:, None] * self.frequencies[None, :, 0]
        lateral = 2 * math.pi * yx_um @ self.frequencies[:, 1:].T
        cos_z, sin_z = along_z.cos()[None], along_z.sin()[None]
        cos_l, sin_l = lateral.cos()[:, None], lateral.sin()[:, None]
        return torch.cat([cos_l * cos_z - sin_l * sin_z, sin_l * cos_z + cos_l * sin_z], dim=-1)


class SinCosEncoding(nn.Module):
    r"""Sines and cosines of octaves along each axis, and the coordinate itself.

    The coordinates are scaled to -1..1 over the unit; octave k has the phase :math:`2^k \pi u`
    (Mildenhall et al., NeRF, ECCV 2020, eq. 4). It is the encoding that the MicroDiffusion paper
    describes. Since it is the same along z as laterally in relative terms only, it lets the network
    vary along z as fast as it likes.

    Parameters
    ----------
    octaves : int
        Number of octaves.
    extent_um : tuple of float
        Half of the unit's size along (z, y, x).
    """

    def __init__(self, octaves: int, extent_um: tuple[float, float, float]):
        super().__init__()
        self.register_buffer("extent_um", torch.tensor(extent_um, dtype=torch.float32))
        self.register_buffer("phase", math.pi * 2.0 ** torch.arange(octaves))
        self.size = 3 * (2 * octaves + 1)

    def forward(self, z_um: torch.Tensor, yx_um: torch.Tensor) -> torch.Tensor:
        """Encode depths (Z,) at lateral positions (N, 2) as (N, Z, size)."""
        depth = self._encode(z_um[:, None] / self.extent_um[0])[None].expand(len(yx_um), -1, -1)
        lateral = self._encode(yx_um / self.extent_um[1:])[:, None].expand(-1, len(z_um), -1)
        return torch.cat([depth, lateral], dim=-1)

    def _encode(self, u: torch.Tensor) -> torch.Tensor:
        """Return (..., n (2 octaves + 1)) of relative coordinates (..., n)."""
        angle = (u[..., None] * self.phase).flatten(-2)
        return torch.cat([u, angle.sin(), angle.cos()], dim=-1)


class GridEncoding(nn.Module):
    """Trainable values at the nodes of several grids, interpolated between them.

    A dense version of the multiresolution encoding of Mueller et al., Instant neural graphics
    primitives, ACM TOG 2022: a unit has few enough nodes to need no hashing. The nodes are equally
    far apart along z, y and x.

    Parameters
    ----------
    spacing_um : float
        Length of the shortest structure; the levels are multiples of it.
    extent_um : tuple of float
        Half of the unit's size along (z, y, x).
    generator : torch.Generator
        Source of the initial values.
    """

    def __init__(
        self,
        spacing_um: float,
        extent_um: tuple[float, float, float],
        generator: torch.Generator,
    ):
        super().__init__()
        self.register_buffer("extent_um", torch.tensor(extent_um, dtype=torch.float32))
        self.levels = nn.ParameterList()
        for level in _GRID_LEVELS:
            nodes = [2 + math.ceil(2 * half / (level * spacing_um)) for half in extent_um]
            values = torch.rand(1, _GRID_CHANNELS, *nodes, generator=generator)
            self.levels.append(nn.Parameter(0.02 * (values - 0.5)))
        self.size = _GRID_CHANNELS * len(_GRID_LEVELS)

    def forward(self, z_um: torch.Tensor, yx_um: torch.Tensor) -> torch.Tensor:
        """Encode depths (Z,) at lateral positions (N, 2) as (N, Z, size)."""
        count, depth = len(yx_um), len(z_um)
        lateral = (yx_um / self.extent_um[1:])[:, None].expand(-1, depth, -1)
        along_z = (z_um / self.extent_um[0])[None, :, None].expand(count, -1, -1)
        # grid_sample counts the axes from the last one.
        where = torch.cat([lateral.flip(-1), along_z], dim=-1)[None, :, :, None]
        parts = [
            nn.functional.grid_sample(values, where, align_corners=True, padding_mode="border")
            for values in self.levels
        ]
        return torch.cat(parts, dim=1)[0, ..., 0].permute(1, 2, 0)


class PlainEncoding(nn.Module):
    """The coordinate itself, for a network whose first layer makes the frequencies."""

    size = 3

    def forward(self, z_um: torch.Tensor, yx_um: torch.Tensor) -> torch.Tensor:
        """Return depths (Z,) and lateral positions (N, 2) as coordinates (N, Z, 3)."""
        count, depth = len(yx_um), len(z_um)
        lateral = yx_um[:, None].expand(-1, depth, -1)
        return torch.cat([z_um[None, :, None].expand(count, -1, -1), lateral], dim=-1)
