"""Warnings in plain words: what about a sample or its volume asks for care, and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from besselflow.diffusion.safeguard import PRIOR
from besselflow.report.pictures import Preview
from besselflow.report.prior import (
    IGNORED,
    STRANGE,
    describe_departures,
    describe_sources,
    mean_weights,
)
from besselflow.scored import scored_slices
from besselflow.store import Projections

_SATURATED = 1e-4
_CROWDED = 0.25
_LEAST_LIT = 50
_SIGNAL = 0.25


@dataclass(frozen=True)
class Caution:
    """One warning.

    Attributes
    ----------
    title, text : str
        What it is about, and what is the matter and what helps.
    """

    title: str
    text: str


def collect_cautions(
    measured: Projections,
    final: Preview,
    records: Mapping[str, list[dict[str, Any]]],
    prior_info: Mapping[str, Any] | None,
    method: str,
) -> list[Caution]:
    """Collect all warnings of a sample.

    Parameters
    ----------
    measured : Projections
        Opened projection store.
    final : Preview
        The final volume at the size of the pictures.
    records : mapping
        Method -> one record per work unit.
    prior_info : mapping or None
        What the prior was trained on.
    method : str
        Method of the final volume.
    """
    found = [
        _other_geometry(measured, prior_info) if method == "diffusion" else None,
        _strange(records, prior_info) if method == "diffusion" else None,
        _gaps(measured),
        _crowded(measured, final),
        _saturated(measured),
    ]
    return [caution for caution in found if caution is not None]


def _other_geometry(measured: Projections, prior_info: Mapping[str, Any] | None) -> Caution | None:
    """Say that the prior was trained for other acquisitions."""
    found = describe_departures(measured, prior_info)
    if not found:
        return None
    return Caution(
        "The prior was trained for other acquisitions",
        f"Here, {'; '.join(found)}. So it may be of less use, and the uncertainty, which was "
        "calibrated on such acquisitions, may be too small. A prior that is trained for this beam "
        "and step (prior.weights: train) knows both.",
    )


def _strange(
    records: Mapping[str, list[dict[str, Any]]], prior_info: Mapping[str, Any] | None
) -> Caution | None:
    """Say that the structures are not those that the prior was trained on."""
    own = records.get("diffusion", [])
    # Without a check, the share says nothing of what the prior knows.
    is_checked = bool(own) and all(record.get("checked", True) for record in own)
    share = mean_weights(own).get(PRIOR) if is_checked else None
    doubted = any(record.get("doubted") for record in own)
    if not doubted and (share is None or share > STRANGE):
        return None
    if not doubted and share < IGNORED:
        return Caution(
            "The prior was not followed",
            f"The prior was trained on {describe_sources(prior_info)}, and did not predict this "
            "sample better than the INR. So the volume is that of the INR: the prior has invented "
            "nothing, and gained nothing. A prior that is trained on stacks of your own samples "
            "(rows with the role train) helps.",
        )
    reason = (
        "the projections contradict it more than they did in its training"
        if doubted
        else f"only {share:.0%} of the volume is its own"
    )
    return Caution(
        "Outside of what the prior knows",
        f"The prior was trained on {describe_sources(prior_info)}, and {reason}. Detail that the "
        "other methods do not show may be invented. A prior that is trained on stacks of your own "
        "samples (rows with the role train) helps.",
    )


def _gaps(measured: Projections) -> Caution | None:
    """Say that some depths were imaged by no projection."""
    inside = scored_slices(measured.grid, measured.positions_um)
    unseen = int((inside & ~measured.operator.seen).sum())
    if not unseen:
        return None
    return Caution(
        "Gaps in depth",
        f"{unseen} of {int(inside.sum())} slices between the first and the last stage position "
        "were imaged by no projection: whatever they show is guessed. A step no longer than the "
        "beam leaves no gap.",
    )


def crowding(values: np.ndarray, spacing_um: float, beam_um: float) -> float | None:
    """Return the share of lit columns in which one beam length holds several structures.

    Parameters
    ----------
    values : numpy.ndarray, shape (Z, Y, X)
        Volume. Above a quarter of its 99.9th percentile, a voxel is lit.
    spacing_um, beam_um : float
        Spacing of the slices, and length of the beam.

    Returns
    -------
    float or None
        Share of the columns with any lit voxel in which two runs of lit voxels begin less than a
        beam length apart; None where fewer than 50 columns are lit.
    """
    lit = values > _SIGNAL * np.percentile(values, 99.9)
    starts = lit & ~np.concatenate([np.zeros_like(lit[:1]), lit[:-1]])
    columns = starts.any(axis=0)
    if columns.sum() < _LEAST_LIT:
        return None
    reach = max(1, round(beam_um / spacing_um))
    counts = np.cumsum(np.concatenate([np.zeros_like(starts[:1], int), starts.astype(int)]), axis=0)
    ends = np.minimum(np.arange(len(lit)) + reach, len(lit))
    most = (counts[ends] - counts[np.arange(len(lit))]).max(axis=0)
    return float((most[columns] > 1).mean())


def _crowded(measured: Projections, final: Preview) -> Caution | None:
    """Say that the sample is so dense that depths can't be told from each other."""
    share = crowding(final.values, final.voxel_um[0], measured.profile.fwhm_um)
    if share is None or share < _CROWDED:
        return None
    return Caution(
        "Dense sample",
        f"In {share:.0%} of the columns with structures, at least two lie above each "
        f"other within one beam length ({measured.profile.fwhm_um:g} µm). The fewer there are, the "
        "better their depths can be told apart; a shorter beam or a sparser label helps.",
    )


def _saturated(measured: Projections) -> Caution | None:
    """Say that pixels are at the largest value that the file can hold."""
    share = float(measured.attributes.get("saturated_fraction", 0.0))
    if share < _SATURATED:
        return None
    return Caution(
        "Saturation",
        f"{100 * share:.2g} % of the measured pixels are at the largest value that their file can "
        "hold. The brightest structures are cut off, and their depth is unreliable; less laser "
        "power or gain helps.",
    )
