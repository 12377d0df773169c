"""Decide how far the prior is followed on a sample, and write the volumes of `diffusion`.

Of the volumes of the prior and of the INR, the mixture is taken that predicts best what was kept
from both, with less of the prior the less certain that is, so that one that does not know the
structures does no harm.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from besselflow.config import Refine, Tiling
from besselflow.diffusion.safeguard import PRIOR, cautious_weights, mix
from besselflow.held_out import ask, deciding, questions_of, take
from besselflow.job import logger, run_script
from besselflow.noise import pixel_variance
from besselflow.store import Projections, UnitWriter, column_edge, open_projections, open_units
from besselflow.tiling import blend_units, list_units, unit_shape, units_of_shard


@dataclass(frozen=True)
class Sources:
    """Unit stores of what is mixed.

    Attributes
    ----------
    prior : path
        What sampling from the prior gave.
    untrained : dict
        Method -> units of a method without training; `inr` is among them.
    spectral : path
        Units of the spectral Gaussian process.
    """

    prior: Path
    untrained: dict[str, Path]
    spectral: Path


@dataclass(frozen=True)
class Check:
    """What was reconstructed from the thinned acquisition.

    Attributes
    ----------
    projections : path
        Thinned projection store.
    sources : Sources
        Its units.
    tiling : Tiling
        How it was cut.
    """

    projections: Path
    sources: Sources
    tiling: Tiling


def main(
    projections: Path,
    sources: Sources,
    acquisition: Path,
    check: Check | None,
    settings: Refine,
    tiling: Tiling,
    shard: int,
    units_path: Path,
) -> None:
    """Write the units of one shard: mean and standard deviation.

    Parameters
    ----------
    projections : path
        Projection store that the units were reconstructed from.
    sources : Sources
        Units of the shard.
    acquisition : path
        Projection store of the whole acquisition, which holds the withheld projections.
    check : Check or None
        The thinned acquisition; None where no projection could be withheld.
    settings : Refine
        How far the prior is trusted.
    tiling : Tiling
        How the sample is cut.
    shard : int
        Which of the shards.
    units_path : path
        Unit store to write.
    """
    measured = open_projections(projections)
    weights = decide(settings, check, acquisition, measured.data.shape[1], list(sources.untrained))
    units = list_units(measured.data.shape, tiling.tile, tiling.halo)
    mine = units_of_shard(units, shard, tiling.shards, tiling.chain)
    prior, spectral = open_units([sources.prior]), open_units([sources.spectral])
    untrained = {name: open_units([path]) for name, path in sources.untrained.items()}
    size = unit_shape(units, measured.grid.n_slices)
    with UnitWriter(units_path, mine, size, names=("volume", "std")) as writer:
        for unit in mine:
            volumes = {PRIOR: prior.arrays["volume"][unit.index]}
            volumes |= {name: each.arrays["volume"][unit.index] for name, each in untrained.items()}
            record = prior.records[unit.index]
            std = np.asarray(prior.arrays["std"][unit.index])
            # Where data contradict it beyond its training, it does not know how wrong it is.
            doubted = record["assumed_error"] > record["training_error"]
            if doubted:
                std = np.maximum(std, np.asarray(spectral.arrays["std"][unit.index]))
            volumes = {name: np.asarray(each) for name, each in volumes.items()}
            mean, std = mix(volumes, std, weights[unit.c])
            checked = check is not None and settings.trust == "auto"
            record |= {"weights": weights[unit.c], "checked": checked, "doubted": doubted}
            writer.write(unit, record, volume=mean, std=std)


def decide(
    settings: Refine, check: Check | None, acquisition: Path, channels: int, untrained: list[str]
) -> list[dict[str, float]]:
    """Return the weights of each channel."""
    nothing = dict.fromkeys([PRIOR, *untrained], 0.0)
    if settings.trust != "auto":
        share = float(settings.trust)
        return [nothing | {PRIOR: share, "inr": 1 - share} for _ in range(channels)]
    if check is None:
        logger.warning("no projection could be withheld to check the prior with: the INR is taken")
        return [nothing | {"inr": 1.0} for _ in range(channels)]
    found = weights_by_prediction(check, open_projections(acquisition))
    for channel, weights in enumerate(found):
        shares = ", ".join(f"{name} {share:.2f}" for name, share in weights.items())
        logger.info("channel %d: by what was withheld, the mixture is %s", channel, shares)
    return found


def weights_by_prediction(check: Check, acquisition: Projections) -> list[dict[str, float]]:
    """Find the mixture of each channel that predicts best what its members did not see."""
    thinned = open_projections(check.projections)
    taken = thinned.attributes["held_out"]
    region = (slice(*taken["y"]), slice(*taken["x"]))
    every = list(range(len(acquisition.positions_um)))
    whole = take(acquisition, every, taken["t"], region)
    operator, questions = whole.operator, questions_of(taken)
    question = questions[deciding(questions)]
    tiling, shape = check.tiling, thinned.data.shape
    units = list_units(shape, tiling.tile, tiling.halo)
    shape = (*shape[:2], thinned.grid.n_slices, *shape[3:])
    stores = {PRIOR: check.sources.prior, **check.sources.untrained}
    volumes = {
        name: blend_units(
            open_units([path]).arrays["volume"], units, shape, tiling.halo, column_edge(shape[2])
        )
        for name, path in stores.items()
    }
    spectral = open_units([check.sources.spectral])
    expected = blend_units(
        spectral.arrays["volume"], units, shape, tiling.halo, column_edge(shape[2])
    )
    weights = []
    for channel in range(shape[1]):
        record = next(spectral.records[unit.index] for unit in units if unit.c == channel)
        light = operator.forward(np.asarray(expected[0, channel]))
        masked = whole.masked_at(0, channel, slice(None), slice(None))
        weights.append(
            cautious_weights(
                {
                    name: ask(question, operator.forward(np.asarray(volume[0, channel])))
                    for name, volume in volumes.items()
                },
                ask(question, np.asarray(whole.data[0, channel])),
                ask(
                    np.square(question),
                    pixel_variance(
                        light,
                        record["noise_variance"],
                        record["mean"],
                        masked,
                        operator.noise_factors,
                    ),
                ),
            )
        )
    return weights


def sources_of(paths, prefix: str = "") -> Sources:
    """Sort the inputs of the rule."""
    prior, inr, spectral = (paths.get(prefix + name) for name in ("prior", "inr", "spectral"))
    return Sources(prior, {"inr": inr}, spectral)


if __name__ == "__main__":
    snakemake = globals()["snakemake"]
    sources, params = snakemake.input, snakemake.params
    thinned = sources.get("thinned_projections")
    run_script(
        snakemake,
        main,
        projections=sources.projections,
        sources=sources_of(sources),
        acquisition=sources.get("acquisition"),
        check=Check(thinned, sources_of(sources, "thinned_"), Tiling(**params.thinned_tiling))
        if thinned
        else None,
        settings=Refine(**params.settings),
        tiling=Tiling(**params.tiling),
        shard=int(snakemake.wildcards.shard),
        units_path=snakemake.output.units,
    )
