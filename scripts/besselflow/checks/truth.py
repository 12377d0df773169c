"""The ground truth of a sample beside its acquisition: the same field of view, seen by it."""

from __future__ import annotations

import numpy as np

from besselflow.acquisition import Acquisition
from besselflow.beam import AxialProfile
from besselflow.findings import Findings
from besselflow.projection import AxialGrid
from besselflow.stated import TOLERANCE

_LEAST_SEEN = 0.01


def check_shape(findings: Findings, truth: Acquisition, stack: Acquisition) -> None:
    """Compare the field of view, the time points and the channels with those of the acquisition.

    Parameters
    ----------
    findings : Findings
        A difference is reported to them, in the column ``ground_truth``.
    truth, stack : Acquisition
        Ground truth and acquisition of the sample.
    """
    measured, true = (
        tuple(data.shape[i] for i in (0, 1, 3, 4)) for data in (stack.data, truth.data)
    )
    if measured == true:
        return
    differing = ", ".join(
        f"{name}: {b} instead of {a}"
        for name, a, b in zip("TCYX", measured, true, strict=True)
        if a != b
    )
    findings.report(
        "ground_truth",
        truth.path,
        f"its shape {true} (T, C, Y, X) differs from that of the acquisition {measured} "
        f"({differing})",
        "crop or resample it to the field of view of the acquisition",
    )


def check_origin(findings: Findings, truth: Acquisition, stack: Acquisition) -> None:
    """Refuse positions from the acquisition where the slices don't count from 0 upwards, too.

    Parameters
    ----------
    findings : Findings
        What is refused is reported to them, in the column ``stage_positions``.
    truth, stack : Acquisition
        Ground truth and acquisition of the sample.
    """
    sample = findings.sample
    if sample.stage_positions is not None or sample.overrule:
        return
    slices, positions = truth.positions_um, stack.positions_um
    if slices is None or positions is None:
        return
    steps = np.diff(slices)
    if abs(slices[0]) <= TOLERANCE * np.abs(steps).mean() and (steps > 0).all():
        return
    findings.report(
        "stage_positions",
        "",
        f"the acquisition states positions from {positions[0]:g} to {positions[-1]:g} um, and the "
        f"ground truth ({truth.path}) slices from {slices[0]:g} to {slices[-1]:g} um, which count "
        f"as 0 um and upwards",
        "write a stage CSV that counts from the first slice, or yes into the column overrule where "
        "the acquisition does",
    )


def check_seen(
    findings: Findings,
    truth: Acquisition,
    profile: AxialProfile,
    positions: np.ndarray,
    spacing: float,
) -> None:
    """Compare the stage positions with the slices of the ground truth.

    Parameters
    ----------
    findings : Findings
        Projections that see none of it are reported to them, in the column ``stage_positions``.
    truth : Acquisition
        The ground truth.
    profile : AxialProfile
        Of the beam.
    positions : ndarray of shape (P,)
        Stage positions, in micrometres.
    spacing : float
        Distance of the slices, in micrometres.
    """
    grid = AxialGrid(0.0, spacing, truth.data.shape[2])
    low = grid.centres_um[0] - grid.spacing_um / 2
    high = grid.centres_um[-1] + grid.spacing_um / 2
    seen = profile.collected(low - positions, high - positions)
    blind = np.flatnonzero(seen < _LEAST_SEEN)
    if blind.size:
        some = ", ".join(f"{positions[i]:g}" for i in blind[:3])
        findings.report(
            "stage_positions",
            findings.sample.stage_positions or "",
            f"{blind.size} of {len(positions)} projections (the first at {some} um) see nothing "
            f"of the ground truth, whose {grid.n_slices} slices reach from {low:g} to {high:g} um",
            "count z_um from the centre of the first slice of the ground truth, in micrometres, "
            "and check voxel_size_z_um",
        )
