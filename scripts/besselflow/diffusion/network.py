r"""The denoiser: a 2.5D U-Net that estimates a clean slice from noisy and measured neighbours.

The diffusion is variance-exploding (Karras et al., Elucidating the design space of diffusion-based
generative models, NeurIPS 2022): the state is :math:`x = v + \sigma n`. Our conditioning gives an
estimate :math:`s` (the spectral Gaussian process) with a known error e, so that the linear estimate

.. math:: b = s + \frac{e^2}{e^2 + \sigma^2} (x - s)

is the best one without a network, and the network adds
:math:`\sqrt{e^2 \sigma^2 / (e^2 + \sigma^2)}`, the standard deviation of what is missing, times
its output. This is their preconditioning (eq. 7) with s as the mean of the data.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from monai.networks.nets import DiffusionModelUNet
from torch import nn

SPECTRAL_REACH = 3
STATE_REACH = 1
_STATE_CHANNELS = 2 * STATE_REACH + 1
_SPECTRAL_CHANNELS = 2 * SPECTRAL_REACH + 1
_OTHER_CHANNELS = 5


@dataclass(frozen=True)
class SliceConditions:
    """What is known about each slice of a unit before sampling, intensities relative to the scale.

    Attributes
    ----------
    spectral : torch.Tensor, shape (Z, Y, X)
        Posterior mean of the spectral Gaussian process.
    below, above : torch.Tensor, shape (Z, Y, X)
        The nearest projections on both sides of each slice (the same one beyond the ends).
    place : torch.Tensor, shape (Z, 2)
        Distances to these projections in units of the step.
    noise : float
        Standard deviation of the noise of a projection.
    """

    spectral: torch.Tensor
    below: torch.Tensor
    above: torch.Tensor
    place: torch.Tensor
    noise: float

    @classmethod
    def of(
        cls,
        spectral: torch.Tensor,
        projections: torch.Tensor,
        positions_um: torch.Tensor,
        centres_um: torch.Tensor,
        noise: float,
    ) -> SliceConditions:
        """Find the nearest projections of every slice.

        Parameters
        ----------
        spectral : torch.Tensor, shape (Z, Y, X)
        projections : torch.Tensor, shape (P, Y, X)
        positions_um : torch.Tensor, shape (P,)
            Increasing.
        centres_um : torch.Tensor, shape (Z,)
        noise : float
        """
        last = len(positions_um) - 1
        above = torch.searchsorted(positions_um, centres_um).clamp(0, last)
        below = torch.where(positions_um[above] > centres_um, above - 1, above).clamp(0, last)
        step = float(np.median(np.diff(positions_um.cpu()))) if last else 1.0
        place = torch.stack(
            [centres_um - positions_um[below], positions_um[above] - centres_um], dim=1
        )
        return cls(spectral, projections[below], projections[above], (place / step).float(), noise)


class Denoiser(nn.Module):
    """The preconditioned U-Net.

    Parameters
    ----------
    channels : list of int
        Channels at each resolution.
    spectral_error : float
        Root mean square error of the spectral estimate, relative to the intensity scale.
    """

    def __init__(self, channels: list[int], spectral_error: float):
        super().__init__()
        self.channels, self.spectral_error = list(channels), spectral_error
        self.multiple = 2 ** (len(channels) - 1)
        self.unet = DiffusionModelUNet(
            spatial_dims=2,
            in_channels=_STATE_CHANNELS + _SPECTRAL_CHANNELS + _OTHER_CHANNELS,
            out_channels=1,
            channels=tuple(channels),
            attention_levels=(False,) * len(channels),
            num_res_blocks=1,
            norm_num_groups=8,
        )

    def forward(
        self, state: torch.Tensor, sigma: torch.Tensor, conditions: SliceConditions, z: torch.Tensor
    ) -> torch.Tensor:
        """Estimate clean slices.

        Parameters
        ----------
        state : torch.Tensor, shape (Z, Y, X)
            Noisy volume.
        sigma : torch.Tensor, shape (n,)
            Noise level of the state for each slice asked for.
        conditions : SliceConditions
            Of the same Z slices.
        z : torch.Tensor, shape (n,)
            Slices asked for.

        Returns
        -------
        torch.Tensor, shape (n, Y, X)
        """
        reach = torch.arange(-STATE_REACH, STATE_REACH + 1, device=z.device)
        noisy = state[_mirror(z[:, None] + reach, len(state))]
        return self.denoise(noisy, sigma, *gather_conditions(conditions, z))

    def denoise(
        self, noisy: torch.Tensor, sigma: torch.Tensor, spectral: torch.Tensor, other: torch.Tensor
    ) -> torch.Tensor:
        """Estimate clean slices from gathered inputs.

        Parameters
        ----------
        noisy : torch.Tensor, shape (n, 3, Y, X)
            Noisy slices around each slice.
        sigma : torch.Tensor, shape (n,)
        spectral, other : torch.Tensor, shape (n, channels, Y, X)
            As from `gather_conditions`.

        Returns
        -------
        torch.Tensor, shape (n, Y, X)
        """
        level = sigma[:, None, None, None]
        error = self.spectral_error
        total = torch.sqrt(level**2 + error**2)
        around = slice(SPECTRAL_REACH - STATE_REACH, SPECTRAL_REACH + STATE_REACH + 1)
        deviation = (noisy - spectral[:, around]) / total
        inputs = torch.cat([deviation, spectral, other], dim=1)
        height, width = inputs.shape[2:]
        pad = (0, -width % self.multiple, 0, -height % self.multiple)
        if any(pad):
            inputs = nn.functional.pad(inputs, pad, mode="replicate")
        output = self.unet(inputs, timesteps=250 * torch.log(sigma))[:, 0, :height, :width]
        centre = spectral[:, SPECTRAL_REACH]
        weight, spread = (error / total) ** 2, error * level / total
        linear = centre + weight[:, 0] * (noisy[:, STATE_REACH] - centre)
        return linear + spread[:, 0] * output


def gather_conditions(
    conditions: SliceConditions, z: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Collect the conditioning channels of the slices asked for.

    Returns
    -------
    spectral : torch.Tensor, shape (n, 7, Y, X)
        Spectral slices around each slice.
    other : torch.Tensor, shape (n, 5, Y, X)
        Both nearest projections, distances to them, and the noise.
    """
    reach = torch.arange(-SPECTRAL_REACH, SPECTRAL_REACH + 1, device=z.device)
    spectral = conditions.spectral[_mirror(z[:, None] + reach, len(conditions.spectral))]
    plane = torch.ones_like(conditions.below[:1])
    place = conditions.place[z][:, :, None, None] * plane
    noise = torch.full_like(place[:, :1], 10 * conditions.noise)
    other = torch.cat(
        [conditions.below[z][:, None], conditions.above[z][:, None], place, noise], dim=1
    )
    return spectral, other


def _mirror(index: torch.Tensor, length: int) -> torch.Tensor:
    """Reflect slice indices beyond either end back into the volume."""
    period = 2 * length
    index = index % period
    return torch.where(index >= length, period - 1 - index, index)
