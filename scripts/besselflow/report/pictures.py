"""Micrographs of the reports: previews of volumes, and their views from three sides.

A page must stay small and its making must fit into memory, whatever the size of the volume. A
preview is therefore read from the pyramid level nearest to the size of a picture, slice by slice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import dask.array as da
import numpy as np
from PIL import Image

from besselflow.report.page import image_uri, to_grey
from besselflow.store import open_volume

_PREVIEW_VOXELS = 2**25
_SLAB_VOXELS = 2**23


@dataclass(frozen=True)
class Preview:
    """One time point and channel of a volume at the size of the pictures.

    Attributes
    ----------
    values : numpy.ndarray, shape (Z, Y, X)
        float32 intensities, averaged over the pixels that were joined.
    z_um : numpy.ndarray, shape (Z,)
        Centres of the slices.
    voxel_um : tuple of float
        (z, y, x) size of the voxels of `values`.
    """

    values: np.ndarray
    z_um: np.ndarray
    voxel_um: tuple[float, float, float]


def load_preview(
    path: Path | str, pixels: int, place: tuple[int, int] = (0, 0), most_slices: int | None = None
) -> Preview:
    """Read a volume at the size of a picture.

    Parameters
    ----------
    path : path
        OME-Zarr volume.
    pixels : int
        Longest lateral edge of the result; less where the whole would exceed 2^25 voxels.
    place : tuple of int
        Time point and channel.
    most_slices : int or None
        Where there are more slices, as few neighbours as possible are averaged.

    Returns
    -------
    Preview
    """
    full = open_volume(path)
    pixels = min(pixels, max(16, math.isqrt(_PREVIEW_VOXELS // full.data.shape[2])))
    volume = full
    for level in range(1, 32):
        try:
            coarser = open_volume(path, level)
        except IndexError:
            break
        if max(coarser.data.shape[3:]) < pixels:
            break
        volume = coarser
    n_slices, height, width = volume.data.shape[2:]
    scale = min(1.0, pixels / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    joined = -(-n_slices // (most_slices or n_slices))
    starts = np.arange(0, n_slices, joined)
    values = shrink_stack(volume.data, size, place)
    if joined > 1:
        counts = np.diff([*starts, n_slices])[:, None, None].astype(np.float32)
        values = np.add.reduceat(values, starts, axis=0) / counts
    middles = starts + (joined - 1) / 2
    return Preview(
        values=values,
        z_um=volume.origin_um[0] + volume.voxel_size_um[0] * middles,
        voxel_um=(
            volume.voxel_size_um[0] * joined,
            volume.voxel_size_um[1] * height / size[0],
            volume.voxel_size_um[2] * width / size[1],
        ),
    )


def shrink_stack(
    data: da.Array, size: tuple[int, int], place: tuple[int, int] = (0, 0)
) -> np.ndarray:
    """Average one time point and channel of a stack down to a lateral size, a slab at a time.

    Parameters
    ----------
    data : dask.array.Array, shape (T, C, Z or P, Y, X)
        Stack.
    size : tuple of int
        (y, x) of the result, not larger than the stack.
    place : tuple of int
        Time point and channel.

    Returns
    -------
    numpy.ndarray, shape (Z or P, y, x), float32
    """
    count, height, width = data.shape[2:]
    slab = max(1, _SLAB_VOXELS // (height * width))
    result = np.empty((count, *size), np.float32)
    for start in range(0, count, slab):
        block = np.asarray(data[*place, start : start + slab], dtype=np.float32)
        for z, image in enumerate(block, start):
            if image.shape == size:
                result[z] = image
            else:
                shrunk = Image.fromarray(image).resize(size[::-1], Image.Resampling.BOX)
                result[z] = np.asarray(shrunk)
    return result


def display_window(values: np.ndarray) -> tuple[float, float]:
    """Choose the intensities shown as black and white, for all pictures of a sample.

    Black is the first percentile, which an unknown detector offset raises above zero, and white
    the 99.9th: a bright speck must not darken all the rest.
    """
    low, high = (float(v) for v in np.percentile(values, [1, 99.9]))
    low = low if low > 0.01 * high else 0.0
    return low, max(high, low + 1e-6)


def brightest_position(values: np.ndarray) -> tuple[int, int, int]:
    """Return the (z, y, x) indices of the planes that hold the most signal energy.

    Planes in the outer tenth on either side are not taken: a cut there shows little of the volume.
    """
    energy = np.square(values)
    position = []
    for axis, count in enumerate(values.shape):
        margin = count // 10
        others = tuple(other for other in range(3) if other != axis)
        profile = energy.sum(axis=others)[margin : count - margin]
        position.append(margin + int(np.argmax(profile)))
    return position[0], position[1], position[2]


def maximum_window(values: np.ndarray) -> tuple[float, float]:
    """Choose the intensities shown as black and white in maximum projections of a volume."""
    return display_window(np.concatenate([values.max(axis=axis).ravel() for axis in range(3)]))


@dataclass(frozen=True)
class OrthogonalViews:
    """Three perpendicular slices of a volume and its three maximum projections, as data URIs."""

    xy: str
    xz: str
    yz: str
    max_xy: str
    max_xz: str
    max_yz: str


def orthogonal_views(
    values: np.ndarray,
    position: tuple[int, int, int],
    window: tuple[float, float],
    max_window: tuple[float, float],
) -> OrthogonalViews:
    """Cut a volume at a position and project its maximum along each axis.

    Parameters
    ----------
    values : numpy.ndarray, shape (Z, Y, X)
        Intensities.
    position : tuple of int
        (z, y, x) at which to cut.
    window, max_window : tuple of float
        Intensities shown as black and white, in the slices and in the maximum projections.

    Returns
    -------
    OrthogonalViews
        The yz images have z to the right, so that they fit beside the xy image.
    """
    z, y, x = position
    cuts = (values[z], values[:, y], values[:, :, x].T)
    maxima = (values.max(axis=0), values.max(axis=1), values.max(axis=2).T)
    pictures = [to_grey(image, window) for image in cuts]
    pictures += [to_grey(image, max_window) for image in maxima]
    return OrthogonalViews(*(image_uri(picture, quality=85) for picture in pictures))


def nearest_projection(positions_um: np.ndarray, z_um: np.ndarray) -> np.ndarray:
    """Return the index of the stage position nearest to each z, shape of `z_um`."""
    return np.abs(np.asarray(z_um)[..., None] - positions_um).argmin(axis=-1)


def scale_bar_um(extent_um: float) -> float:
    """Choose 1, 2 or 5 times a power of ten, close to a quarter of an extent in micrometres."""
    target = extent_um / 4
    decade = 10.0 ** math.floor(math.log10(target))
    return max(step * decade for step in (1, 2, 5) if step * decade <= target * 1.0001)
