r"""The lateral blur of a beam: what its side lobes mix within every projection.

The blur convolves each image with a kernel that is mirror-symmetric along y and along x; beyond its
edges, an image goes on as its own mirror image (half-sample symmetry). Both together make the blur
diagonal in the orthonormal cosine modes of type II (Strang, The discrete cosine transform, SIAM
Review 1999), with the real eigenvalues

.. math:: b_{kl} = \sum_{d, e} h_{de} \cos(\pi k d / Y) \cos(\pi l e / X),

so that it is its own adjoint, and every solve with it is a division between two transforms.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft

from besselflow.arrays import like

_TOLERANCE = 1e-6


@dataclass(frozen=True)
class LateralBlur:
    """A lateral point-spread function, applied with mirror boundaries.

    Attributes
    ----------
    kernel : numpy.ndarray, shape (ky, kx)
        Share of the light that ends up at each pixel around its origin: float64, odd edges, not
        negative, equal to its mirror images along y and along x, sum 1.

    Raises
    ------
    ValueError
        The kernel is none of that.
    """

    kernel: np.ndarray

    def __post_init__(self) -> None:
        """Check what the closed-form solves rely on."""
        kernel = np.asarray(self.kernel, np.float64)
        object.__setattr__(self, "kernel", kernel)
        if kernel.ndim != 2 or any(edge % 2 == 0 for edge in kernel.shape):
            raise ValueError(
                f"the lateral kernel has the shape {kernel.shape}; it needs two axes (y, x) with "
                f"odd numbers of pixels, so that its middle is a pixel"
            )
        scale = np.abs(kernel).max()
        if not np.isfinite(scale) or kernel.min() < -_TOLERANCE * scale:
            raise ValueError("the lateral kernel must be finite and not negative")
        if abs(kernel.sum() - 1) > _TOLERANCE:
            raise ValueError(
                f"the lateral kernel sums up to {kernel.sum():g}; divide it by that, so that a "
                f"uniform sample keeps its intensity"
            )
        for axis, name in enumerate("yx"):
            if np.abs(kernel - np.flip(kernel, axis)).max() > _TOLERANCE * scale:
                raise ValueError(
                    f"the lateral kernel is not equal to its mirror image along {name}; average "
                    f"the two, or align an elongated focus with the axes"
                )

    @property
    def radius(self) -> tuple[int, int]:
        """Pixels (y, x) that light reaches from its origin."""
        return self.kernel.shape[0] // 2, self.kernel.shape[1] // 2

    def transfer(self, shape: tuple[int, int]) -> np.ndarray:
        """Return the eigenvalue of each cosine mode of images of a shape, (Y, X), at most 1."""
        waves = [
            np.cos(np.pi / length * np.outer(np.arange(length), np.arange(edge) - edge // 2))
            for length, edge in zip(shape, self.kernel.shape, strict=True)
        ]
        return waves[0] @ self.kernel @ waves[1].T

    def apply(self, images):
        """Blur images, a numpy array or torch tensor of shape (..., Y, X); also the adjoint."""
        return scale_modes(images, self.transfer(tuple(images.shape[-2:])))


def scale_modes(images, factors: np.ndarray):
    """Multiply the cosine modes of images by factors.

    Parameters
    ----------
    images : numpy.ndarray or torch.Tensor, shape (..., Y, X)
        Gradients pass through a tensor.
    factors : numpy.ndarray, broadcastable to (..., Y, X)

    Returns
    -------
    numpy.ndarray or torch.Tensor, shape (..., Y, X)
        Of the same kind, device and precision.
    """
    modes = to_modes(images)
    return from_modes(modes * like(factors, modes))


def to_modes(images):
    """Return the orthonormal cosine transform of type II over the last two axes."""
    if isinstance(images, np.ndarray):
        return scipy.fft.dctn(images, axes=(-2, -1), norm="ortho")
    return _cosines(_cosines(images, -2), -1)


def from_modes(modes):
    """Return the inverse of `to_modes`, which is its transpose."""
    if isinstance(modes, np.ndarray):
        return scipy.fft.idctn(modes, axes=(-2, -1), norm="ortho")
    return _inverse_cosines(_inverse_cosines(modes, -1), -2)


def _phases(length: int, images):
    """Return the turn (N,) between a Fourier and a cosine mode, and the norm of each mode."""
    index = np.arange(length)
    turn = np.exp(-0.5j * np.pi / length * index)
    norm = np.sqrt(np.where(index == 0, 1.0, 2.0) / length)
    return like(turn.real, images), like(turn.imag, images), like(norm, images)


def _cosines(images, axis: int):
    """Transform one axis by one Fourier transform of its even and its reversed odd samples.

    Makhoul, A fast cosine transform in one and two dimensions, IEEE Trans. ASSP 28, 27 (1980).
    """
    import torch

    images = images.movedim(axis, -1)
    cosine, sine, norm = _phases(images.shape[-1], images)
    shuffled = torch.cat([images[..., ::2], images[..., 1::2].flip(-1)], dim=-1)
    spectrum = torch.fft.fft(shuffled)
    return ((spectrum.real * cosine - spectrum.imag * sine) * norm).movedim(-1, axis)


def _inverse_cosines(modes, axis: int):
    import torch

    modes = modes.movedim(axis, -1)
    length = modes.shape[-1]
    cosine, sine, norm = _phases(length, modes)
    real = modes / norm
    mirrored = torch.cat([torch.zeros_like(real[..., :1]), real[..., 1:].flip(-1)], dim=-1)
    spectrum = torch.complex(
        real * cosine - mirrored * sine,
        -real * sine - mirrored * cosine,
    )
    shuffled = torch.fft.ifft(spectrum).real
    half = (length + 1) // 2
    images = torch.empty_like(shuffled)
    images[..., ::2] = shuffled[..., :half]
    images[..., 1::2] = shuffled[..., half:].flip(-1)
    return images.movedim(-1, axis)
