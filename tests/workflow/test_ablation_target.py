"""The target that compares configurations: one run of the workflow each, and a table of all."""

import re

import pandas as pd
import pytest
import yaml

from tiny_runs import TinyFacility, job_counts

pytestmark = pytest.mark.workflow

GRID = {
    "shared": {"validation": {"hold_out": 0}},
    "configurations": {
        "published": {"methods": ["spectral", "inr", "microdiffusion"], "final": "microdiffusion"},
        "joint": {
            "methods": ["spectral", "inr", "microdiffusion"],
            "final": "microdiffusion",
            "microdiffusion": {"inr_training": "joint"},
        },
    },
}
ADDED = {"lines": {"methods": ["interpolation"], "final": "interpolation"}}


@pytest.fixture(scope="module")
def facility(tmp_path_factory):
    facility = TinyFacility(
        tmp_path_factory.mktemp("ablation"),
        ablation="grid.yaml",
        microdiffusion={"channels": [8, 16], "steps": 4, "batch": 2, "sampling_steps": 10},
    )
    facility.add_test("known", step_um=6.0)
    return facility


def write_grid(facility, grid):
    (facility.folder / "grid.yaml").write_text(yaml.safe_dump(grid, sort_keys=False))


def test_a_wrong_grid_stops_its_own_target_only(facility):
    write_grid(facility, {"configurations": {"a": {"inr": {"widht": 3}}}})
    dry = facility.run("ablation", "--dry-run")
    assert dry.returncode != 0
    assert 'grid.yaml, configuration a, key "inr.widht"' in dry.stdout
    assert 'did you mean "width"?' in dry.stdout
    assert facility.run("--dry-run").returncode == 0


def test_configurations_are_run_and_compared(facility):
    write_grid(facility, GRID)
    dry = facility.run("ablation", "--dry-run")
    scanned = {"preprocess": 1, "convert_ground_truth": 1, "scan_points": 1}
    counts = {"ablation": 1, "run_configuration": 2, "total": 6}
    assert job_counts(dry.stdout) == counts | scanned
    first = facility.run("ablation")
    assert first.returncode == 0, first.stdout
    folder = facility.results / "ablation"
    table = pd.read_csv(folder / "table.csv")
    # The acquisition was simulated, so that it is known what a point scan would have given.
    scans = ["point-scan", "point-scan-denoised", "thin-slices"]
    assert table["configuration"].tolist() == ["published", "joint", *scans]
    assert table["method"].tolist() == ["microdiffusion"] * 2 + scans
    assert table["psnr"][0] != table["psnr"][1]
    assert set(table["step_um"]) == {6.0} and set(table["samples"]) == {1}
    assert table[["psnr", "psnr_3d", "ssim", "dice"]].notna().all(axis=None)
    assert (folder / "quality.png").stat().st_size > 1000
    assert "microdiffusion" in (folder / "table.html").read_text(encoding="utf-8")
    page = (folder / "published" / "known" / "report.html").read_text(encoding="utf-8")
    assert "trained on 3 projections of this sample alone" in page
    assert "Training of the published model" in page
    network = folder / "published" / "known" / "microdiffusion.safetensors"
    assert network.exists()
    joint = folder / "joint" / "known"
    assert (joint / "units" / "joint_inr-0.zip").exists()
    assert "was fitted anew in the steps that trained the model" in (
        joint / "report.html"
    ).read_text(encoding="utf-8")
    # The results of the run itself were not asked for.
    assert not (facility.results / "known" / "volume.ome.zarr").exists()
    assert not (facility.results / "report.html").exists()
    assert "Nothing to be done" in facility.run("ablation").stdout

    # A configuration that is added is run, and no other.
    before = network.stat().st_mtime_ns
    write_grid(facility, GRID | {"configurations": GRID["configurations"] | ADDED})
    third = facility.run("ablation")
    assert third.returncode == 0, third.stdout
    assert re.findall(r"running the configuration (\w+)", third.stdout) == ["lines"]
    table = pd.read_csv(folder / "table.csv")
    assert table["configuration"].tolist() == ["published", "joint", "lines", *scans]
    assert table["method"].tolist() == ["microdiffusion"] * 2 + ["interpolation", *scans]
    assert table[["psnr", "psnr_3d", "ssim", "dice"]].notna().all(axis=None)
    assert network.stat().st_mtime_ns == before
