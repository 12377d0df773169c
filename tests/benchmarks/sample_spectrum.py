"""Compare the power spectrum of one sample of the posterior with that of the ground truth.

A posterior mean is smoother than the structure that it estimates; a single sample should look like
the structure itself. For every sample with ground truth and a refined volume, the power in rings of
spatial frequency is printed in decibels relative to the ground truth's: 0 is alike, less is too
smooth, more is too rough. It ends with the scores of the prior alone, before any check.
"""

import argparse
import sys
from pathlib import Path

import dask.array as da
import numpy as np

from besselflow.metrics import score_volume, scored_slices
from besselflow.store import open_projections, open_units, open_volume

RESULTS = Path(__file__).parents[2] / "bench" / "results"
RINGS = np.linspace(0, 0.5, 11)
"""Bounds of the rings in cycles per voxel; 0.5 is half the sampling frequency."""
CLOSE_DB = 1.0


def ring_power(volume: np.ndarray) -> np.ndarray:
    """Return the power in every ring of spatial frequency, shape (10,).

    Parameters
    ----------
    volume : numpy.ndarray, shape (Z, Y, X)
        Its mean is taken off, and its ends are faded out (Hann), so that they don't ring.
    """
    faded = volume - volume.mean()
    for axis, length in enumerate(volume.shape):
        window = np.hanning(length + 2)[1:-1]
        faded = faded * np.expand_dims(window, [a for a in range(3) if a != axis])
    power = np.abs(np.fft.fftn(faded)) ** 2
    axes = np.meshgrid(*[np.fft.fftfreq(n) for n in volume.shape], indexing="ij")
    radius = np.sqrt(sum(axis**2 for axis in axes))
    return np.histogram(radius, RINGS, weights=power)[0]


def decibels(volume: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the power of a volume relative to the ground truth's in every ring, shape (10,)."""
    return 10 * np.log10(ring_power(volume) / ring_power(truth))


def spectra(folder: Path) -> dict[str, np.ndarray]:
    """Return the relative power of the first work unit's volumes of a sample.

    Parameters
    ----------
    folder : path
        ``results/SAMPLE``, with one work unit per time point and channel.
    """
    measured = open_projections(folder / "projections.zip")
    scored = scored_slices(measured.grid, measured.positions_um)
    truth = np.asarray(open_volume(folder / "ground_truth.ozx").data[0, 0])[scored]
    prior = open_units([folder / "units" / "prior-0.zip"]).arrays
    volumes = {"sample": prior["sample"], "posterior mean": prior["volume"]}
    for method in ("inr", "diffusion"):
        volumes[method] = open_units([folder / "units" / f"{method}-0.zip"]).arrays["volume"]
    units = {name: np.asarray(array[0])[scored] for name, array in volumes.items()}
    if units["sample"].shape != truth.shape:
        raise ValueError(f"{folder} was cut into tiles; compare a sample of a single tile")
    return {name: decibels(unit, truth) for name, unit in units.items()}


def prior_scores(folder: Path) -> dict[str, float]:
    """Return the scores of what the prior made of the first work unit of a sample."""
    measured = open_projections(folder / "projections.zip")
    truth = open_volume(folder / "ground_truth.ozx").data[:1, :1]
    unit = open_units([folder / "units" / "prior-0.zip"]).arrays
    volume, std = (
        da.from_array(np.asarray(unit[name][0])[None, None], chunks=truth.chunksize)
        for name in ("volume", "std")
    )
    scored = scored_slices(measured.grid, measured.positions_um)
    return score_volume(volume, truth, scored, 7, std).summary


def format_spectra(name: str, found: dict[str, np.ndarray]) -> str:
    """Return the rings of a sample as text, and up to which frequency the sample is alike."""
    width = max(map(len, found))
    lines = [f"{name}: power relative to the ground truth (dB), by cycles per voxel"]
    lines.append(" " * (width + 2) + " ".join(f"{bound:6.2f}" for bound in RINGS[1:]))
    for label, values in found.items():
        lines.append(f"  {label:{width}s}" + " ".join(f"{value:6.2f}" for value in values))
    far = np.flatnonzero(np.abs(found["sample"]) > CLOSE_DB)
    reach = RINGS[far[0]] if far.size else RINGS[-1]
    lines.append(f"  a sample is within {CLOSE_DB:g} dB up to {reach:.2f} cycles per voxel")
    return "\n".join(lines)


def main(results: Path) -> int:
    """Print the spectra of all refined samples; return the exit status."""
    folders = [
        folder
        for folder in sorted(results.glob("*"))
        if (folder / "units" / "prior-0.zip").exists() and (folder / "ground_truth.ozx").exists()
    ]
    if not folders:
        print(f"{results} holds no refined sample with ground truth; run make bench first")
        return 1
    for folder in folders:
        print(format_spectra(folder.name, spectra(folder)))
        scores = prior_scores(folder)
        print(
            f"  the prior alone: {scores['psnr']:.2f} dB, 90 % intervals hold "
            f"{scores['coverage_90']:.1%}"
        )
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", nargs="?", type=Path, default=RESULTS, help="folder of results")
    sys.exit(main(parser.parse_args().results))
