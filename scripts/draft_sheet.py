#!/usr/bin/env python3
"""Draft a sample sheet from a directory tree: find stacks, pair files, mark what is missing."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from besselflow.acquisition import Acquisition
from besselflow.command_line import command_parser, errors_in_a_line
from besselflow.draft import Draft, Found, find_all, write_draft
from besselflow.draft.sheet import describe_positions
from besselflow.errors import InputError
from besselflow.sample_sheet import FILL_IN

_EXAMPLE = """\
example:
  python scripts/draft_sheet.py /data/session --out config/samples.tsv

Files belong together by their names: mouse-1.tif, mouse-1_stage.csv, mouse-1_beam.csv, and
mouse-1_truth.tif (or _gt, _ground_truth). A ground truth without an acquisition is trained on. A
beam or stage file that is named after no acquisition serves all that lie beside and below it. Cells
with a question mark are for you to fill in.
"""


def main(directory: Path, out: Path, force: bool = False) -> str:
    """Write the sheet, check it, and say what was found and what is left to do.

    Parameters
    ----------
    directory : pathlib.Path
        Tree to look through.
    out : pathlib.Path
        Sheet to write.
    force : bool
        Whether a sheet that is there is replaced.

    Returns
    -------
    str
        Several lines for the terminal.

    Raises
    ------
    InputError
        Nothing was found, or the sheet is there already.
    """
    if not force and _has_samples(out):
        raise InputError(f"{out}: the sheet is there already; give another --out, or --force")
    found = find_all(directory)
    try:
        draft = write_draft(found, out)
    except InputError as error:
        raise InputError("\n".join([str(error), *_left_out(found)])) from error
    return "\n".join([*_list_samples(draft), *_left_out(found), *_what_to_do(draft)])


def _has_samples(path: Path) -> bool:
    """Return whether a file is there that is more than a header and comments."""
    if not path.exists():
        return False
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return len([line for line in lines if line.strip() and not line.startswith("#")]) > 1


def _list_samples(draft: Draft) -> list[str]:
    lines = [f"{len(draft.rows)} samples in {draft.path}:"]
    for row, image in zip(draft.rows, draft.images, strict=True):
        lines.append(f"  {row['sample']} ({row['role']}): {_describe(image)}")
        paired = {
            "stage positions": row.get("stage_positions"),
            "beam": row.get("beam_profile"),
            "ground truth": row.get("ground_truth") if row["role"] == "test" else "",
        }
        lines += [f"      {name}: {cell}" for name, cell in paired.items() if cell not in _OPEN]
        lines += [f"      {what}: {source}" for what, source in image.sources.items()]
        lines += [f"      not known, {what}: {why}" for what, why in image.unknown.items()]
        lines += [f"      {note}" for note in image.notes]
    return lines


_OPEN = (None, "", FILL_IN)


def _describe(image: Acquisition) -> str:
    times, channels, planes, height, width = image.data.shape
    parts = [f"{image.format}, {planes} planes of {height} x {width} pixels"]
    if times * channels > 1:
        parts.append(f"{times} time points, {channels} channels")
    parts.append(describe_positions(image))
    if None not in image.pixel_size_um:
        y, x = image.pixel_size_um
        parts.append(f"pixels of {y:.4g} x {x:.4g} um")
    return ", ".join(parts)


def _left_out(found: Found) -> list[str]:
    if not found.left_out:
        return []
    return [
        f"{len(found.left_out)} left out:",
        *(f"  {path}: {why}" for path, why in found.left_out.items()),
    ]


def _what_to_do(draft: Draft) -> list[str]:
    if not draft.problems:
        return ["The sheet passes all checks."]
    return [
        f"{len(draft.problems)} cells to fill in or correct:",
        *(f"  {problem}" for problem in draft.problems),
        f"Then check it: snakemake --profile profiles/default -n --config samples={draft.path}",
    ]


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = command_parser(__doc__, _EXAMPLE)
    add = parser.add_argument
    add("directory", type=Path, metavar="DIRECTORY", help="tree to look through")
    add(
        "--out",
        type=Path,
        default=Path("samples.tsv"),
        metavar="SAMPLES.tsv",
        help="sheet to write",
    )
    add("--force", action="store_true", help="replace a sheet that is there")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    args = parse_arguments()
    with errors_in_a_line():
        print(main(args.directory, args.out, args.force))
