r"""The denoiser: a 2.5D U-Net that estimates blocks of clean slices.

The diffusion is variance-exploding (Karras et al., Elucidating the design space of diffusion-based
generative models, NeurIPS 2022): the state is :math:`x = v + \sigma n`. The INR is an estimate s of
the volume with a known error e, so that the linear estimate

.. math:: b = s + \frac{e^2}{e^2 + \sigma^2} (x - s)

is the best one without a network, and the network adds
:math:`\sqrt{e^2 \sigma^2 / (e^2 + \sigma^2)}`, the standard deviation of what is missing, times
its output. This is their preconditioning (eq. 7) with s as the mean of the data.

A network sees 24 slices and estimates the middle 8 at once, which costs an eighth of what one pass
per slice does. Its activations are bounded, not normalised: intensities are relative to the
scale of the sample already, and how bright a structure is tells what it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from besselflow.diffusion.blocks import CONTEXT, GEOMETRY_VALUES, NEAREST, REACH, SLICES

_CHANNELS_IN = 3 * CONTEXT + NEAREST
_EMBEDDING = 128
# Intensities are mostly far below the scale of a sample, which is that of its brightest structures.
_BRIGHTEN = 3.0
_LOG_SHARE = 1 / 3
_NOISE_UNIT = 0.01


class KernelConv(nn.Module):
    """A convolution that keeps its kernel as the matrix that it is, which Muon asks for.

    Parameters
    ----------
    channels_in, channels_out : int
        Of the image.
    size, stride, padding : int
        Of the kernel.
    """

    def __init__(
        self, channels_in: int, channels_out: int, size: int = 3, stride: int = 1, padding: int = 1
    ):
        super().__init__()
        like = nn.Conv2d(channels_in, channels_out, size)
        self._shape, self._step = like.weight.shape, {"stride": stride, "padding": padding}
        self.kernel = nn.Parameter(like.weight.detach().flatten(1).clone())
        self.bias = nn.Parameter(like.bias.detach().clone())

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Convolve an image (n, channels_in, y, x)."""
        return nn.functional.conv2d(image, self.kernel.view(self._shape), self.bias, **self._step)


class ResidualBlock(nn.Module):
    """Two convolutions, modulated by geometry and noise level, that start as the identity.

    Parameters
    ----------
    channels : int
        Of the image.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.first = KernelConv(channels, channels)
        self.second = KernelConv(channels, channels)
        self.modulation = nn.Linear(_EMBEDDING, 2 * channels)
        for layer in (self.second, self.modulation):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def forward(self, image: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """Transform an image (n, channels, y, x), given the embedding (n, 128)."""
        gain, shift = self.modulation(embedding)[:, :, None, None].chunk(2, dim=1)
        # Large activations are brought to unit size, small ones keep theirs: that keeps a long
        # training stable, and tells dark from bright.
        bounded = image * torch.rsqrt(1 + image.square().mean(dim=1, keepdim=True))
        return image + self.second(nn.functional.silu(self.first(bounded) * (1 + gain) + shift))


class BlockUnet(nn.Module):
    """A U-Net on images whose channels are slices.

    Parameters
    ----------
    channels : sequence of int
        Channels at each resolution, from full to coarse.
    depth : int
        Residual blocks at each resolution on either way; twice as many at the coarsest.
    """

    def __init__(self, channels: Sequence[int], depth: int):
        super().__init__()
        stack = lambda width, count: nn.ModuleList(ResidualBlock(width) for _ in range(count))  # noqa: E731
        self.embed = nn.Sequential(
            nn.Linear(GEOMETRY_VALUES + 2, _EMBEDDING),
            nn.SiLU(),
            nn.Linear(_EMBEDDING, _EMBEDDING),
            nn.SiLU(),
        )
        pairs = list(pairwise(channels))
        self.entry = nn.Conv2d(_CHANNELS_IN, channels[0], 3, padding=1)
        self.encoders = nn.ModuleList(stack(width, depth) for width, _ in pairs)
        self.downs = nn.ModuleList(KernelConv(a, b, 2, 2, 0) for a, b in pairs)
        self.middle = stack(channels[-1], 2 * depth)
        self.ups = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2) for a, b in pairs[::-1])
        self.joins = nn.ModuleList(KernelConv(2 * a, a, 1, 1, 0) for a, _ in pairs[::-1])
        self.decoders = nn.ModuleList(stack(width, depth) for width, _ in pairs[::-1])
        self.exit = nn.Conv2d(channels[0], SLICES, 3, padding=1)
        nn.init.zeros_(self.exit.weight)
        nn.init.zeros_(self.exit.bias)

    def forward(self, image: torch.Tensor, facts: torch.Tensor) -> torch.Tensor:
        """Map (n, 77, y, x) and what is known about each block (n, 122) to (n, SLICES, y, x)."""
        embedding = self.embed(facts)
        image, kept = self.entry(image), []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            for block in encoder:
                image = block(image, embedding)
            kept.append(image)
            image = down(image)
        for block in self.middle:
            image = block(image, embedding)
        for up, join, decoder in zip(self.ups, self.joins, self.decoders, strict=True):
            image = join(torch.cat([up(image), kept.pop()], dim=1))
            for block in decoder:
                image = block(image, embedding)
        return self.exit(image)

    @property
    def reach(self) -> int:
        """What lies so many pixels away, or more, does not change an output."""
        levels = [len(stack) << level for level, stack in enumerate([*self.encoders, self.middle])]
        # Two convolutions per residual block, on the way down and up again, entry and exit.
        convolutions = 2 * (2 * sum(levels[:-1]) + levels[-1]) + 2
        # The cells of the coarsest level lie where they do.
        return convolutions + (1 << len(self.encoders))

    def hidden_matrices(self) -> list[nn.Parameter]:
        """Return the kernels between hidden channels, which Muon is made for."""
        return [layer.kernel for layer in self.modules() if isinstance(layer, KernelConv)]


class Denoiser(nn.Module):
    """The preconditioned U-Net.

    Parameters
    ----------
    channels : list of int
        Channels at each resolution.
    depth : int
        Residual blocks per resolution.
    inr_error : float
        Root mean square error of the INR, relative to the intensity scale.

    Attributes
    ----------
    multiple : int
        Edges of the images that it computes with are multiples of this.
    reach : int
        What lies so many pixels away, or more, does not change an estimate.
    """

    def __init__(self, channels: Sequence[int], depth: int, inr_error: float):
        super().__init__()
        self.channels, self.depth, self.inr_error = list(channels), depth, inr_error
        self.multiple = 2 ** (len(channels) - 1)
        self.precision = torch.float32
        self.unet = BlockUnet(channels, depth)
        self.reach = self.unet.reach

    def forward(
        self,
        noisy: torch.Tensor,
        sigma: torch.Tensor,
        inr: torch.Tensor,
        spectral: torch.Tensor,
        projections: torch.Tensor,
        geometry: torch.Tensor,
        noise: torch.Tensor,
    ) -> torch.Tensor:
        """Estimate the clean slices of some blocks, intensities relative to the scale.

        Parameters
        ----------
        noisy, inr, spectral : torch.Tensor, shape (n, CONTEXT, Y, X)
            State of the diffusion, INR and spectral posterior mean.
        sigma : torch.Tensor, shape (n,)
            Noise level of the state.
        projections : torch.Tensor, shape (n, NEAREST, Y, X)
            Nearest projections.
        geometry : torch.Tensor, shape (n, NEAREST, CONTEXT)
            As in `Block`.
        noise : torch.Tensor, shape (n,)
            Standard deviation of the noise of a projection.

        Returns
        -------
        torch.Tensor, shape (n, SLICES, Y, X)
        """
        error, level = self.inr_error, sigma[:, None, None, None]
        total = torch.sqrt(level**2 + error**2)
        image = torch.cat(
            [
                (noisy - inr) / total,
                _BRIGHTEN * inr,
                (spectral - inr) / error,
                _BRIGHTEN * projections,
            ],
            dim=1,
        )
        levels = torch.stack([noise / _NOISE_UNIT + 1e-3, sigma], dim=1).log() * _LOG_SHARE
        facts = torch.cat([geometry.flatten(1), levels], dim=1)
        height, width = image.shape[2:]
        pad = (0, -width % self.multiple, 0, -height % self.multiple)
        if any(pad):
            image = nn.functional.pad(image, pad, mode="replicate")
        image = image.contiguous(memory_format=torch.channels_last)
        low = self.precision != torch.float32
        with torch.autocast(image.device.type, self.precision, enabled=low):
            output = self.unet(image, facts)[:, :, :height, :width].float()
        middle = slice(REACH, REACH + SLICES)
        linear = inr[:, middle] + (error / total) ** 2 * (noisy[:, middle] - inr[:, middle])
        return linear + error * level / total * output
