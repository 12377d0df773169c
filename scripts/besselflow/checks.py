"""Checks of every sample's files before anything runs, from headers and a few planes only."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from besselflow.acquisition import Stack, open_acquisition, read_stage_positions
from besselflow.beam import AxialProfile, parse_beam_profile, read_lateral_psf
from besselflow.errors import InputError, Problem
from besselflow.projection import AxialGrid
from besselflow.sample_sheet import Sample, Sheet, problems_by_sample
from besselflow.slice_spacing import with_spacing

_SMALLEST_IMAGE = 16
_SMALLEST_TRAINING = (16, 32, 32)
_PIXEL_SIZE_TOLERANCE = 0.05
_LEAST_SEEN = 0.01
_LARGEST_STEP = 50.0
# What is wrong with a lateral kernel does not depend on how far it reaches, in pixels.
_SOME_REACH = 8

_T = TypeVar("_T")


@dataclass(frozen=True)
class CheckedSheet:
    """The samples that can be run, and why the others can't.

    Attributes
    ----------
    path : pathlib.Path
        The sample sheet.
    tests, trains : tuple of Sample
        Samples whose files passed all checks, in the order of the sheet.
    rejected : dict of str to tuple of Problem
        Sample name (``row N`` where the row has none) -> all that is wrong with it.
    """

    path: Path
    tests: tuple[Sample, ...]
    trains: tuple[Sample, ...]
    rejected: dict[str, tuple[Problem, ...]]


@dataclass(frozen=True)
class _Findings:
    """Collects the problems of one sample."""

    sheet: Path
    sample: Sample
    problems: list[Problem]

    def report(self, column: str, value: object, message: str, remedy: str) -> None:
        self.problems.append(
            Problem(
                str(self.sheet),
                message,
                remedy,
                self.sample.row,
                column,
                str(value),
                self.sample.name,
            )
        )

    def attempt(self, column: str, value: object, read: Callable[[], _T]) -> _T | None:
        """Return what `read` gives, or None after reporting its InputError."""
        try:
            return read()
        except InputError as error:
            # The path is named as the value already.
            text = str(error).removeprefix(f"{value}: ").removeprefix(f"{value}:")
            message, _, remedy = text.rpartition("; ")
            if message[:1].isdigit():
                message = f"line {message}"
            self.report(column, value, message or remedy, remedy if message else "correct the file")
            return None


@dataclass(frozen=True)
class _Print:
    """What tells two ground truths apart without reading them whole.

    The files themselves are closed again, since a sheet may name more than a process may open.
    """

    path: Path
    shape: tuple[int, ...]
    digest: bytes | None


def check_samples(sheet: Sheet) -> CheckedSheet:
    """Check the files of all samples, so that what can't be run is known before anything runs.

    Only headers and a few planes are read, except for a training ground truth that begins to look
    like that of a test sample.

    Parameters
    ----------
    sheet : Sheet
        The sheet, with the problems that were found in it.

    Returns
    -------
    CheckedSheet
        A sample with a problem excludes itself only.
    """
    problems = list(sheet.problems)
    truths: dict[str, _Print] = {}
    for sample in sheet.samples:
        findings = _Findings(sheet.path, sample, problems)
        if sample.role == "test":
            truth = _check_test(findings)
        else:
            truth = _check_train(findings)
        if truth is not None:
            truths[sample.name] = _fingerprint(truth)
    # A test sample that is left out today may be mended tomorrow, with the same prior.
    for train in sheet.trains:
        if train.name in truths:
            tested = {test.name: truths[test.name] for test in sheet.tests if test.name in truths}
            _check_copy(_Findings(sheet.path, train, problems), truths[train.name], tested)
    rejected = problems_by_sample(sorted(problems, key=lambda problem: problem.row))
    return CheckedSheet(
        path=sheet.path,
        tests=tuple(sample for sample in sheet.tests if sample.name not in rejected),
        trains=tuple(sample for sample in sheet.trains if sample.name not in rejected),
        rejected=rejected,
    )


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


def _check_test(findings: _Findings) -> Stack | None:
    """Check all files of a test sample and return its ground truth, where that is readable."""
    sample = findings.sample
    stack = findings.attempt(
        "acquisition", sample.acquisition, lambda: open_acquisition(sample.acquisition)
    )
    if stack is not None:
        _check_acquisition(findings, stack)
    positions = _check_positions(findings, stack)
    if positions is not None:
        voxel_size = with_spacing(sample.voxel_size_um, positions)
        findings = replace(findings, sample=replace(sample, voxel_size_um=voxel_size))
    profile = findings.attempt(
        "beam_profile", sample.beam_profile, lambda: parse_beam_profile(sample.beam_profile)
    )
    if profile is not None:
        _check_profile(findings, profile, positions)
    # Where the beam is wrong already, what is derived from it need not be reported as well.
    if sample.lateral_psf is not None and (profile is not None or sample.lateral_psf != "beam"):
        findings.attempt(
            "lateral_psf",
            sample.lateral_psf,
            lambda: read_lateral_psf(
                sample.lateral_psf, sample.beam_profile, sample.voxel_size_um[1:], _SOME_REACH
            ),
        )
    if sample.ground_truth is None:
        return None
    truth = findings.attempt(
        "ground_truth", sample.ground_truth, lambda: open_acquisition(sample.ground_truth)
    )
    if truth is not None:
        _check_truth(findings, truth, stack)
        if profile is not None and positions is not None:
            _check_seen(findings, truth, profile, positions)
    return truth


def _check_acquisition(findings: _Findings, stack: Stack) -> None:
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
    _check_pixel_size(findings, "acquisition", stack)


def _check_planes(findings: _Findings, column: str, stack: Stack) -> None:
    """Decode the first, middle and last plane, and look for light in them."""
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


def _check_pixel_size(findings: _Findings, column: str, stack: Stack) -> None:
    for axis, size, stated in zip(
        "yx", findings.sample.voxel_size_um[1:], stack.pixel_size_um, strict=True
    ):
        if stated is not None and abs(size - stated) > _PIXEL_SIZE_TOLERANCE * stated:
            findings.report(
                f"voxel_size_{axis}_um",
                f"{size:g}",
                f"the metadata of the {column} ({stack.path}) state {stated:g} um",
                "correct the sheet, or the metadata if they are wrong",
            )


def _check_positions(findings: _Findings, stack: Stack | None) -> np.ndarray | None:
    """Return the stage positions, where they are there and agree with the acquisition."""
    sample = findings.sample
    path = sample.stage_positions
    if path is None:
        findings.report(
            "stage_positions",
            "",
            "the stage positions are not known from the file",
            "write a CSV with the columns projection,z_um and give its path",
        )
        return None
    positions = findings.attempt("stage_positions", path, lambda: read_stage_positions(path))
    if positions is None:
        return None
    if stack is not None and stack.data.shape[2] != len(positions):
        findings.report(
            "stage_positions",
            path,
            f"it lists {len(positions)} positions, but the acquisition has "
            f"{stack.data.shape[2]} projections",
            "list every projection of the stack once",
        )
        return None
    spacing, length = with_spacing(sample.voxel_size_um, positions)[0], float(np.ptp(positions))
    if len(positions) > 1 and length < spacing:
        findings.report(
            "stage_positions",
            path,
            f"all positions lie within {length:g} um, less than one slice of {spacing:g} um, and "
            f"look like millimetres",
            "give z_um in micrometres",
        )
        return None
    return positions


def _check_profile(
    findings: _Findings, profile: AxialProfile, positions: np.ndarray | None
) -> None:
    sample, spacing = findings.sample, findings.sample.voxel_size_um[0]
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
            sample.stage_positions,
            f"the step of {step:g} um is {step / profile.extent_um:.0f} times the length of the "
            f"beam ({profile.extent_um:g} um)",
            "check that z_um and the beam profile are in micrometres",
        )


def _check_truth(findings: _Findings, truth: Stack, stack: Stack | None) -> None:
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
    _check_pixel_size(findings, "ground_truth", truth)


def _check_seen(
    findings: _Findings, truth: Stack, profile: AxialProfile, positions: np.ndarray
) -> None:
    """Compare the stage positions with the slices of the ground truth."""
    grid = AxialGrid(0.0, findings.sample.voxel_size_um[0], truth.data.shape[2])
    low = grid.centres_um[0] - grid.spacing_um / 2
    high = grid.centres_um[-1] + grid.spacing_um / 2
    seen = profile.collected(low - positions, high - positions)
    blind = np.flatnonzero(seen < _LEAST_SEEN)
    if blind.size:
        some = ", ".join(f"{positions[i]:g}" for i in blind[:3])
        findings.report(
            "stage_positions",
            findings.sample.stage_positions,
            f"{blind.size} of {len(positions)} projections (the first at {some} um) see nothing "
            f"of the ground truth, whose {grid.n_slices} slices reach from {low:g} to {high:g} um",
            "count z_um from the centre of the first slice of the ground truth, in micrometres, "
            "and check voxel_size_z_um",
        )


def _check_train(findings: _Findings) -> Stack | None:
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
    _check_pixel_size(findings, "ground_truth", truth)
    return truth


def _fingerprint(stack: Stack) -> _Print:
    shape = stack.data.shape
    try:
        plane = np.asarray(stack.data[shape[0] // 2, shape[1] // 2, shape[2] // 2], np.float64)
    except Exception:
        # Reported by the check of the planes; what can't be decoded can't be compared.
        return _Print(stack.path, shape, None)
    return _Print(stack.path, shape, hashlib.sha256(plane.tobytes()).digest())


def _check_copy(findings: _Findings, train: _Print, tested: dict[str, _Print]) -> None:
    """Refuse a training volume whose voxels are those of a tested ground truth."""
    for name, test in tested.items():
        alike = train.digest is not None and (train.shape, train.digest) == (
            test.shape,
            test.digest,
        )
        if not alike or not _equal_voxels(train.path, test.path):
            continue
        findings.report(
            "ground_truth",
            train.path,
            f'its voxels equal the ground truth of the test sample "{name}" ({test.path}), and a '
            f"model must not learn from what it is tested on",
            "train on another sample",
        )


def _equal_voxels(a: Path, b: Path) -> bool:
    """Compare two stacks of one shape, plane by plane, until they differ."""
    first, second = open_acquisition(a).data, open_acquisition(b).data
    try:
        return all(
            np.array_equal(np.asarray(first[i]), np.asarray(second[i]))
            for i in np.ndindex(*first.shape[:3])
        )
    except Exception:
        # Whoever needs a plane that can't be decoded will report it.
        return False
