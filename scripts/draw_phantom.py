#!/usr/bin/env python3
"""Draw a synthetic volume of vessels, a neuron or cells from a seed, for planning and training."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from besselflow.command_line import command_parser, errors_in_a_line
from besselflow.phantoms import PHANTOMS, draw_phantom
from besselflow.simulate import write_volume

_EXAMPLE = """\
example:
  python scripts/draw_phantom.py vessels --shape 48 80 80 --seed 7 \\
      --voxel-size 1 0.5 0.5 --out vessels.ome.tif
"""


def main(
    kind: str, shape: Sequence[int], seed: int, voxel_size_um: Sequence[float], out: Path
) -> None:
    """Draw a phantom and write it as an OME-TIFF of relative brightness (float32, peak 1).

    Parameters
    ----------
    kind : str
        vessels, neuron or cells.
    shape : sequence of int
        (Z, Y, X) in voxels.
    seed : int
    voxel_size_um : sequence of float
        (z, y, x) in micrometres.
    out : pathlib.Path
        Output file, ending in .ome.tif.

    Raises
    ------
    ValueError
        An argument is not valid.
    """
    if not out.name.endswith((".ome.tif", ".ome.tiff")):
        raise ValueError(f'the output "{out}" must end in .ome.tif')
    write_volume(out, draw_phantom(kind, shape, seed, voxel_size_um), voxel_size_um)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = command_parser(__doc__, _EXAMPLE)
    parser.add_argument("kind", metavar="KIND", help=f"one of {', '.join(PHANTOMS)}")
    parser.add_argument(
        "--shape", nargs=3, type=int, required=True, metavar=("Z", "Y", "X"), help="in voxels"
    )
    parser.add_argument("--seed", type=int, default=0, help="same seed, same volume (default 0)")
    parser.add_argument(
        "--voxel-size",
        nargs=3,
        type=float,
        default=(1.0, 1.0, 1.0),
        metavar=("Z", "Y", "X"),
        help="in micrometres (default 1 1 1)",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="OME-TIFF to write (.ome.tif)"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    args = parse_arguments()
    with errors_in_a_line():
        main(args.kind, args.shape, args.seed, args.voxel_size, args.out)
    print(f"{args.kind}, seed {args.seed}: wrote {args.out}")
