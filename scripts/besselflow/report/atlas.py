"""Volumes as images that a browser decodes: eight bits per voxel, all slices tiled side by side."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

_LEVELS = 255


@dataclass(frozen=True)
class CodeRange:
    """Intensities of the darkest and of the brightest code.

    Attributes
    ----------
    low, high : float
        Values of the codes 0 and 255.
    """

    low: float
    high: float

    @classmethod
    def of(cls, *volumes: np.ndarray) -> CodeRange:
        """Span all values of some volumes, leaving out the brightest hundred-thousandth."""
        low = min(float(volume.min()) for volume in volumes)
        high = max(float(np.percentile(volume, 99.999)) for volume in volumes)
        return cls(low, max(high, low + 1e-6))


def encode(values: np.ndarray, span: CodeRange) -> np.ndarray:
    """Code intensities by their square root, whose steps are as fine as photon noise needs.

    The variance of a photon count is its mean, so that steps of equal size in the square root are
    equally far below the noise at all intensities.

    Parameters
    ----------
    values : numpy.ndarray
        Intensities; what lies outside `span` is clipped to it.
    span : CodeRange
        Intensities of the first and the last code.

    Returns
    -------
    numpy.ndarray of uint8
    """
    share = np.clip((values - span.low) / (span.high - span.low), 0, 1)
    return np.rint(_LEVELS * np.sqrt(share)).astype(np.uint8)


def decode(codes: np.ndarray, span: CodeRange) -> np.ndarray:
    """Return the intensities that codes stand for, the inverse of `encode` up to rounding."""
    return span.low + (span.high - span.low) * np.square(codes / _LEVELS)


def tile(codes: np.ndarray) -> np.ndarray:
    """Lay the slices of a stack out in rows, from left to right, as close to a square as possible.

    Parameters
    ----------
    codes : numpy.ndarray of uint8, shape (Z, Y, X)
        Stack.

    Returns
    -------
    numpy.ndarray of uint8, shape (rows * Y, columns * X)
        Places that no slice takes are 0. The number of columns is the width over X.
    """
    count, height, width = codes.shape
    columns = min(count, max(1, round(math.sqrt(count * height / width))))
    rows = -(-count // columns)
    grid = np.zeros((rows * columns, height, width), np.uint8)
    grid[:count] = codes
    grid = grid.reshape(rows, columns, height, width).swapaxes(1, 2)
    return np.ascontiguousarray(grid.reshape(rows * height, columns * width))


def untile(image: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Take an image of `tile` apart into a stack of the given (Z, Y, X) shape."""
    count, height, width = shape
    rows, columns = image.shape[0] // height, image.shape[1] // width
    grid = image.reshape(rows, height, columns, width).swapaxes(1, 2)
    return grid.reshape(rows * columns, height, width)[:count]


def pack(codes: np.ndarray, quality: int | None) -> str:
    """Compress a stack into the data URI of one WebP image.

    Parameters
    ----------
    codes : numpy.ndarray of uint8, shape (Z, Y, X)
        Stack.
    quality : int or None
        WebP quality, 0 to 100; None for a compression without loss.
    """
    options = {"lossless": True, "quality": 50} if quality is None else {"quality": quality}
    buffer = io.BytesIO()
    Image.fromarray(tile(codes)).save(buffer, "WEBP", method=2, **options)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def unpack(uri: str, shape: tuple[int, int, int]) -> np.ndarray:
    """Decompress what `pack` made, as the viewer does in the browser."""
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as image:
        return untile(np.asarray(image.convert("RGB"))[..., 0], shape)
