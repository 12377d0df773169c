"""Checks which acquisitions the benchmark takes, its table, and that it can be skipped."""

import pandas as pd
import pytest
import run_bench
import yaml

from besselflow.config import load_config
from besselflow.sample_sheet import read_sheet


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.setattr(run_bench, "WORK", tmp_path / "bench")
    return tmp_path


def test_missing_data_are_said_and_no_failure(work, monkeypatch, capsys):
    monkeypatch.setattr(run_bench, "DATA", work / "nowhere")
    assert run_bench.main([], False, "train", []) == 0
    assert "benchmark skipped" in capsys.readouterr().out
    assert not (work / "bench").exists()


def test_chosen_geometry_comes_with_all_training_volumes(work):
    sheet = pd.read_csv(run_bench.write_sheet(["box6-step6"]), sep="\t", dtype=str)
    tests = sheet[sheet["role"] == "test"]
    assert set(tests["geometry"]) == {"box6-step6"} and len(tests) == 4
    assert (sheet["role"] == "train").sum() == 10
    assert not set(tests["ground_truth"]) & set(sheet[sheet["role"] == "train"]["ground_truth"])


def test_no_geometry_means_all(work):
    sheet = pd.read_csv(run_bench.write_sheet([]), sep="\t", dtype=str)
    assert sheet["geometry"].nunique() == 4 and (sheet["role"] == "test").sum() == 16


def test_unknown_geometry_is_refused_with_the_choices(work):
    with pytest.raises(SystemExit, match=r"box7.*box6-step6"):
        run_bench.write_sheet(["box7"])


@pytest.mark.skipif(not run_bench.DATA.is_dir(), reason="the benchmark's data are not here")
def test_all_files_of_the_sheet_exist():
    assert not read_sheet(run_bench.HERE / "samples.tsv").problems


def test_table_has_a_row_per_sample_and_method():
    metrics = pd.DataFrame(
        [("a", "inr", "psnr", 30.5), ("a", "inr", "chi2", 1.0), ("a", "spectral", "psnr", 28.25)],
        columns=["sample", "method", "metric", "value"],
    )
    lines = run_bench.format_table(metrics).splitlines()
    assert lines[0].split() == ["metric", "psnr", "chi2"]
    assert lines[2].split() == ["a", "inr", "30.500", "1.000"]
    assert lines[3].split() == ["spectral", "28.250", "-"]


def test_methods_without_training_are_a_valid_choice():
    values = dict(part.split("=", 1) for part in run_bench.UNTRAINED)
    config = load_config({key: yaml.safe_load(value) for key, value in values.items()})
    assert "diffusion" not in config.methods and config.final == "inr"
