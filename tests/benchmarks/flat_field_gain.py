"""Ask what `corrections.flat_field: auto` is worth in PSNR, and what it costs under even light.

`python tests/benchmarks/flat_field_gain.py` simulates sheets of acquisitions of phantoms, each of a
sample of its own that was moved at random, under one light. The light is estimated from each sheet
as the workflow does (`scripts/estimate_shading.py`), and some of the acquisitions go through
`scripts/preprocess.py` and `spectral`: under even light, under the uneven one with
`corrections.flat_field: none`, and with `auto`, which divides only where it is certain that the
light is uneven. It prints the PSNR per slice of each, the mean over sheets and samples, and what is
lost of that under even light. The beam is a box of 6 slices in steps of 3.
"""

import argparse
import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from corrections_gain import VOXEL_UM, psnr
from flat_field_estimate import moved

import estimate_shading
import preprocess
from besselflow.baselines.units import by_spectral
from besselflow.beam import box_profile
from besselflow.config import Corrections, Spectral
from besselflow.corrections.estimated_fields import read_estimates
from besselflow.job import logger
from besselflow.phantoms import PHANTOMS, draw_phantom
from besselflow.simulate import (
    AcquisitionFiles,
    Detector,
    Disturbance,
    simulate_acquisition,
    stage_positions,
    write_acquisition,
    write_table,
)
from besselflow.store import open_projections
from besselflow.tiling import list_units
from simulate_acquisition import SHEET_COLUMNS, sheet_row

SHAPE = (32, 192, 192)
VIGNETTING = (0.0, 0.3, 0.5)
BEAM_UM, STEP_UM = 6.0, 3.0


@dataclass(frozen=True)
class Sheet:
    """Acquisitions under one light, in a folder.

    Attributes
    ----------
    folder : pathlib.Path
    light : numpy.ndarray, shape (Y, X)
        Brightness of an even sample.
    files : list of AcquisitionFiles
        One per volume.
    """

    folder: Path
    light: np.ndarray
    files: list[AcquisitionFiles]

    @property
    def path(self) -> Path:
        """The sample sheet."""
        return self.folder / "samples.tsv"

    @property
    def flat_field(self) -> Path:
        """What is estimated of its light."""
        return self.folder / "flat_field"


def draw(count: int, shape: tuple[int, int, int], seed: int) -> list[np.ndarray]:
    """Draw volumes (Z, Y, X) of all kinds in turn, each moved at random."""
    rng = np.random.default_rng(seed)
    seeds, kinds = rng.choice(2**31, count, replace=False), list(PHANTOMS)
    return [
        moved(draw_phantom(kinds[i % len(kinds)], shape, int(own), VOXEL_UM), rng)
        for i, own in enumerate(seeds)
    ]


def acquire(folder: Path, volumes: list[np.ndarray], vignetting: float, scored: int) -> Sheet:
    """Write the acquisitions and their sheet; the first `scored` have a ground truth."""
    beam, detector, files, rows = box_profile(BEAM_UM), Detector(), [], []
    for number, volume in enumerate(volumes):
        positions = stage_positions(len(volume), VOXEL_UM[0], beam, STEP_UM)
        taken = simulate_acquisition(
            volume,
            beam,
            positions,
            VOXEL_UM,
            detector,
            Disturbance(vignetting=vignetting),
            seed=number,
        )
        truth = volume if number < scored else None
        name = f"s{number}"
        files.append(write_acquisition(folder, name, taken, beam, VOXEL_UM, detector, truth))
        row = sheet_row(name, files[-1], VOXEL_UM, detector)
        rows.append([row[column] for column in SHEET_COLUMNS])
    sheet = Sheet(folder, taken.truth["flat_field"], files)
    write_table(sheet.path, SHEET_COLUMNS, rows, "\t")
    return sheet


def estimate(sheet: Sheet) -> tuple[bool, float]:
    """Estimate the light as the rule does; return whether it is certain, and the field's error."""
    estimate_shading.main(sheet.path, sheet.flat_field)
    (found,) = read_estimates(sheet.flat_field).fields
    (shading,) = found.shadings
    return found.why_not is None, float(np.std(shading.field(sheet.light.shape) / sheet.light))


def score(sheet: Sheet, number: int, volume: np.ndarray, flat_field: str) -> float:
    """Return the PSNR of an acquisition of a sheet with `none` or `auto`."""
    files, detector = sheet.files[number], Detector()
    store = sheet.folder / f"s{number}-{flat_field}.zarr"
    preprocess.main(
        files.acquisition,
        files.stage_positions,
        files.ground_truth,
        f"box:{BEAM_UM:g}um",
        VOXEL_UM,
        detector.offset,
        detector.gain,
        f"s{number}",
        store,
        corrections=Corrections(flat_field=flat_field),
        flat_fields=sheet.flat_field if flat_field == "auto" else None,
    )
    measured = open_projections(store)
    units = list_units(measured.data.shape, max(volume.shape[1:]), 1)
    arrays, _ = by_spectral(measured, units, Spectral())(units[0])
    return psnr(arrays["volume"], volume, measured.positions_um)


def measure(
    volumes: list[np.ndarray], scored: int, lights: tuple[float, ...]
) -> dict[float, tuple[bool, float, np.ndarray]]:
    """Return of each light whether it was certain, the error of its field, and the scores.

    Scores have the shape (scored, 3): of even light with `none`, of this one with `none`, and of
    this one with `auto`.
    """
    found, even = {}, None
    # Even light comes first, since all others are compared with it.
    for vignetting in (0.0, *(light for light in lights if light > 0)):
        with tempfile.TemporaryDirectory() as folder:
            sheet = acquire(Path(folder), volumes, vignetting, scored)
            certain, error = estimate(sheet)
            of = lambda setting, sheet=sheet: np.array(  # noqa: E731
                [score(sheet, i, volumes[i], setting) for i in range(scored)]
            )
            none, auto = of("none"), of("auto")
        even = none if even is None else even
        found[vignetting] = certain, error, np.stack([even, none, auto], axis=1)
    return found


def table_row(vignetting: float, what: str, certain: str, error: str, scores: np.ndarray) -> str:
    """Return a line of the table."""
    even, none, auto = scores.mean(axis=0)
    cells = [f"{vignetting:.0%}", what, certain, error]
    # Adding zero takes the sign from what is rounded to -0.
    cells += [f"{round(v, 2) + 0:.2f}" for v in (even, none, auto, even - none, even - auto)]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--acquisitions", type=int, default=32, help="of each sheet")
    parser.add_argument("--sheets", type=int, default=8)
    parser.add_argument("--scored", type=int, default=3, help="of each sheet, all kinds in turn")
    parser.add_argument("--vignetting", type=float, nargs="+", default=VIGNETTING)
    chosen = parser.parse_args()
    # Every preprocess would warn of the two outermost slices.
    logger.setLevel(logging.ERROR)
    sheets = [
        measure(draw(chosen.acquisitions, SHAPE, seed), chosen.scored, tuple(chosen.vignetting))
        for seed in range(chosen.sheets)
    ]
    columns = ["missing in a corner", "samples", "certain", "error of the field", "even light"]
    columns += ["uneven, none", "uneven, auto", "lost with none", "lost with auto"]
    print("| " + " | ".join(columns) + " |\n|" + " --- |" * len(columns))
    for vignetting in sheets[0]:
        certain, errors, scores = zip(*(sheet[vignetting] for sheet in sheets), strict=True)
        for number, kind in enumerate(PHANTOMS):
            own = np.concatenate([each[number :: len(PHANTOMS)] for each in scores])
            if len(own):
                print(table_row(vignetting, kind, "", "", own))
        sure = f"{sum(certain)} of {len(certain)}"
        error = f"{np.sqrt(np.mean(np.square(errors))):.1%}"
        print(table_row(vignetting, "all", sure, error, np.concatenate(scores)), flush=True)


if __name__ == "__main__":
    main()
