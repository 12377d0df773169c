"""What goes wrong during a simulated acquisition, and by how much."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Disturbance:
    """What goes wrong during an acquisition.

    Attributes
    ----------
    drift_um : float
        Standard deviation of the lateral random walk, per axis and projection, in micrometres.
    jitter_um : float
        Standard deviation of a lateral displacement of each projection for itself, per axis, in
        micrometres.
    bleaching : float
        Share of the brightness that is lost between the first and the last projection, decaying
        exponentially; 0 to below 1.
    laser : float
        Standard deviation of the logarithm of the laser's brightness at every projection.
    hot_pixels : float
        Share of the pixels with a strong dark signal in every projection; 0 to 1.
    scan_phase : float
        Displacement of the odd lines along x, in pixels.
    lines : float
        Standard deviation of the logarithm of the laser's brightness at every line (along x) of
        every projection; 0 to 1.
    vignetting : float
        Share of the brightest pixel's light that is missing at the farthest corner of every image;
        0 to below 1. The mean over the image stays.
    attenuation_um : float
        Depth in micrometres over which the brightness of the sample falls to 1/e; negative where z
        decreases with depth, infinite for no attenuation.

    Raises
    ------
    ValueError
        A value is outside its range.
    """

    drift_um: float = 0.0
    bleaching: float = 0.0
    hot_pixels: float = 0.0
    jitter_um: float = 0.0
    laser: float = 0.0
    scan_phase: float = 0.0
    vignetting: float = 0.0
    attenuation_um: float = np.inf
    lines: float = 0.0

    def __post_init__(self) -> None:
        """Refuse values without a meaning."""
        check_range("drift_um", self.drift_um, 0, np.inf)
        check_range("jitter_um", self.jitter_um, 0, np.inf)
        check_range("laser", self.laser, 0, 1)
        check_range("lines", self.lines, 0, 1)
        check_range("hot_pixels", self.hot_pixels, 0, 1)
        check_range("bleaching", self.bleaching, 0, 1)
        check_range("scan_phase", abs(self.scan_phase), 0, np.inf)
        check_range("vignetting", self.vignetting, 0, 1)
        if self.vignetting == 1:
            raise ValueError("vignetting must be below 1: no light says nothing of the sample")
        if self.bleaching == 1:
            raise ValueError("bleaching must be below 1: an exponential never loses everything")
        if self.attenuation_um == 0 or np.isnan(self.attenuation_um):
            raise ValueError(f"attenuation_um must be a length, not {self.attenuation_um}")


def displacements(
    rng: np.random.Generator, later: np.random.Generator, count: int, disturbance: Disturbance
) -> np.ndarray:
    """Draw the displacement (y, x) of every projection in micrometres, shape (P, 2)."""
    steps = rng.normal(0.0, 1.0, (count, 2)) * disturbance.drift_um
    own = later.normal(0.0, 1.0, (count, 2)) * disturbance.jitter_um
    # The first projection is the reference that the ground truth is aligned with.
    steps[0] = own[0] = 0.0
    return np.cumsum(steps, axis=0) + own


def remaining_brightness(
    later: np.random.Generator, count: int, disturbance: Disturbance
) -> np.ndarray:
    """Return what is left of the brightness at every projection, times the laser's, shape (P,)."""
    elapsed = np.arange(count) / max(count - 1, 1)
    laser = np.exp(later.normal(0.0, 1.0, count) * disturbance.laser)
    return (1 - disturbance.bleaching) ** elapsed * laser


def remaining_light(
    centres_um: np.ndarray, positions_um: np.ndarray, disturbance: Disturbance
) -> np.ndarray:
    """Return what attenuation leaves of the brightness of every slice, shape (Z,).

    It is 1 at the stage position nearest to the surface.
    """
    length = disturbance.attenuation_um
    surface = np.min(positions_um) if length > 0 else np.max(positions_um)
    return np.exp(-(np.asarray(centres_um) - surface) / length)


def line_brightness(
    later: np.random.Generator, shape: tuple[int, int], disturbance: Disturbance
) -> np.ndarray:
    """Draw the laser's brightness at every line of every projection, shape (P, Y)."""
    return np.exp(later.normal(0.0, 1.0, shape) * disturbance.lines)


def uneven_light(shape: tuple[int, ...], vignetting: float) -> np.ndarray:
    """Return the brightness of an even sample at every pixel, (Y, X), with the mean 1.

    It falls with the square of the distance from a place beside the middle.
    """
    y, x = np.meshgrid(*((np.arange(n) + 0.5) / n - 0.5 for n in shape), indexing="ij")
    squared = (y - 0.08) ** 2 + (x + 0.05) ** 2
    light = 1 - vignetting * (squared - squared.min()) / np.ptp(squared)
    return light / light.mean()


def dark_photons(
    rng: np.random.Generator, shape: tuple[int, ...], share: float, photons: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return a mask of hot pixels (Y, X), and their dark signal (Y, X) around `photons`."""
    hot = np.zeros(int(np.prod(shape)), bool)
    hot[rng.permutation(hot.size)[: round(share * hot.size)]] = True
    hot = hot.reshape(shape)
    return hot, np.where(hot, photons * rng.uniform(0.5, 3.0, shape), 0.0)


def check_range(name: str, value: float, low: float, high: float, above: bool = False) -> None:
    """Refuse a value outside a range.

    Raises
    ------
    ValueError
        With the name, the range and the value.
    """
    within = (low < value if above else low <= value) and value <= high
    if not (within and np.isfinite(value)):
        bound = f"above {low:g}" if above else f"at least {low:g}"
        bound += f" and at most {high:g}" if np.isfinite(high) else ""
        raise ValueError(f"{name} must be a number {bound}, not {value}")
