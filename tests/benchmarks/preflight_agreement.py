"""Compare what the preflight expects with what the spectral reconstruction really reaches.

Phantoms of rising density, and the training volumes of ../shared/bench where they are there, are
imaged with beams of rising length. One line per acquisition: the preflight's signal-to-noise ratio,
density and expected PSNR; the measured PSNR of `spectral` and of `interpolation`. It ends with the
error of the expectation, and with the gain over interpolation by density.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import dask.array as da
import numpy as np
import pandas as pd
import tifffile

from besselflow.baselines.interpolation import interpolate
from besselflow.baselines.spectral import fit_spectral_model, posterior_mean
from besselflow.beam import box_profile, gaussian_profile
from besselflow.config import Preflight
from besselflow.metrics import score_volume, scored_slices
from besselflow.phantoms import draw_cells, draw_phantom, draw_vessels
from besselflow.preflight.expectation import expect_quality
from besselflow.preflight.signal import measure_signal
from besselflow.preflight.subsample import Subsample, read_crops
from besselflow.projection import AxialGrid
from besselflow.simulate import Detector, simulate_acquisition, stage_positions
from besselflow.store import Projections

TRAIN = Path(__file__).parents[2].parent / "shared" / "bench" / "train"
VOXEL_UM = (1.0, 1.0, 1.0)
SHAPE = (64, 96, 96)
OFFSET, GAIN = 100.0, 10.0
BEAMS = {
    "box6-step6": (box_profile(6.0), 6.0, 300.0),
    "box6-step6-dim": (box_profile(6.0), 6.0, 30.0),
    "box6-step6-dark": (box_profile(6.0), 6.0, 3.0),
    "box6-step8": (box_profile(6.0), 8.0, 300.0),
    "box6-step12": (box_profile(6.0), 12.0, 300.0),
    "box16-step6": (box_profile(16.0), 6.0, 300.0),
    "gauss16-step6": (gaussian_profile(16.0), 6.0, 300.0),
    "box32-step6": (box_profile(32.0), 6.0, 300.0),
}


@dataclass(frozen=True)
class Comparison:
    """One acquisition: what was expected, and what came out; PSNR in dB."""

    sample: str
    beam: str
    snr: float
    density: float
    expected: float
    spectral: float
    interpolation: float
    seconds: float


def volumes() -> Iterator[tuple[str, np.ndarray]]:
    """Draw the phantoms, and read the training volumes that are there; peak 1."""
    for spacing in (8.0, 12.0, 20.0):
        yield f"phantom-vessels-{spacing:g}um", draw_vessels(SHAPE, 3, VOXEL_UM, spacing_um=spacing)
    for crowding in (0.05, 0.15, 0.3, 0.5):
        yield (
            f"phantom-cells-{crowding:g}",
            draw_cells(SHAPE, 4, VOXEL_UM, radius_um=4.0, crowding=crowding),
        )
    for seed in (1, 2):
        yield f"phantom-neuron-{seed}", draw_phantom("neuron", SHAPE, seed, VOXEL_UM)
    for path in sorted(TRAIN.glob("*.tif")):
        volume = np.maximum(tifffile.imread(path).astype(np.float32) - OFFSET, 0)
        yield path.stem, volume[:96] / volume[:96].max()


def compare(sample: str, volume: np.ndarray, beam: str) -> Comparison:
    """Image a volume, ask the preflight, and reconstruct."""
    profile, step, photons = BEAMS[beam]
    detector = Detector(photons=photons, gain=GAIN, offset=OFFSET)
    positions = stage_positions(len(volume), VOXEL_UM[0], profile, step)
    acquired = simulate_acquisition(volume, profile, positions, VOXEL_UM, detector, seed=1)
    measured = Projections(
        data=da.from_array(acquired.counts[None, None]),
        positions_um=positions,
        profile=profile,
        grid=AxialGrid(0.0, VOXEL_UM[0], len(volume)),
        pixel_size_um=VOXEL_UM[1:],
        unit="photons",
    )
    started = time.perf_counter()
    settings = Preflight()
    counts = read_crops(measured.data[0], settings.crop, settings.crops)
    crops = Subsample(measured, counts, OFFSET, GAIN, 0).intensity[0]
    operator, grid = measured.operator, measured.grid
    model = fit_spectral_model(crops, operator, VOXEL_UM)
    signal = measure_signal(crops, operator, VOXEL_UM, model, offset_known=True)
    expected = expect_quality(crops, operator, grid, positions, VOXEL_UM, model)
    seconds = time.perf_counter() - started
    intensity = ((acquired.counts - OFFSET) / GAIN).astype(np.float32)
    truth, scored = photons * volume, scored_slices(grid, positions)
    found = {
        "spectral": posterior_mean(intensity, operator, model, VOXEL_UM),
        "interpolation": interpolate(intensity, positions, grid.centres_um),
    }
    psnr = {name: measure(result, truth, scored) for name, result in found.items()}
    return Comparison(
        sample, beam, signal.snr, signal.density, expected.psnr_db, seconds=seconds, **psnr
    )


def measure(volume: np.ndarray, truth: np.ndarray, scored: np.ndarray) -> float:
    """Return the PSNR per slice, as `scripts/evaluate.py` does."""
    pair = (da.from_array(each[None, None].astype(np.float32)) for each in (volume, truth))
    return score_volume(*pair, scored, 7).summary["psnr"]


def summarise(table: pd.DataFrame) -> str:
    """Return the errors of the expectation, and the gain by density, as text."""
    lines = []
    error = table["spectral"] - table["expected"]
    for name, chosen in (
        ("phantoms", table["sample"].str.startswith("phantom")),
        ("training volumes", ~table["sample"].str.startswith("phantom")),
        ("all", table["sample"] != ""),
    ):
        own = error[chosen]
        if len(own):
            lines.append(
                f"{name}: measured less expected {own.mean():+.2f} dB on average, root mean square "
                f"{np.sqrt((own**2).mean()):.2f} dB, from {own.min():+.1f} to {own.max():+.1f} dB "
                f"({len(own)} acquisitions, correlation "
                f"{np.corrcoef(table['spectral'][chosen], table['expected'][chosen])[0, 1]:.2f})"
            )
    gain = table["spectral"] - table["interpolation"]
    lines.append("density: gain of spectral over interpolation (dB), PSNR of spectral (dB)")
    bounds = [0, 0.25, 0.5, 1, 2, 4, 8, np.inf]
    for low, high in pairwise(bounds):
        own = (table["density"] >= low) & (table["density"] < high)
        if own.any():
            lines.append(
                f"  {low:g} to {high:g}: {gain[own].median():.1f} ({gain[own].min():.1f} to "
                f"{gain[own].max():.1f}), {table['spectral'][own].median():.1f} "
                f"({int(own.sum())} acquisitions)"
            )
    return "\n".join(lines)


def main(out: Path | None) -> int:
    """Print all comparisons and their summary."""
    rows = []
    print(
        f"{'sample':24s} {'beam':15s} {'snr':>6s} {'density':>8s} {'expected':>8s} "
        f"{'spectral':>8s} {'interp.':>8s} seconds"
    )
    for sample, volume in volumes():
        for beam in BEAMS:
            found = compare(sample, volume, beam)
            rows.append(asdict(found))
            print(
                f"{sample:24s} {beam:15s} {found.snr:6.1f} {found.density:8.2f} "
                f"{found.expected:8.1f} {found.spectral:8.1f} {found.interpolation:8.1f} "
                f"{found.seconds:.2f}",
                flush=True,
            )
    table = pd.DataFrame(rows)
    if out is not None:
        table.to_csv(out, sep="\t", index=False)
    print(summarise(table))
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    sys.exit(main(parser.parse_args().out))
