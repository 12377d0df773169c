import functools
import os
import re
import shlex
import sys
from pathlib import Path

sys.path.insert(0, str(Path(workflow.basedir).parent / "scripts"))

from besselflow import failures
from besselflow.ablation import load_grid, remember_arguments
from besselflow.beam.spec import file_of
from besselflow.config import BASELINES
from besselflow.diffusion.names import parse_item
from besselflow.errors import InputError
from besselflow.folding import fold_sample
from besselflow.job import become_controller, watch_controller
from besselflow.runs import Run
from snakemake.logging import logger

# Two lines before every job that say nothing about it.
CHATTER = re.compile(r"Select jobs to execute|Execute \d+ jobs")
logger.addFilter(lambda record: not CHATTER.match(str(record.msg)))

JOB_WATCH = failures.JobWatch()
logger.addHandler(JOB_WATCH)

# A run of one configuration of the grid ends soon after the run that compares them all, and runs
# its jobs as that one does.
if workflow.is_main_process:
    watch_controller()
    remember_arguments(sys.argv[1:])

# Jobs end soon after the process that started them: see besselflow.job.
become_controller()

try:
    RUN = Run.prepare(config, check_files=workflow.is_main_process)
    KEPT = RUN.describe_kept_flat_fields() if workflow.is_main_process else None
except InputError as error:
    raise WorkflowError(f"Nothing was run. What has to be corrected:\n{error}")

if workflow.is_main_process and RUN.rejected:
    print(RUN.describe_rejections(), file=sys.stderr)

if KEPT is not None:
    print(KEPT, file=sys.stderr)

CONFIG = RUN.config
RESULTS = CONFIG.results
SHARDS = range(CONFIG.tiling.shards)
# Stands for the geometry of a prior that serves all of them, such as the one that is shipped.
ANY_BEAM = "any-beam"


wildcard_constraints:
    sample="|".join(map(re.escape, RUN.tests)) or "[^/]+",
    # Either the acquisition itself, or what is left of it when projections are withheld.
    part="|/held_out",
    baseline="|".join(BASELINES),
    shard=r"\d+",
    geometry="|".join(map(re.escape, [*RUN.trained_priors, ANY_BEAM])),
    item=r"(train\d*|phantom|own)-[^/]+",


def exclusion_marker():
    """Ask for a file that can't be made when samples were excluded, so that the run fails."""
    return [f"{RESULTS}/.excluded-samples"] if RUN.rejected else []


def remember_exclusions():
    refusal = failures.attempt(RUN.remember_exclusions)
    if refusal is not None:
        raise WorkflowError(f"Nothing was run. {refusal}")


def fold_finished_samples(failed=()):
    for sample in RUN.tests:
        if sample not in failed and Path(RESULTS, sample, "report.html").exists():
            fold_sample(Path(RESULTS, sample))


def announce_report():
    # A full disk spoils no result that is there.
    unfolded = failures.attempt(fold_finished_samples)
    if unfolded is not None:
        failures.say_last(f"The logs could not be joined: {unfolded}.")
    # The target may have been another.
    if not Path(RESULTS, "report.html").exists():
        return
    failures.say_last(f"BesselFlow is done: open {RESULTS}/report.html")


def resume_command():
    """Repeat how this run was started, such that what is finished stays."""
    called = Path(sys.argv[0]).name == "snakemake"
    program = ["snakemake"] if called else [sys.executable, "-m", "snakemake"]
    arguments = sys.argv[1:]
    # An estimate that was to be made again and isn't there leaves all that follows as it was.
    if RUN.flat_fields is None or RUN.flat_fields.exists():
        arguments = failures.without_forcing(arguments)
    return shlex.join(program + arguments)


def summarise_failures():
    found = JOB_WATCH.failures(RESULTS)
    unwritten = failures.attempt(
        lambda: fold_finished_samples({failure.sample for failure in found})
    )
    # Where its own rule failed, a page would count as made by it in the next run. A comparison of
    # configurations has pages of its own.
    others = {"report_cohort", "run_configuration", "ablation"}
    if unwritten is None and not others & {failure.stage for failure in found}:
        unwritten = failures.attempt(lambda: RUN.write_cohort_report(found))
    failures.say_last(
        failures.summarise(found, RUN.rejected, RESULTS, resume_command(), unwritten)
    )
