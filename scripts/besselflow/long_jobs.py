"""Jobs that would outlast what clusters allow, and how many shards would shorten them."""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping
from dataclasses import dataclass

from besselflow.config import BASELINES, Config
from besselflow.extent import Extent
from besselflow.resources import Need, need_of
from besselflow.tiling import list_units

USUAL_LIMIT_MINUTES = 2 * 24 * 60
"""The longest time that many clusters give a job: for one that does not tell."""

_NETWORKS = {
    "inr": ("fit_inr",),
    "diffusion": ("fit_inr", "refine"),
    "microdiffusion": ("train_microdiffusion", "sample_microdiffusion"),
}
"""The jobs of the methods with a network, which are called like their rules."""

_BEFORE, _BASELINES, _SAFEGUARD, _AFTER = "before", "baselines", "safeguard", "after"


@dataclass(frozen=True, order=True)
class _Job:
    """Minutes that a job asks for at its second and first attempt, and its longest stage."""

    again: int
    first: int
    what: str


def describe_long_jobs(
    extents: Mapping[str, Extent], config: Config, known_limit: float | None = None
) -> str | None:
    """Warn of jobs that a cluster may refuse or end for the time that they take by our estimate.

    What counts is the time of a second attempt, for a job whose first was too short.

    Parameters
    ----------
    extents : mapping of str to Extent
        Sample -> its size.
    config : Config
        Configuration of the run.
    known_limit : float or None
        The most minutes that the cluster gives to any job, `math.inf` for any number; None where
        it does not tell.

    Returns
    -------
    str or None
        One sentence about the sample whose job takes longest, with a number of shards that would
        do for all, as far as shards help; None where no job takes too long.
    """
    shards = config.tiling.shards
    limit = USUAL_LIMIT_MINUTES if known_limit is None else known_limit
    longest = {name: _longest_job(extent, config, shards) for name, extent in extents.items()}
    long = [name for name, job in longest.items() if job.again > limit]
    if not long:
        return None
    worst = max(long, key=longest.__getitem__)
    others = f" (and those of {len(long) - 1} more)" if len(long) > 1 else ""
    wanted = max(shards, *(_fewest_shards(extents[name], config, limit) for name in long))
    left = max(_longest_job(extents[name], config, wanted) for name in long)
    remedies = []
    if wanted > shards:
        remedies.append(f"set tiling.shards to {wanted} or more in the configuration")
    if left.again > limit:
        remedies.append(
            f"ask for a partition that allows more (the job {left.what} asks for up to "
            f"{left.again} minutes, however many shards there are)"
        )
    most = f"{limit:g} minutes ({limit / 60:.3g} hours)"
    ends = "many clusters end jobs after" if known_limit is None else "no partition gives more than"
    return (
        f'The job {longest[worst].what} of the sample "{worst}"{others} asks for '
        f"{longest[worst].first} minutes, and for {longest[worst].again} if it has to be repeated, "
        f"but {ends} {most}; {', and '.join(remedies)}."
    )


def _longest_job(extent: Extent, config: Config, shards: int) -> _Job:
    return max(_jobs(extent, config, shards).values())


def _jobs(extent: Extent, config: Config, shards: int) -> dict[str, _Job]:
    """Return the jobs of a sample as `workflow/rules/cluster.smk` groups them, by their names.

    What is withheld from a sample is small, and left out. A group asks for the sum of its times.
    """
    baselines = [method for method in config.methods if method in BASELINES]
    safeguard = ["safeguard"] if "diffusion" in config.methods else []
    groups = {
        _BEFORE: ["preprocess"],
        _BASELINES: baselines,
        _SAFEGUARD: safeguard,
        _AFTER: ["convert_ground_truth", "assemble", "validate", "evaluate", "report_sample"],
    }
    if shards == 1:
        groups[_BEFORE] += groups.pop(_BASELINES)
        groups[_AFTER] += groups.pop(_SAFEGUARD)
    groups |= {stage: [stage] for method in config.methods for stage in _NETWORKS.get(method, ())}
    found = {}
    for name, stages in groups.items():
        if not stages:
            continue
        minutes = {stage: need_of(stage, extent, config, shards).minutes for stage in stages}
        longest = max(minutes, key=minutes.get)
        rule = f"reconstruct_baseline ({longest})" if longest in BASELINES else longest
        total = Need(0.0, sum(minutes.values()))
        what = rule if len(stages) == 1 else f"with {rule}"
        found[name] = _Job(total.at(2)[1], total.at(1)[1], what)
    return found


def _fewest_shards(extent: Extent, config: Config, limit: float) -> int:
    """Return how many shards shorten all jobs enough, or as much as any number of them does."""
    shape = (extent.times, extent.channels, extent.projections, extent.rows, extent.columns)
    tiles = list_units((1, extent.channels, *shape[2:]), config.tiling.tile, config.tiling.halo)
    # Time points in a row stay in one job.
    most = len(tiles) * math.ceil(extent.times / config.tiling.chain)
    least = {name: job.again for name, job in _jobs(extent, config, most).items()}

    def do(shards: int) -> bool:
        return all(
            job.again <= max(limit, least.get(name, 0))
            for name, job in _jobs(extent, config, shards).items()
        )

    return 1 + bisect.bisect_left(range(1, most), True, key=do)
