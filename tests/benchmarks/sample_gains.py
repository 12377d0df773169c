"""Measure on phantoms that a prior has not seen how its samples deviate from their mean.

`python tests/benchmarks/sample_gains.py PRIOR OUTPUT --scratch FOLDER` simulates acquisitions of
phantoms by the script of the workflow's rule, with any beam, draws samples, and compares their
deviations with the errors of the mean, ring by ring (`besselflow.diffusion.calibration`). It writes
the prior with these gains, and everything else as it was: for a prior that was trained before there
were any. What is in the scratch folder is not simulated again.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

import simulate_training
from besselflow.config import Inr, Refine, Spectral
from besselflow.diffusion.assessment import problem_of, unseen_part
from besselflow.diffusion.prior import load_prior, save_prior
from besselflow.diffusion.sampling import sample_posterior
from besselflow.diffusion.simulation import SimulatedAcquisition

SEED, PHANTOMS, WINDOW = 777, 12, 64


def main(path: Path, output: Path, scratch: Path, threads: int) -> None:
    """Write a prior with gains.

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
    bare, errors, spreads, deviations = replace(prior, calibration=None), [], [], []
    for number, file in enumerate(sorted(scratch.glob("*/*.npz"))):
        part, _ = unseen_part(SimulatedAcquisition.load(file), WINDOW)
        found = sample_posterior(problem_of(part), bare, Refine(), number, device)
        errors.append(found.mean - part.truth)
        spreads.append(found.spread)
        deviations.append(found.sample - found.mean)
    calibration = prior.calibration.with_gains(errors, spreads, deviations)
    print("gains:", ", ".join(f"{gain:.2f}" for gain in calibration.gains))
    save_prior(output, replace(prior, calibration=calibration))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prior", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    main(options.prior, options.output, options.scratch, options.threads)
