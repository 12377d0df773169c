"""The field that a phantom is drawn in, and the random functions and background all kinds share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.sparse import csr_array

# Above this many branch points or cells the distances grow instead, so that a wide field at a fine
# sampling stays a matter of seconds.
MAX_NODES = 6000
_OPTICAL_BLUR_VOXELS = 0.7
# A field this wide (cube root of its volume, in um) shows several structures at their usual size;
# a smaller one gets smaller structures, since an empty volume teaches and tests nothing.
_FIELD_AT_FULL_SIZE_UM = 55.0


@dataclass(frozen=True)
class Field:
    """The sampled volume; voxel (k, j, i) has its centre at (k, j, i) * voxel_um."""

    shape: tuple[int, int, int]
    voxel_um: np.ndarray

    @classmethod
    def checked(cls, shape: Sequence[int], voxel_size_um: Sequence[float]) -> Field:
        """Return the field of a shape and a voxel size, or say which of them is not valid."""
        if len(shape) != 3 or any(int(n) != n or n < 1 for n in shape):
            raise ValueError(f"shape must be three positive whole numbers (Z, Y, X), not {shape}")
        voxel = np.asarray(voxel_size_um, float)
        if voxel.shape != (3,) or not np.all(np.isfinite(voxel) & (voxel > 0)):
            raise ValueError(
                f"voxel size must be three positive numbers (z, y, x) in um, not {voxel_size_um}"
            )
        return cls(tuple(int(n) for n in shape), voxel)

    @property
    def extent_um(self) -> np.ndarray:
        """Lengths of the sides (3,)."""
        return self.voxel_um * self.shape

    @property
    def volume_um3(self) -> float:
        """Volume of the field."""
        return float(np.prod(self.extent_um))

    @property
    def breadth_um(self) -> float:
        """Side of the cube that has the volume of the field."""
        return float(np.cbrt(self.volume_um3))

    @property
    def pitch_um(self) -> float:
        """Side of the cube that has the volume of a voxel."""
        return float(np.cbrt(np.prod(self.voxel_um)))

    def canvas(self) -> np.ndarray:
        """Return a dark image of the field to draw on."""
        return np.zeros(self.shape, np.float32)

    def fitting_size(self, size: float) -> float:
        """Return a size, smaller in a field that would not show several structures."""
        return size * min(1.0, self.breadth_um / _FIELD_AT_FULL_SIZE_UM)

    def step_um(self, radius_um: float) -> float:
        """Return how far apart to sample a course of a radius; more would not be visible."""
        return 1.5 * max(self.pitch_um, 0.5 * radius_um)

    def window(
        self, low_um: np.ndarray, high_um: np.ndarray
    ) -> tuple[tuple[slice, ...], tuple[np.ndarray, ...]] | None:
        """Return slices and coordinates of the voxels in a box, or None if there are none."""
        first = np.maximum(np.ceil(low_um / self.voxel_um).astype(int), 0)
        stop = np.minimum(np.floor(high_um / self.voxel_um).astype(int) + 1, self.shape)
        if np.any(first >= stop):
            return None
        axes = [np.arange(a, b) * v for a, b, v in zip(first, stop, self.voxel_um, strict=True)]
        window = tuple(slice(a, b) for a, b in zip(first, stop, strict=True))
        return window, (axes[0][:, None, None], axes[1][None, :, None], axes[2][None, None, :])


class Waves:
    """A random smooth function of the position, zero mean and unit variance: a sum of waves."""

    def __init__(self, rng: np.random.Generator, n_waves: int, wavelengths: tuple[float, float]):
        direction = rng.standard_normal((n_waves, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        length = np.exp(rng.uniform(*np.log(wavelengths), n_waves))
        self.vectors = 2 * np.pi * direction / length[:, None]
        self.phases = rng.uniform(0, 2 * np.pi, n_waves)
        self.amplitude = np.sqrt(2 / n_waves)

    def __call__(self, position: np.ndarray) -> np.ndarray:
        """Return the values (...) at positions (..., 3)."""
        return self.amplitude * np.sin(position @ self.vectors.T + self.phases).sum(axis=-1)


def generator(kind: str, seed: int) -> np.random.Generator:
    """Return the random generator of a kind of phantom, so that kinds differ for one seed.

    Parameters
    ----------
    kind : str
        Name of the kind.
    seed : int
        Not negative.

    Returns
    -------
    numpy.random.Generator
        The same for equal arguments.

    Raises
    ------
    ValueError
        The seed is negative or not whole.
    """
    if int(seed) != seed or seed < 0:
        raise ValueError(f"seed must be a whole number, 0 or more, not {seed}")
    return np.random.default_rng([*kind.encode(), int(seed)])


def positive(value: float, name: str) -> float:
    """Return a length or a factor that a caller gave, if it is a positive number.

    Parameters
    ----------
    value : float
        What was given.
    name : str
        What to call it in the message.

    Returns
    -------
    float
        The value.

    Raises
    ------
    ValueError
        The value is not a positive, finite number.
    """
    if not (np.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be a positive number, not {value}")
    return float(value)


def given_or_drawn(
    value: float | None, rng: np.random.Generator, low: float, high: float, name: str
) -> float:
    """Return a given positive value, else one drawn log-uniformly.

    It draws in both cases, so that a given value leaves all that is drawn later as it was.

    Parameters
    ----------
    value : float or None
        What the caller gave.
    rng : numpy.random.Generator
        Source of the drawn value.
    low, high : float
        Range of the drawn value.
    name : str
        What to call the value in the message.

    Returns
    -------
    float
        The given or the drawn value.

    Raises
    ------
    ValueError
        The given value is not a positive, finite number.
    """
    drawn = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    return drawn if value is None else positive(value, name)


def smooth_noise(rng: np.random.Generator, field: Field, length_um: float) -> np.ndarray:
    """Draw smooth Gaussian noise over the field: cubic B-splines on random coefficients.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of the coefficients.
    field : Field
        Where to sample the noise.
    length_um : float
        Distance of the splines' knots, at least a voxel along each axis.

    Returns
    -------
    numpy.ndarray, shape (Z, Y, X), float32
        Zero mean, unit variance.
    """
    bases = [
        _spline_basis(n, spacing)
        for n, spacing in zip(field.shape, np.maximum(length_um / field.voxel_um, 1.0), strict=True)
    ]
    noise = rng.standard_normal([basis.shape[1] for basis in bases]).astype(np.float32)
    for axis, basis in enumerate(bases):
        across = np.moveaxis(noise, axis, 0)
        along = basis @ across.reshape(len(across), -1)
        noise = np.moveaxis(along.reshape(-1, *across.shape[1:]), 0, axis)
    return noise


def _spline_basis(n_samples: int, spacing: float) -> csr_array:
    """Return cubic B-splines at every sample, rows scaled to norm 1: shape (n_samples, n_knots)."""
    at = np.arange(n_samples)[:, None] / spacing
    knots = np.arange(-1, int(np.ceil(at[-1, 0])) + 2)[None, :]
    t = np.abs(at - knots)
    basis = np.where(t < 1, 2 / 3 - t**2 + t**3 / 2, np.maximum(2 - t, 0) ** 3 / 6)
    # Four weights per row: the sparse product is faster, and starts no threads beside torch's.
    return csr_array((basis / np.linalg.norm(basis, axis=1, keepdims=True)).astype(np.float32))


def finish(
    rng: np.random.Generator, canvas: np.ndarray, field: Field, grain: float, grain_um: float
) -> np.ndarray:
    """Add grain, uneven illumination, optical blur and a dim background; scale the peak to 1.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of the noise.
    canvas : numpy.ndarray, shape (Z, Y, X), float32
        What was drawn; overwritten.
    field : Field
        The field of the canvas.
    grain : float
        Contrast of the grain within structures, 0 for none.
    grain_um : float
        Length over which the grain varies.

    Returns
    -------
    numpy.ndarray, shape (Z, Y, X), float32
        The finished volume.

    Raises
    ------
    ValueError
        Nothing was drawn on the canvas.
    """
    if grain > 0:
        canvas *= np.exp(grain * smooth_noise(rng, field, max(grain_um, 1.5 * field.pitch_um)))
    uneven = rng.uniform(0.02, 0.12)
    canvas *= np.exp(uneven * smooth_noise(rng, field, 0.7 * field.breadth_um))
    canvas = gaussian_filter(canvas, _OPTICAL_BLUR_VOXELS, mode="nearest", truncate=4)
    peak = float(canvas.max())
    if peak <= 0:
        raise ValueError(
            f"no structure meets the field of {field.shape} voxels; draw a larger field"
        )
    level = rng.uniform(0.008, 0.022)
    background = level * np.exp(0.25 * smooth_noise(rng, field, 0.3 * field.breadth_um))
    volume = canvas / peak + background
    return (volume / volume.max()).astype(np.float32)
