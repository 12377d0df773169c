"""The images of a stack by themselves: how many, how large, readable, and with light in them."""

from __future__ import annotations

import numpy as np

from besselflow.acquisition import Acquisition
from besselflow.findings import Findings

_SMALLEST_IMAGE = 16


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
    check_planes(findings, "acquisition", stack)


def check_planes(findings: Findings, column: str, stack: Acquisition) -> None:
    """Look for what is missing, decode the first, middle and last plane, and look for light.

    Parameters
    ----------
    findings : Findings
        What is wrong is reported to them.
    column : {"acquisition", "ground_truth"}
        Where the sheet names the stack.
    stack : Acquisition
        Of which at most three planes are decoded.
    """
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
        plane = findings.attempt(column, stack.path, stack.data[place].compute)
        if plane is None:
            return
        planes.append(plane)
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
