"""Checks the warning of jobs that take longer than clusters allow."""

import math
import os
import re
from dataclasses import replace

import pytest

from besselflow.config import Config
from besselflow.extent import Extent
from besselflow.long_jobs import USUAL_LIMIT_MINUTES, describe_long_jobs
from besselflow.resources import need_of
from tiny_runs import ROOT, TinyFacility

SMALL = Extent(1, 1, 21, 128, 128, 128)
LARGE = Extent(1, 1, 43, 256, 2048, 2048)
NETWORKS = {"methods": ["spectral", "inr", "diffusion"]}


def configured(shards=1, **changes):
    return Config.model_validate({"tiling": {"shards": shards}} | NETWORKS | changes)


def advised(text):
    return int(re.search(r"set tiling\.shards to (\d+) or more", text)[1])


@pytest.mark.parametrize(
    "changes", [{}, {"methods": ["spectral", "variational"], "final": "variational"}]
)
@pytest.mark.parametrize("series", [{}, {"times": 16, "rows": 768, "columns": 768}])
def test_the_advised_number_of_shards_is_the_smallest_that_does(changes, series):
    extent = replace(LARGE, **series)
    text = describe_long_jobs({"small": SMALL, "big": extent}, configured(**changes))
    shards = advised(text)
    assert shards > 1
    assert describe_long_jobs({"big": extent}, configured(shards, **changes)) is None
    assert describe_long_jobs({"big": extent}, configured(shards - 1, **changes)) is not None


def test_sample_stage_and_estimate_are_named_in_one_sentence():
    config = configured()
    text = describe_long_jobs({"small": SMALL, "big": LARGE}, config)
    first, again = (need_of("refine", LARGE, config).at(attempt)[1] for attempt in (1, 2))
    assert text.startswith(f'The job refine of the sample "big" asks for {first} minutes, ')
    assert f"and for {again} if it has to be repeated" in text
    assert text.count(". ") == 0 and "\n" not in text
    # Alone, it would just fit.
    assert first < USUAL_LIMIT_MINUTES < again


def test_the_longest_of_several_samples_is_named_with_a_number_for_all():
    deeper = replace(LARGE, times=8, slices=512)
    text = describe_long_jobs({"big": LARGE, "bigger": deeper, "small": SMALL}, configured())
    assert 'of the sample "bigger" (and those of 1 more)' in text
    alone = describe_long_jobs({"bigger": deeper}, configured())
    assert advised(text) == advised(alone) > advised(describe_long_jobs({"b": LARGE}, configured()))


def test_what_shards_cannot_mend_is_said():
    endless = configured(inr={"steps": 50_000_000})
    text = describe_long_jobs({"a": SMALL}, endless)
    assert "; ask for a partition that allows more (the job fit_inr asks" in text
    assert "tiling.shards" not in text
    # With four tiles, as many shards shorten it, though not enough.
    text = describe_long_jobs({"a": replace(SMALL, rows=400, columns=400)}, endless)
    assert advised(text) == 4 and ", and ask for a partition that allows more" in text


def test_the_jobs_that_shards_do_not_divide_count_too():
    series = replace(SMALL, times=200, rows=512, columns=512)
    config = configured(64)
    text = describe_long_jobs({"a": series}, config)
    assert text.startswith('The job with evaluate of the sample "a" asks for ')
    assert "; ask for a partition that allows more (the job with evaluate asks" in text
    stages = ("convert_ground_truth", "assemble", "validate", "evaluate", "report_sample")
    minutes = sum(need_of(stage, series, config).minutes for stage in stages)
    assert f"asks for {math.ceil(minutes)} minutes" in text


def test_the_limit_of_the_cluster_counts_where_it_tells():
    config = configured()
    need = need_of("refine", LARGE, config)
    patient = {"known_limit": need.at(2)[1]}
    assert describe_long_jobs({"big": LARGE}, config, **patient) is None
    assert describe_long_jobs({"big": LARGE}, config, math.inf) is None
    text = describe_long_jobs({"small": SMALL}, config, 3.0)
    assert "but no partition gives more than 3 minutes (0.05 hours); ask for a partition" in text
    half = describe_long_jobs({"big": LARGE}, config, USUAL_LIMIT_MINUTES / 2)
    assert advised(half) > advised(describe_long_jobs({"big": LARGE}, config))


def test_samples_that_take_little_are_not_mentioned():
    assert describe_long_jobs({"a": SMALL, "b": replace(SMALL, times=4)}, Config()) is None


def pretend(folder, monkeypatch, limit):
    """Put programs in the place of Slurm's, of a cluster without GPUs whose jobs end at a limit."""
    programs = folder / "bin"
    programs.mkdir()
    answer = f"""case "$*" in *%l*) echo {limit};; *) echo "(null)";; esac"""
    for name, script in (("squeue", "true"), ("sinfo", answer)):
        (programs / name).write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")


@pytest.mark.workflow
@pytest.mark.parametrize(
    ("limit", "groups"),
    [("1:00", {"before", "after"}), ("12:00:00", {"sample"}), ("infinite", {"sample"})],
)
def test_a_small_sample_is_one_job_where_a_partition_takes_it(tmp_path, monkeypatch, limit, groups):
    facility = TinyFacility(tmp_path, methods=["spectral", "inr"], final="inr")
    facility.add_test("a")
    pretend(tmp_path, monkeypatch, limit)
    profile = str(ROOT / "profiles" / "slurm")
    dry = facility.run("--dry-run", "--profile", profile, "results/a/report.html")
    assert dry.returncode == 0, dry.stdout
    assert set(re.findall(r"Group job (\w+)", dry.stdout)) == groups


@pytest.mark.workflow
def test_a_dry_run_warns_where_there_is_a_cluster(tmp_path, monkeypatch):
    inr = {"steps": 5_000_000, "width": 16, "features": 16}
    facility = TinyFacility(tmp_path, methods=["spectral", "inr"], final="inr", inr=inr)
    facility.add_test("a")
    pretend(tmp_path, monkeypatch, "2-00:00:00")
    dry = facility.run("--dry-run", "--quiet", "all")
    assert dry.returncode == 0, dry.stdout
    assert 'The job fit_inr of the sample "a" asks for' in dry.stdout
    assert "no partition gives more than 2880 minutes (48 hours)" in dry.stdout
