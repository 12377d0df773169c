#!/usr/bin/env python3
"""Write the demo: a sample sheet and small simulated acquisitions that `make demo` reconstructs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from besselflow.beam import parse_beam_profile
from besselflow.command_line import command_parser, errors_in_a_line
from besselflow.phantoms import draw_phantom
from besselflow.simulate import (
    AcquisitionFiles,
    Detector,
    Disturbance,
    simulate_acquisition,
    stage_positions,
    write_acquisition,
    write_table,
    write_volume,
)
from simulate_acquisition import SHEET_COLUMNS, sheet_row

VOXEL_SIZE_UM = (1.0, 1.0, 1.0)
BEAM, STEP_UM = "box:6um", 6.0
TEST_SHAPE, TRAIN_SHAPE = (48, 80, 80), (48, 96, 96)

# Seeds of test and training volumes are disjoint, as a prior must not have seen what it restores;
# the two training volumes of a kind were chosen to differ in size and density.
TEST_SAMPLES = (
    ("vessels", "vessels", 5, True),
    ("neuron", "neuron", 6, True),
    ("cells", "cells", 5, True),
    ("vessels-unknown", "vessels", 6, False),
)
# One acquisition is as a worn microscope records it, so that its page shows what is corrected.
DISTURBANCES = {"vessels-unknown": Disturbance(hot_pixels=0.002, scan_phase=0.6)}
TRAIN_SAMPLES = (
    ("train-vessels-1", "vessels", 104),
    ("train-vessels-2", "vessels", 106),
    ("train-neuron-1", "neuron", 111),
    ("train-neuron-2", "neuron", 117),
    ("train-cells-1", "cells", 124),
    ("train-cells-2", "cells", 127),
)


def main(
    directory: Path,
    test_shape: Sequence[int] = TEST_SHAPE,
    train_shape: Sequence[int] = TRAIN_SHAPE,
) -> Path:
    """Write the demo; files that would not change keep their time stamps.

    Parameters
    ----------
    directory : pathlib.Path
        Gets ``samples.tsv`` and ``data/``.
    test_shape, train_shape : sequence of int
        (Z, Y, X) of the volumes in voxels of 1 um.

    Returns
    -------
    pathlib.Path
        The sample sheet; its paths are relative to its folder.

    Raises
    ------
    ValueError
        A volume is thinner than the beam.
    """
    data = directory / "data"
    detector = Detector()
    profile = parse_beam_profile(BEAM)
    positions = stage_positions(test_shape[0], VOXEL_SIZE_UM[0], profile, STEP_UM)
    rows = []
    for name, kind, seed, known in TEST_SAMPLES:
        volume = draw_phantom(kind, test_shape, seed, VOXEL_SIZE_UM)
        acquisition = simulate_acquisition(
            volume,
            profile,
            positions,
            VOXEL_SIZE_UM,
            detector,
            DISTURBANCES.get(name),
            seed=seed,
        )
        files = write_acquisition(
            data,
            name,
            acquisition,
            profile,
            VOXEL_SIZE_UM,
            detector,
            ground_truth=volume if known else None,
        )
        rows.append(sheet_row(name, files, VOXEL_SIZE_UM, detector, relative_to=directory))
    for name, kind, seed in TRAIN_SAMPLES:
        path = data / f"{name}_ground_truth.ome.tif"
        volume = draw_phantom(kind, train_shape, seed, VOXEL_SIZE_UM)
        write_volume(path, detector.noise_free_counts(volume), VOXEL_SIZE_UM)
        files = AcquisitionFiles(None, None, None, path)
        row = sheet_row(name, files, VOXEL_SIZE_UM, detector, relative_to=directory)
        rows.append(row | {"role": "train"})
    sheet = directory / "samples.tsv"
    cells = [[row[column] for column in SHEET_COLUMNS] for row in rows]
    write_table(sheet, SHEET_COLUMNS, cells, separator="\t")
    return sheet


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = command_parser(__doc__, "example:\n  python scripts/make_demo.py demo\n")
    parser.add_argument(
        "directory", type=Path, metavar="DIRECTORY", help="gets samples.tsv and data/"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    with errors_in_a_line():
        print(f"wrote {main(parse_arguments().directory)}")
