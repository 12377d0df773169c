import math
import os
import sys
from pathlib import Path

from besselflow import slurm
from besselflow.extent import (
    UNKNOWN,
    extent_of,
    extent_of_volume,
    joined,
    within_region,
)
from besselflow.hardware import memory_bytes
from besselflow.long_jobs import describe_long_jobs
from besselflow.resources import asked_minutes, computing_minutes, need_of

# The processes of jobs take over what the main process has found: nodes need not know.
if workflow.is_main_process:
    asked = slurm.gpus_per_job(CONFIG.cluster.gpus)
    os.environ[slurm.GPUS_VARIABLE] = str(asked or "")
    longest = slurm.longest_minutes() if slurm.is_installed() else None
    os.environ[slurm.LONGEST_VARIABLE] = str(longest or "")
GPUS = int(os.environ.get(slurm.GPUS_VARIABLE) or 0) or None
LONGEST_MINUTES = float(os.environ.get(slurm.LONGEST_VARIABLE) or 0) or None

# What is not planned yet can make use of what the jobs of an earlier run finish. A folder that is
# locked is refused by Snakemake anyway.
if (
    workflow.is_main_process
    and CONFIG.cluster.orphans == "wait"
    and slurm.is_installed()
    and not {"-n", "--dry-run", "--dryrun", "--unlock", "--lint"} & set(sys.argv)
    and not any(Path(".snakemake", "locks").glob("*"))
):
    try:
        # Snakemake's own log does not say anything yet.
        slurm.wait_for_end(
            RESULTS, lambda text: print(text, file=sys.stderr, flush=True)
        )
    except InputError as error:
        raise WorkflowError(f"Nothing was run. {error}")


# What Slurm would refuse after hours of other jobs.
if workflow.is_main_process and slurm.is_installed():
    warning = describe_long_jobs(
        {name: extent_of(sample) for name, sample in RUN.tests.items()},
        CONFIG,
        LONGEST_MINUTES,
    )
    if warning is not None:
        print(warning, file=sys.stderr, flush=True)


def need(stage, wildcards):
    """Estimate what a job needs, from its stage and its wildcards."""
    stage = wildcards.get("baseline", stage)
    if stage == "estimate_shading":
        return need_of(stage, joined(map(extent_of, RUN.tests.values())), CONFIG)
    if wildcards.get("item"):
        return need_of(stage, extent_of_item(wildcards.item), CONFIG)
    extent = extent_of(sample_of(wildcards)) if wildcards.get("sample") else UNKNOWN
    if wildcards.get("part"):
        extent = within_region(extent, CONFIG.validation.region)
    return need_of(stage, extent, CONFIG, tiling_of(wildcards)["shards"])


def extent_of_item(item):
    """Return the size of a volume to learn from; of a sample's own volume, that of a tile."""
    kind, name, _ = parse_item(item)
    if kind == "own":
        sample = RUN.tests[name.rsplit("-", 1)[0]]
        return within_region(
            extent_of(sample), CONFIG.tiling.tile + 2 * CONFIG.tiling.halo
        )
    return extent_of_volume(RUN.trains[name].ground_truth if kind == "train" else None)


def memory_mb(stage):
    return lambda wildcards, attempt: need(stage, wildcards).at(attempt)[0]


def minutes(stage):
    return lambda wildcards, attempt: need(stage, wildcards).at(attempt)[1]


# On one machine, as many jobs side by side as its memory holds by these estimates; what is estimated
# to take more than all of it runs alone. Which executor runs them is not known yet, but a cluster
# needs a number of jobs (--jobs). Who gives one here has limited them himself.
number_of_jobs = workflow.global_resources["_nodes"].value
if workflow.is_main_process and number_of_jobs is None:
    if not {"mem", "mem_mb", "mem_mib"} & set(workflow.global_resources):
        workflow.register_resource("mem_mb", memory_bytes() // 10**6)


# A job has its price on a cluster, whatever it does. So what takes little is done in two jobs per
# sample, before and after the networks, which have jobs of their own: they may be given a GPU, and
# a group of jobs that is repeated is repeated as a whole. Several shards are meant to run side by
# side. A sample that takes little altogether is a single job. On one machine groups mean nothing.
@functools.cache
def is_one_job(sample):
    # A prior that learns from the samples themselves stands between their stages.
    alone = GPUS or CONFIG.tiling.shards > 1 or RUN.learns_from_samples
    extent, most = extent_of(RUN.tests[sample]), CONFIG.cluster.one_job_minutes
    if alone or computing_minutes(extent, CONFIG) > most:
        return False
    # What no partition would take, were it repeated, goes in parts.
    return asked_minutes(extent, CONFIG, attempt=2) <= (LONGEST_MINUTES or math.inf)


# Its stages go in single file, through the one lane that the profile of a cluster gives to each job:
# what could run side by side takes moments, and would claim the cores of the whole job to its end.
resource_scopes:
    lane="local",


# Snakemake does not tell its processes in the jobs of limits.
if not workflow.is_main_process:
    workflow.register_resource("lane", 1)


def lane(wildcards):
    return int(is_one_job(wildcards.sample))


def in_group(name):
    """Return the group of a rule's jobs; `name` may be a function of their wildcards, or None."""

    def group(wildcards):
        if is_one_job(wildcards.sample):
            return "sample"
        return name(wildcards) if callable(name) else name

    return group


def baselines(wildcards):
    spread = CONFIG.tiling.shards > 1 and not wildcards.part
    return f"baselines-{wildcards.shard}" if spread else "before"


def safeguards(wildcards):
    spread = CONFIG.tiling.shards > 1 and not wildcards.part
    return f"safeguard-{wildcards.shard}" if spread else "after"


def prepare_cluster():
    """Name the jobs after the results, and end those that an earlier run left behind.

    Snakemake's lock is held here, so that nobody else is at work from this folder.
    """
    executor = workflow.scheduler._executor
    if not hasattr(executor, "run_uuid"):
        return
    executor.run_uuid = f"{slurm.job_prefix(RESULTS)}_{executor.run_uuid}"
    JOB_WATCH.listen_to(executor)
    # Of a controller that is a job with a GPU itself; its jobs are given their own.
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    try:
        if (
            workflow.executor_settings.status_command == "sacct"
            and not slurm.keeps_accounts()
        ):
            logger.info(
                "This cluster keeps no accounts (sacct): jobs are watched by squeue."
            )
            workflow.executor_settings.status_command = "squeue"
        if left := slurm.cancel(RESULTS, Path.cwd()):
            logger.info(
                f"Cancelled {len(left)} Slurm job(s) that an earlier run left behind."
            )
    except InputError as error:
        raise WorkflowError(str(error))
