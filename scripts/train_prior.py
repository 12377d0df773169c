"""Train the diffusion prior on simulated acquisitions of training volumes."""

from collections.abc import Sequence
from pathlib import Path

from besselflow.config import Prior, Refine
from besselflow.device import select_device
from besselflow.diffusion.assessment import assess
from besselflow.diffusion.geometry import ANY
from besselflow.diffusion.prior import save_prior
from besselflow.diffusion.simulation import SimulatedAcquisition
from besselflow.diffusion.training import train_prior
from besselflow.job import logger, run_script
from besselflow.store import remove, write_json


def main(
    folders: Sequence[Path],
    geometry: dict | None,
    settings: Prior,
    sampler: Refine,
    seed: int,
    threads: int,
    prior_path: Path,
    info_path: Path,
) -> None:
    """Write the trained prior.

    Parameters
    ----------
    folders : sequence of path
        Folders of simulated acquisitions.
    geometry : dict or None
        Beam, step and voxels, for the record; None for any.
    settings : Prior
        Network and optimiser.
    sampler : Refine
        How samples are drawn, for the calibration of their spread.
    seed : int
        Seed of the run.
    threads : int
        Threads on the CPU.
    prior_path, info_path : path
        Weights, and facts about the training. A checkpoint lies beside them until they are there,
        and the weights as they were trained stay there, so that nothing is trained again where
        only the sampler of the calibration has changed.
    """
    device = select_device(threads)
    files = sorted(file for folder in folders for file in Path(folder).glob("*.npz"))
    acquisitions = {file.stem: SimulatedAcquisition.load(file) for file in files}
    logger.info("training on %s", ", ".join(acquisitions))
    checkpoint, kept = (Path(prior_path).with_suffix(s) for s in (".checkpoint.pt", ".trained.pt"))
    denoiser, info = train_prior(acquisitions, settings, seed, checkpoint, device, kept)
    info["geometry"] = geometry or ANY
    prior = assess(denoiser, info, acquisitions, sampler, seed, device)
    save_prior(prior_path, prior)
    write_json(info_path, prior.info)
    remove(checkpoint)


if __name__ == "__main__":
    snakemake = globals()["snakemake"]
    run_script(
        snakemake,
        main,
        folders=snakemake.input,
        geometry=snakemake.params.geometry,
        settings=Prior(**snakemake.params.settings),
        sampler=Refine(**snakemake.params.sampler),
        seed=snakemake.params.seed,
        threads=snakemake.threads,
        prior_path=snakemake.output.prior,
        info_path=snakemake.output.info,
    )
