"""Runs that are killed, starved of disk, or fed with damage; all of them must end well or clearly.

`test_a_run_killed_again_and_again...` takes minutes and has the marker `slow`.
"""

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import time

import numpy as np
import pandas as pd
import psutil
import pytest

from besselflow.store import open_units, open_volume
from besselflow.tiling import list_units
from tiny_faults import fill_disk, malicious_pickle, small_disk
from tiny_runs import SETTINGS as TINY
from tiny_runs import SHAPE, TinyFacility, environment, wait_until

KILLS, KILLS_PER_STAGE = 24, 3
VOLUMES = ("volume.ome.zarr", "uncertainty.ozx", "methods/interpolation.ozx")
SETTINGS = {"methods": ["interpolation", "spectral"], "final": "spectral"}
WITH_FIT = {
    "methods": ["interpolation", "spectral", "inr"],
    "final": "inr",
    "inr": {"steps": 600, "width": 16, "features": 16, "checkpoint_seconds": 0.2},
}
WITH_PRIOR = {
    "methods": ["spectral", "inr", "diffusion"],
    "final": "diffusion",
    "inr": WITH_FIT["inr"] | {"steps": 200},
    "prior": TINY["prior"]
    | {"weights": "train", "phantoms": 0, "steps": 60, "checkpoint_seconds": 0.2},
    "validation": {"hold_out": 0},
}
OF_THE_PRIOR = ("simulate_training", "train_prior", "refine", "safeguard")
pytestmark = pytest.mark.workflow


def start(facility, *arguments):
    """Start a run; its output goes to a file, which no reader needs to empty."""
    with open(facility.folder / "output.txt", "a") as output:
        return subprocess.Popen(
            facility.command(*arguments),
            cwd=facility.folder,
            env=environment(),
            stdout=output,
            stderr=output,
        )


def jobs_of(controller):
    """Return the processes that a run has started."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(controller.pid).children(recursive=True)
    return []


def volumes_of(facility, names):
    return {name: np.asarray(open_volume(facility.results / "a" / name).data) for name in names}


def volume_of(units):
    """Return the volume of the only unit in a store."""
    return np.asarray(open_units([units]).arrays["volume"][0])


def partial_files(facility):
    return [path.name for path in facility.results.rglob("*partial*")]


def stages_of(jobs):
    """Return the rules whose scripts are at work in some processes."""
    lines = []
    for job in jobs:
        with contextlib.suppress(psutil.NoSuchProcess):
            lines.append(" ".join(job.cmdline()))
    return set(re.findall(r"\.snakemake/scripts/\w+\.(\w+)\.py", "\n".join(lines)))


def kill_at_random(facility, chance, target=None, stage=None):
    """Start a run and kill its controller or one of its jobs within some seconds.

    Parameters
    ----------
    facility : TinyFacility
    chance : random.Random
    target, stage : str or None
        What the run is to make, and the rule from whose start on the seconds count, which are then
        fewer.

    Returns
    -------
    str
        What was killed, or "nothing" where the run had ended before.
    set of str
        Rules that were at work.
    """
    controller = start(facility, *([target] if target else []))
    wanted, seconds = chance.choice(["controller", "job"]), chance.uniform(1, 9)
    if stage:
        wait_until(
            lambda: stage in stages_of(jobs_of(controller)) or controller.poll() is not None, 200
        )
        seconds /= 3
    until = time.monotonic() + seconds
    while time.monotonic() < until and controller.poll() is None:
        time.sleep(0.02)
    killed, stages = "nothing", set()
    if controller.poll() is None:
        jobs = jobs_of(controller)
        stages = stages_of(jobs)
        if wanted == "job" and jobs:
            victim = chance.choice(jobs)
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()
                killed = "job"
        else:
            controller.kill()
            killed = "controller"
    if killed == "controller":
        controller.wait()
        _, alive = psutil.wait_procs(jobs, timeout=60)
        assert not alive, "a job outlived the controller"
        assert facility.run("--unlock").returncode == 0
    elif controller.wait(timeout=300) == -signal.SIGKILL:
        facility.run("--unlock")
    return killed, stages


def metrics_of(facility):
    table = pd.read_csv(facility.results / "a" / "metrics.tsv", sep="\t")
    return table.set_index(["sample", "method", "metric"])["value"]


def assert_same_outputs(disturbed, undisturbed, names):
    """Compare volumes and scores of two runs, and look for what was left half-written."""
    expected, found = volumes_of(undisturbed, names), volumes_of(disturbed, names)
    for name in names:
        scale = float(np.abs(expected[name]).max())
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-5 * scale)
    pd.testing.assert_series_equal(metrics_of(disturbed), metrics_of(undisturbed), rtol=1e-3)
    assert partial_files(disturbed) == []
    assert "Nothing to be done" in disturbed.run().stdout


def two_facilities(folder, settings, train=False):
    """Set up the same samples twice; run one of them undisturbed, which is returned first."""
    facilities = [TinyFacility(folder / name, **settings) for name in ("undisturbed", "disturbed")]
    for facility in facilities:
        facility.add_test("a")
        if train:
            facility.add_train("t")
    finished = facilities[0].run()
    assert finished.returncode == 0, finished.stdout
    return facilities


@pytest.mark.slow
def test_a_run_killed_again_and_again_ends_with_the_same_outputs(tmp_path):
    undisturbed, disturbed = two_facilities(tmp_path, WITH_FIT)
    chance, killed = random.Random(7), []
    while len([what for what in killed if what != "nothing"]) < KILLS:
        # Where it got to its end, something is taken away, so that there is work again.
        if (disturbed.results / "report.html").exists():
            shutil.rmtree(disturbed.results)
        killed.append(kill_at_random(disturbed, chance)[0])
        assert len(killed) < 3 * KILLS, killed
    last = disturbed.run()
    assert last.returncode == 0, last.stdout
    assert {"controller", "job"} <= set(killed)
    names = ("volume.ome.zarr", "methods/spectral.ozx", "methods/interpolation.ozx")
    assert_same_outputs(disturbed, undisturbed, names)


@pytest.mark.slow
def test_a_prior_killed_again_and_again_is_the_same(tmp_path):
    undisturbed, disturbed = two_facilities(tmp_path, WITH_PRIOR, train=True)
    units = disturbed.results / "a" / "units"
    # What comes before and after is killed by the other test.
    begun = disturbed.run("results/a/units/inr-0.zip")
    assert begun.returncode == 0, begun.stdout
    chance, killed, hit = random.Random(8), set(), set()
    for stage in OF_THE_PRIOR:
        for _ in range(KILLS_PER_STAGE):
            target = "results/a/units/diffusion-0.zip"
            what, stages = kill_at_random(disturbed, chance, target, stage)
            killed.add(what)
            hit |= stages
    last = disturbed.run()
    assert last.returncode == 0, last.stdout
    # On a fast machine, a stage may end before it is hit.
    assert {"controller", "job"} <= killed and len(hit & set(OF_THE_PRIOR)) > 1, (killed, hit)
    # What the prior makes of the INR, which the volume need not take from it.
    folders = (undisturbed.results / "a" / "units", units)
    expected, found = (volume_of(folder / "prior-0.zip") for folder in folders)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert not np.allclose(expected, volume_of(units / "inr-0.zip"), rtol=1e-2)
    names = ("volume.ome.zarr", "methods/spectral.ozx", "methods/inr.ozx")
    assert_same_outputs(disturbed, undisturbed, names)


def test_a_full_disk_is_named_and_costs_nothing_that_is_finished(tmp_path):
    facility = TinyFacility(tmp_path, **SETTINGS)
    facility.add_test("a")
    with small_disk(facility.results, "16m"):
        assert facility.run("results/a/projections.zip").returncode == 0
        finished = facility.modification_times()["a/projections.zip"]
        # Enough for what a run notes at its start, and not for the page at its end.
        filler = fill_disk(facility.results, free=2**15)
        ended = facility.run()
        assert ended.returncode != 0 and not (facility.results / "report.html").exists()
        os.truncate(filler, 0)
        resumed = facility.run()
        assert resumed.returncode == 0, resumed.stdout
        assert facility.modification_times()["a/projections.zip"] == finished
    full = "can't be written: the disk is full; free some space"
    summary = ended.stdout.partition("BesselFlow could not finish everything.")[2]
    assert "There is no results/report.html: results/" in summary and full in summary
    assert "What did finish is in results." in summary
    for text in ("Traceback", "Logging error", "killed for its memory"):
        assert text not in ended.stdout


def test_a_read_only_folder_is_refused_before_anything_runs(tmp_path):
    facility = TinyFacility(tmp_path, **SETTINGS)
    facility.add_test("a")
    with small_disk(facility.results, "1m"):
        again = ["mount", "-o", "remount,ro", str(facility.results)]
        subprocess.run(again, check=True, capture_output=True)
        refused = facility.run()
    assert refused.returncode != 0
    assert "Nothing was run" in refused.stdout
    assert 'results in the configuration: "results"' in refused.stdout
    assert "choose another folder" in refused.stdout and "Traceback" not in refused.stdout


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    # As many tiles as an image of 2048 x 2048 pixels has by default.
    tiling = {"tile": 3, "halo": 1}
    facility = TinyFacility(tmp_path_factory.mktemp("finished"), **SETTINGS, tiling=tiling)
    facility.add_test("a")
    ended = facility.run()
    assert ended.returncode == 0, ended.stdout
    return facility


def test_a_vanished_input_is_named_and_nothing_is_lost(finished):
    path = finished.folder / "data" / "a.ome.tif"
    hidden, before = path.with_suffix(".hidden"), finished.modification_times()
    path.rename(hidden)
    try:
        refused = finished.run()
    finally:
        hidden.rename(path)
    assert refused.returncode != 0
    assert "a.ome.tif" in refused.stdout and "no such file" in refused.stdout
    assert finished.modification_times() == before
    assert "Nothing to be done" in finished.run().stdout


def test_damaged_units_are_named_with_a_remedy_that_works(finished):
    units = finished.results / "a" / "units" / "spectral-0.zip"
    volume = finished.results / "a" / "volume.ome.zarr"
    expected = np.asarray(open_volume(volume).data)
    units.write_bytes(units.read_bytes()[:500])
    shutil.rmtree(volume)
    refused = finished.run()
    assert refused.returncode != 0
    reason = next(line for line in refused.stdout.splitlines() if "reason:" in line)
    assert "units/spectral-0.zip: not a readable store; delete the file and run again" in reason
    units.unlink()
    repaired = finished.run()
    assert repaired.returncode == 0, repaired.stdout
    np.testing.assert_array_equal(np.asarray(open_volume(volume).data), expected)


def test_a_checkpoint_replaced_by_code_is_not_run_and_the_fit_starts_over(tmp_path):
    slow = WITH_FIT["inr"] | {"steps": 100_000, "checkpoint_seconds": 0.05}
    facility = TinyFacility(tmp_path, **WITH_FIT | {"inr": slow})
    facility.add_test("a")
    target, touched = "results/a/units/inr-0.zip", tmp_path / "touched"
    folder = facility.results / "a" / "units" / "inr-0.checkpoints"
    first = start(facility, target)
    try:
        wait_until(lambda: list(folder.glob("*.pt")) or first.poll() is not None, 200)
        jobs = jobs_of(first)
    finally:
        first.kill()
        first.wait()
    _, alive = psutil.wait_procs(jobs, timeout=60)
    assert not alive and facility.run("--unlock").returncode == 0
    (checkpoint,) = folder.glob("*.pt")
    checkpoint.write_bytes(malicious_pickle(touched, archive=True))
    finished = facility.modification_times()["a/units/spectral-0.zip"]
    facility.configure(**WITH_FIT)
    resumed = facility.run(target)
    assert resumed.returncode == 0, resumed.stdout
    assert f"checkpoint results/a/units/inr-0.checkpoints/{checkpoint.name} can't be read" in (
        resumed.stdout
    )
    assert not touched.exists() and not folder.exists()
    assert facility.modification_times()["a/units/spectral-0.zip"] == finished


def test_damaged_priors_are_named_with_a_remedy_that_works(tmp_path):
    prior = TINY["prior"] | {"weights": "train", "phantoms": 0}
    settings = {"methods": ["spectral", "inr", "diffusion"], "final": "diffusion"}
    facility = TinyFacility(tmp_path, **settings, prior=prior, validation={"hold_out": 0})
    facility.add_test("a", known=False)
    facility.add_train("t")
    target, touched = "results/a/units/prior-0.zip", tmp_path / "touched"
    first = facility.run(target)
    assert first.returncode == 0, first.stdout
    units = facility.folder / target
    expected = volume_of(units)
    (path,) = (facility.results / "priors").glob("*.safetensors")
    whole = path.read_bytes()
    untouched = facility.modification_times()["a/units/inr-0.zip"]
    flipped = whole[:-1] + bytes([whole[-1] ^ 0x10])
    for content in (flipped, malicious_pickle(touched, archive=False)):
        path.write_bytes(content)
        units.unlink(missing_ok=True)
        refused = facility.run(target)
        assert refused.returncode != 0
        reason = next(line for line in refused.stdout.splitlines() if "reason:" in line)
        assert f"{path.name}: not a readable prior" in reason
        assert "delete the file and run again" in reason
    path.unlink()
    repaired = facility.run(target)
    assert repaired.returncode == 0, repaired.stdout
    np.testing.assert_allclose(volume_of(units), expected, rtol=1e-4, atol=1e-4)
    assert not touched.exists()
    assert facility.modification_times()["a/units/inr-0.zip"] == untouched


def test_a_second_run_in_the_same_folder_is_refused_and_the_first_ends_well(tmp_path):
    facility = TinyFacility(tmp_path, **SETTINGS)
    facility.add_test("a")
    first = start(facility)
    try:
        wait_until(lambda: jobs_of(first) or first.poll() is not None, 120)
        assert first.poll() is None
        second = facility.run()
        assert second.returncode != 0 and "lock" in second.stdout
        assert first.wait(timeout=300) == 0, (facility.folder / "output.txt").read_text()
    finally:
        first.kill()
        first.wait()
    assert set(volumes_of(facility, VOLUMES)) == set(VOLUMES)
    assert partial_files(facility) == []


def test_a_finished_sample_of_many_tiles_is_few_files(finished):
    assert len(list_units((1, 1, 1, *SHAPE[1:]), 3, 1)) == 64
    files = [path for path in (finished.results / "a").rglob("*") if path.is_file()]
    listing = "\n".join(str(path.relative_to(finished.results)) for path in files)
    assert len(files) <= 30, listing
    names = {path.relative_to(finished.results / "a").as_posix() for path in files}
    assert {"logs.txt", "benchmarks.tsv"} <= names and not any("logs/" in name for name in names)
    assert os.path.getsize(finished.results / "a" / "logs.txt") > 0
