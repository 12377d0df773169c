"""Beads in images: where they stand, their cut-outs, and what is done to these."""

from __future__ import annotations

import numpy as np
import scipy
from scipy.ndimage import gaussian_filter, maximum_filter, shift

from besselflow.errors import InputError

# A bead stands out of the noise of the smoothed mean; what is dimmer than a fifth of the brightest
# is taken for dirt or a side lobe (those of J0^2, the strongest, have 16 % of the centre).
_SIGNIFICANCE = 8.0
_DIMMEST = 0.2


def find_beads(stack: np.ndarray, reach: int, source: str) -> tuple[list[tuple[int, int]], int]:
    """Return the pixels (y, x) of isolated beads, and how many others there are."""
    mean = gaussian_filter(stack.mean(axis=0), 1.0)
    background = np.median(mean)
    noise = 1.4826 * np.median(np.abs(mean - background))
    height = mean - background
    threshold = max(_SIGNIFICANCE * noise, _DIMMEST * height.max(), 0.0)
    peaks = np.argwhere((mean == maximum_filter(mean, 7)) & (height > threshold))
    if not len(peaks):
        raise InputError(
            f"{source}: no bead stands out of the background; give a z-stack of bright, "
            f"sub-resolution beads, or measure the profile elsewhere and give it as a CSV"
        )
    distance = np.abs(peaks[:, None] - peaks[None]).max(axis=2)
    np.fill_diagonal(distance, 2 * max(stack.shape))
    inside = (peaks >= reach).all(axis=1)
    inside &= (peaks < np.array(stack.shape[1:]) - reach).all(axis=1)
    good = inside & (distance.min(axis=1) > reach + 2)
    if not good.any():
        raise InputError(
            f"{source}: {len(peaks)} beads were found, but each is nearer than {reach + 2} pixels "
            f"to another or nearer than {reach} to the edge; image fewer beads, or a larger field"
        )
    return [(int(y), int(x)) for y, x in peaks[good]], int((~good).sum())


def cut_out(stack: np.ndarray, place: tuple[int, int], reach: int) -> np.ndarray:
    """Return (Z, 2 reach + 1, 2 reach + 1) about a bead, without the background of each plane."""
    y, x = place
    cut = stack[:, y - reach : y + reach + 1, x - reach : x + reach + 1]
    # The median of counts is a whole number, and the error of its rounding the same everywhere.
    return cut - scipy.stats.trim_mean(rim_of(cut), 0.1, axis=1)[:, None, None]


def rim_of(cut: np.ndarray) -> np.ndarray:
    """Return the outermost pixels of each plane, shape (Z, n)."""
    inner = np.zeros(cut.shape[1:], bool)
    inner[1:-1, 1:-1] = True
    return cut[:, ~inner]


def tilt_of(cut: np.ndarray) -> tuple[float, float]:
    """Return how many pixels (y, x) a bead moves per plane, from the bright planes."""
    light = gaussian_filter(cut, (1.0, 1.0, 1.0)).max(axis=(1, 2))
    bright = np.flatnonzero(light > light.max() / 2)
    if len(bright) < 3:
        return 0.0, 0.0
    smooth = gaussian_filter(cut, (1.0, 1.0, 1.0))[bright]
    centres = np.array([peak(plane) for plane in smooth])
    return tuple(float(scipy.stats.theilslopes(centres[:, axis], bright)[0]) for axis in (0, 1))


def peak(plane: np.ndarray) -> tuple[float, float]:
    """Return the peak of a smooth plane by a parabola through three pixels along each axis."""
    y, x = np.unravel_index(np.argmax(plane), plane.shape)
    centre = []
    for index, line in ((y, plane[:, x]), (x, plane[y])):
        at = float(index)
        if 0 < index < len(line) - 1:
            before, here, after = line[index - 1 : index + 2]
            bend = before - 2 * here + after
            at += 0.5 * (before - after) / bend if bend < 0 else 0.0
        centre.append(at)
    return centre[0], centre[1]


def straightened(cut: np.ndarray, tilt: np.ndarray) -> np.ndarray:
    """Shift each plane so that the bead stands in the middle pixel of all."""
    middle = (np.array(cut.shape[1:]) - 1) / 2
    light = np.clip(cut[:, 1:-1, 1:-1].sum(axis=(1, 2)), 0, None)
    # The plane in which the bead was found at its mean place.
    pivot = float(np.sum(light * np.arange(len(cut))) / max(light.sum(), 1e-300))
    moved = cut
    if tilt.any():
        steps = -tilt * (np.arange(len(cut)) - pivot)[:, None]
        moved = np.stack(
            [shift(p, s, order=3, mode="nearest") for p, s in zip(cut, steps, strict=True)]
        )
    offset = middle - peak(gaussian_filter(moved.mean(axis=0), 1.0))
    # Beyond a pixel it is another structure that is brightest; the place of the bead is known.
    offset = np.clip(offset, -1, 1)
    return shift(moved, (0.0, *offset), order=3, mode="nearest")


def centred(image: np.ndarray) -> np.ndarray:
    """Return one image (n, m) with its bead in the middle pixel."""
    return straightened(image[None], np.zeros(2))[0]


def cleaned(image: np.ndarray) -> np.ndarray:
    """Make an image symmetric, remove what is noise, and normalise it.

    The lateral operator is symmetric, so that its adjoint is itself; coma and the like are lost.
    """
    image = symmetrised(image)
    y, x = (np.arange(n) - n // 2 for n in image.shape)
    ring = np.rint(np.hypot(y[:, None], x[None])).astype(int)
    pixels = np.bincount(ring.ravel())
    far = image[ring > 0.75 * ring.max()]
    image = image - far.mean()
    mean = np.bincount(ring.ravel(), image.ravel()) / pixels
    noise = 1.4826 * np.median(np.abs(far - np.median(far)))
    # Four pixels of a ring are one measurement after the mirroring. Beyond the last ring that
    # stands out, clipped noise would be a pedestal that carries more light than the side lobes.
    visible = mean > np.maximum(3 * noise / np.sqrt(pixels / 4), 1e-3 * image.max())
    image = np.where(ring <= np.flatnonzero(visible).max(), np.clip(image, 0, None), 0)
    return image / image.sum()


def symmetrised(image: np.ndarray) -> np.ndarray:
    """Return the mean of an image (n, m) and its mirror images in y and x, to the last bit."""
    image = (image + image[::-1]) / 2
    return (image + image[:, ::-1]) / 2
