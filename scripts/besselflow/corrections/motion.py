r"""Rigid motion of a time series: every time point registered to the first.

A plane shows the same at all times, so that time points can be registered as pictures. The
cross-spectra of all planes of a time point with those of the first are summed, and the displacement
s maximises :math:`\sum_f \mathrm{Re}(X(f) e^{2 \pi i f \cdot s})`: the peak of the
cross-correlation, between the pixels as well.
"""

from __future__ import annotations

import numpy as np
import scipy
import scipy.fft

from besselflow.corrections.drift import move
from besselflow.corrections.taper import taper

_TAPER = 0.25
# The taper stays where it is while the sample moves under it, which a second look makes up for.
_ROUNDS = 2
LEAST_PIXELS = 0.1
"""Less motion than this at all times is not worth an interpolation."""


LEAST_AGREEMENT = 0.3
"""Correlation of registered time points below which they show different things."""


def agreement(stacks: np.ndarray, motion: np.ndarray) -> float:
    """Return the smallest correlation of a time point, moved back, with the first.

    Parameters
    ----------
    stacks : numpy.ndarray, shape (T, N, y, x)
    motion : numpy.ndarray, shape (T, 2)
        Displacements in pixels.
    """
    smallest = 1.0
    reference = stacks[0] - stacks[0].mean(axis=(1, 2), keepdims=True)
    for stack, own in zip(stacks[1:], motion[1:], strict=True):
        back = move(stack, np.tile(-own, (len(stack), 1)))
        back = back - back.mean(axis=(1, 2), keepdims=True)
        energy = float(np.sqrt((reference**2).sum() * (back**2).sum()))
        smallest = min(smallest, float((reference * back).sum()) / max(energy, 1e-30))
    return smallest


def estimate_motion(stacks: np.ndarray) -> np.ndarray:
    """Estimate the lateral displacement of every time point.

    Parameters
    ----------
    stacks : numpy.ndarray, shape (T, N, y, x)
        The same planes (and channels) at all time points.

    Returns
    -------
    numpy.ndarray, shape (T, 2)
        Displacement (y, x) in pixels against the first time point.
    """
    reference = _modes(stacks[0]).conj()
    motion = np.zeros((len(stacks), 2))
    for t in range(1, len(stacks)):
        for _ in range(_ROUNDS):
            everywhere = np.tile(-motion[t], (len(stacks[t]), 1))
            cross = (reference * _modes(move(stacks[t], everywhere))).sum(axis=0)
            motion[t] += _peak(cross, stacks.shape[2:])
    return motion


def _modes(stack: np.ndarray) -> np.ndarray:
    window = taper(stack.shape[1:], _TAPER)
    return scipy.fft.rfft2((stack - stack.mean(axis=(1, 2), keepdims=True)) * window)


def _peak(cross: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    correlation = scipy.fft.irfft2(cross, s=shape)
    place = np.array(np.unravel_index(np.argmax(correlation), shape), float)
    start = np.where(place > np.array(shape) / 2, place - shape, place)
    waves = (
        2
        * np.pi
        * np.stack(
            np.broadcast_arrays(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1]))
        )
    )
    scale = np.abs(cross).sum()
    if not scale > 0:
        return np.zeros(2)

    def disagreement(pixels: np.ndarray) -> tuple[float, np.ndarray]:
        turned = cross * np.exp(1j * np.tensordot(pixels, waves, axes=1)) / scale
        return -float(turned.real.sum()), (waves * turned.imag).sum(axis=(1, 2))

    bounds = [(value - 1, value + 1) for value in start]
    return scipy.optimize.minimize(
        disagreement, start, jac=True, method="L-BFGS-B", bounds=bounds
    ).x
