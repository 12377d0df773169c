"""The coordinate network: Gaussian Fourier features and a small multilayer perceptron."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import nn

# A plain ReLU network behind a positive output dies at learning rates that are otherwise best.
_LEAK = 0.01
# The fit starts from a nearly constant volume.
_LAST_LAYER = 0.1


class FourierMlp(nn.Module):
    r"""A multilayer perceptron on Gaussian Fourier features of a 3D coordinate.

    The encoding of a coordinate x is :math:`[\cos 2\pi Bx, \sin 2\pi Bx]` with the entries of B
    drawn from a normal distribution whose standard deviation is the bandwidth (Tancik et al.,
    Fourier features let networks learn high frequency functions, NeurIPS 2020, eq. 5). The
    bandwidth is the same along z, y and x: structure that is resolved laterally is the only
    evidence there is of how the sample varies along z.

    Parameters
    ----------
    width, depth : int
        Units per hidden layer, and number of hidden layers.
    features : int
        Number of frequencies.
    bandwidth_per_um : float
        Standard deviation of the frequencies in cycles per micrometre.
    generator : torch.Generator
        Source of the frequencies and initial weights.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        features: int,
        bandwidth_per_um: float,
        generator: torch.Generator,
    ):
        super().__init__()
        frequencies = torch.randn(features, 3, generator=generator) * bandwidth_per_um
        self.register_buffer("frequencies", frequencies)
        sizes = [2 * features, *[width] * depth]
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(sizes):
            layers += [_linear(fan_in, fan_out, generator), nn.LeakyReLU(_LEAK, inplace=True)]
        layers.append(_linear(sizes[-1], 1, generator))
        with torch.no_grad():
            layers[-1].weight *= _LAST_LAYER
        self.layers = nn.Sequential(*layers)

    def forward(self, z_um: torch.Tensor, yx_um: torch.Tensor) -> torch.Tensor:
        """Evaluate whole pixel columns.

        Parameters
        ----------
        z_um : torch.Tensor, shape (Z,)
            Depths in micrometres.
        yx_um : torch.Tensor, shape (N, 2)
            Lateral positions in micrometres.

        Returns
        -------
        torch.Tensor, shape (N, Z)
            Network output, without scale and offset.
        """
        # cos and sin of a sum of phases: Z + N evaluations of them instead of Z * N.
        along_z = 2 * math.pi * z_um[:, None] * self.frequencies[None, :, 0]
        lateral = 2 * math.pi * yx_um @ self.frequencies[:, 1:].T
        cos_z, sin_z = along_z.cos()[None], along_z.sin()[None]
        cos_l, sin_l = lateral.cos()[:, None], lateral.sin()[:, None]
        encoded = torch.cat([cos_l * cos_z - sin_l * sin_z, sin_l * cos_z + cos_l * sin_z], dim=-1)
        return self.layers(encoded)[..., 0]


def _linear(fan_in: int, fan_out: int, generator: torch.Generator) -> nn.Linear:
    """Return a linear layer with He-uniform weights from the given generator and no bias offset."""
    layer = nn.Linear(fan_in, fan_out)
    bound = math.sqrt(6 / fan_in)
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.zero_()
    return layer
