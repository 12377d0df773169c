"""Runs of the real workflow whose jobs go to the Slurm cluster of the tests."""

import contextlib
import subprocess
import sys

import psutil

import cluster
from tiny_runs import ROOT, TinyFacility, environment, wait_until

# What becomes of larger samples, whose stages are jobs of their own.
APART = {"one_job_minutes": 0}
# A fit that is long beside its interval of checkpoints, of a network that is small beside PyTorch.
LONG_FIT = {
    "cluster": APART,
    "methods": ["spectral", "inr"],
    "final": "inr",
    "validation": {"hold_out": 0},
    "inr": {"steps": 8000, "width": 16, "features": 16, "held_out": 0, "checkpoint_seconds": 0.5},
}
UNITS = "results/known/units/inr-0.zip"
VOLUME = "results/known/volume.ome.zarr"
PATIENCE = 600


# How often Slurm is asked on a cluster of one node, and how soon it shows files.
QUICK = (
    *("--slurm-init-seconds-before-status-checks", "1"),
    *("--seconds-between-status-checks", "1"),
    *("--latency-wait", "5"),
)


class ClusterFacility(TinyFacility):
    """A working directory whose runs submit their jobs."""

    intervals = QUICK

    def submit_command(self, *arguments, profile=str(ROOT / "profiles" / "slurm")):
        """Return the command of a run, with the intervals of this class."""
        return [
            *(sys.executable, "-m", "snakemake"),
            *("--snakefile", str(ROOT / "workflow" / "Snakefile")),
            *("--profile", profile),
            *self.intervals,
            *("--max-threads", "1"),
            *arguments,
        ]

    def submit(self, *arguments, **environ):
        """Run the workflow on the cluster, and return its status and all that it printed."""
        return subprocess.run(
            self.submit_command(*arguments),
            cwd=self.folder,
            env=environment() | environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=2 * PATIENCE,
        )

    @contextlib.contextmanager
    def submitting(self, *arguments):
        """Run the workflow on the cluster beside what the body does; it is killed at the end."""
        self.said = self.folder / "said.txt"
        with open(self.said, "w") as output:
            controller = subprocess.Popen(
                self.submit_command(*arguments),
                cwd=self.folder,
                env=environment(),
                stdout=output,
                stderr=output,
            )
        try:
            yield controller
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                for child in psutil.Process(controller.pid).children(recursive=True):
                    child.kill()
            controller.kill()
            controller.wait()

    def wait_for_checkpoint(self, controller, units=UNITS):
        """Return when a fit has something to resume from."""
        checkpoint = (self.folder / units).with_suffix(".checkpoints") / "unit-0.pt"
        wait_until(lambda: checkpoint.exists() or controller.poll() is not None, PATIENCE)
        assert controller.poll() is None, self.said.read_text(encoding="utf-8")

    def log_of(self, stage, sample="known"):
        path = self.results / sample / "logs" / f"{stage}.log"
        return path.read_text(encoding="utf-8")


def jobs_of_run(tag, *fields):
    """Return fields of all jobs of runs into a folder of results, in the order of submission."""
    rows = cluster.submitted("Name", *fields)
    return [row[1:] for row in rows if row[0].startswith(tag)]
