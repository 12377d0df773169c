"""From raw detector counts to intensities that the noise model understands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import dask.array as da
import numpy as np

from besselflow.corrections.photon_transfer import estimate_photon_transfer
from besselflow.errors import InputError
from besselflow.job import logger

Stated = float | Literal["auto"] | None
"""A number, or what is to be estimated, or unknown."""

_SCALE_PERCENTILE = 99.9


@dataclass(frozen=True)
class DetectorConstants:
    """Offset and gain of the detector, as stated or as estimated for every channel.

    Attributes
    ----------
    offset, gain : float, numpy.ndarray of shape (C, 1, 1, 1), or None
        Counts of an unlit pixel, and counts per photon.
    record : dict
        What was found, by correction; empty where nothing was estimated.
    """

    offset: float | np.ndarray | None
    gain: float | np.ndarray | None
    record: dict[str, Any] = field(default_factory=dict)


def resolve_detector(
    counts: da.Array, offset: Stated, gain: Stated, acquisition: Path | str
) -> DetectorConstants:
    """Estimate what the sheet leaves to the data.

    Parameters
    ----------
    counts : dask.array.Array, shape (T, C, P, Y, X)
        Raw counts; at most 48 images of a channel are read.
    offset, gain : float, ``auto`` or None
        As in the sample sheet.
    acquisition : path
        Named where there is no estimate.

    Raises
    ------
    InputError
        The data of a channel have no mean-variance line.
    """
    if gain != "auto":
        return DetectorConstants(offset, gain)
    times, channels, count, height, width = counts.shape
    lines = []
    for channel in range(channels):
        found = estimate_photon_transfer(counts[:, channel].reshape(times * count, height, width))
        if isinstance(found, str):
            where = f" of channel {channel + 1}" if channels > 1 else ""
            raise InputError(
                f"{acquisition}: the gain{where} can't be estimated: {found}; "
                "write offset and gain into the sample sheet, or leave both cells empty"
            )
        lines.append(found)
        logger.info(
            "channel %d: %.4g +- %.2g counts per photon, offset %.4g +- %.2g counts",
            *(channel + 1, found.gain, found.gain_error, found.offset, found.offset_error),
        )
    found = {"applied": True, "lines": [asdict(line) for line in lines]}
    found["offset"] = [line.offset if offset == "auto" else float(offset) for line in lines]
    found["offset_given"] = offset != "auto"
    return estimated_detector({"photon_transfer": found})


def estimated_detector(record: Mapping[str, Any]) -> DetectorConstants:
    """Return what `resolve_detector` noted among the corrections of a projection store."""
    found = record["photon_transfer"]
    gain = [line["gain"] for line in found["lines"]]
    offset, gain = (
        np.array(values, np.float32)[:, None, None, None] for values in (found["offset"], gain)
    )
    return DetectorConstants(offset, gain, {"photon_transfer": found})


def counts_to_intensity(counts, offset: float | None, gain: float | None):
    """Subtract the detector offset and divide by the gain, where they are known.

    Parameters
    ----------
    counts : array
        Raw counts, numpy or dask, any shape.
    offset : float, array that fits the counts, or None
        Counts of an unlit pixel; None counts as 0.
    gain : float, array that fits the counts, or None
        Counts per photon; None leaves the intensity in counts.

    Returns
    -------
    array
        float32 intensity: photons where the gain is known, else counts above the offset.
    """
    intensity = counts.astype("float32") - (0.0 if offset is None else offset)
    return (intensity if gain is None else intensity / gain).astype("float32")


def intensity_scale(projections: np.ndarray) -> float:
    """Return the intensity that counts as bright, from the projections alone.

    Samples and the training data of the prior are scaled alike by it.

    Parameters
    ----------
    projections : numpy.ndarray
        Any shape.
    """
    return max(float(np.percentile(projections, _SCALE_PERCENTILE)), 1e-6)
