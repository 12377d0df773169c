"""The lateral kernel of the beam: what blurs every projection in y and x.

The operator is separable: axial weights times one lateral kernel for all depths. Kernels are
mirror-symmetric in y and x, so that the blur is its own adjoint; the asymmetric part of a measured
one is lost. Each value is the integral of the point spread function over a pixel.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import scipy
from scipy.ndimage import map_coordinates
from scipy.special import erf

from besselflow.beam.bead import BeadImage, read_lateral_image
from besselflow.beam.bead_images import symmetrised
from besselflow.beam.bessel import BesselBeam, parse_bessel
from besselflow.beam.spec import read_length_um, split_tiff
from besselflow.errors import InputError

KEPT_SHARE = 0.99
_EXAMPLES = "gaussian:0.6um, bessel:NA=0.40-0.43,wavelength=0.94um or the path of a TIFF with beads"
_MODEL = re.compile(r"\s*(?P<name>[a-zA-Z]+)\s*:(?P<rest>.*)")
# Points per pixel and axis at which a point spread function is evaluated, at least; and how many
# of them a period of J0 has, at least.
_LEAST_POINTS = 5
_POINTS_PER_PERIOD = 16


@dataclass(frozen=True)
class LateralPsf:
    """A lateral kernel and what it leaves out.

    Attributes
    ----------
    kernel : numpy.ndarray, shape (n, m), float64
        Odd sizes, not negative, sum 1, mirror-symmetric in y and x.
    outside : float
        Share of the light that falls beyond the kernel, as far as it is known.
    source : str
        The model or file that it comes from.
    """

    kernel: np.ndarray
    outside: float
    source: str


def resolve_lateral(spec: str, beam_profile: str | None) -> str:
    """Replace ``beam`` by what stands for the beam, where that has a lateral part.

    Parameters
    ----------
    spec : str
        Cell of the column ``lateral_psf``, not empty.
    beam_profile : str or None
        Cell of the column ``beam_profile``.

    Raises
    ------
    InputError
        The beam profile says nothing about the lateral blur.
    """
    if spec.strip().lower() != "beam":
        return spec
    beam = (beam_profile or "").strip()
    if beam.lower().startswith("bessel:") or split_tiff(beam):
        return beam
    raise InputError(
        f'lateral PSF "{spec}": the beam profile "{beam}" has no lateral part; write {_EXAMPLES}'
    )


def read_lateral_psf(
    spec: str, beam_profile: str | None, pixel_size_um: tuple[float, float], reach_pixels: int
) -> LateralPsf:
    """Sample a lateral point spread function on the pixels of an acquisition.

    Of all light, the kernel keeps at least 99 % as long as it reaches no further than
    `reach_pixels` to each side.

    Parameters
    ----------
    spec : str
        ``beam`` (of the Bessel model or the bead stack in the column ``beam_profile``),
        ``gaussian:0.6um`` (full width at half maximum), ``bessel:...`` (see `parse_bessel`), or
        the path of a TIFF with a stack of beads or the image of one, with options such as
        ``psf.tif:xy=0.1um`` behind it.
    beam_profile : str or None
        Cell of the column ``beam_profile``.
    pixel_size_um : tuple of float
        (y, x) of the acquisition.
    reach_pixels : int
        The kernel has at most ``2 * reach_pixels + 1`` pixels along an axis.

    Returns
    -------
    LateralPsf

    Raises
    ------
    InputError
        The cell is no such point spread function, or the pixel size of the TIFF is unknown.
    """
    spec = resolve_lateral(spec, beam_profile).strip()
    match = _MODEL.fullmatch(spec)
    if split_tiff(spec):
        path = split_tiff(spec)[0]
        kernel, total = _sample_image(read_lateral_image(spec), path, pixel_size_um, reach_pixels)
    elif match and match["name"].lower() == "bessel":
        beam = parse_bessel(spec, "lateral PSF")
        kernel, total = _sample_bessel(beam, pixel_size_um, reach_pixels)
    elif match and match["name"].lower() == "gaussian":
        where, example = f'lateral PSF "{spec}"', "write it as gaussian:0.6um"
        width = read_length_um(match["rest"], where, "full width at half maximum", example)
        kernel, total = _sample_gaussian(width, pixel_size_um, reach_pixels), 1.0
    else:
        raise InputError(
            f'lateral PSF "{spec}" is neither a model nor a TIFF; write beam, {_EXAMPLES}'
        )
    kernel = _trimmed(symmetrised(kernel), total, pixel_size_um)
    inside = kernel.sum()
    return LateralPsf(kernel / inside, max(0.0, float(1 - inside / total)), spec)


def blur(images: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Convolve images with a lateral kernel.

    The sample goes on beyond the field of view, and nobody knows how; its mirror image stands for
    it, so that an even sample stays even.

    Parameters
    ----------
    images : numpy.ndarray, shape (..., Y, X)
    kernel : numpy.ndarray, shape (n, m)
        Odd sizes.

    Returns
    -------
    numpy.ndarray, shape (..., Y, X), float64
        Not negative where neither images nor kernel are.
    """
    kernel = np.asarray(kernel, float)
    if kernel.ndim != 2 or not all(n % 2 for n in kernel.shape):
        raise ValueError(f"a lateral kernel must have two odd sizes, not the shape {kernel.shape}")
    images = np.asarray(images, float)
    margins = [(n // 2, n // 2) for n in kernel.shape]
    padded = np.pad(images, [(0, 0)] * (images.ndim - 2) + margins, mode="symmetric")
    kernel = kernel.reshape((1,) * (images.ndim - 2) + kernel.shape)
    blurred = scipy.signal.oaconvolve(padded, kernel, mode="valid", axes=(-2, -1))
    # The Fourier transform leaves rounding errors around zero.
    return np.maximum(blurred, 0.0) if images.min() >= 0 else blurred


def _sample_gaussian(fwhm_um: float, pixel_size_um: tuple[float, float], reach: int) -> np.ndarray:
    sigma = fwhm_um / (2 * np.sqrt(2 * np.log(2)))
    lines = []
    for size in pixel_size_um:
        edges = (np.arange(2 * reach + 2) - reach - 0.5) * size
        lines.append(np.diff(erf(edges / (sigma * np.sqrt(2)))) / 2)
    return lines[0][:, None] * lines[1][None]


def _sample_bessel(
    beam: BesselBeam, pixel_size_um: tuple[float, float], reach: int
) -> tuple[np.ndarray, float]:
    """Integrate the rings over each pixel; return them and their integral over the plane."""
    period = beam.wavelength_um / beam.na_outer
    points = [_points(size, period) for size in pixel_size_um]
    # One quadrant says all, and the table of radii is far finer than the points.
    y, x = (
        ((np.arange(n * (2 * reach + 1)) + 0.5) / n - 0.5 - reach)[n * reach :] * size
        for n, size in zip(points, pixel_size_um, strict=True)
    )
    farthest = float(np.hypot(y[-1], x[-1]))
    table = np.linspace(0, farthest, int(farthest / period * 8 * _POINTS_PER_PERIOD) + 2)
    light = np.interp(np.hypot(y[:, None], x[None]), table, beam.radial(table))
    pixel_area = pixel_size_um[0] * pixel_size_um[1]
    shape = (reach + 1, points[0], reach + 1, points[1])
    quadrant = light.reshape(shape).mean(axis=(1, 3)) * pixel_area
    half = np.concatenate([quadrant[:0:-1], quadrant])
    return np.concatenate([half[:, :0:-1], half], axis=1), beam.radial_total_um2


def _sample_image(
    image: BeadImage, path: str, pixel_size_um: tuple[float, float], reach: int
) -> tuple[np.ndarray, float]:
    """Integrate a measured image over each pixel; return it and all its light."""
    if None in image.pixel_size_um:
        raise InputError(
            f"{path}: the metadata of the file do not state the pixel size, which the lateral PSF "
            f"needs; state it behind the path, as in beads.tif:z=0.5um,xy=0.1um"
        )
    own = image.pixel_size_um
    points = [_points(size, 4 * other) for size, other in zip(pixel_size_um, own, strict=True)]
    y, x = (
        ((np.arange(n * (2 * reach + 1)) + 0.5) / n - 0.5 - reach) * size / other + (length - 1) / 2
        for n, size, other, length in zip(
            points, pixel_size_um, own, image.values.shape, strict=True
        )
    )
    at = np.meshgrid(y, x, indexing="ij")
    light = map_coordinates(image.values, at, order=1, mode="constant", prefilter=False)
    share = pixel_size_um[0] * pixel_size_um[1] / (own[0] * own[1])
    shape = (2 * reach + 1, points[0], 2 * reach + 1, points[1])
    return light.reshape(shape).mean(axis=(1, 3)) * share, 1.0


def _points(size_um: float, period_um: float) -> int:
    """Return an odd number of points per pixel, so that one of them is its centre."""
    points = max(_LEAST_POINTS, int(np.ceil(size_um / period_um * _POINTS_PER_PERIOD)))
    return points + 1 - points % 2


def _trimmed(kernel: np.ndarray, total: float, pixel_size_um: tuple[float, float]) -> np.ndarray:
    """Cut a kernel down to the smallest square, in micrometres, with 99 % of the light."""
    middle = [n // 2 for n in kernel.shape]
    step = min(pixel_size_um)
    for number in range(max(middle) * int(np.ceil(max(pixel_size_um) / step)) + 1):
        y, x = (
            min(int(np.ceil(number * step / size - 1e-9)), most)
            for size, most in zip(pixel_size_um, middle, strict=True)
        )
        part = kernel[middle[0] - y : middle[0] + y + 1, middle[1] - x : middle[1] + x + 1]
        if part.sum() >= KEPT_SHARE * total:
            return part
    return kernel
