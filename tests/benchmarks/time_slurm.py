"""Measure what Slurm costs: tiny samples on a cluster of one node, and on the same machine without.

Slurm is asked as seldom as the profile that we ship asks it; `--quick` asks it every second.
The cluster is started and stopped by this script, which takes root and the packages of Slurm.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / folder) for folder in ("", "slurm")]

import cluster  # noqa: E402
from besselflow.slurm import job_prefix  # noqa: E402
from cluster_runs import ClusterFacility, jobs_of_run  # noqa: E402


def main(count: int, methods: list[str], quick: bool) -> None:
    """Print the seconds of both runs, and how many jobs a sample took.

    Parameters
    ----------
    count : int
        Number of samples.
    methods : list of str
        Methods to run; the last is the final one.
    quick : bool
        Whether to ask Slurm every second.
    """
    reason = cluster.why_not()
    if reason:
        sys.exit(f"nothing was measured: {reason}")
    settings = {"methods": methods, "final": methods[-1], "prior": {"weights": "shipped"}}
    with tempfile.TemporaryDirectory() as folder:
        facilities = [
            ClusterFacility(Path(folder) / place, **settings) for place in ("here", "there")
        ]
        for facility in facilities:
            for number in range(count):
                facility.add_test(f"sample-{number}", seed=number)
        here, there = facilities
        if not quick:
            there.intervals = ()
        local = seconds_of(lambda: here.run())
        cluster.start()
        try:
            submitted = seconds_of(lambda: there.submit())
            jobs = jobs_of_run(job_prefix(there.results), "State")
        finally:
            cluster.stop()
    print(f"{count} samples of {'+'.join(methods)}: {local:.0f} s on this machine, ", end="")
    print(f"{submitted:.0f} s through Slurm ({submitted / local:.2f} times), in {len(jobs)} jobs")


def seconds_of(run) -> float:
    """Return how long a run takes, which must succeed."""
    start = time.monotonic()
    done = run()
    if done.returncode:
        sys.exit(f"{done.stdout}\nnothing was measured: the run failed")
    return time.monotonic() - start


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--methods", nargs="+", default=["interpolation", "spectral", "inr"])
    parser.add_argument("--quick", action="store_true", help="ask Slurm every second")
    arguments = parser.parse_args()
    main(arguments.samples, arguments.methods, arguments.quick)
