"""Count in how many acquisitions flicker of lines is found, where there is some and where not.

`python tests/benchmarks/line_noise_certainty.py` prints a table, flicker x light. The volumes are a
phantom of each kind and, where they are there, the first slices of all volumes of
`../shared/bench/train`, each also turned by 90 degrees; the beam is a box of 6 slices, in steps of
3 and 6.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile

from besselflow.beam import box_profile
from besselflow.corrections import counts_to_intensity
from besselflow.corrections.line_noise import LineNoise, estimate_line_noise
from besselflow.phantoms import PHANTOMS, draw_phantom
from besselflow.simulate import Detector, Disturbance, simulate_acquisition, stage_positions

TRAIN = Path(__file__).parents[3] / "shared" / "bench" / "train"
BEAM = box_profile(6.0)
VOXEL_UM = (1.0, 1.0, 1.0)
STEPS_UM = (3.0, 6.0)
PHOTONS = (300.0, 30.0)
FLICKER = (0.0, 0.03, 0.1)
_SLICES = 48
_OFFSET = 100.0


def volumes() -> Iterator[np.ndarray]:
    """Yield phantoms and parts of training volumes, each as it is and turned."""
    for kind in PHANTOMS:
        volume = draw_phantom(kind, (64, 96, 96), 11, VOXEL_UM)
        yield from (volume, volume.swapaxes(1, 2))
    for path in sorted(TRAIN.glob("*.tif")):
        volume = tifffile.imread(path)[:_SLICES].astype(np.float32) - _OFFSET
        volume = np.clip(volume / volume.max(), 0, 1)
        yield from (volume, volume.swapaxes(1, 2))


def find(volume: np.ndarray, step_um: float, photons: float, flicker: float) -> LineNoise:
    """Simulate an acquisition, and estimate its flicker."""
    positions = stage_positions(len(volume), VOXEL_UM[0], BEAM, step_um)
    detector = Detector(photons=photons)
    disturbance = Disturbance(lines=flicker)
    acquisition = simulate_acquisition(
        volume, BEAM, positions, VOXEL_UM, detector, disturbance, seed=3
    )
    images = counts_to_intensity(acquisition.counts, detector.offset, detector.gain)
    measured = [(image, np.ones(image.shape, bool)) for image in images]
    return estimate_line_noise(itertools.pairwise(measured))


def main() -> None:
    """Print the table."""
    columns = ["flicker", "photons", "acquisitions", "corrected", "found, if corrected"]
    columns += ["largest variance / error", "largest second / fourth order, if corrected"]
    columns += ["largest offset / gain, if corrected"]
    print("| " + " | ".join(columns) + " |\n|" + " --- |" * len(columns))
    for flicker, photons in itertools.product(FLICKER, PHOTONS):
        found = [find(v, step, photons, flicker) for v in volumes() for step in STEPS_UM]
        certain = [noise for noise in found if noise.why_not is None]
        spreads = [noise.spread for noise in certain]
        cells = [f"{flicker:.0%}", f"{photons:g}", str(len(found)), str(len(certain))]
        cells.append(f"{min(spreads):.1%} to {max(spreads):.1%}" if spreads else "-")
        cells.append(f"{max(noise.spread**2 / noise.error for noise in found):.1f}")
        for ratios in (
            [noise.coarse / noise.variance for noise in certain],
            [noise.offset for noise in certain],
        ):
            cells.append(f"{max(ratios):.2f}" if ratios else "-")
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
