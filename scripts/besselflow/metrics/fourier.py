r"""Fourier shell correlation of result and truth along x, y and z: how fine the right detail is.

The correlation of the coefficients of both volumes with frequencies of one length,

.. math:: \mathrm{FSC}(k) = \frac{\mathrm{Re} \sum F G^*}{\sqrt{\sum |F|^2 \sum |G|^2}},

is taken over sections of the shells: over the frequencies within 20 degrees of each axis (after the
sectioned correlation of Koho et al., Nat. Commun. 10, 3103 (2019)), because a Bessel beam blurs
along z alone. The resolution is the inverse of the first frequency at which it falls below 0.5, and
stays there for the next shell. Against a truth without noise, this corresponds to the 1/7 of two
noisy halves (Rosenthal and Henderson, J. Mol. Biol. 333, 721 (2003)). Sums are taken over blocks of
one size that cover all scored slices, each without its mean and tapered by a Hann window, so that
memory does not grow with the volume and no field is left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product

import dask.array as da
import numpy as np
import pandas as pd
from scipy.fft import rfftn

CRITERION = 0.5
AXES = ("z", "y", "x")
_EDGE = 128
_FEWEST_VOXELS = 8
_COSINE = math.cos(math.radians(20))


def correlate_shells(
    estimate: da.Array,
    truth: da.Array,
    scored: np.ndarray,
    voxel_size_um: tuple[float, float, float],
) -> pd.DataFrame:
    """Correlate two volumes by frequency along each axis.

    Parameters
    ----------
    estimate, truth : dask.array.Array, shape (T, C, Z, Y, X)
        Volume and ground truth.
    scored : numpy.ndarray of bool, shape (Z,)
        Slices to score, which follow each other.
    voxel_size_um : tuple of float
        (z, y, x) in micrometres.

    Returns
    -------
    pandas.DataFrame
        Columns ``axis`` (``z``, ``y`` or ``x``), ``frequency_per_um``, and ``correlation``, the
        mean over times and channels, up to the highest frequency that the voxels can show. Axes of
        fewer than eight voxels are left out; an estimate without any signal correlates with 0.
    """
    first, last = np.flatnonzero(scored)[[0, -1]]
    shape = (int(last - first) + 1, *truth.shape[3:])
    block = tuple(min(_EDGE, count) for count in shape)
    shells = _label_shells(block, voxel_size_um)
    # Of two conjugate coefficients, the transform of real values keeps one.
    occurrences = np.full(block[2] // 2 + 1, 2)
    occurrences[0] = 1
    if block[2] % 2 == 0:
        occurrences[-1] = 1
    curves: dict[str, list[np.ndarray]] = {axis: [] for axis in shells}
    for t, channel in np.ndindex(*truth.shape[:2]):
        sums = {axis: np.zeros((3, labels.max() + 1)) for axis, labels in shells.items()}
        for slices, *window in _places(shape, block):
            slices = slice(first + slices.start, first + slices.stop)
            # By one index alone, which Zarr reads without the rest of what Dask takes for a chunk.
            pair = (np.asarray(each[t, channel, slices, *window]) for each in (estimate, truth))
            one, other = map(_spectrum, pair)
            products = (one * other.conj()).real, np.abs(one) ** 2, np.abs(other) ** 2
            for (axis, labels), (row, values) in product(shells.items(), enumerate(products)):
                weights = (values * occurrences).ravel()
                sums[axis][row] += np.bincount(labels.ravel(), weights, sums[axis].shape[1])
        for axis, (common, *powers) in sums.items():
            norm = np.sqrt(powers[0] * powers[1])
            curves[axis].append(np.divide(common, norm, np.zeros_like(norm), where=norm > 0))
    tables = []
    for axis, found in curves.items():
        size = voxel_size_um[AXES.index(axis)]
        width = 1 / (block[AXES.index(axis)] * size)
        # The last label is that of all frequencies that no section holds.
        curve = np.mean(found, axis=0)[:-1]
        frequency = width * np.arange(len(curve))
        tables.append(
            pd.DataFrame({"axis": axis, "frequency_per_um": frequency, "correlation": curve})[1:]
        )
    columns = ["axis", "frequency_per_um", "correlation"]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)


def resolutions_um(curves: pd.DataFrame) -> dict[str, float]:
    """Return the resolution along each axis in micrometres.

    Parameters
    ----------
    curves : pandas.DataFrame
        Result of `correlate_shells`.

    Returns
    -------
    dict
        ``resolution_z``, ``resolution_y`` and ``resolution_x``: the inverse of the frequency at
        which the correlation falls below `CRITERION`, interpolated; that of the highest
        frequency where it never does, so that the true resolution is at least as fine. An axis on
        which even the lowest frequency is below is left out.
    """
    found = {}
    for axis, curve in curves.groupby("axis", sort=False):
        frequency = curve["frequency_per_um"].to_numpy()
        correlation = curve["correlation"].to_numpy()
        below = correlation < CRITERION
        # A single shell of few coefficients may be low by chance.
        lost = np.flatnonzero(below & np.append(below[1:], True))
        if not len(lost):
            found[f"resolution_{axis}"] = float(1 / frequency[-1])
        elif lost[0] > 0:
            after = lost[0]
            drop = correlation[after - 1] - correlation[after]
            share = (correlation[after - 1] - CRITERION) / drop
            crossing = frequency[after - 1] + share * (frequency[after] - frequency[after - 1])
            found[f"resolution_{axis}"] = float(1 / crossing)
    return found


def _label_shells(
    block: tuple[int, ...], voxel_size_um: tuple[float, float, float]
) -> dict[str, np.ndarray]:
    """Number the shell of every coefficient in the section around each axis."""
    z, y = (np.fft.fftfreq(n, size) for n, size in zip(block[:2], voxel_size_um[:2], strict=True))
    components = np.meshgrid(z, y, np.fft.rfftfreq(block[2], voxel_size_um[2]), indexing="ij")
    length = np.sqrt(sum(component**2 for component in components))
    shells = {}
    for axis, component, count, size in zip(AXES, components, block, voxel_size_um, strict=True):
        if count < _FEWEST_VOXELS:
            continue
        number = np.rint(length * count * size).astype(int)
        most = count // 2
        inside = (np.abs(component) >= _COSINE * length) & (number <= most)
        shells[axis] = np.where(inside, number, most + 1)
    return shells


def _places(shape: tuple[int, ...], block: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Yield blocks of one size that cover everything; the last of an axis may overlap."""
    starts = [
        np.linspace(0, count - edge, math.ceil(count / edge)).round().astype(int)
        for count, edge in zip(shape, block, strict=True)
    ]
    for corner in product(*starts):
        yield tuple(slice(at, at + edge) for at, edge in zip(corner, block, strict=True))


def _spectrum(values: np.ndarray) -> np.ndarray:
    values = values.astype(np.float32) - values.mean(dtype=np.float64).astype(np.float32)
    for axis, count in enumerate(values.shape):
        # Without its two zeros, which would waste the outermost voxels.
        taper = np.hanning(count + 2)[1:-1].astype(np.float32)
        values = values * taper.reshape([-1 if each == axis else 1 for each in range(3)])
    return rfftn(values)
