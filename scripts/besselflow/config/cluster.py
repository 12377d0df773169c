"""Section of what only matters where jobs are submitted to Slurm."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat

from besselflow.config.section import Section


class Cluster(Section):
    """What only matters on a Slurm cluster; results do not depend on it."""

    gpus: Literal["auto", "always", "never"] = Field(
        "auto",
        description="Whether the jobs that fit or apply a network ask for a GPU: `auto`, where the "
        "cluster has any and PyTorch is installed with support for them; `always`; or `never`. A "
        "job that was given a GPU which PyTorch does not see fails.",
    )
    orphans: Literal["cancel", "wait"] = Field(
        "cancel",
        description="What happens to the jobs of an earlier run into the same results that died "
        "without them: `cancel` ends them, and fits go on from their checkpoints; `wait` lets them "
        "finish before anything is planned.",
    )
    one_job_minutes: NonNegativeFloat = Field(
        25.0,
        description="Samples that are estimated to take at most as many minutes of computing are "
        "one job each, from the first stage to the page, since a job costs some 15 s of scheduling "
        "and start; 0 for never. Where GPUs are asked for, a sample is spread over shards, priors "
        "learn from the samples themselves, or no partition gives a single job its time twice, "
        "stages are jobs of their own all the same.",
    )
