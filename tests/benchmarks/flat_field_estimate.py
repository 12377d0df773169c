"""Ask how well a flat field is estimated from acquisitions of phantoms under known uneven light.

`python tests/benchmarks/flat_field_estimate.py` prints a table, light that is missing in a corner x
number of acquisitions: the error of the field, root mean square over pixels and repetitions, how
often it was certain, and its error where it was. The acquisitions show vessels, neurons and cells
in turn, 256 um wide, with the noise of the detector. Each is mirrored and moved at random, with
what leaves the image coming back at the other side, since phantoms of neurons have a cell body near
the middle. The last rows show them where they were drawn, under even light, as if people had
centred them.
"""

import argparse
from collections.abc import Iterator

import numpy as np

from besselflow.beam import box_profile
from besselflow.corrections.shading import Shading, estimate_shading
from besselflow.disturbance import uneven_light
from besselflow.phantoms import PHANTOMS, draw_phantom
from besselflow.simulate import Detector, Disturbance, simulate_acquisition, stage_positions

SHAPE, VOXEL_UM = (24, 128, 128), (2.0, 2.0, 2.0)
VIGNETTING = (0.0, 0.1, 0.25, 0.4)
COUNTS = (8, 16, 32, 64, 128)
_PIXELS = 64


def moved(volume: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mirror and move a volume at random along y and x."""
    volume = np.flip(volume, [axis for axis in (1, 2) if rng.random() < 0.5])
    return np.roll(volume, rng.integers(0, volume.shape[1:]), (1, 2))


def mean_images(
    volumes: dict[str, list[np.ndarray]], count: int, vignetting: float, placed: bool, seed: int
) -> np.ndarray:
    """Acquire volumes in turn, and return the mean image of each, shape (count, y, x).

    Volumes that are not placed are moved at random.
    """
    rng, beam, detector = np.random.default_rng(seed), box_profile(6.0), Detector()
    kinds, images = list(volumes), []
    positions = stage_positions(SHAPE[0], VOXEL_UM[0], beam, 6.0)
    for number in range(count):
        own = volumes[kinds[number % len(kinds)]]
        volume = own[number // len(kinds) % len(own)]
        counts = simulate_acquisition(
            volume if placed else moved(volume, rng),
            beam,
            positions,
            VOXEL_UM,
            detector,
            Disturbance(vignetting=vignetting),
            seed=int(rng.integers(2**31)),
        ).counts
        light = counts.mean(axis=0) - detector.offset
        joined = len(light) // _PIXELS
        images.append(light.reshape(_PIXELS, joined, _PIXELS, joined).mean(axis=(1, 3)))
    return np.stack(images)


def repeated(images: np.ndarray, count: int) -> Iterator[Shading]:
    """Yield the estimates from one set of `count` images after the other."""
    for start in range(0, len(images) - count + 1, count):
        yield estimate_shading(images[start : start + count])


def table_row(what: str, images: np.ndarray, count: int, vignetting: float) -> str:
    """Return a line of the table."""
    light = uneven_light(images.shape[1:], vignetting)
    found = list(repeated(images, count))
    errors = np.array([np.std(each.field(light.shape) / light) for each in found])
    certain = np.array([each.is_certain for each in found])
    rms = lambda values: f"{np.sqrt((values**2).mean()):.1%}" if len(values) else "-"  # noqa: E731
    cells = [what, str(count), f"{vignetting:.0%}", f"{light.std():.1%}", rms(errors)]
    cells += [rms(np.array([each.error for each in found])), f"{certain.sum()} of {len(found)}"]
    cells += [rms(errors[certain]), f"{np.median([each.agreement for each in found]):.2f}"]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--phantoms", type=int, default=24, help="of each kind")
    parser.add_argument("--acquisitions", type=int, default=384, help="of each light")
    chosen = parser.parse_args()
    volumes = {
        kind: [draw_phantom(kind, SHAPE, seed, VOXEL_UM) for seed in range(chosen.phantoms)]
        for kind in PHANTOMS
    }
    columns = ["samples", "acquisitions", "missing in a corner", "field varies by", "error"]
    columns += ["standard error", "certain", "error where certain", "agreement of halves"]
    print("| " + " | ".join(columns) + " |\n|" + " --- |" * len(columns))
    for vignetting in VIGNETTING:
        images = mean_images(volumes, chosen.acquisitions, vignetting, placed=False, seed=0)
        for count in COUNTS:
            print(table_row("all kinds", images, count, vignetting), flush=True)
    for kind, own in volumes.items():
        images = mean_images({kind: own}, len(own), 0.0, placed=True, seed=1)
        print(table_row(f"{kind}, where they were drawn", images, len(images), 0.0), flush=True)


if __name__ == "__main__":
    main()
