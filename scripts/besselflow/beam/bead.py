"""Axial profile and lateral image of the beam from a z-stack of sub-resolution beads.

Beads are found in the mean over all planes and kept where no other bead and no edge of the image
lies within their cut-out. Each bead's axial curve is the mean of 3 x 3 pixels about its centre,
less the background of each plane (the trimmed mean of the cut-out's rim). A stack of beads does not
know the stage position that a depth belongs to: the curves are aligned and averaged at their
centres of mass, and the centre of mass of the mean counts as the stage position, dz = 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import scipy
from scipy.ndimage import gaussian_filter, uniform_filter

from besselflow.acquisition import open_acquisition
from besselflow.beam.bead_images import (
    centred,
    cleaned,
    cut_out,
    find_beads,
    rim_of,
    straightened,
    tilt_of,
)
from besselflow.beam.profile import AxialProfile
from besselflow.beam.spec import read_length_um, read_options, split_tiff
from besselflow.errors import InputError

_EXAMPLE = "state it behind the path, as in beads.tif:z=0.5um,xy=0.1um"
_REACH_UM = 3.0
_REACH_PIXELS = 10
_LEAST_REACH = 4
_FEWEST_PLANES = 5
# The light at the ends of the stack, relative to the peak, above which a profile counts as cut.
_CUT = 0.25
_FAINTEST = 0.01


@dataclass(frozen=True)
class BeadImage:
    """The lateral image of the beam, as the beads show it.

    Attributes
    ----------
    values : numpy.ndarray, shape (n, m)
        Not negative, odd sizes, sum 1, mirror-symmetric in y and x.
    pixel_size_um : tuple of (float or None)
        (y, x); None where neither the file nor the sheet states it.
    """

    values: np.ndarray
    pixel_size_um: tuple[float | None, float | None]


@dataclass(frozen=True)
class BeadScan:
    """What a z-stack of beads says about the beam.

    Attributes
    ----------
    profile : AxialProfile
        Mean over the beads; its centre of mass is 0.
    image : BeadImage
        Mean over the beads and, weighted by the profile, over z.
    centres_px : numpy.ndarray, shape (n, 3)
        (z, y, x) of the beads used, in planes and pixels; z is the centre of mass.
    left_out : int
        Beads that were found but not used.
    tilt : tuple of float
        Lateral shift (y, x) of the beam per plane, in pixels.
    """

    profile: AxialProfile
    image: BeadImage
    centres_px: np.ndarray
    left_out: int
    tilt: tuple[float, float]


def read_bead_scan(spec: str) -> BeadScan:
    """Read a z-stack of beads and extract the beam from it.

    Parameters
    ----------
    spec : str
        Path of a TIFF. Options behind it, such as ``beads.tif:z=0.5um,xy=0.1um`` or, for z alone,
        ``beads.tif:0.5um``, overrule the distances that its OME or ImageJ metadata state.

    Returns
    -------
    BeadScan

    Raises
    ------
    InputError
        The file is no single stack, the distance of its planes is unknown, or no bead is usable.
    """
    path = Path(split_tiff(spec)[0])
    # The workflow asks for the beam of a sample many times while it plans its jobs.
    state = path.stat() if path.is_file() else None
    return _read_bead_scan(spec, state and (state.st_mtime_ns, state.st_size))


@lru_cache(maxsize=32)
def _read_bead_scan(spec: str, state: tuple[int, int] | None) -> BeadScan:
    """Do the work of `read_bead_scan` once per state of the file: modification time and size."""
    stack, spacing, pixel_size = _read(spec)
    path = split_tiff(spec)[0]
    if len(stack) < _FEWEST_PLANES:
        raise InputError(
            f"{path}: {len(stack)} planes are too few for an axial profile; give a z-stack of "
            f"beads of at least {_FEWEST_PLANES} planes that reaches beyond the beam on both sides"
        )
    if spacing is None:
        raise InputError(
            f"{path}: the metadata of the file do not state the distance of the planes; {_EXAMPLE}"
        )
    return extract_beam(stack, spacing, pixel_size, path)


def read_lateral_image(spec: str) -> BeadImage:
    """Read the lateral image of the beam from a stack of beads or from the image of one bead.

    Parameters
    ----------
    spec : str
        As for `read_bead_scan`. A single plane shows one bead, or a point spread function, about
        its brightest pixel.

    Raises
    ------
    InputError
        As for `read_bead_scan`; a single plane has no light off its edges.
    """
    stack, spacing, pixel_size = _read(spec)
    path = split_tiff(spec)[0]
    if len(stack) > 1:
        # The distance of the planes does not matter for the image.
        return extract_beam(stack, spacing or 1.0, pixel_size, path).image
    plane = stack[0]
    y, x = np.unravel_index(np.argmax(gaussian_filter(plane, 0.5)), plane.shape)
    reach = int(min(y, x, plane.shape[0] - 1 - y, plane.shape[1] - 1 - x))
    cut = plane[y - reach : y + reach + 1, x - reach : x + reach + 1]
    cut = cut - scipy.stats.trim_mean(rim_of(cut[None]), 0.1, axis=1) if reach else cut
    if reach < 2 or cut.max() <= 0:
        raise InputError(
            f"{path}: no bead with dark surroundings lies in the image; give an image of one bead "
            f"in the middle, or a z-stack of beads"
        )
    return BeadImage(cleaned(centred(cut)), pixel_size)


def extract_beam(
    stack: np.ndarray,
    spacing_um: float,
    pixel_size_um: tuple[float | None, float | None] = (None, None),
    source: str = "beads",
) -> BeadScan:
    """Find the beads of a stack and average them.

    Parameters
    ----------
    stack : numpy.ndarray, shape (Z, Y, X)
        Counts.
    spacing_um : float
        Distance of the planes.
    pixel_size_um : tuple of (float or None)
        (y, x).
    source : str
        Name of the stack, for messages and as the source of the profile.

    Returns
    -------
    BeadScan

    Raises
    ------
    InputError
        No bead stands out, each is too near to the edge or to another, or the stack is shorter
        than the beam.
    """
    stack = np.asarray(stack, float)
    reach = _reach(stack.shape[1:], pixel_size_um)
    places, left_out = find_beads(stack, reach, source)
    cuts = [cut_out(stack, place, reach) for place in places]
    tilts = np.array([tilt_of(cut) for cut in cuts])
    # The beam is tilted, not the beads: one tilt for all, by their median.
    tilt = np.median(tilts, axis=0)
    # Less than a tenth of a pixel from end to end is not worth an interpolation.
    tilt[np.abs(tilt) * len(stack) < 0.1] = 0.0
    cuts = [straightened(cut, tilt) for cut in cuts]
    curves = np.array(
        [cut[:, reach - 1 : reach + 2, reach - 1 : reach + 2].mean((1, 2)) for cut in cuts]
    )
    whole = np.array([_is_whole(curve) for curve in curves])
    if not whole.any():
        raise InputError(
            f"{source}: the stack ends inside the beam (at its first or last plane, the beads "
            f"still have more than {100 * _CUT:.0f} % of their peak); record a stack that reaches "
            f"beyond the beam on both sides"
        )
    left_out += int((~whole).sum())
    kept = np.flatnonzero(whole)
    centres = np.array([_centre_of_mass(curves[i]) for i in kept])
    mean, first = _aligned_mean(curves[kept], centres)
    lit = _lit_range(mean)
    if np.count_nonzero(mean > mean.max() / 2) < 2:
        raise InputError(
            f"{source}: the beam is shorter than two planes of {spacing_um:g} um; record a stack "
            f"with thinner steps"
        )
    weights = np.clip(mean[lit], 0, None)
    weights = weights / weights.sum()
    depths = (np.arange(lit.start, lit.stop) + first) * spacing_um
    edges = np.append(depths, depths[-1] + spacing_um) - spacing_um / 2
    profile = AxialProfile(edges - np.sum(weights * depths), weights, source)
    images = [
        np.einsum("z,zyx->yx", _weights_along(curves[i]), cuts[i]) / curves[i].max() for i in kept
    ]
    image = BeadImage(cleaned(np.mean(images, axis=0)), pixel_size_um)
    found = np.column_stack([centres, np.array(places)[kept]])
    return BeadScan(profile, image, found, left_out, (float(tilt[0]), float(tilt[1])))


def _read(spec: str) -> tuple[np.ndarray, float | None, tuple[float | None, float | None]]:
    """Return stack (Z, Y, X), distance of the planes and pixel size (y, x) in micrometres."""
    path, options = split_tiff(spec)
    opened = open_acquisition(path)
    if opened.data.shape[0] * opened.data.shape[1] > 1:
        t, c = opened.data.shape[:2]
        raise InputError(
            f"{path}: the stack of beads has {t} time points and {c} channels; export one of them"
        )
    values = {}
    if options:
        text = options if "=" in options else f"z={options}"
        values = read_options(text, ("z", "xy"), str(path), _EXAMPLE)
        values = {
            key: read_length_um(value, str(path), f"distance along {key}", _EXAMPLE)
            for key, value in values.items()
        }
    stack = np.asarray(opened.data[0, 0], float)
    if not np.isfinite(stack).all():
        raise InputError(f"{path}: it has pixels that are not finite numbers; export raw counts")
    pixel_size = (values["xy"],) * 2 if "xy" in values else opened.pixel_size_um
    return stack, values.get("z", opened.spacing_um), pixel_size


def _reach(shape: tuple[int, int], pixel_size_um: tuple[float | None, float | None]) -> int:
    """Return how many pixels a cut-out reaches to each side of its bead."""
    known = [size for size in pixel_size_um if size is not None]
    wanted = round(_REACH_UM / max(known)) if known else _REACH_PIXELS
    return max(_LEAST_REACH, min(wanted, min(shape) // 4))


def _is_whole(curve: np.ndarray) -> bool:
    smooth = uniform_filter(curve, 3)
    return max(curve[:2].mean(), curve[-2:].mean()) < _CUT * smooth.max()


def _centre_of_mass(curve: np.ndarray) -> float:
    """Return the centre of mass in planes; the faint ends, which hold noise, are left out."""
    smooth = uniform_filter(curve, 3)
    weights = np.where(smooth > 0.2 * smooth.max(), smooth, 0)
    return float(np.sum(weights * np.arange(len(curve))) / weights.sum())


def _aligned_mean(curves: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the mean curve, and the plane of its first value relative to the centres.

    Bright beads count more, as their curves have less noise.
    """
    planes = np.arange(curves.shape[1])
    first = int(np.ceil(-centres.min()))
    last = int(np.floor(planes[-1] - centres.max()))
    at = np.arange(first, last + 1)
    moved = [
        scipy.interpolate.CubicSpline(planes - c, curve)(at)
        for c, curve in zip(centres, curves, strict=True)
    ]
    return np.mean(moved, axis=0), first


def _lit_range(curve: np.ndarray) -> slice:
    """Return the planes from the first to the last that stand out of noise and 1 % of the peak."""
    second = np.diff(curve, 2)
    # A second difference of independent noise has six times its variance.
    noise = 1.4826 * np.median(np.abs(second - np.median(second))) / np.sqrt(6)
    smooth = uniform_filter(curve, 3, mode="nearest")
    lit = np.flatnonzero(smooth > max(3 * noise, _FAINTEST * smooth.max()))
    return slice(int(lit[0]), int(lit[-1]) + 1)


def _weights_along(curve: np.ndarray) -> np.ndarray:
    """Return the weights of the planes with which the separable model fits best: the profile."""
    smooth = uniform_filter(curve, 3)
    weights = np.where(smooth > 0.2 * smooth.max(), smooth, 0)
    return weights / weights.sum()
