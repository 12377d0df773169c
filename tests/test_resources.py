"""Checks the estimates of memory and time: what they grow with, and what they must cover."""

from dataclasses import replace

import pytest

from besselflow import extent
from besselflow.checks import check_samples
from besselflow.config import Config
from besselflow.extent import UNKNOWN, Extent, extent_of, extent_of_volume, joined, within_region
from besselflow.inr.steps import automatic_steps
from besselflow.resources import BASE_MINUTES, Need, asked_minutes, computing_minutes, need_of
from besselflow.sample_sheet import read_sheet
from tiny_runs import SHAPE, TinyFacility

CONFIG = Config()
BENCH = Extent(1, 1, 21, 128, 128, 128)
UNIT_STAGES = [
    *("interpolation", "spectral", "richardson_lucy", "variational"),
    *("fit_inr", "refine", "safeguard"),
]
WHOLE_STAGES = ["preprocess", "hold_out", "assemble", "validate", "evaluate", "report_sample"]
ALL_STAGES = [
    *UNIT_STAGES,
    *WHOLE_STAGES,
    *("convert_ground_truth", "scan_points", "simulate_training", "train_prior"),
    *("train_microdiffusion", "sample_microdiffusion", "estimate_shading"),
]


@pytest.mark.parametrize("stage", ALL_STAGES)
def test_more_data_never_needs_less(stage):
    smaller = need_of(stage, BENCH, CONFIG)
    for change in ({"slices": 256}, {"rows": 2048, "columns": 2048}, {"times": 20}):
        larger = need_of(stage, replace(BENCH, **change), CONFIG)
        assert larger.memory_mb >= smaller.memory_mb and larger.minutes >= smaller.minutes


@pytest.mark.parametrize("stage", UNIT_STAGES)
def test_a_stage_of_units_holds_one_tile_and_works_through_all(stage):
    tile = CONFIG.tiling.tile + 2 * CONFIG.tiling.halo
    one, four = (need_of(stage, replace(BENCH, rows=n, columns=n), CONFIG) for n in (tile, 512))
    assert four.memory_mb == pytest.approx(one.memory_mb, rel=0.01)
    one, four = (need.minutes - BASE_MINUTES for need in (one, four))
    if stage == "spectral":
        # All tiles share a standard deviation, which takes as long as a mean or longer.
        assert 2 * one < four < 4 * one
    else:
        assert four == pytest.approx(4 * one, rel=0.1)


def test_tiles_of_a_time_point_share_a_standard_deviation():
    def spent(extent, shards=1):
        return need_of("spectral", extent, CONFIG, shards).minutes - BASE_MINUTES

    wide = replace(BENCH, rows=1024, columns=1024)
    assert spent(replace(wide, times=64)) == pytest.approx(64 * spent(wide))
    # Chains of 8 time points are divided among the jobs: each has all of some time points.
    assert spent(replace(wide, times=64), 8) == pytest.approx(8 * spent(wide))
    # Or tiles of all of them.
    assert spent(replace(wide, times=8), 4) > 2.2 * spent(wide)


def test_the_light_of_many_samples_takes_their_time_but_the_memory_of_one():
    # As many images as are held at once.
    deep = replace(BENCH, projections=5000)
    one, ten = (need_of("estimate_shading", joined([deep] * n), CONFIG) for n in (1, 10))
    assert ten.memory_mb == one.memory_mb
    spent = [need.minutes - BASE_MINUTES for need in (one, ten)]
    assert spent[1] == pytest.approx(10 * spent[0])
    # Of a long series, no more is read than of a shorter one.
    series = [joined([replace(BENCH, times=times)]) for times in (100, 1000)]
    assert series[0] == series[1]


def test_shards_share_the_time_and_not_the_memory():
    series = replace(BENCH, times=64)
    one, eight = (need_of("fit_inr", series, CONFIG, shards) for shards in (1, 8))
    assert eight.memory_mb == one.memory_mb
    spent = [need.minutes - BASE_MINUTES for need in (one, eight)]
    assert spent[1] == pytest.approx(spent[0] / 8)


def test_a_longer_fit_is_given_more_time_and_a_wider_one_too():
    inr = CONFIG.inr
    known = need_of("fit_inr", BENCH, CONFIG)
    automatic = automatic_steps(BENCH.rows * BENCH.columns)
    same = CONFIG.model_copy(update={"inr": inr.model_copy(update={"steps": automatic})})
    assert need_of("fit_inr", BENCH, same) == known
    for change in ({"steps": 4 * automatic}, {"width": 4 * inr.width}):
        config = CONFIG.model_copy(update={"inr": inr.model_copy(update=change)})
        assert need_of("fit_inr", BENCH, config).minutes > 2 * known.minutes


def test_joint_training_is_given_more_memory_and_time():
    joint = CONFIG.microdiffusion.model_copy(update={"inr_training": "joint"})
    config = CONFIG.model_copy(update={"microdiffusion": joint})
    alone, beside = (need_of("train_microdiffusion", BENCH, own) for own in (CONFIG, config))
    fit = need_of("fit_inr", BENCH, config)
    assert beside.memory_mb > max(alone.memory_mb, fit.memory_mb)
    assert beside.minutes > alone.minutes + 0.5 * fit.minutes
    series = need_of("train_microdiffusion", replace(BENCH, times=8), config)
    assert series.memory_mb > beside.memory_mb and series.minutes > beside.minutes


# Peak memory in MB and seconds of stages of volumes of 128 x 128 x 128, of benchmark runs on two
# cores that were shared with other work.
MEASURED = {
    "spectral": (272, 3.2),
    "variational": (752, 146),
    "fit_inr": (617, 194),
    "train_microdiffusion": (1052, 227),
    "sample_microdiffusion": (993, 80),
    "convert_ground_truth": (219, 2.5),
}


@pytest.mark.parametrize("stage", MEASURED)
def test_estimates_cover_what_was_measured_but_not_tenfold(stage):
    memory_mb, seconds = MEASURED[stage]
    need = need_of(stage, BENCH, CONFIG)
    # Snakemake, which runs beside it in the same job.
    assert memory_mb + 250 < need.memory_mb < memory_mb + 1500
    assert seconds < 60 * need.minutes < 10 * seconds + 60 * BASE_MINUTES


# Processor seconds at 64 slices of 2048 x 2048 with one method, from "Cost of large volumes".
SECONDS_LARGE = {
    "preprocess": 36.4,
    "convert_ground_truth": 13.6,
    "assemble": 26.8,
    "validate": 51.5,
    "evaluate": 122.9,
    "report_sample": 22.3,
}


@pytest.mark.parametrize("stage", SECONDS_LARGE)
def test_time_of_whole_samples_covers_what_was_measured_several_times_over(stage):
    alone = CONFIG.model_copy(update={"methods": ["spectral"], "final": "spectral"})
    extent = Extent(1, 1, 10, 64, 2048, 2048)
    minutes = need_of(stage, extent, alone).minutes - BASE_MINUTES
    assert 5 * SECONDS_LARGE[stage] < 60 * minutes < 7 * SECONDS_LARGE[stage]
    five = need_of(stage, extent, CONFIG).minutes - BASE_MINUTES
    times = 1 if stage in ("preprocess", "convert_ground_truth") else len(CONFIG.methods)
    assert five == pytest.approx(times * minutes)


# Projections and slices of a default tile; processor seconds with hot and with saturated pixels,
# and peak memory in GiB, from "Cost of `spectral`".
SPECTRAL_TILES = [
    ((10, 64), (1.6, 6.6), 0.27),
    ((21, 128), (4.8, 17.8), 0.45),
    ((41, 128), (15.9, 53.6), 0.85),
]


@pytest.mark.parametrize(("size", "seconds", "gib"), SPECTRAL_TILES)
def test_estimate_of_spectral_covers_saturated_pixels_and_is_not_tenfold(size, seconds, gib):
    need = need_of("spectral", Extent(1, 1, *size, 304, 304), CONFIG)
    spent = 60 * (need.minutes - BASE_MINUTES)
    hot, saturated = seconds
    assert 4.5 * hot < spent < 9 * hot and spent > 1.3 * saturated
    assert 1074 * gib + 450 < need.memory_mb < 1074 * gib + 1500


@pytest.mark.parametrize(("edge", "seconds"), [(1024, 8.4), (2048, 32.6)])
def test_estimate_of_spectral_of_large_volumes_is_not_tenfold(edge, seconds):
    """Without hot pixels, as in "Cost of large volumes"."""
    need = need_of("spectral", Extent(1, 1, 10, 64, edge, edge), CONFIG)
    assert 5 * seconds < 60 * (need.minutes - BASE_MINUTES) < 10 * seconds


def test_more_time_is_asked_for_where_inverses_are_not_kept():
    kept, not_kept = (Extent(1, 1, count, 128, 304, 304) for count in (53, 54))
    one, other = (need_of("spectral", extent, CONFIG).minutes for extent in (kept, not_kept))
    assert other > 2 * one - BASE_MINUTES


# Peak memory in GiB at 64 slices of 2048 x 2048, from "Cost of large volumes".
MEASURED_LARGE = {
    "preprocess": 0.61,
    "convert_ground_truth": 0.30,
    "assemble": 0.59,
    "validate": 1.75,
    "evaluate": 1.10,
    "report_sample": 1.32,
}


@pytest.mark.parametrize("stage", MEASURED_LARGE)
def test_stages_that_work_in_blocks_are_not_given_the_memory_of_a_volume(stage):
    large = Extent(1, 1, 10, 64, 2048, 2048)
    need, deeper = (need_of(stage, each, CONFIG) for each in (large, replace(large, slices=256)))
    assert 1074 * MEASURED_LARGE[stage] + 250 < need.memory_mb < 4000
    assert deeper.memory_mb == need.memory_mb and deeper.minutes > need.minutes


def test_a_training_volume_is_held_as_a_whole():
    # Read, projected and reconstructed by `spectral`, 128 x 1024 x 1024 voxels took 2.22 GiB.
    need = need_of("simulate_training", Extent(1, 1, 128, 128, 1024, 1024), CONFIG)
    assert 1074 * 2.22 + 250 < need.memory_mb < 5000


def test_a_default_tile_fits_a_usual_node():
    large = Extent(1, 2, 32, 256, 2048, 2048)
    for stage in UNIT_STAGES:
        assert need_of(stage, large, CONFIG).memory_mb < 16_000


def test_each_attempt_is_given_more():
    need = Need(1000.5, 10.5)
    assert [need.at(attempt) for attempt in (1, 2, 3)] == [(1001, 11), (2001, 21), (4002, 32)]


@pytest.fixture(scope="module")
def sheet(tmp_path_factory):
    facility = TinyFacility(tmp_path_factory.mktemp("extent"))
    facility.add_test("known")
    facility.add_test("unknown", known=False)
    facility.add_train("other")
    checked = check_samples(read_sheet(facility.folder / "samples.tsv"))
    return checked.tests, checked.trains


def test_extent_is_read_from_the_headers(sheet):
    (known, unknown), trains = sheet
    assert extent_of(known) == Extent(1, 1, 3, *SHAPE)
    # Projections of 6 um in steps of 6 um see exactly the slices of the volume.
    assert extent_of(unknown) == extent_of(known)
    assert extent_of_volume(trains[0].ground_truth) == Extent(1, 1, 18, 18, 32, 32)


def test_extent_is_read_once(sheet, monkeypatch):
    first = extent_of(sheet[0][0])
    monkeypatch.setattr(extent, "open_acquisition", None)
    assert extent_of(sheet[0][0]) is first


def test_a_file_that_vanished_is_left_to_its_job(sheet, tmp_path):
    lost = replace(sheet[0][0], acquisition=tmp_path / "lost.tif")
    assert extent_of(lost) == UNKNOWN
    assert extent_of_volume(tmp_path / "lost.tif") == UNKNOWN


def test_region_of_withheld_projections():
    assert within_region(Extent(9, 2, 21, 128, 2048, 64), 100) == Extent(1, 2, 21, 128, 100, 64)


def test_all_stages_of_a_sample_take_longer_than_its_fits_and_grow_with_it():
    small = replace(BENCH, rows=24, columns=24, slices=18)
    together = computing_minutes(BENCH, CONFIG)
    fits = [need_of(stage, BENCH, CONFIG).minutes for stage in ("fit_inr", "variational")]
    assert together > sum(fits)
    assert (
        computing_minutes(small, CONFIG)
        < together
        < computing_minutes(replace(BENCH, times=4), CONFIG)
    )
    without = CONFIG.model_copy(update={"methods": ["spectral"], "final": "spectral"})
    assert computing_minutes(BENCH, without) < together / 2


def test_a_job_of_all_stages_asks_for_their_starts_too():
    small = replace(BENCH, rows=24, columns=24, slices=18)
    first, second = (asked_minutes(small, CONFIG, attempt) for attempt in (1, 2))
    # Eight stages for all methods, eight of the methods, and six of these for what is withheld,
    # each in whole minutes.
    starts = first - computing_minutes(small, CONFIG)
    assert 22 * BASE_MINUTES <= starts <= 22 * (BASE_MINUTES + 1)
    assert 2 * first - 22 <= second <= 2 * first
    without = CONFIG.model_copy(update={"methods": ["spectral"], "final": "spectral"})
    assert asked_minutes(small, without, 1) < first / 2
