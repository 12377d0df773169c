#!/usr/bin/env python3
"""Estimate the flat field of a microscope from what all acquisitions of a sheet have in common."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from besselflow.corrections.estimated_fields import write_field
from besselflow.corrections.shading import FEWEST_ACQUISITIONS, Shading, estimate_shading
from besselflow.errors import InputError
from besselflow.mean_images import MeanImages, collect_mean_images, list_left_out
from besselflow.report.shading import describe_shading, draw_shading
from besselflow.store import atomic_path

_EXAMPLE = """\
example:
  python scripts/estimate_flat_field.py config/samples.tsv --output config/flat_field.tif

The sheet lists many acquisitions of one microscope, at one zoom: at least 8 of different samples,
and the more, the better. What all of them have in common is taken for light, and so is a sample
that was moved into the middle of the image every time. Nothing is written where it is not certain
that the light is uneven.
"""


def main(sheet: Path, output: Path) -> str:
    """Write the flat field and its picture, and say how certain it is.

    Parameters
    ----------
    sheet : pathlib.Path
        Sample sheet.
    output : pathlib.Path
        TIFF to write; the picture lies beside it, and ends in .png.

    Returns
    -------
    str
        Several lines for the terminal, with those for config.yaml.

    Raises
    ------
    InputError
        There are too few acquisitions, or it is not certain that the light is uneven; the picture
        is drawn in the latter case.
    """
    if output.suffix.lower() not in (".tif", ".tiff"):
        raise InputError(f"{output}: the flat field is a TIFF; let its name end in .tif")
    found = collect_mean_images(sheet)
    count, channels = found.images.shape[:2]
    if count < FEWEST_ACQUISITIONS:
        too_few = (
            f"{sheet}: {count} acquisitions are too few to tell the light from the samples; list "
            f"at least {FEWEST_ACQUISITIONS}, better many more, or record an even sample"
        )
        raise InputError("\n".join([too_few, *_list_left_out(found)]))
    shadings = [estimate_shading(found.images[:, c]) for c in range(channels)]
    picture = output.with_suffix(".png")
    figure = draw_shading(shadings, found.images.mean(axis=0), found.size)
    with atomic_path(picture) as partial:
        figure.savefig(partial, format="png")
    described = [describe_shading(shading, c) for c, shading in enumerate(shadings)]
    report = "\n".join([*_describe_sheet(sheet, found), *described])
    if not any(shading.is_certain for shading in shadings):
        raise InputError(f"{report}\n{_refusal(shadings, output, picture)}")
    write_field(output, shadings, found.size)
    return "\n".join(
        [
            report,
            *_even_channels(shadings),
            f"Wrote {output}; look at {picture}. For config.yaml:",
            "",
            "corrections:",
            f"  flat_field: {output.as_posix()}",
        ]
    )


def _describe_sheet(sheet: Path, found: MeanImages) -> list[str]:
    count, channels = found.images.shape[:2]
    text = f"{sheet}: {count} acquisitions of {found.size[0]} x {found.size[1]} pixels (y, x)"
    text += f" and {channels} channels" if channels > 1 else ""
    return [text, *_list_left_out(found)]


def _list_left_out(found: MeanImages) -> list[str]:
    return [list_left_out(found.left_out)] if found.left_out else []


def _even_channels(shadings: Sequence[Shading]) -> list[str]:
    return [
        f"Channel {channel} is left as it is: its image is 1 everywhere."
        for channel, shading in enumerate(shadings, start=1)
        if not shading.is_certain
    ]


def _refusal(shadings: Sequence[Shading], output: Path, picture: Path) -> str:
    error = max(shading.error for shading in shadings)
    old = f"; the {output.name} that is there is older" if output.exists() else ""
    return (
        f"It is not certain that the light is uneven, and {output} was not written (see {picture}"
        f"{old}). If it is uneven by less than the standard error of {error:.1%}, leave "
        "corrections.flat_field at none; to know it better, add acquisitions of other samples "
        "(four times as many halve the error), or record an even sample and give its image"
    )


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(
        prog="estimate_flat_field.py",
        description=__doc__,
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("sheet", type=Path, metavar="SHEET", help="sample sheet with many acquisitions")
    add(
        "--output",
        type=Path,
        default=Path("flat_field.tif"),
        metavar="FLAT.tif",
        help="TIFF to write, with a picture beside it (default flat_field.tif)",
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    args = parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        print(main(args.sheet, args.output))
    except (ValueError, OSError) as error:
        print(f"estimate_flat_field.py: error: {error}", file=sys.stderr)
        sys.exit(2)
