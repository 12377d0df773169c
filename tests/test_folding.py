"""Checks that logs and times of a finished sample become two files, and nothing of them is lost."""

import pytest

from besselflow.folding import fold_sample, folded_seconds, read_benchmark
from besselflow.report.history import read_benchmarks


def write_job(folder, part, name, text, seconds):
    for kind, suffix, content in (
        ("logs", "log", text),
        ("benchmarks", "tsv", f"s\tmax_rss\tmean_load\n{seconds}\t100.5\t90\n"),
    ):
        path = folder / part / kind / f"{name}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")


@pytest.fixture
def folder(tmp_path):
    machine = "2026-11-26 10:00:00,000 INFO computed on: a GPU, a CPU, 2 threads, node-7"
    write_job(tmp_path, "", "fit_inr-0", f"first line\nµ second\n{machine}\n", 3.5)
    write_job(tmp_path, "held_out", "fit_inr-0", "withheld\n", 1.5)
    (tmp_path / "metrics.tsv").write_text("kept")
    return tmp_path


def names(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def test_two_files_hold_what_was_in_many(folder):
    fold_sample(folder)
    assert names(folder) == {"logs.txt", "benchmarks.tsv", "metrics.tsv", "held_out"}
    text = (folder / "logs.txt").read_text(encoding="utf-8")
    assert "==> fit_inr-0 <==\nfirst line\nµ second\n" in text
    assert "==> held_out/fit_inr-0 <==\nwithheld\n" in text


def test_times_are_found_wherever_they_lie(folder):
    paths = {
        "fit": folder / "benchmarks" / "fit_inr-0.tsv",
        "withheld": folder / "held_out" / "benchmarks" / "fit_inr-0.tsv",
        "never run": folder / "benchmarks" / "refine-0.tsv",
    }
    before = read_benchmarks(paths)
    fold_sample(folder)
    assert read_benchmarks(paths) == before
    assert {stage.name: stage.seconds for stage in before} == {"fit": 3.5, "withheld": 1.5}
    hardware = {stage.name: stage.hardware for stage in before}
    assert hardware == {"fit": "a GPU, a CPU, 2 threads, node-7", "withheld": ""}
    assert read_benchmark(folder / "benchmarks" / "refine-0.tsv") is None


def test_a_job_that_ran_again_replaces_its_own_part_only(folder):
    fold_sample(folder)
    fold_sample(folder)
    write_job(folder, "", "fit_inr-0", "again\n", 9.0)
    fold_sample(folder)
    text = (folder / "logs.txt").read_text(encoding="utf-8")
    assert "again" in text and "withheld" in text and "first line" not in text
    assert read_benchmark(folder / "benchmarks" / "fit_inr-0.tsv")["s"].tolist() == [9.0]
    assert read_benchmark(folder / "held_out/benchmarks/fit_inr-0.tsv")["s"].tolist() == [1.5]


def test_a_sample_without_logs_is_left_alone(tmp_path):
    fold_sample(tmp_path)
    assert names(tmp_path) == set()


def test_all_times_are_counted_once(folder):
    assert folded_seconds(folder, set()) == []
    fold_sample(folder)
    assert sorted(folded_seconds(folder, set())) == [1.5, 3.5]
    assert folded_seconds(folder, {"fit_inr-0"}) == []
