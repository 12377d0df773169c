"""Calibrate a prior anew, on phantoms that it has not seen.

`python tests/benchmarks/recalibrate_prior.py PRIOR OUTPUT --scratch FOLDER` simulates acquisitions
of phantoms by the script of the workflow's rule, with any beam, draws samples, and compares spread,
change of the INR and deviations with the errors of the mean (`besselflow.diffusion.calibration`).
It writes the prior with what it found, and everything else as it was: for a prior that was trained
before a calibration knew as much. For each phantom, it prints the coverage of the 90 % intervals
with a calibration from all others, for some weights of the change, and as the prior had it before.
What is in the scratch folder is not simulated again.
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
WEIGHTS = (0, 0.1, 0.2, 0.5, 1, 2)


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
        problem = problem_of(part)
        found = sample_posterior(problem, bare, Refine(), number, device)
        change, deviation = found.mean - part.inr, found.sample - found.mean
        error = found.mean - part.truth
        parts.append((error, found.spread, change, deviation, problem.sparseness))
        names.append(file.stem)
    before = [coverage(part, prior.calibration) for part in parts]
    print("coverage of the 90 % intervals, each phantom with a calibration from all others")
    print("weight of the change:", *(f"{weight:g}" for weight in WEIGHTS), "| before")
    by_weight = [coverages(parts, weight) for weight in WEIGHTS]
    for name, *found in zip(names, *by_weight, before, strict=True):
        print(f"{name}:", *(f"{each:.1%}" for each in found))
    *volumes, known = zip(*parts, strict=True)
    calibration = Calibration.fit(*volumes, sparseness=known)
    print(f"exponent of the sparseness: {calibration.exponent:.2f}")
    print("gains:", ", ".join(f"{gain:.2f}" for gain in calibration.gains))
    save_prior(output, replace(prior, calibration=calibration))


def coverages(parts: Sequence[Sequence[np.ndarray]], weight: float) -> list[float]:
    """Return the coverage of each part by a calibration from all others."""
    found = []
    for number, part in enumerate(parts):
        others = parts[:number] + parts[number + 1 :]
        errors, spreads, changes, _, known = zip(*others, strict=True)
        calibration = Calibration.fit(
            errors, spreads, changes, change_weight=weight, sparseness=known
        )
        found.append(coverage(part, calibration))
    return found


def coverage(part: Sequence[np.ndarray], calibration: Calibration) -> float:
    """Return the share of errors that lie within the 90 % intervals."""
    error, spread, change, _, known = part
    std = calibration(spread, change, known)
    return float(np.mean(np.abs(error) <= COVERAGE["coverage_90"] * std))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prior", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    main(options.prior, options.output, options.scratch, options.threads)
