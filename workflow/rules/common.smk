import os
import re
import shlex
import sys
from pathlib import Path

sys.path.insert(0, str(Path(workflow.basedir).parent / "scripts"))

from besselflow import failures
from besselflow.config import BASELINES
from besselflow.errors import InputError
from besselflow.job import CONTROLLER_VARIABLE
from besselflow.runs import Run

# Jobs end soon after the process that started them: see besselflow.job.
os.environ[CONTROLLER_VARIABLE] = str(os.getpid())

try:
    RUN = Run.prepare(config, check_files=workflow.is_main_process)
except InputError as error:
    raise WorkflowError(f"Nothing was run. What has to be corrected:\n{error}")

if workflow.is_main_process and RUN.rejected:
    print(RUN.describe_rejections(), file=sys.stderr)

CONFIG = RUN.config
RESULTS = CONFIG.results
SHARDS = range(CONFIG.tiling.shards)
HAS_UNCERTAINTY = CONFIG.final == "diffusion" and CONFIG.refine.samples > 1


wildcard_constraints:
    sample="|".join(map(re.escape, RUN.tests)) or "[^/]+",
    baseline="|".join(BASELINES),
    shard=r"\d+",
    geometry="[0-9a-f]+",


def exclusion_marker():
    """Ask for a file that can't be made when samples were excluded, so that the run fails."""
    return [f"{RESULTS}/.excluded-samples"] if RUN.rejected else []


rule exclude_samples:
    output:
        touch(f"{RESULTS}/.excluded-samples"),
    log:
        f"{RESULTS}/logs/exclude_samples.log",
    params:
        text=RUN.describe_rejections(),
    message:
        "Some samples were excluded by the check of the input; the others go on"
    shell:
        "printf '%s\n' {params.text:q} > {log}; exit 1"


def sample_of(wildcards):
    return RUN.tests[wildcards.sample]


def volume_path(sample, method):
    """The final method's volume has the fixed name; the others lie beside each other."""
    if method == CONFIG.final:
        return f"{RESULTS}/{sample}/volume.ome.zarr"
    return f"{RESULTS}/{sample}/methods/{method}.ome.zarr"


def units_path(method):
    return f"{RESULTS}/{{sample}}/units/{method}-{{shard}}.zarr"


def truth_of(wildcards):
    """The ground-truth volume as an input, where the sample has one."""
    if sample_of(wildcards).ground_truth is None:
        return []
    return f"{RESULTS}/{wildcards.sample}/ground_truth.ome.zarr"


def uncertainty_of(wildcards):
    return f"{RESULTS}/{wildcards.sample}/uncertainty.ome.zarr" if HAS_UNCERTAINTY else []


def prior_of(wildcards, suffix="safetensors"):
    return f"{RESULTS}/priors/{RUN.geometry_of(wildcards.sample).key}.{suffix}"


def remember_exclusions():
    RUN.remember_exclusions()


def announce_report():
    failures.say_last(f"BesselFlow is done: open {RESULTS}/report.html")


def resume_command():
    arguments = [a for a in sys.argv[1:] if a != "--unlock"]
    return shlex.join(["snakemake", *arguments])


def summarise_failures(log):
    found = failures.read_failures(list(log), RESULTS)
    RUN.write_cohort_report(found)
    failures.say_last(
        failures.summarise(found, RUN.rejected, RESULTS, resume_command())
    )
