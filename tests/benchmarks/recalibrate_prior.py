"""Calibrate a prior anew, on phantoms that it has not seen.

`python tests/benchmarks/recalibrate_prior.py PRIOR OUTPUT --scratch FOLDER` simulates acquisitions
of phantoms by the script of the workflow's rule, with any beam, draws samples, and compares spread,
change of the INR and deviations with the errors of the mean (`besselflow.diffusion.calibration`).
It writes the prior with what it found, and everything else as it was: for a prior that was trained
before a calibration knew as much. For each phantom, it prints the coverage of the 90 % intervals
with a calibration from all others, and as the prior had it before. What is in the scratch folder is
not simulated again.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import simulate_training
from besselflow.config import Inr, Refine, Spectral
from besselflow.diffusion.assessment import problem_of, unseen_part
from besselflow.diffusion.calibration import Calibration
from besselflow.diffusion.prior import load_prior, save_prior
from besselflow.diffusion.sampling import sample_posterior
from besselflow.diffusion.simulation import SimulatedAcquisition
from besselflow.metrics.scores import COVERAGE

SEED, PHANTOMS, WINDOW = 777, 12, 64


def main(path: Path, output: Path, scratch: Path, threads: int) -> None:
    """Write a prior with another calibration.

    Parameters
    ----------
    path, output : path
        Calibrated prior to read, and where to write it.
    scratch : path
        Folder for the simulated acquisitions.
    threads : int
        Threads on the CPU.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    for number in range(PHANTOMS):
        folder = scratch / str(number)
        if not folder.exists():
            simulate_training.main(number, None, Spectral(), Inr(), SEED, threads, folder)
    torch.set_num_threads(threads)
    device = torch.device("cpu")
    prior = load_prior(path, device)
    bare, parts, names = replace(prior, calibration=None), [], []
    for number, file in enumerate(sorted(scratch.glob("*/*.npz"))):
        part, _ = unseen_part(SimulatedAcquisition.load(file), WINDOW)
        found = sample_posterior(problem_of(part), bare, Refine(), number, device)
        change, deviation = found.mean - part.inr, found.sample - found.mean
        parts.append((found.mean - part.truth, found.spread, change, deviation))
        names.append(file.stem)
    print("coverage of the 90 % intervals: before, and by all others")
    for number, (name, part) in enumerate(zip(names, parts, strict=True)):
        others = Calibration.fit(*zip(*(parts[:number] + parts[number + 1 :]), strict=True))
        before, by_others = (coverage(part, each) for each in (prior.calibration, others))
        print(f"{name}: {before:.1%}, {by_others:.1%}")
    calibration = Calibration.fit(*zip(*parts, strict=True))
    print("gains:", ", ".join(f"{gain:.2f}" for gain in calibration.gains))
    save_prior(output, replace(prior, calibration=calibration))


def coverage(part: Sequence[np.ndarray], calibration: Calibration) -> float:
    """Return the share of errors that lie within the 90 % intervals."""
    error, spread, change, _ = part
    return float(np.mean(np.abs(error) <= COVERAGE["coverage_90"] * calibration(spread, change)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prior", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    main(options.prior, options.output, options.scratch, options.threads)
