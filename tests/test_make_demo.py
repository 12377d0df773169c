"""Checks the demo: its sheet, its files, and that making it twice touches none of them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

import make_demo

SCRIPT = Path(__file__).parents[1] / "scripts" / "make_demo.py"
SMALL = {"test_shape": (12, 24, 24), "train_shape": (12, 28, 28)}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    directory = tmp_path_factory.mktemp("demo")
    make_demo.main(directory, **SMALL)
    return directory


@pytest.fixture(scope="module")
def sheet(demo):
    return pd.read_csv(demo / "samples.tsv", sep="\t", dtype=str, keep_default_na=False)


def stamps(directory):
    return {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in directory.rglob("*") if p.is_file()}


def test_sheet_has_the_samples_and_columns_of_the_workflow(sheet):
    assert list(sheet.columns) == list(make_demo.SHEET_COLUMNS)
    test = sheet[sheet["role"] == "test"]
    assert test["sample"].tolist() == ["vessels", "neuron", "cells", "vessels-unknown"]
    assert (test["ground_truth"] == "").tolist() == [False, False, False, True]
    train = sheet[sheet["role"] == "train"]
    assert len(train) == 6
    assert (train[["acquisition", "stage_positions", "beam_profile"]] == "").all(axis=None)
    assert (train["ground_truth"] != "").all()
    assert sheet["sample"].is_unique


def test_paths_are_relative_to_the_sheet_and_exist(demo, sheet):
    columns = ["acquisition", "stage_positions", "beam_profile", "ground_truth"]
    paths = [path for path in sheet[columns].to_numpy().ravel() if path]
    assert not any(Path(path).is_absolute() for path in paths)
    assert all((demo / path).is_file() for path in paths)
    on_disk = {p.relative_to(demo).as_posix() for p in (demo / "data").iterdir()}
    assert on_disk == set(paths)


def test_shapes_fit_together(demo, sheet):
    for row in sheet.itertuples():
        if row.acquisition:
            stack = tifffile.imread(demo / row.acquisition)
            assert stack.shape == (len(pd.read_csv(demo / row.stage_positions)), 24, 24)
        if row.ground_truth:
            shape = (12, 24, 24) if row.role == "test" else (12, 28, 28)
            assert tifffile.imread(demo / row.ground_truth).shape == shape


def test_no_test_volume_is_among_the_training_volumes():
    seen = {(kind, seed) for _, kind, seed in make_demo.TRAIN_SAMPLES}
    assert len(seen) == 6
    assert not seen & {(kind, seed) for _, kind, seed, _ in make_demo.TEST_SAMPLES}


def test_projections_agree_with_the_ground_truth(demo):
    truth = tifffile.imread(demo / "data" / "cells_ground_truth.ome.tif").astype(float)
    stack = tifffile.imread(demo / "data" / "cells.ome.tif").astype(float)
    expected = truth.reshape(2, 6, 24, 24).mean(axis=1)
    deviation = (stack - expected) / np.sqrt(10 * (expected - 100) + 25)
    assert np.sqrt(np.mean(deviation**2)) == pytest.approx(1, abs=0.1)


def test_making_it_twice_touches_no_file(demo):
    before = stamps(demo)
    make_demo.main(demo, **SMALL)
    assert stamps(demo) == before


def test_a_damaged_or_missing_file_is_made_again_and_others_stay(demo):
    before = stamps(demo)
    whole = (demo / "data" / "neuron.ome.tif").read_bytes()
    (demo / "data" / "neuron.ome.tif").write_bytes(whole[:100])
    (demo / "data" / "cells_stage.csv").unlink()
    make_demo.main(demo, **SMALL)
    after = stamps(demo)
    changed = {path.name for path in after if after[path] != before[path]}
    assert changed == {"neuron.ome.tif", "cells_stage.csv"}
    assert (demo / "data" / "neuron.ome.tif").read_bytes() == whole


def test_command_line_makes_the_demo_of_full_size(tmp_path):
    command = [sys.executable, SCRIPT, tmp_path / "demo"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    truth = tifffile.imread(tmp_path / "demo" / "data" / "vessels_ground_truth.ome.tif")
    assert truth.shape == (48, 80, 80)
    assert tifffile.imread(tmp_path / "demo" / "data" / "vessels.ome.tif").shape == (8, 80, 80)
    stage = pd.read_csv(tmp_path / "demo" / "data" / "vessels_stage.csv")
    assert np.array_equal(stage["z_um"], 2.5 + 6 * np.arange(8))


def test_command_line_explains_a_mistake(tmp_path):
    (tmp_path / "file").write_text("")
    command = [sys.executable, SCRIPT, tmp_path / "file"]
    failed = subprocess.run(command, capture_output=True, text=True)
    assert failed.returncode == 2
    assert failed.stderr.startswith("make_demo.py: error: ")
    assert "Traceback" not in failed.stderr
