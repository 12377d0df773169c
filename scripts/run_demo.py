"""Write the demo acquisitions and run the whole workflow over them.

A demo that was killed leaves the workflow's lock behind. This script holds a lock of its own, which
dies with it, so that it knows when nobody else is at work in the folder and the stale lock can go.
"""

import argparse
import fcntl
import subprocess
import sys
from pathlib import Path

import make_demo

ROOT = Path(__file__).parent.parent


def main(folder: Path, extra: list[str]) -> int:
    """Run the demo.

    Parameters
    ----------
    folder : path
        Where the demo lives.
    extra : list of str
        Further arguments for Snakemake.

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
            print(f"a demo is running in {folder} already; wait for it to end", file=sys.stderr)
            return 1
        make_demo.main(folder)
        command = [
            *(sys.executable, "-m", "snakemake"),
            *("--snakefile", str(ROOT / "workflow" / "Snakefile")),
            *("--profile", str(ROOT / "profiles" / "default")),
            *("--configfile", str(ROOT / "config" / "demo.yaml")),
            *("--config", f"samples={folder / 'samples.tsv'}", f"results={folder / 'results'}"),
        ]
        unlocked = subprocess.run([*command, "--unlock"], capture_output=True, text=True)
        if unlocked.returncode:
            print(unlocked.stderr, file=sys.stderr)
            return unlocked.returncode
        status = subprocess.run([*command, *extra]).returncode
    if status == 0:
        print(f"The report of the demo: {folder / 'results' / 'report.html'}")
    return status


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the demo lives, such as demo")
    parser.add_argument("snakemake", nargs="*", help="further arguments for Snakemake, after --")
    arguments = parser.parse_args()
    sys.exit(main(arguments.folder, arguments.snakemake))
