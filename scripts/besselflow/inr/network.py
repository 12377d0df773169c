"""The coordinate network: an encoding and a small multilayer perceptron."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import nn

from besselflow.config import Inr
from besselflow.inr.encodings import (
    GaussianEncoding,
    GridEncoding,
    PlainEncoding,
    SinCosEncoding,
)

# A plain ReLU network behind a positive output dies at learning rates that are otherwise best.
_LEAK = 0.01
# The fit starts from a nearly constant volume.
_LAST_LAYER = 0.1
# Factor inside the sines of the hidden layers (Sitzmann et al., NeurIPS 2020, section 3.2).
_SIREN_OMEGA = 30.0


class CoordinateNetwork(nn.Module):
    """A multilayer perceptron on an encoded 3D coordinate.

    Parameters
    ----------
    encoding : torch.nn.Module
        Maps depths (Z,) and lateral positions (N, 2) to (N, Z, `size`).
    width, depth : int
        Units per hidden layer, and number of hidden layers.
    skip : bool
        Feed the encoding in again after half of the hidden layers.
    generator : torch.Generator
        Source of the initial weights.

    Attributes
    ----------
    precision : torch.dtype
        Precision of the hidden layers while training; weights and output stay float32.
    """

    def __init__(
        self,
        encoding: nn.Module,
        width: int,
        depth: int,
        skip: bool,
        generator: torch.Generator,
    ):
        super().__init__()
        self.encoding = encoding
        self.skip_at = (depth + 1) // 2 if skip and depth > 1 else None
        self.precision = torch.float32
        sizes = [encoding.size, *[width] * depth, 1]
        layers = []
        for index, (fan_in, fan_out) in enumerate(pairwise(sizes)):
            fan_in += encoding.size if index == self.skip_at else 0
            layers.append(nn.Linear(fan_in, fan_out))
        self.layers = nn.ModuleList(layers)
        self._initialise(generator)

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
        precision = self.precision if self.training else torch.float32
        encoded = self.encoding(z_um, yx_um).to(precision)
        hidden = encoded
        for index, layer in enumerate(self.layers[:-1]):
            if index == self.skip_at:
                hidden = torch.cat([hidden, encoded], dim=-1)
            weight, bias = layer.weight.to(precision), layer.bias.to(precision)
            hidden = self._activate(nn.functional.linear(hidden, weight, bias), index)
        return self.layers[-1](hidden.float())[..., 0]

    def hidden_matrices(self) -> list[nn.Parameter]:
        """Return the weights that map many features to many, for optimisers of matrices."""
        return [layer.weight for layer in self.layers[:-1]]

    def _activate(self, values: torch.Tensor, index: int) -> torch.Tensor:
        return nn.functional.leaky_relu(values, _LEAK, inplace=True)

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator) -> None:
        """Draw He-uniform weights, without offsets."""
        for layer in self.layers:
            bound = math.sqrt(6 / layer.in_features)
            layer.weight.uniform_(-bound, bound, generator=generator)
            layer.bias.zero_()
        self.layers[-1].weight *= _LAST_LAYER


class Siren(CoordinateNetwork):
    """A network of sines (Sitzmann et al., Implicit neural representations, NeurIPS 2020).

    Its first layer makes the frequencies, whose initial standard deviation is the bandwidth.

    Parameters
    ----------
    width, depth : int
        Units per hidden layer, and number of hidden layers.
    bandwidth_per_um : float
        Standard deviation of the initial frequencies in cycles per micrometre.
    generator : torch.Generator
        Source of the initial weights.
    """

    def __init__(self, width: int, depth: int, bandwidth_per_um: float, generator: torch.Generator):
        self._bandwidth = bandwidth_per_um
        super().__init__(PlainEncoding(), width, depth, False, generator)

    def _activate(self, values: torch.Tensor, index: int) -> torch.Tensor:
        return torch.sin(values if index == 0 else _SIREN_OMEGA * values)

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator) -> None:
        bound = 2 * math.pi * math.sqrt(3) * self._bandwidth
        for layer in self.layers:
            layer.weight.uniform_(-bound, bound, generator=generator)
            layer.bias.uniform_(-math.pi, math.pi, generator=generator)
            bound = math.sqrt(6 / layer.out_features) / _SIREN_OMEGA
        for layer in self.layers[1:]:
            layer.bias /= _SIREN_OMEGA
        self.layers[-1].weight *= _SIREN_OMEGA * _LAST_LAYER
        self.layers[-1].bias.zero_()


def build_network(
    settings: Inr,
    bandwidth_per_um: float,
    extent_um: tuple[float, float, float],
    generator: torch.Generator,
    axial_share: float = 1.0,
) -> CoordinateNetwork:
    """Build the network that the settings describe.

    Parameters
    ----------
    settings : Inr
        Kind of encoding, and sizes.
    bandwidth_per_um : float
        Standard deviation of the frequencies; it also sets the finest nodes of a grid.
    extent_um : tuple of float
        Half of the unit's size along (z, y, x).
    generator : torch.Generator
        Source of frequencies and initial weights.
    axial_share : float
        Bandwidth along z as a share of that along y and x, of Gaussian features.
    """
    if settings.encoding == "siren":
        return Siren(settings.width, settings.depth, bandwidth_per_um, generator)
    if settings.encoding == "gaussian":
        encoding = GaussianEncoding(settings.features, bandwidth_per_um, generator, axial_share)
    elif settings.encoding == "sincos":
        encoding = SinCosEncoding(settings.octaves, extent_um)
    else:
        # A Gaussian of frequencies has structures of about the inverse of its standard deviation
        # in angular frequency.
        encoding = GridEncoding(1 / (2 * math.pi * bandwidth_per_um), extent_um, generator)
    return CoordinateNetwork(encoding, settings.width, settings.depth, settings.skip, generator)
