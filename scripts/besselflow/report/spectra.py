"""Power spectra of volumes, lateral and axial: how much detail there is, and how fine."""

from __future__ import annotations

import math

import dask.array as da
import numpy as np

_EDGE = 256
_VOXELS = 2**24


def central_part(volume: da.Array, place: tuple[int, int], slices: np.ndarray) -> np.ndarray:
    """Read the middle of the field, at full resolution and at most 256 pixels wide.

    Parameters
    ----------
    volume : dask.array.Array, shape (T, C, Z, Y, X)
        Volume.
    place : tuple of int
        Time point and channel.
    slices : numpy.ndarray of bool, shape (Z,)
        Slices to read, which follow each other.

    Returns
    -------
    numpy.ndarray, shape (z, y, x), float32
        At most 2^24 voxels.
    """
    first, last = np.flatnonzero(slices)[[0, -1]]
    edge = min(_EDGE, math.isqrt(_VOXELS // int(last - first + 1)))
    windows = []
    for count in volume.shape[3:]:
        start = max(0, (count - edge) // 2)
        windows.append(slice(start, min(count, start + edge)))
    return np.asarray(volume[*place, first : last + 1, *windows], dtype=np.float32)


def lateral_spectrum(values: np.ndarray, pixel_um: tuple[float, float]) -> tuple[np.ndarray, ...]:
    """Average the power of all slices over the lateral frequencies of one length.

    Parameters
    ----------
    values : numpy.ndarray, shape (Z, Y, X)
        Volume; every slice is taken without its mean, under a Hann window.
    pixel_um : tuple of float
        (y, x) size of a pixel.

    Returns
    -------
    frequency, power : numpy.ndarray, shape (n,)
        In cycles per µm, up to the highest that both axes can show; power per voxel, so that
        the spectrum of white noise is its variance.
    """
    height, width = values.shape[1:]
    window = np.hanning(height)[:, None] * np.hanning(width)
    norm = float(np.square(window).sum())
    power = np.zeros((height, width // 2 + 1))
    for image in values:
        power += np.abs(np.fft.rfft2((image - image.mean()) * window)) ** 2
    power /= norm * len(values)
    y = np.fft.fftfreq(height, pixel_um[0])[:, None]
    x = np.fft.rfftfreq(width, pixel_um[1])[None]
    step = max(1 / (height * pixel_um[0]), 1 / (width * pixel_um[1]))
    highest = min(0.5 / pixel_um[0], 0.5 / pixel_um[1])
    ring = np.rint(np.hypot(y, x) / step).astype(int).ravel()
    count = int(highest / step) + 1
    inside = ring < count
    sums = np.bincount(ring[inside], power.ravel()[inside], count)
    members = np.bincount(ring[inside], minlength=count)
    return step * np.arange(1, count), (sums / np.maximum(members, 1))[1:]


def axial_spectrum(values: np.ndarray, spacing_um: float) -> tuple[np.ndarray, ...]:
    """Average the power along z over all pixels.

    Parameters
    ----------
    values : numpy.ndarray, shape (Z, Y, X)
        Volume; every column is taken without its mean, under a Hann window.
    spacing_um : float
        Spacing of the slices.

    Returns
    -------
    frequency, power : numpy.ndarray, shape (n,)
        As for `lateral_spectrum`.
    """
    # Without its two zeros, the window of a few slices would hardly let anything through.
    window = np.hanning(len(values) + 2)[1:-1, None, None].astype(np.float32)
    spectrum = np.fft.rfft((values - values.mean(axis=0)) * window, axis=0)
    power = (np.abs(spectrum) ** 2).mean(axis=(1, 2)) / float(np.square(window).sum())
    return np.fft.rfftfreq(len(values), spacing_um)[1:], power[1:]
