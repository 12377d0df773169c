"""Draw one picture of a finished sample: every method beside the ground truth, in two sections.

usage: python scripts/draw_overview.py RESULTS/SAMPLE OUT.png
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from besselflow.store import atomic_path, open_projections, open_volume

_TITLES = {
    "interpolation": "interpolation",
    "spectral": "spectral Gaussian process",
    "inr": "INR",
    "microdiffusion": "MicroDiffusion",
    "diffusion": "INR + diffusion",
    "truth": "ground truth",
}


def main(sample: Path, picture: Path) -> None:
    """Write the picture.

    Parameters
    ----------
    sample : path
        Folder of a finished sample.
    picture : path
        PNG file to write.
    """
    measured = open_projections(sample / "projections.zip")
    stores = {path.name.split(".")[0]: path for path in (sample / "methods").glob("*.ozx")}
    final = open_volume(sample / "volume.ome.zarr").attributes["method"]
    stores |= {final: sample / "volume.ome.zarr", "truth": sample / "ground_truth.ozx"}
    volumes = {
        name: np.asarray(open_volume(stores[name]).data[0, 0])
        for name in _TITLES
        if name in stores and stores[name].exists()
    }
    reference = volumes.get("truth", volumes[final])
    # Midway between two projections the depth is hardest to recover.
    positions, centres = measured.positions_um, measured.grid.centres_um
    middle = len(positions) // 2
    z = int(np.abs(centres - positions[middle - 1 : middle + 1].mean()).argmin())
    row = int(reference.max(axis=(0, 2)).argmax())
    high = float(np.percentile(reference, 99.7))
    figure = Figure(figsize=(2.1 * (len(volumes) + 1), 3.6), facecolor="white", layout="tight")
    axes = figure.subplots(2, len(volumes) + 1, height_ratios=[1, len(centres) / len(reference[0])])
    raw = np.asarray(measured.data[0, 0])
    nearest = np.abs(centres[:, None] - positions[None, :]).argmin(axis=1)
    steps = raw[nearest, row]
    panels = [("projections", raw[middle], steps)]
    panels += [(_TITLES[name], volume[z], volume[:, row]) for name, volume in volumes.items()]
    for (top, bottom), (title, lateral, axial) in zip(axes.T, panels, strict=True):
        top.set_title(title, fontsize=10)
        for axis, image in ((top, lateral), (bottom, axial)):
            axis.imshow(image, cmap="gray", vmin=0, vmax=high, interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
    axes[0, 0].set_ylabel("x-y slice")
    axes[1, 0].set_ylabel("x-z section")
    with atomic_path(picture) as temporary:
        figure.savefig(temporary, format="png", dpi=100)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sample", type=Path, help="folder of a sample, such as demo/results/neuron")
    parser.add_argument("picture", type=Path, help="PNG file to write")
    arguments = parser.parse_args()
    main(arguments.sample, arguments.picture)
