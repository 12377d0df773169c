#!/usr/bin/env python3
"""Extract the axial profile of a beam from a z-stack of beads, as a CSV for the sample sheet."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from besselflow.beam import BeadScan, read_bead_scan
from besselflow.command_line import command_parser, errors_in_a_line
from besselflow.simulate import write_complete, write_table

_EXAMPLE = """\
example:
  python scripts/extract_beam_profile.py beads.tif:z=0.5um,xy=0.1um \\
      --out beam.csv --picture beam.png

Where the metadata of the TIFF state the distances, the path alone will do. The centre of mass of
the profile counts as the stage position; where it lies elsewhere, shift the column dz_um.
"""


def main(spec: str, out: Path, picture: Path | None = None) -> str:
    """Write the profile, and a picture of profile and lateral image on request.

    Parameters
    ----------
    spec : str
        Path of the stack of beads, with options as in the sheet's column ``beam_profile``.
    out : pathlib.Path
        CSV to write.
    picture : pathlib.Path, optional
        PNG to write.

    Returns
    -------
    str
        What was found, in words.

    Raises
    ------
    ValueError
        The path is no TIFF, or no bead in it is usable.
    """
    if not spec.lower().partition(":")[0].endswith((".tif", ".tiff")):
        raise ValueError(f'"{spec}" is no TIFF; give the path of a z-stack of beads')
    scan = read_bead_scan(spec)
    edges = scan.profile.edges_um
    rows = zip((edges[1:] + edges[:-1]) / 2, scan.profile.weights, strict=True)
    write_table(out, ["dz_um", "weight"], [(f"{z:.9g}", f"{w:.9g}") for z, w in rows])
    if picture is not None:
        write_complete(picture, lambda partial: draw(scan, partial))
    return "\n".join(describe(scan))


def describe(scan: BeadScan) -> list[str]:
    """Return sentences about what was extracted."""
    used = len(scan.centres_px)
    low, high = scan.profile.support_um
    lines = [
        f"{used} bead{'s' * (used != 1)} averaged; {scan.left_out} left out, being too near to the "
        f"edge or to another, or cut by the ends of the stack.",
        f"The beam is {scan.profile.fwhm_um:.3g} um long at half maximum, and has light from "
        f"{low:.3g} to {high:.3g} um.",
    ]
    planes = (high - low) / float(np.mean(np.diff(scan.profile.edges_um)))
    shift = float(np.hypot(*scan.tilt)) * planes
    if shift > 1:
        lines.append(
            f"The beam is tilted: it moves by {shift:.1f} pixels over its length. The profile was "
            f"taken along it, but a reconstruction assumes an upright beam."
        )
    return lines


def draw(scan: BeadScan, path: Path) -> None:
    """Draw profile and lateral image into a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    FigureCanvasAgg(figure)
    profile, image = figure.subplots(1, 2)
    edges, weights = scan.profile.edges_um, scan.profile.weights
    profile.stairs(weights / np.diff(edges), edges, fill=True)
    profile.set(
        xlabel="depth relative to the stage position (µm)",
        ylabel="share of the light per µm",
        title=f"{len(scan.centres_px)} beads, {scan.profile.fwhm_um:.3g} µm at half maximum",
    )
    values, (size_y, size_x) = scan.image.values, scan.image.pixel_size_um
    unit = "µm" if size_y and size_x else "pixels"
    half_y = values.shape[0] / 2 * (size_y if size_y and size_x else 1)
    half_x = values.shape[1] / 2 * (size_x if size_y and size_x else 1)
    # A power below 1 shows the side lobes, which are faint but many.
    image.imshow(
        (values / values.max()) ** 0.5, cmap="magma", extent=(-half_x, half_x, half_y, -half_y)
    )
    image.set(xlabel=f"x ({unit})", ylabel=f"y ({unit})", title="lateral image (square root)")
    figure.savefig(path, format="png", dpi=120)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = command_parser(__doc__, _EXAMPLE)
    add = parser.add_argument
    add("beads", metavar="BEADS.tif", help="z-stack of sub-resolution beads")
    add("--out", type=Path, required=True, metavar="BEAM.csv", help="profile to write")
    add("--picture", type=Path, metavar="BEAM.png", help="picture to write")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    args = parse_arguments()
    with errors_in_a_line():
        print(main(args.beads, args.out, args.picture))
