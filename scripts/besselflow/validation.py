r"""What can be said of a volume without a ground truth: its misfit, and what was measured of it.

Imaged again through the beam, a volume should differ from the measured projections by noise alone.
Two numbers say whether it does. The reduced chi-square is 1 where the residual is as large as the
noise; a volume that has followed part of the noise leaves less, as every fit does. The mean product
of neighbouring residuals is 0 for white noise and positive where structure was left behind; it sees
a misfit long before chi-square does, whose noise level is itself only an estimate.

And a volume can agree with its projections perfectly, and still hold much that no projection
measured. Its orthogonal split :math:`v = A^+ A v + (I - A^+ A) v` says how much: the first part,
in the range of :math:`A^T`, is determined by the projections, and the second, in the null space of
A, can be anything without changing them, so that the method alone has put it there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import dask.array as da
import numpy as np
from scipy.ndimage import gaussian_filter

from besselflow.noise import pixel_variance
from besselflow.projection import AxialProjection
from besselflow.store import Projections, Volume, column_edge

CHI2_UNDERFITS, CHI2_CONTRADICTS = 1.25, 2.0
"""Above the first, more is left than the noise estimate may err by; above the second, far more."""

CHI2_OVERFITS = 0.5
"""Below it, more than half of the noise's energy has gone into the volume."""

STRUCTURE_UNDERFITS = 0.2
"""Above it, structure is left behind whose energy is more than a fifth of the noise's."""

_BLOCK_VOXELS = 2**23
_SAMPLES_PER_BIN = 64
_MAP_EDGE = 128
_SHARE_SIGMA = 1.5


@dataclass(frozen=True)
class Noise:
    """The noise of every measured pixel, as the spectral Gaussian process found it.

    Attributes
    ----------
    expected : dask.array.Array, shape (T, C, Z, Y, X)
        Volume whose projections are the expected intensities.
    variance, mean : numpy.ndarray, shape (T, C)
        Fitted variance of a projected pixel, and mean intensity.
    """

    expected: da.Array
    variance: np.ndarray
    mean: np.ndarray

    @classmethod
    def from_spectral(cls, volume: Volume) -> Noise:
        """Read it off the volume of the method `spectral` and its records.

        Raises
        ------
        ValueError
            A noise variance is not positive.
        """
        places = volume.data.shape[:2]
        # The units of a time point and channel follow each other, and share one model.
        records = volume.attributes["records"]
        first = records[:: max(1, len(records) // math.prod(places))]
        fitted = [np.reshape([r[key] for r in first], places) for key in ("noise_variance", "mean")]
        if not (fitted[0] > 0).all():
            raise ValueError(f"the noise variance is {fitted[0].min():g}; it must be positive")
        return cls(volume.data, *fitted)

    def variance_of(self, t: int, c: int, operator: AxialProjection, *window: slice) -> np.ndarray:
        """Return the variance of each pixel in a lateral window (y, x), shape (P, y, x)."""
        expected = operator.forward(np.asarray(self.expected[t, c, :, *window]))
        fitted = self.variance[t, c], self.mean[t, c]
        return pixel_variance(expected, *fitted, factors=operator.noise_factors)


@dataclass(frozen=True)
class Examination:
    """What a volume's own projections and its null space say of it.

    Attributes
    ----------
    determined, inferred : numpy.ndarray, shape (T, C, Z)
        Energy (sum of squares) of the part of each slice in the range of A^T, and of the part in
        the null space of A. Over all slices, they add up to the energy of the volume.
    chi2_by_projection : numpy.ndarray, shape (T, C, P), or None
        Reduced chi-square of each projection; None where the noise is not known.
    chi2_map : numpy.ndarray, shape (C, y, x), or None
        The same over all times and projections, in square bins of `bin_pixels`.
    bin_pixels : int
        Edge of a bin, such that a bin averages at least `_SAMPLES_PER_BIN` pixels.
    structure, structure_error : float or None
        Mean product of the residuals of laterally neighbouring pixels, in units of the noise
        variance, and its standard error if the residual were white noise. It is the energy of
        structure that is wider than a pixel.
    pixels : int
        Pixels of a projection.
    """

    determined: np.ndarray
    inferred: np.ndarray
    chi2_by_projection: np.ndarray | None
    chi2_map: np.ndarray | None
    bin_pixels: int
    structure: float | None
    structure_error: float | None
    pixels: int

    @property
    def determined_share(self) -> float:
        """Share of the volume's energy that the projections determine, 0 to 1."""
        total = float(self.determined.sum() + self.inferred.sum())
        return float(self.determined.sum()) / total if total > 0 else 1.0

    def summary(self) -> dict[str, float]:
        """Return metric -> value: ``determined`` and, with noise, ``chi2`` and ``structure``."""
        values = {"determined": self.determined_share}
        if self.chi2_by_projection is not None:
            values["chi2"] = float(self.chi2_by_projection.mean())
            values["structure"] = self.structure
        return values


def examine(volume: da.Array, projections: Projections, noise: Noise | None = None) -> Examination:
    r"""Compare a volume with its projections, and split it into measured and inferred.

    The reduced chi-square is the mean of :math:`(A v - y)^2 / \sigma^2`. It divides by the number
    of measurements, not by that minus the number of fitted parameters, which is not defined for a
    regularised volume: a fit that follows the share f of the noise leaves 1 - f. Masked pixels are
    no measurements, and have no part in it.

    One pass over the volume, in lateral tiles of all depths, so that memory does not grow with its
    area.

    Parameters
    ----------
    volume : dask.array.Array, shape (T, C, Z, Y, X)
        Volume on the grid of the projections.
    projections : Projections
        Measured projections y, and the operator A.
    noise : Noise or None
        Variance of the measured pixels; without it, only the split is computed.

    Returns
    -------
    Examination

    Raises
    ------
    ValueError
        The volume holds a value that is not finite.
    """
    operator, data = projections.operator, projections.data
    n_times, n_channels, count, height, width = data.shape
    bin_pixels = max(
        math.ceil(math.sqrt(_SAMPLES_PER_BIN / count)), math.ceil(max(height, width) / _MAP_EDGE)
    )
    bins = (-(-height // bin_pixels), -(-width // bin_pixels))
    energies = np.zeros((2, n_times, n_channels, operator.n_slices))
    squares, measurements = np.zeros((2, n_times, n_channels, count))
    map_squares, map_measurements = np.zeros((2, n_channels, *bins))
    product, pairs = 0.0, 0
    margin = _reach(operator)
    for t, c in np.ndindex(n_times, n_channels):
        for y, x in _tiles(volume.shape, bin_pixels):
            # A lateral blur brings light from around the tile.
            wide_y, own_y = _widened(y, height, margin[0])
            wide_x, own_x = _widened(x, width, margin[1])
            own = (slice(None), own_y, own_x)
            block = np.asarray(volume[t, c, :, wide_y, wide_x])
            if not np.isfinite(block).all():
                raise ValueError(
                    f"the volume holds values that are not finite at t {t}, channel {c}, rows "
                    f"{y.start} to {y.stop}, columns {x.start} to {x.stop}; it can't be judged"
                )
            seen = operator.forward(block)
            determined = operator.pinv(seen)
            energies[:, t, c] += split_energies(block[own], determined[own]).sum(axis=(2, 3))
            if noise is None:
                continue
            residual = seen[own] - np.asarray(data[t, c, :, y, x])
            residual /= np.sqrt(noise.variance_of(t, c, operator, wide_y, wide_x)[own])
            masked = projections.masked_at(t, c, y, x)
            kept = np.ones(residual.shape, bool) if masked is None else ~masked
            residual *= kept
            part = np.square(residual, dtype=np.float64)
            squares[t, c] += part.sum(axis=(1, 2))
            measurements[t, c] += kept.sum(axis=(1, 2))
            place = (_binned(y, bin_pixels), _binned(x, bin_pixels))
            map_squares[c, *place] += _bin_sums(part.sum(axis=0), bin_pixels)
            map_measurements[c, *place] += _bin_sums(kept.sum(axis=0), bin_pixels)
            for axis in (1, 2):
                one, other = _neighbours(residual, axis)
                product += float(np.sum(one * other, dtype=np.float64))
                pairs += np.count_nonzero(np.logical_and(*_neighbours(kept, axis)))
    known = noise is not None
    return Examination(
        *energies,
        chi2_by_projection=squares / np.maximum(measurements, 1) if known else None,
        chi2_map=(map_squares / np.maximum(map_measurements, 1)).astype(np.float32)
        if known
        else None,
        bin_pixels=bin_pixels,
        structure=product / max(pairs, 1) if known else None,
        structure_error=1 / math.sqrt(max(pairs, 1)) if known else None,
        pixels=height * width,
    )


def split_energies(volume: np.ndarray, determined: np.ndarray) -> np.ndarray:
    """Return the squares of a volume's determined and its inferred part, shape (2, Z, Y, X).

    Parameters
    ----------
    volume, determined : numpy.ndarray, shape (Z, Y, X)
        The volume v, and A^+ A v.
    """
    return np.square(np.stack([determined, volume - determined]), dtype=np.float64)


def determined_map(volume: da.Array, operator: AxialProjection) -> da.Array:
    """Return the share of each voxel's energy that the projections determine, smoothed.

    Both energies are smoothed by a Gaussian of 1.5 voxels before the division, since either part
    passes through zero within a structure.

    Parameters
    ----------
    volume : dask.array.Array, shape (T, C, Z, Y, X)
    operator : AxialProjection

    Returns
    -------
    dask.array.Array, shape (T, C, Z, Y, X), float32
        0 to 1; 1 where there is no light at all. Computed block by block.
    """

    depth, height, width = volume.shape[2:]
    margins = [math.ceil(4 * _SHARE_SIGMA) + reach for reach in _reach(operator)]

    def share(block_info: dict) -> np.ndarray:
        (t, _), (c, _), _, *window = block_info[None]["array-location"]
        # Read with its margin alone: of blocks that overlap, Dask would hold all neighbours.
        wide_y, own_y = _widened(slice(*window[0]), height, margins[0])
        wide_x, own_x = _widened(slice(*window[1]), width, margins[1])
        values = np.asarray(volume[t, c, :, wide_y, wide_x])
        parts = split_energies(values, operator.pinv(operator.forward(values)))
        for part in parts:
            gaussian_filter(part, _SHARE_SIGMA, mode="nearest", output=part)
        measured, total = parts[0], parts.sum(axis=0)
        out = np.divide(measured, total, out=np.ones_like(total), where=total > 0)
        return out[None, None, :, own_y, own_x].astype(np.float32)

    edge = column_edge(depth)
    chunks = da.core.normalize_chunks((1, 1, -1, edge, edge), shape=volume.shape)
    return da.map_blocks(share, chunks=chunks, dtype=np.float32, meta=np.empty((0,) * 5, "f4"))


def judge_fit(chi2: float | None, structure: float | None) -> str | None:
    """Say whether a volume underfits or overfits its projections.

    A volume ``underfits`` where its residual is larger than the noise by more than the error of the
    noise estimate, or holds structure; it ``overfits`` where more than half of the noise has gone
    into it. The sampling error of both numbers is far below these limits in images of more than
    about a thousand pixels. Noise that is itself correlated, as after an interpolation of the raw
    images, looks like structure in the residual of every method.

    Parameters
    ----------
    chi2, structure : float or None
        As in `Examination`.

    Returns
    -------
    str or None
        ``underfits``, ``overfits``, or None where nothing is wrong or known.
    """
    if chi2 is None:
        return None
    if chi2 > CHI2_UNDERFITS or (structure or 0) > STRUCTURE_UNDERFITS:
        return "underfits"
    return "overfits" if chi2 < CHI2_OVERFITS else None


def unexplained_projections(chi2: np.ndarray, pixels: int) -> np.ndarray:
    """Say which projections a volume doesn't explain.

    Parameters
    ----------
    chi2 : numpy.ndarray
        Reduced chi-square by projection.
    pixels : int
        Pixels of a projection; chi-square of white noise has the standard error sqrt(2 / pixels).

    Returns
    -------
    numpy.ndarray of bool, shape of `chi2`
    """
    return chi2 > max(CHI2_UNDERFITS, 1 + 5 * math.sqrt(2 / pixels))


def _tiles(shape: tuple[int, ...], multiple: int) -> Iterator[tuple[slice, slice]]:
    """Cut the lateral plane into tiles that memory allows, of whole bins."""
    edge = max(128, math.isqrt(_BLOCK_VOXELS // shape[2]) // 128 * 128)
    edge = max(1, edge // multiple) * multiple
    for y in range(0, shape[3], edge):
        for x in range(0, shape[4], edge):
            yield slice(y, min(y + edge, shape[3])), slice(x, min(x + edge, shape[4]))


def _reach(operator: AxialProjection) -> tuple[int, int]:
    """Return how far the lateral blur reaches along (y, x), in pixels."""
    return (0, 0) if operator.lateral is None else operator.lateral.radius


def _widened(window: slice, length: int, margin: int) -> tuple[slice, slice]:
    """Return a window with a margin inside the image, and the window counted from its start."""
    start = max(0, window.start - margin)
    wide = slice(start, min(length, window.stop + margin))
    return wide, slice(window.start - start, window.stop - start)


def _binned(window: slice, bin_pixels: int) -> slice:
    return slice(window.start // bin_pixels, -(-window.stop // bin_pixels))


def _bin_sums(image: np.ndarray, bin_pixels: int) -> np.ndarray:
    """Sum an image over square bins; those at its end may be smaller."""
    for axis in (0, 1):
        image = np.add.reduceat(image, np.arange(0, image.shape[axis], bin_pixels), axis=axis)
    return image


def _neighbours(stack: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    count = stack.shape[axis]
    return stack.take(range(count - 1), axis), stack.take(range(1, count), axis)
