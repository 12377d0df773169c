"""Runs of the real workflow on acquisitions so small that a job takes little but its start."""

import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import yaml

from besselflow.beam import parse_beam_profile
from besselflow.phantoms import draw_phantom
from besselflow.simulate import (
    AcquisitionFiles,
    Detector,
    simulate_acquisition,
    stage_positions,
    write_acquisition,
    write_volume,
)
from simulate_acquisition import SHEET_COLUMNS, sheet_row

ROOT = Path(__file__).parents[1]
VOXEL_SIZE_UM = (1.0, 1.0, 1.0)
SHAPE = (18, 24, 24)
SETTINGS = {
    "variational": {"iterations": 5},
    "inr": {"steps": 40, "width": 16, "features": 16},
    "microdiffusion": {"channels": [8, 16], "steps": 4, "batch": 2, "sampling_steps": 10},
    "prior": {"steps": 6, "channels": [8, 16], "depth": 1, "batch": 2, "patch": 16},
    "refine": {"evaluations": 2, "samples": 2},
    "report": {"picture_pixels": 64},
}


class TinyFacility:
    """A working directory with a sheet, its files, and a configuration."""

    def __init__(self, folder, **settings):
        self.folder = folder
        self.rows = {}
        folder.mkdir(parents=True, exist_ok=True)
        self.configure(**settings)

    @property
    def results(self):
        return self.folder / "results"

    def configure(self, **settings):
        """Write config/config.yaml, which a run in this folder reads without being told to."""
        config = self.folder / "config" / "config.yaml"
        config.parent.mkdir(exist_ok=True)
        text = yaml.safe_dump({"samples": "samples.tsv"} | SETTINGS | settings)
        config.write_text(text, encoding="utf-8")

    def add_test(self, name, seed=5, known=True, step_um=6.0):
        """Add a test sample, with ground truth where it is known."""
        detector, profile = Detector(), parse_beam_profile("box:6um")
        volume = draw_phantom("vessels", SHAPE, seed, VOXEL_SIZE_UM)
        positions = stage_positions(SHAPE[0], VOXEL_SIZE_UM[0], profile, step_um)
        acquisition = simulate_acquisition(
            volume, profile, positions, VOXEL_SIZE_UM, detector, seed=seed
        )
        truth = volume if known else None
        files = write_acquisition(
            self.folder / "data",
            name,
            acquisition,
            profile,
            VOXEL_SIZE_UM,
            detector,
            ground_truth=truth,
        )
        self.rows[name] = sheet_row(name, files, VOXEL_SIZE_UM, detector, relative_to=self.folder)
        self.write_sheet()
        return self.folder / "data" / f"{name}.ome.tif"

    def add_train(self, name, seed=104):
        """Add a training volume."""
        path = self.folder / "data" / f"{name}_ground_truth.ome.tif"
        path.parent.mkdir(exist_ok=True)
        detector = Detector()
        volume = draw_phantom("vessels", (18, 32, 32), seed, VOXEL_SIZE_UM)
        write_volume(path, detector.noise_free_counts(volume), VOXEL_SIZE_UM)
        files = AcquisitionFiles(None, None, None, path)
        row = sheet_row(name, files, VOXEL_SIZE_UM, detector, relative_to=self.folder)
        self.rows[name] = row | {"role": "train"}
        self.write_sheet()

    def write_sheet(self, separator="\t"):
        lines = [SHEET_COLUMNS, *([row[c] for c in SHEET_COLUMNS] for row in self.rows.values())]
        text = "".join(separator.join(cells) + "\n" for cells in lines)
        (self.folder / "samples.tsv").write_text(text, encoding="utf-8")

    def command(self, *arguments):
        """Return the command of a run that gives each job one thread: tests share the machine."""
        return [
            *(sys.executable, "-m", "snakemake"),
            *("--snakefile", str(ROOT / "workflow" / "Snakefile")),
            *("--profile", str(ROOT / "profiles" / "default")),
            *("--cores", "2", "--max-threads", "1"),
            *arguments,
        ]

    def run(self, *arguments):
        return run(self.command(*arguments), self.folder)

    def modification_times(self):
        """Return path -> time of all files of the results."""
        files = (path for path in self.results.rglob("*") if path.is_file())
        return {str(path.relative_to(self.results)): path.stat().st_mtime_ns for path in files}


def run(command, folder):
    """Run a command, given as a list or as a shell would read it; see both outputs as one text."""
    if isinstance(command, str):
        command = shlex.split(command)
    return subprocess.run(
        command,
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )


def environment():
    # Snakemake and pytest-xdist tell their own processes things that a user's shell doesn't.
    hidden = ("BESSELFLOW_", "SNAKEMAKE_", "PYTEST_")
    return {name: value for name, value in os.environ.items() if not name.startswith(hidden)}


def job_counts(output):
    """Return rule -> number of jobs from what a dry run prints."""
    table = re.search(r"^job +count\n[- ]+\n(?P<rows>(?:\w+ +\d+\n)+)", output, re.MULTILINE)
    assert table, output
    return {name: int(count) for name, count in map(str.split, table["rows"].splitlines())}


def wait_until(condition, seconds):
    """Return as soon as a condition holds; fail where it doesn't in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"nothing happened within {seconds} s"
        time.sleep(0.02)
