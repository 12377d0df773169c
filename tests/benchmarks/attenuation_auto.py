"""Ask how often `corrections.depth_attenuation: auto` finds an attenuation, where there is one.

`python tests/benchmarks/attenuation_auto.py` prints a table, kind of volume x attenuation length:
in how many acquisitions it was certain, how far off the lengths then were, and how much brightness
the volumes lose from the first to the last projection by themselves. The volumes are phantoms, and
those of `../shared/bench/train`, each seen along z, y and x; the beam is a box of 6 slices, in
steps of 3 (overlapping) or 6.
"""

import argparse
from collections.abc import Iterator

import numpy as np
import tifffile
from corrections_gain import SHAPE, TRAIN, VOXEL_UM

from besselflow.beam import box_profile
from besselflow.corrections.attenuation import estimate_fall
from besselflow.phantoms import PHANTOMS, draw_phantom
from besselflow.simulate import Detector, Disturbance, simulate_acquisition, stage_positions

LENGTHS_UM = (np.inf, 150.0, 60.0, 30.0)
_OFFSET = 100.0


def volumes(phantoms: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield volumes with their kind."""
    for kind in PHANTOMS:
        for seed in range(phantoms):
            yield f"phantom {kind}", draw_phantom(kind, SHAPE, seed, VOXEL_UM)
    for path in sorted(TRAIN.glob("*.tif")):
        volume = np.clip(tifffile.imread(path).astype(np.float32) - _OFFSET, 0, None)
        for axis in range(3):
            yield path.name.split("-")[0], np.moveaxis(volume / volume.max(), axis, 0)


def acquire(volume: np.ndarray, step_um: float, length_um: float) -> tuple[np.ndarray, np.ndarray]:
    """Return photons (P, Y, X) and stage positions (P,)."""
    beam, detector = box_profile(6.0), Detector()
    positions = stage_positions(len(volume), VOXEL_UM[0], beam, step_um)
    disturbance = Disturbance(attenuation_um=length_um)
    counts = simulate_acquisition(volume, beam, positions, VOXEL_UM, detector, disturbance).counts
    return (counts - detector.offset) / detector.gain, positions


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=float, nargs="+", default=[3.0, 6.0], help="in um")
    parser.add_argument("--phantoms", type=int, default=12, help="of each kind")
    chosen = parser.parse_args()
    found: dict[tuple, list] = {}
    for kind, volume in volumes(chosen.phantoms):
        for step in chosen.steps:
            for length in LENGTHS_UM:
                photons, positions = acquire(volume, step, length)
                fall = estimate_fall([photons], positions)
                found.setdefault((kind, step, length), []).append((fall, np.ptp(positions)))
    columns = ["volumes", "step (um)", "length (um)", "lost", "certain", "error of the length"]
    print("| " + " | ".join([*columns, "largest loss found"]) + " |\n|" + " --- |" * 7)
    for (kind, step, length), results in found.items():
        falls, depths = zip(*results, strict=True)
        certain = [fall for fall in falls if fall.is_certain]
        errors = [abs(fall.length_um / length - 1) for fall in certain if np.isfinite(length)]
        largest = max(-np.expm1(-abs(f.rate_per_um) * d) for f, d in results)
        cells = [kind, f"{step:g}", f"{length:g}", f"{-np.expm1(-np.mean(depths) / length):.0%}"]
        cells += [f"{len(certain)} of {len(falls)}"]
        cells += [f"{np.median(errors):.0%}" if errors else "-", f"{largest:.0%}"]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
