"""A flat field in a file: how bright the same light is at every pixel of the image."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from besselflow.acquisition import open_acquisition
from besselflow.errors import InputError


@dataclass(frozen=True)
class ChosenField:
    """The flat field of an acquisition.

    Attributes
    ----------
    path : str or None
        Image to divide by; None where nothing is divided.
    record : dict
        How it was come by, or ``why_not``.
    """

    path: str | None
    record: dict[str, Any] = field(default_factory=dict)


def given_field(setting: str) -> ChosenField:
    """Return the flat field that the configuration gives as a path, ``auto`` or ``none``."""
    if setting in ("auto", "none"):
        reason = "none is given" if setting == "none" else "none was estimated"
        return ChosenField(None, {"why_not": reason})
    return ChosenField(setting)


def read_flat_field(path: Path | str) -> np.ndarray:
    """Read a flat field.

    Parameters
    ----------
    path : path
        File of any known format with one image, or one for each channel: the brightness of an
        even sample, without the detector's offset.

    Returns
    -------
    numpy.ndarray, shape (N, Y, X), float32
        Each image has the mean 1, so that the brightness of a projection stays what it was.

    Raises
    ------
    InputError
        The file can't be read, or a pixel of it is not a positive number.
    """
    images = np.asarray(open_acquisition(path).data, dtype=np.float64)
    images = images.reshape(-1, *images.shape[-2:])
    _require(path, np.isfinite(images), images, "not finite", "export it again")
    _require(
        path,
        images > 0,
        images,
        "not above 0",
        "record an even sample that is lit everywhere, average enough images of it, and subtract "
        "no more than the detector's offset",
    )
    return (images / images.mean(axis=(1, 2), keepdims=True)).astype(np.float32)


def fit_to_images(flat: np.ndarray, path: Path | str, shape: tuple[int, ...]) -> np.ndarray:
    """Give every channel of an acquisition its flat field.

    Parameters
    ----------
    flat : numpy.ndarray, shape (N, Y, X)
    path : path
        Where it was read from, for the message.
    shape : tuple of int
        (C, Y, X) of the acquisition.

    Returns
    -------
    numpy.ndarray, shape (C, Y, X), float32

    Raises
    ------
    InputError
        The images have another size, or are neither one nor as many as the channels.
    """
    channels, *size = shape
    if list(flat.shape[1:]) != size:
        raise InputError(
            f"{path}: the flat field has {flat.shape[1]} x {flat.shape[2]} pixels (y, x), and the "
            f"images of the acquisition have {size[0]} x {size[1]}; record or cut the flat field "
            "at the size of the images, or set corrections.flat_field to none"
        )
    if len(flat) not in (1, channels):
        raise InputError(
            f"{path}: the flat field has {len(flat)} images, and the acquisition has {channels} "
            "channels; give one image for all channels, or one for each of them"
        )
    return np.broadcast_to(flat, shape)


def noise_factors(flat: np.ndarray) -> np.ndarray:
    """Return the noise variance of a corrected pixel, relative to the mean one.

    The photons of a pixel of flat field f are Poisson distributed around f I, where I is the
    intensity without it. Divided by f, they have the mean I and the variance I / f. All later
    stages take one noise variance per intensity, fitted to all pixels, which is the mean of I / f.

    Parameters
    ----------
    flat : numpy.ndarray, shape (C, Y, X)

    Returns
    -------
    numpy.ndarray, shape (C, Y, X)
        The variance in multiples of the one that later stages take.
    """
    inverse = 1 / flat
    return inverse / inverse.mean(axis=(1, 2), keepdims=True)


def _require(path: Path | str, good: np.ndarray, images: np.ndarray, what: str, remedy: str):
    if good.all():
        return
    _, y, x = (int(at[0]) for at in np.nonzero(~good))
    value = images[~good][0]
    raise InputError(
        f"{path}: {int((~good).sum())} pixels of the flat field are {what} (the first is {value:g} "
        f"at row {y}, column {x}); {remedy}"
    )
