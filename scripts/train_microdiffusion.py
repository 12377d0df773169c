"""Train the published diffusion model on one sample's own projections.

The network learns to denoise projections that are mixed with those of the INR, and is told which
projection is near and which depths it sees. All time points and channels of a sample share it. The
INR was fitted before, or is fitted anew in the same steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from besselflow.config import Inr, Microdiffusion, Tiling
from besselflow.device import describe_device, select_device
from besselflow.errors import InputError
from besselflow.inr.fit import InrProblem, finish_fit
from besselflow.job import logger, run_script
from besselflow.microdiffusion.images import smooth_neighbours, to_range
from besselflow.microdiffusion.joint import JointFits, prepare_joint
from besselflow.microdiffusion.training import (
    TrainedNetwork,
    TrainingImages,
    save_network,
    spread_out,
    train_network,
)
from besselflow.projection import AxialProjection
from besselflow.store import Projections, UnitWriter, open_projections, open_units, remove
from besselflow.tiling import Unit, list_units, unit_shape

# Bounds the memory of long time series, whose time points resemble each other.
_MOST_UNITS = 32


@dataclass(frozen=True)
class Joint:
    """What fitting the INR jointly takes and gives.

    Attributes
    ----------
    spectral_units : sequence of path
        Unit stores of the spectral Gaussian process, of all shards.
    inr : Inr
        Network and optimiser of the INR.
    units_path : path
        Unit store to write: the INR of all work units, as it came out.
    """

    spectral_units: Sequence[Path]
    inr: Inr
    units_path: Path


def main(
    projections: Path,
    inr_units: Sequence[Path],
    settings: Microdiffusion,
    tiling: Tiling,
    seed: int,
    threads: int,
    network_path: Path,
    joint: Joint | None = None,
) -> None:
    """Write the trained network.

    Parameters
    ----------
    projections : path
        Projection store.
    inr_units : sequence of path
        Unit stores of the INR, of all shards; not read where it is fitted jointly.
    settings : Microdiffusion
        Network and optimiser.
    tiling : Tiling
        How the sample is cut.
    seed : int
        Seed of the run.
    threads : int
        Threads on the CPU.
    network_path : path
        Weights to write. A checkpoint lies beside them until they are there.
    joint : Joint or None
        Fits the INR in the same steps.

    Raises
    ------
    InputError
        There are too many work units for a joint fit.
    """
    measured = open_projections(projections)
    device = select_device(threads)
    units = list_units(measured.data.shape, tiling.tile, tiling.halo)
    fits = None
    if joint is None:
        images = load_images(measured, inr_units, settings, tiling)
    else:
        measured.check_halo(units, tiling.halo)
        problems = load_problems(measured, joint.spectral_units, units)
        seeds = [seed + unit.index for unit in units]
        fits = prepare_joint(problems, settings, joint.inr, seeds, device)
        seen = [to_range(problem.projections, problem.scale) for problem in problems]
        shares = np.tile(shares_of(measured.operator), (len(units), 1))
        images = TrainingImages(np.concatenate(seen), None, shares)
    logger.info("training on %d projections of this sample", len(images.projections))
    checkpoint = Path(network_path).with_suffix(".checkpoint.pt")
    trained = train_network(images, settings, seed, checkpoint, device, fits)
    if joint is not None:
        size = unit_shape(units, measured.grid.n_slices)
        with UnitWriter(joint.units_path, units, size) as writer:
            write_fits(writer, units, fits, trained, {"hardware": describe_device(device)})
    save_network(network_path, trained, settings)
    remove(checkpoint)


def load_images(
    measured: Projections, inr_units: Sequence[Path], settings: Microdiffusion, tiling: Tiling
) -> TrainingImages:
    """Read the projections of work units, and image the INR of the same units through the beam."""
    units = list_units(measured.data.shape, tiling.tile, tiling.halo)
    inr = open_units(inr_units).arrays["volume"]
    operator = measured.operator
    seen, shown = [], []
    for unit in spread_out(units, _MOST_UNITS):
        scale = measured.attributes["scale"][unit.t][unit.c]
        seen.append(to_range(measured.unit_data(unit), scale))
        volume = np.asarray(inr[unit.index])
        if settings.neighbour_average:
            volume = smooth_neighbours(volume)
        shown.append(to_range(operator.forward(volume), scale))
    shares = np.tile(shares_of(operator), (len(seen), 1))
    return TrainingImages(np.concatenate(seen), np.concatenate(shown), shares)


def load_problems(
    measured: Projections, spectral_units: Sequence[Path], units: Sequence[Unit]
) -> list[InrProblem]:
    """Read what the INR of every unit is fitted to."""
    if len(units) > _MOST_UNITS:
        raise InputError(
            f"the sample has {len(units)} work units (time points, channels and tiles), and "
            f"`microdiffusion.inr_training: joint` fits at most {_MOST_UNITS} INRs at once; set it "
            f"to `pretrained`, or raise `tiling.tile` where the tiles are many"
        )
    spectral = open_units(spectral_units)
    return [InrProblem.of_unit(measured, spectral, unit) for unit in units]


def shares_of(operator: AxialProjection) -> np.ndarray:
    """Return the share of each slice in the light of each projection, (P, Z)."""
    return operator.matrix / operator.matrix.sum(axis=1, keepdims=True)


def write_fits(
    writer: UnitWriter,
    units: Sequence[Unit],
    fits: JointFits,
    trained: TrainedNetwork,
    facts: dict[str, str],
) -> None:
    """Write the volumes of INRs that were fitted jointly, one after the other."""
    curves = trained.info["inr_curves"]
    for unit, problem, prepared, curve in zip(units, fits.problems, fits.fits, curves, strict=True):
        fit = finish_fit(problem, fits.settings, prepared, curve, trained.info["seconds"])
        writer.write(unit, fit.record | facts, volume=fit.volume)


if __name__ == "__main__":
    snakemake = globals()["snakemake"]
    chosen = Microdiffusion(**snakemake.params.settings)
    run_script(
        snakemake,
        main,
        projections=snakemake.input.projections,
        inr_units=snakemake.input.get("inr", []),
        settings=chosen,
        tiling=Tiling(**snakemake.params.tiling),
        seed=snakemake.params.seed,
        threads=snakemake.threads,
        network_path=snakemake.output.network,
        joint=Joint(
            snakemake.input.spectral, Inr(**snakemake.params.inr), snakemake.output.joint_inr
        )
        if chosen.inr_training == "joint"
        else None,
    )
