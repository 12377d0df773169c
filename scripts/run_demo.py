"""Write the demo acquisitions and run the whole workflow over them.

A demo that was killed leaves the workflow's lock behind. This script holds a lock of its own, which
ends with the last process that holds it, so that it knows when nobody else is at work in the folder
and the stale lock can go.
"""

import argparse
import fcntl
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import make_demo

ROOT = Path(__file__).parent.parent


def main(
    folder: Path,
    extra: Sequence[str] = (),
    configfile: Path = ROOT / "config" / "demo.yaml",
    shape: Sequence[int] | None = None,
) -> int:
    """Run the demo.

    Parameters
    ----------
    folder : path
        Where the demo lives.
    extra : sequence of str
        Further arguments for Snakemake.
    configfile : path
        What differs from the defaults of the configuration.
    shape : sequence of int or None
        (Z, Y, X) of all volumes in voxels; None for those of the demo.

    Returns
    -------
    int
        Exit status of the workflow.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another demo in {folder} to end", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        make_demo.main(folder, *([shape, shape] if shape else []))
        command = [
            *(sys.executable, "-m", "snakemake"),
            *("--snakefile", str(ROOT / "workflow" / "Snakefile")),
            *("--profile", str(ROOT / "profiles" / "default")),
            *("--configfile", str(configfile)),
            *("--config", f"samples={folder / 'samples.tsv'}", f"results={folder / 'results'}"),
        ]
        unlocked = subprocess.run([*command, "--unlock"], capture_output=True, text=True)
        if unlocked.returncode:
            print(unlocked.stderr, file=sys.stderr)
            return unlocked.returncode
        # Should this process be killed alone, the workflow goes on, and so the lock has to.
        status = subprocess.run([*command, *extra], pass_fds=[lock.fileno()]).returncode
    report = folder / "results" / "report.html"
    # A dry run makes none.
    if status == 0 and report.exists():
        print(f"The report of the demo: {report}")
    return status


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the demo lives, such as demo")
    parser.add_argument("--configfile", type=Path, default=ROOT / "config" / "demo.yaml")
    parser.add_argument(
        "--shape", type=int, nargs=3, metavar=("Z", "Y", "X"), help="of all volumes, in voxels"
    )
    parser.add_argument("snakemake", nargs="*", help="further arguments for Snakemake, after --")
    # Otherwise options after the folder leave nothing for Snakemake.
    arguments = parser.parse_intermixed_args()
    sys.exit(main(arguments.folder, arguments.snakemake, arguments.configfile, arguments.shape))
