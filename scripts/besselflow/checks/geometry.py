"""Voxel size, stage positions and beam of a sample: known, and in agreement with each other."""

from __future__ import annotations

import numpy as np

from besselflow.acquisition import Acquisition
from besselflow.beam import AxialProfile, read_lateral_psf
from besselflow.findings import Findings
from besselflow.sample_sheet import VOXEL_COLUMNS
from besselflow.sample_sheet.cells import PLAUSIBLE_VOXEL_UM
from besselflow.slice_spacing import with_spacing
from besselflow.stated import TOLERANCE, positions_of, voxel_size_of

_LARGEST_STEP = 50.0
# What is wrong with a lateral kernel does not depend on how far it reaches, in pixels.
_SOME_REACH = 8


def check_voxel_size(
    findings: Findings, stack: Acquisition | None, truth: Acquisition | None
) -> tuple[float | None, float, float] | None:
    """Compare the voxel sizes that sheet and files state.

    Parameters
    ----------
    findings : Findings
        Sizes that are unknown or differ are reported to them.
    stack, truth : Acquisition or None
        Acquisition and ground truth of the sample, where they could be opened.

    Returns
    -------
    tuple of float or None
        Voxel size along z (None where it follows from the stage positions), y and x, in
        micrometres; None where it is not known.
    """
    sample = findings.sample
    used = voxel_size_of(sample, stack, truth)
    opened = [("acquisition", stack), ("ground truth", truth)]
    for axis, (column, size) in enumerate(zip(VOXEL_COLUMNS, used, strict=True)):
        files = [(name, file) for name, file in opened[not axis :] if file is not None]
        if size is None:
            _check_known(findings, column, files, axis)
            continue
        cell = sample.voxel_size_um[axis]
        low, high = PLAUSIBLE_VOXEL_UM
        for name, file in files:
            stated = file.voxel_size_um[axis]
            if stated is None or sample.overrule:
                continue
            if abs(size - stated) > TOLERANCE * stated:
                other = f" instead of the {size:g} um of the acquisition" if cell is None else ""
                findings.report(
                    column,
                    "" if cell is None else f"{cell:g}",
                    f"the metadata of the {name} ({file.path}) state {stated:g} um{other}",
                    "correct the sheet, or the metadata if they are wrong, or write the right "
                    "value here and yes into the column overrule",
                )
            elif cell is None and not low <= stated <= high:
                findings.report(
                    column,
                    "",
                    f"the metadata of the {name} ({file.path}) state {stated:g} um, which can't be",
                    "write the right value here and yes into the column overrule",
                )
    if None in used[1:] or (used[0] is None and sample.ground_truth is not None):
        return None
    return used


def _check_known(
    findings: Findings, column: str, files: list[tuple[str, Acquisition]], axis: int
) -> None:
    """Report a voxel size that neither the sheet nor a file states."""
    needed = axis > 0 or findings.sample.ground_truth is not None
    if not needed or not files:
        return
    reasons = [file.unknown["voxel size"] for _, file in files if "voxel size" in file.unknown]
    reason = f" ({reasons[0]})" if reasons else ""
    names = " and the ".join(name for name, _ in files)
    states = "state" if len(files) > 1 else "states"
    message = f"the voxel size is missing, and the {names} {states} none{reason}"
    if axis == 0:
        findings.report(column, "", message, "write the distance of its slices in micrometres")
    else:
        findings.report(column, "", message, "write it in micrometres")


def check_positions(
    findings: Findings,
    stack: Acquisition | None,
    voxel_size_um: tuple[float | None, float, float] | None,
) -> np.ndarray | None:
    """Look for the stage positions, and compare them with acquisition and voxel size.

    Parameters
    ----------
    findings : Findings
        What is wrong is reported to them, in the column ``stage_positions``.
    stack : Acquisition or None
        The acquisition, where it could be opened.
    voxel_size_um : tuple of float or None
        As `check_voxel_size` returns it.

    Returns
    -------
    ndarray of shape (P,) or None
        Positions in micrometres, where they are known and right.
    """
    path = findings.sample.stage_positions
    # Where the acquisition is wrong already, what it would have stated need not be reported.
    if path is None and stack is None:
        return None
    positions = findings.attempt(
        "stage_positions",
        path or "",
        lambda: positions_of(stack, path, findings.sample.overrule),
    )
    if positions is None:
        return None
    if voxel_size_um is None:
        return positions
    spacing, length = with_spacing(voxel_size_um, positions)[0], float(np.ptp(positions))
    if len(positions) > 1 and length < spacing:
        findings.report(
            "stage_positions",
            path or "",
            f"all positions lie within {length:g} um, less than one slice of {spacing:g} um, and "
            f"look like millimetres",
            "give z_um in micrometres",
        )
        return None
    return positions


def check_profile(
    findings: Findings,
    profile: AxialProfile,
    positions: np.ndarray | None,
    spacing: float | None,
) -> None:
    """Compare the length of the beam with the slices, and with the step of the stage.

    Parameters
    ----------
    findings : Findings
        What is wrong is reported to them.
    profile : AxialProfile
        Of the beam.
    positions : ndarray of shape (P,) or None
        Stage positions in micrometres, where they are known.
    spacing : float or None
        Distance of the slices in micrometres, where it is known.
    """
    sample = findings.sample
    if spacing is not None and profile.extent_um < spacing:
        findings.report(
            "beam_profile",
            sample.beam_profile,
            f"the profile is {profile.extent_um:g} um long and does not cover a slice of "
            f"{spacing:g} um",
            "check that both are in micrometres, or choose thinner slices",
        )
        return
    if positions is None or len(positions) < 2:
        return
    step = float(np.median(np.diff(np.sort(positions))))
    if step > _LARGEST_STEP * profile.extent_um:
        findings.report(
            "stage_positions",
            sample.stage_positions or "",
            f"the step of {step:g} um is {step / profile.extent_um:.0f} times the length of the "
            f"beam ({profile.extent_um:g} um)",
            "check that z_um and the beam profile are in micrometres",
        )


def check_lateral(
    findings: Findings,
    profile: AxialProfile | None,
    voxel_size_um: tuple[float | None, float, float] | None,
) -> None:
    """Compute the lateral blur, unless what it is derived from is wrong already.

    Parameters
    ----------
    findings : Findings
        Why it can't be computed is reported to them, in the column ``lateral_psf``.
    profile : AxialProfile or None
        Of the beam, where it could be read.
    voxel_size_um : tuple of float or None
        As `check_voxel_size` returns it.
    """
    sample = findings.sample
    if sample.lateral_psf is None or voxel_size_um is None:
        return
    if profile is None and sample.lateral_psf == "beam":
        return
    findings.attempt(
        "lateral_psf",
        sample.lateral_psf,
        lambda: read_lateral_psf(
            sample.lateral_psf, sample.beam_profile, voxel_size_um[1:], _SOME_REACH
        ),
    )
