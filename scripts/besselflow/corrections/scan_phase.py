r"""The displacement of every other line of a scanner that records in both directions.

A line and the mean of its two neighbours show the same structure on average, so that the phase of
their cross-spectrum, summed over all lines, grows linearly with frequency:
:math:`X(f) \propto e^{-2 \pi i f s}` for odd lines displaced by s. The estimate maximises
:math:`\sum_f \mathrm{Re}(X(f) e^{2 \pi i f s})`; the noise of different lines is independent, and
adds nothing to it on average.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy
import scipy.fft
from scipy.ndimage import shift

_LIMIT = 6.0
_GRID = 0.25
_LEAST = 0.05
_ERRORS = 4.0
_HIGHEST = 0.4
_LEAST_COHERENCE = 0.8


@dataclass(frozen=True)
class ScanPhase:
    """A displacement of the odd lines against the even ones.

    Attributes
    ----------
    pixels : float
        Displacement along x.
    error : float
        Its standard error, by leaving out images (jackknife).
    """

    pixels: float
    error: float

    @property
    def is_certain(self) -> bool:
        """Whether it is larger than a twentieth of a pixel and four times its error."""
        return abs(self.pixels) > max(_LEAST, _ERRORS * self.error)


def estimate_scan_phase(images: np.ndarray) -> ScanPhase | None:
    """Estimate the displacement of the odd lines.

    Parameters
    ----------
    images : numpy.ndarray, shape (N, Y, X)
        Images of any depths and times.

    Returns
    -------
    ScanPhase or None
        Up to 6 pixels to either side; None where the images are too small, or hold no
        structure that neighbouring lines agree on.
    """
    count, height, width = images.shape
    if height < 8 or width < 16 or count < 2:
        return None
    window = np.hanning(width + 2)[1:-1]
    lines = images - images.mean(axis=2, keepdims=True)
    modes = scipy.fft.rfft(lines * window, axis=2)
    odd = modes[:, 1 : height - 1 : 2]
    even = 0.5 * (modes[:, 0 : height - 2 : 2] + modes[:, 2:height:2])
    # The highest frequencies hold noise, and those of a sharp edge at half a pixel are ambiguous.
    used = np.arange(modes.shape[2]) / width <= _HIGHEST
    frequency = np.arange(modes.shape[2])[used] / width
    cross = (odd[..., used] * even[..., used].conj()).sum(axis=1)
    total = cross.sum(axis=0)
    best = _peak(total, frequency)
    parts = [part.sum(axis=0) for part in np.array_split(cross, min(count, 10))]
    left_out = np.array([_peak(total - part, frequency) for part in parts])
    error = np.sqrt((len(parts) - 1) * left_out.var())
    # A displacement turns all frequencies in proportion; the phases of noise are random.
    agreement = (total * np.exp(2j * np.pi * frequency * best)).real.sum()
    if agreement <= _LEAST_COHERENCE * np.abs(total).sum():
        return None
    return ScanPhase(float(best), float(error))


def _peak(cross: np.ndarray, frequency: np.ndarray) -> float:
    def agreement(pixels: float) -> float:
        return -float((cross * np.exp(2j * np.pi * frequency * pixels)).real.sum())

    grid = np.arange(-_LIMIT, _LIMIT + _GRID / 2, _GRID)
    start = grid[np.argmin([agreement(pixels) for pixels in grid])]
    return scipy.optimize.minimize_scalar(
        agreement, bounds=(start - _GRID, start + _GRID), method="bounded"
    ).x


def shift_odd_lines(image: np.ndarray, pixels: float) -> np.ndarray:
    """Move the odd lines by -`pixels` along x, with cubic splines.

    Parameters
    ----------
    image : numpy.ndarray, shape (Y, X)
    pixels : float
        Displacement to take back.

    Returns
    -------
    numpy.ndarray, shape (Y, X), float32
    """
    moved = image.astype(np.float32)
    moved[1::2] = shift(moved[1::2], (0, -pixels), order=3, mode="nearest")
    return moved


def shift_odd_mask(masked: np.ndarray, pixels: float) -> np.ndarray:
    """Move a mask along: what a masked pixel or the outside has a part in is masked."""
    moved = masked.astype(np.float32)
    moved[1::2] = shift(moved[1::2], (0, -pixels), order=1, mode="constant", cval=1.0)
    return moved > 0.01
