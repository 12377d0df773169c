"""All samples of a sheet: whose files pass every check, and what is wrong with the others."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from besselflow.acquisition import Acquisition, open_acquisition
from besselflow.beam import parse_beam_profile
from besselflow.checks.geometry import (
    check_lateral,
    check_positions,
    check_profile,
    check_voxel_size,
)
from besselflow.checks.images import check_images, check_planes
from besselflow.checks.truth import check_origin, check_seen, check_shape
from besselflow.copies import Overlaps, Print, check_copy, print_of
from besselflow.corrections.attenuation import require_plausible
from besselflow.corrections.flat_field import fit_to_images, read_flat_field
from besselflow.errors import InputError, Problem
from besselflow.findings import Findings
from besselflow.sample_sheet import COLUMNS, Sample, Sheet, problems_by_sample
from besselflow.slice_spacing import with_spacing
from besselflow.stated import positions_of, resolve

_SMALLEST_TRAINING = (16, 32, 32)


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
    compared : frozenset of str
        Pairs of ground truths that share nothing, which the next check need not compare.
    """

    path: Path
    tests: tuple[Sample, ...]
    trains: tuple[Sample, ...]
    rejected: dict[str, tuple[Problem, ...]]
    compared: frozenset[str] = frozenset()


def check_samples(
    sheet: Sheet,
    flat_field: str | None = None,
    attenuation_um: float | None = None,
    compared: Collection[str] = (),
) -> CheckedSheet:
    """Check the files of all samples, so that what can't be run is known before anything runs.

    Only headers and a few planes are read, except for training ground truths, which are searched
    for parts of those of the test samples, once.

    Parameters
    ----------
    sheet : Sheet
        The sheet, with the problems that were found in it.
    flat_field : str or None
        Path of the flat field that all acquisitions are divided by, readable.
    attenuation_um : float or None
        Attenuation length that all acquisitions are corrected for.
    compared : collection of str
        What an earlier check found to share nothing.

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
    tested = {test.name: truths[test.name] for test in sheet.tests if test.name in truths}
    overlaps = Overlaps(tested, compared)
    for train in sheet.trains:
        if train.name in truths:
            findings, before = Findings(sheet.path, train, problems), len(problems)
            check_copy(findings, truths[train.name], tested)
            if len(problems) == before:
                overlaps.check(findings, truths[train.name])
    order = [column.name for column in COLUMNS]
    problems.sort(key=lambda found: (found.row, order.index(found.column or order[0])))
    rejected = problems_by_sample(problems)
    tests, trains = (
        tuple(resolved[sample.name] for sample in samples if sample.name not in rejected)
        for samples in (sheet.tests, sheet.trains)
    )
    return CheckedSheet(sheet.path, tests, trains, rejected, frozenset(overlaps.compared))


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
    voxel_size = check_voxel_size(findings, stack, truth)
    positions = check_positions(findings, stack, voxel_size)
    if positions is not None and voxel_size is not None:
        voxel_size = with_spacing(voxel_size, positions)
    spacing = voxel_size[0] if voxel_size else sample.voxel_size_um[0]
    profile = findings.attempt(
        "beam_profile", sample.beam_profile, lambda: parse_beam_profile(sample.beam_profile)
    )
    if profile is not None:
        check_profile(findings, profile, positions, spacing)
    check_lateral(findings, profile, voxel_size)
    if truth is not None:
        if stack is not None:
            check_shape(findings, truth, stack)
            check_origin(findings, truth, stack)
        check_planes(findings, "ground_truth", truth)
        if profile is not None and positions is not None and spacing is not None:
            check_seen(findings, truth, profile, positions, spacing)
    return stack, truth


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
    check_planes(findings, "ground_truth", truth)
    check_voxel_size(findings, None, truth)
    return truth


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
