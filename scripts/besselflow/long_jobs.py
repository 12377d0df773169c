"""Jobs that would outlast what clusters allow, and how many shards would shorten them."""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping

from besselflow.config import BASELINES, Config
from besselflow.resources import Extent, need_of
from besselflow.tiling import list_units

USUAL_LIMIT_MINUTES = 2 * 24 * 60
"""The longest time that many clusters give a job."""

_JOBS = {
    "inr": ("fit_inr",),
    "diffusion": ("fit_inr", "refine", "safeguard"),
    "microdiffusion": ("sample_microdiffusion",),
}
"""The jobs of a method that shards share, where they are not called like it."""


def describe_long_jobs(extents: Mapping[str, Extent], config: Config) -> str | None:
    """Warn of jobs that a cluster may refuse or end for the time that they take by our estimate.

    What counts is the time of a second attempt, for a job whose first was too short.

    Parameters
    ----------
    extents : mapping of str to Extent
        Sample -> its size.
    config : Config
        Configuration of the run.

    Returns
    -------
    str or None
        One sentence about the sample whose job takes longest, with a number of shards that would
        do for all; None where no job takes too long.
    """
    longest = {
        name: _longest_job(extent, config, config.tiling.shards) for name, extent in extents.items()
    }
    long = [name for name, (again, _, _) in longest.items() if again > USUAL_LIMIT_MINUTES]
    if not long:
        return None
    worst = max(long, key=longest.__getitem__)
    again, first, stage = longest[worst]
    others = f" (and those of {len(long) - 1} more)" if len(long) > 1 else ""
    wanted = max(_fewest_shards(extents[name], config) for name in long)
    remedy = f"set tiling.shards to {wanted} or more in the configuration"
    left = max(_longest_job(extents[name], config, wanted)[0] for name in long)
    if left > USUAL_LIMIT_MINUTES:
        remedy += f" (with it, {left} minutes are left), and ask for a partition that allows more"
    return (
        f'The job {stage} of the sample "{worst}"{others} asks for {first} minutes, and for '
        f"{again} if it has to be repeated, but many clusters end jobs after "
        f"{USUAL_LIMIT_MINUTES} minutes ({USUAL_LIMIT_MINUTES // 60} hours); {remedy}."
    )


def _longest_job(extent: Extent, config: Config, shards: int) -> tuple[int, int, str]:
    """Return the minutes of the second and the first attempt of the longest job, and its stage."""
    stages = {stage for method in config.methods for stage in _JOBS.get(method, (method,))}
    found = []
    for stage in sorted(stages):
        need = need_of(stage, extent, config, shards)
        rule = f"reconstruct_baseline ({stage})" if stage in BASELINES else stage
        found.append((need.at(2)[1], need.at(1)[1], rule))
    return max(found)


def _fewest_shards(extent: Extent, config: Config) -> int:
    """Return how many shards shorten all jobs enough; as many as there can be where none do."""
    shape = (extent.times, extent.channels, extent.projections, extent.rows, extent.columns)
    tiles = list_units((1, extent.channels, *shape[2:]), config.tiling.tile, config.tiling.halo)
    # Time points in a row stay in one job.
    most = len(tiles) * math.ceil(extent.times / config.tiling.chain)
    return 1 + bisect.bisect_left(
        range(1, most),
        True,
        key=lambda shards: _longest_job(extent, config, shards)[0] <= USUAL_LIMIT_MINUTES,
    )
