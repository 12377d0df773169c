r"""The published network: a 2D U-Net that is told which projection is near, and at which depth.

Two embeddings condition it: E_img, by a small residual network, of the nearest acquired projection,
and E_pos, by a multilayer perceptron, of the encoded depth. Side by side, they are mapped to the
size of the embedding of the noise level and added to it, which reaches every residual block. Zeros
in their place stand for no condition (Ho & Salimans, Classifier-free diffusion guidance, 2022).

It differs from the published one in three ways: the image embedding normalises each image by
itself, since statistics of batches of a few projections say little; self-attention is computed at
the coarsest resolution alone, since its memory grows with the fourth power of the image's edge; and
nothing but the conditions is dropped at random.
"""

from __future__ import annotations

import torch
from monai.networks.nets import DiffusionModelUNet
from torch import nn

_IMAGE_FEATURES = 128
_POSITION_FEATURES = 32
_GROUPS = 8
# The image embedding keeps this many places along each edge, as published.
_PLACES = 4


class ImageEmbedding(nn.Module):
    """A small residual network from an image (n, Y, X) to features (n, 128).

    Parameters
    ----------
    channels : list of int
        Channels at each resolution; multiples of 8.
    """

    def __init__(self, channels: list[int]):
        super().__init__()
        self.first = nn.Conv2d(1, channels[0], 3, padding=1)
        inputs = [channels[0], *channels[:-1]]
        self.blocks = nn.ModuleList(
            _ResidualBlock(before, after, 1 if index == 0 else 2)
            for index, (before, after) in enumerate(zip(inputs, channels, strict=True))
        )
        self.last = nn.Linear(channels[-1] * _PLACES**2, _IMAGE_FEATURES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Embed images (n, Y, X) of any size."""
        features = self.first(images[:, None])
        for block in self.blocks:
            features = block(features)
        return self.last(nn.functional.adaptive_avg_pool2d(features, _PLACES).flatten(1))


class _ResidualBlock(nn.Module):
    def __init__(self, before: int, after: int, stride: int):
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1, bias=False),
            nn.GroupNorm(_GROUPS, after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, padding=1, bias=False),
            nn.GroupNorm(_GROUPS, after),
        )
        same = stride == 1 and before == after
        self.shortcut = nn.Identity() if same else nn.Conv2d(before, after, 1, stride)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.main(features) + self.shortcut(features))


class PositionEmbedding(nn.Module):
    r"""A multilayer perceptron on the encoded depth of each slice.

    The depth u runs from -1 to 1 over the volume and is encoded as itself and as the sines and
    cosines of :math:`2^k u`.

    Parameters
    ----------
    octaves : int
        Number of octaves k.
    """

    def __init__(self, octaves: int):
        super().__init__()
        self.register_buffer("factors", 2.0 ** torch.arange(octaves), persistent=False)
        self.layers = nn.Sequential(
            nn.Linear(2 * octaves + 1, _POSITION_FEATURES),
            nn.SiLU(),
            nn.Linear(_POSITION_FEATURES, _POSITION_FEATURES),
        )

    def forward(self, n_slices: int) -> torch.Tensor:
        """Embed all slices of a volume, as (Z, 32)."""
        depth = torch.linspace(-1, 1, n_slices, device=self.factors.device)[:, None]
        angle = depth * self.factors
        return self.layers(torch.cat([depth, angle.sin(), angle.cos()], dim=1))


class ConditionalUnet(nn.Module):
    """Estimates the noise in images, conditioned on a projection and a depth.

    Parameters
    ----------
    channels : list of int
        Channels at each resolution; multiples of 8.
    octaves : int
        Octaves of the encoding of the depth.
    use_image, use_position : bool
        Which conditions there are.

    Attributes
    ----------
    condition_size : int
        Features of a condition; 0 without any.
    precision : torch.dtype
        Of the hidden layers of the U-Net and of the image embedding.
    """

    def __init__(self, channels: list[int], octaves: int, use_image: bool, use_position: bool):
        super().__init__()
        self.image = ImageEmbedding(channels) if use_image else None
        self.position = PositionEmbedding(octaves) if use_position else None
        self.condition_size = _IMAGE_FEATURES * use_image + _POSITION_FEATURES * use_position
        self.multiple = 2 ** (len(channels) - 1)
        self.precision = torch.float32
        self.unet = DiffusionModelUNet(
            spatial_dims=2,
            in_channels=1,
            out_channels=1,
            channels=tuple(channels),
            attention_levels=(*(False,) * (len(channels) - 1), True),
            num_res_blocks=2,
            num_head_channels=channels[-1],
            norm_num_groups=_GROUPS,
            num_class_embeds=1 if self.condition_size else None,
            use_flash_attention=True,
        )
        if self.condition_size:
            # The network of MONAI expects the number of a class here, and would look it up.
            size = 4 * channels[0]
            self.unet.class_embedding = nn.Sequential(
                nn.Linear(self.condition_size, size), nn.SiLU(), nn.Linear(size, size)
            )

    def embed_images(self, images: torch.Tensor) -> torch.Tensor:
        """Return E_img of images (n, Y, X), or (n, 0) where it is not used."""
        if self.image is None:
            return images.new_zeros(len(images), 0)
        with self._in_precision(images.device):
            return self.image(images).float()

    def embed_positions(self, weights: torch.Tensor) -> torch.Tensor:
        """Return E_pos of what collects light from slices with weights (n, Z), or (n, 0).

        That of a slice has a single weight; that of a projection is the mean over its beam.
        """
        if self.position is None:
            return weights.new_zeros(len(weights), 0)
        return weights @ self.position(weights.shape[1])

    def forward(
        self, noisy: torch.Tensor, timesteps: torch.Tensor, condition: torch.Tensor
    ) -> torch.Tensor:
        """Estimate the noise.

        Parameters
        ----------
        noisy : torch.Tensor, shape (n, Y, X)
        timesteps : torch.Tensor, shape (n,)
            Noise levels.
        condition : torch.Tensor, shape (n, condition_size)
            E_img and E_pos side by side; zeros stand for no condition.

        Returns
        -------
        torch.Tensor, shape (n, Y, X)
        """
        height, width = noisy.shape[1:]
        pad = (0, -width % self.multiple, 0, -height % self.multiple)
        images = noisy[:, None]
        if any(pad):
            images = nn.functional.pad(images, pad, mode="replicate")
        images = images.contiguous(memory_format=torch.channels_last)
        labels = condition if self.condition_size else None
        with self._in_precision(noisy.device):
            estimate = self.unet(images, timesteps, class_labels=labels)
        return estimate[:, 0, :height, :width].float()

    def _in_precision(self, device: torch.device) -> torch.autocast:
        low = self.precision != torch.float32
        return torch.autocast(device.type, self.precision, enabled=low)
