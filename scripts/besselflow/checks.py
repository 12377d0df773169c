"""Checks of every sample's files before anything runs, from headers and a few planes only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from besselflow.acquisition import Acquisition, open_acquisition
from besselflow.beam import AxialProfile, parse_beam_profile, read_lateral_psf
from besselflow.copies import Print, check_copy, print_of
from besselflow.corrections.attenuation import require_plausible
from besselflow.corrections.flat_field import fit_to_images, read_flat_field
from besselflow.errors import InputError, Problem
from besselflow.findings import Findings
from besselflow.projection import AxialGrid
from besselflow.sample_sheet import COLUMNS, VOXEL_COLUMNS, Sample, Sheet, problems_by_sample
from besselflow.sample_sheet.cells import PLAUSIBLE_VOXEL_UM
from besselflow.slice_spacing import with_spacing
from besselflow.stated import TOLERANCE, positions_of, resolve, voxel_size_of

_SMALLEST_IMAGE = 16
_SMALLEST_TRAINING = (16, 32, 32)
_LEAST_SEEN = 0.01
_LARGEST_STEP = 50.0
# What is wrong with a lateral kernel does not depend on how far it reaches, in pixels.
_SOME_REACH = 8


@dataclass(frozen=True)
class CheckedSheet:
    """The samples that can be run, and why the others can't.

    Attributes
    ----------
    path : pathlib.Path
        The sample sheet.
    tests, trains : tuple of Sample
        Samples whose files passed all checks, in the order of the sheet, with stage positions and
        voxel sizes from the files where the sheet leaves them open.
    rejected : dict of str to tuple of Problem
        Sample name (``row N`` where the row has none) -> all that is wrong with it.
    """

    path: Path
    tests: tuple[Sample, ...]
    trains: tuple[Sample, ...]
    rejected: dict[str, tuple[Problem, ...]]


def check_samples(
    sheet: Sheet, flat_field: str | None = None, attenuation_um: float | None = None
) -> CheckedSheet:
    """Check the files of all samples, so that what can't be run is known before anything runs.

    Only headers and a few planes are read, except for a training ground truth that begins to look
    like that of a test sample.

    Parameters
    ----------
    sheet : Sheet
        The sheet, with the problems that were found in it.
    flat_field : str or None
        Path of the flat field that all acquisitions are divided by, readable.
    attenuation_um : float or None
        Attenuation length that all acquisitions are corrected for.

    Returns
    -------
    CheckedSheet
        A sample with a problem excludes itself only.
    """
    problems = list(sheet.problems)
    truths: dict[str, Print] = {}
    resolved: dict[str, Sample] = {}
    for sample in sheet.samples:
        findings = Findings(sheet.path, sample, problems)
        before = len(problems)
        if sample.role == "test":
            stack, truth = _check_test(findings)
            if stack is not None and flat_field is not None:
                _check_flat_field(findings, stack, flat_field)
            if stack is not None and attenuation_um is not None:
                _check_attenuation(findings, stack, attenuation_um)
        else:
            stack, truth = None, _check_train(findings)
        if truth is not None:
            truths[sample.name] = print_of(truth)
        if len(problems) == before:
            resolved[sample.name] = resolve(sample, stack, truth)
    # A test sample that is left out today may be mended tomorrow, with the same prior.
    for train in sheet.trains:
        if train.name in truths:
            tested = {test.name: truths[test.name] for test in sheet.tests if test.name in truths}
            check_copy(Findings(sheet.path, train, problems), truths[train.name], tested)
    order = [column.name for column in COLUMNS]
    problems.sort(key=lambda found: (found.row, order.index(found.column or order[0])))
    rejected = problems_by_sample(problems)
    tests, trains = (
        tuple(resolved[sample.name] for sample in samples if sample.name not in rejected)
        for samples in (sheet.tests, sheet.trains)
    )
    return CheckedSheet(path=sheet.path, tests=tests, trains=trains, rejected=rejected)


def describe_rejections(checked: CheckedSheet) -> str:
    """Return the text for the terminal: what is left out and why, and how many samples go on.

    Parameters
    ----------
    checked : CheckedSheet

    Returns
    -------
    str
        Several lines without a final line break: one block per rejected sample with one line per
        problem, then a line of counts.
    """
    lines = []
    for name, problems in checked.rejected.items():
        title = name if name.startswith("row ") else f'sample "{name}"'
        lines.append(f"{title} is left out:")
        lines.extend(f"  - {problem}" for problem in problems)
    left_out, going_on = len(checked.rejected), len(checked.tests) + len(checked.trains)
    lines.append(
        f"{going_on} of {going_on + left_out} samples pass the checks: "
        f"{len(checked.tests)} to reconstruct, {len(checked.trains)} to train on"
    )
    if not checked.tests:
        lines.append(f"nothing to reconstruct; correct the problems above in {checked.path}")
    return "\n".join(lines)


def _check_test(findings: Findings) -> tuple[Acquisition | None, Acquisition | None]:
    """Check all files of a test sample; return acquisition and ground truth, where readable."""
    sample, truth = findings.sample, None
    stack = findings.attempt(
        "acquisition",
        sample.acquisition,
        lambda: open_acquisition(sample.acquisition, sample.frames),
    )
    if stack is not None:
        check_images(findings, stack)
    if sample.ground_truth is not None:
        truth = findings.attempt(
            "ground_truth", sample.ground_truth, lambda: open_acquisition(sample.ground_truth)
        )
    voxel_size = _check_voxel_size(findings, stack, truth)
    positions = _check_positions(findings, stack, voxel_size)
    if positions is not None and voxel_size is not None:
        voxel_size = with_spacing(voxel_size, positions)
    spacing = voxel_size[0] if voxel_size else sample.voxel_size_um[0]
    profile = findings.attempt(
        "beam_profile", sample.beam_profile, lambda: parse_beam_profile(sample.beam_profile)
    )
    if profile is not None:
        _check_profile(findings, profile, positions, spacing)
    _check_lateral(findings, profile, voxel_size)
    if truth is not None:
        _check_truth(findings, truth, stack)
        _check_origin(findings, truth, stack)
        if profile is not None and positions is not None and spacing is not None:
            _check_seen(findings, truth, profile, positions, spacing)
    return stack, truth


def _check_lateral(
    findings: Findings,
    profile: AxialProfile | None,
    voxel_size_um: tuple[float | None, float, float] | None,
) -> None:
    """Compute the lateral blur, unless what it is derived from is wrong already."""
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


def _check_flat_field(findings: Findings, stack: Acquisition, path: str) -> None:
    _, channels, _, *size = stack.data.shape
    findings.attempt(
        "acquisition",
        stack.path,
        lambda: fit_to_images(read_flat_field(path), path, (channels, *size)),
    )


def _check_attenuation(findings: Findings, stack: Acquisition, length_um: float) -> None:
    sample = findings.sample
    try:
        positions = positions_of(stack, sample.stage_positions, sample.overrule)
    except InputError:
        # Reported already, with the positions.
        return
    findings.attempt("acquisition", stack.path, lambda: require_plausible(positions, length_um))


def check_images(findings: Findings, stack: Acquisition) -> None:
    """Check the images of an acquisition by themselves: how many, how large, and what is in them.

    Parameters
    ----------
    findings : Findings
        What is wrong is reported to them, in the column ``acquisition``.
    stack : Acquisition
        Of which a few planes are decoded.
    """
    t, c, p, y, x = stack.data.shape
    if p < 2:
        # Stacks without named axes are often taken for time series or channels.
        hint = f" (but {t} time points and {c} channels)" if t * c > 1 else ""
        findings.report(
            "acquisition",
            stack.path,
            f"the stack holds one projection{hint}",
            "give a stack of at least 2 projections along the axis Z",
        )
    if min(y, x) < _SMALLEST_IMAGE:
        findings.report(
            "acquisition",
            stack.path,
            f"the images have {y} x {x} pixels (y, x)",
            f"give images of at least {_SMALLEST_IMAGE} x {_SMALLEST_IMAGE} pixels",
        )
    _check_planes(findings, "acquisition", stack)


def _check_planes(findings: Findings, column: str, stack: Acquisition) -> None:
    """Look for what is missing, decode the first, middle and last plane, and look for light."""
    if stack.gaps is not None:
        findings.report(
            column,
            stack.path,
            f"{stack.gaps}, and would be read as zeros",
            "copy the folder again, or write chunks of zeros, too, which Zarr leaves out",
        )
    t, c, n = stack.data.shape[:3]
    places = sorted({(0, 0, 0), (t // 2, c // 2, n // 2), (t - 1, c - 1, n - 1)})
    planes = []
    for place in places:
        try:
            planes.append(np.asarray(stack.data[place]))
        except Exception as error:
            findings.report(
                column,
                stack.path,
                f"the plane (t, c, z) = {place} can't be decoded ({error})",
                "copy the file again from the microscope",
            )
            return
    bad = [1 - float(np.isfinite(plane).mean()) for plane in planes]
    if max(bad) > 0:
        place = places[int(np.argmax(bad))]
        findings.report(
            column,
            stack.path,
            f"{100 * max(bad):.3g} % of the pixels in the plane (t, c, z) = {place} are not finite "
            f"numbers",
            "export the raw counts instead",
        )
    elif all(plane.min() == plane.max() for plane in planes):
        findings.report(
            column,
            stack.path,
            f"the images are constant ({planes[0].flat[0]} everywhere in {len(planes)} planes)",
            "check that light reached the detector, and that the right file was exported",
        )
    elif column == "acquisition":
        _check_offset(findings, stack, max(float(plane.max()) for plane in planes))


def _check_offset(findings: Findings, stack: Acquisition, brightest: float) -> None:
    """Compare the offset with the brightest pixel of some planes: all would be below no light."""
    offset = findings.sample.offset
    if isinstance(offset, float) and brightest <= offset:
        findings.report(
            "offset",
            f"{offset:g}",
            f"no pixel in some planes of {stack.path} is above it, and the brightest has "
            f"{brightest:g} counts",
            "write the counts of an unlit pixel",
        )


def _check_voxel_size(
    findings: Findings, stack: Acquisition | None, truth: Acquisition | None
) -> tuple[float | None, float, float] | None:
    """Return the voxel size, where it is known, and compare what sheet and files state."""
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


def _check_positions(
    findings: Findings,
    stack: Acquisition | None,
    voxel_size_um: tuple[float | None, float, float] | None,
) -> np.ndarray | None:
    """Return the stage positions, where they are known and agree with the acquisition."""
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


def _check_profile(
    findings: Findings,
    profile: AxialProfile,
    positions: np.ndarray | None,
    spacing: float | None,
) -> None:
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


def _check_truth(findings: Findings, truth: Acquisition, stack: Acquisition | None) -> None:
    if stack is not None:
        names = "TCYX"
        measured, true = (
            tuple(data.shape[i] for i in (0, 1, 3, 4)) for data in (stack.data, truth.data)
        )
        if measured != true:
            differing = ", ".join(
                f"{name}: {b} instead of {a}"
                for name, a, b in zip(names, measured, true, strict=True)
                if a != b
            )
            findings.report(
                "ground_truth",
                truth.path,
                f"its shape {true} (T, C, Y, X) differs from that of the acquisition {measured} "
                f"({differing})",
                "crop or resample it to the field of view of the acquisition",
            )
    _check_planes(findings, "ground_truth", truth)


def _check_origin(findings: Findings, truth: Acquisition, stack: Acquisition | None) -> None:
    """Refuse positions from the acquisition where the slices don't count from 0 upwards, too."""
    sample = findings.sample
    if stack is None or sample.stage_positions is not None or sample.overrule:
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


def _check_seen(
    findings: Findings,
    truth: Acquisition,
    profile: AxialProfile,
    positions: np.ndarray,
    spacing: float,
) -> None:
    """Compare the stage positions with the slices of the ground truth."""
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


def _check_train(findings: Findings) -> Acquisition | None:
    """Check the ground truth of a training sample and return it, where it is readable."""
    path = findings.sample.ground_truth
    truth = findings.attempt("ground_truth", path, lambda: open_acquisition(path))
    if truth is None:
        return None
    shape = truth.data.shape[2:]
    if any(n < least for n, least in zip(shape, _SMALLEST_TRAINING, strict=True)):
        findings.report(
            "ground_truth",
            path,
            f"the volume has {' x '.join(map(str, shape))} voxels (z, y, x)",
            f"train on at least {' x '.join(map(str, _SMALLEST_TRAINING))} voxels",
        )
    _check_planes(findings, "ground_truth", truth)
    _check_voxel_size(findings, None, truth)
    return truth
