"""Checks that work units cover a sample, divide among jobs, and join without seams."""

from itertools import pairwise

import dask.array as da
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from besselflow.tiling import (
    blend_units,
    blend_weights,
    list_units,
    margined_spans,
    tile_starts,
    units_by_shard,
    units_of_shard,
)

LENGTHS, TILES, HALOS = st.integers(1, 300), st.integers(1, 120), st.integers(1, 30)


@given(LENGTHS, TILES, HALOS)
@settings(max_examples=500, deadline=None)
def test_windows_cover_an_axis_and_overlap(length, tile, halo):
    starts, size = tile_starts(length, tile, halo)
    assert size == min(length, tile + 2 * halo)
    assert starts[0] == 0 and starts[-1] + size == length
    for first, second in pairwise(starts):
        assert first < second
        assert first + size - second >= 2 * halo


@given(LENGTHS, TILES, HALOS)
@settings(max_examples=100, deadline=None)
def test_no_more_windows_than_needed(length, tile, halo):
    starts, size = tile_starts(length, tile, halo)
    # One window fewer could not overlap by twice the halo everywhere.
    assert len(starts) == 1 or (len(starts) - 2) * tile + size < length


@given(
    st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), LENGTHS, LENGTHS),
    TILES,
    HALOS,
)
@settings(max_examples=100, deadline=None)
def test_units_cover_every_pixel_of_every_time_and_channel(shape, tile, halo):
    assume(max(shape[3:]) < 20 * tile)
    units = list_units(shape, tile, halo)
    assert [unit.index for unit in units] == list(range(len(units)))
    covered = np.zeros((*shape[:2], *shape[3:]), int)
    for unit in units:
        covered[unit.t, unit.c, unit.tile.y, unit.tile.x] += 1
        assert unit.tile.y.stop <= shape[3] and unit.tile.x.stop <= shape[4]
    assert covered.min() >= 1
    sizes = {(u.tile.y.stop - u.tile.y.start, u.tile.x.stop - u.tile.x.start) for u in units}
    assert len(sizes) == 1


@given(st.integers(1, 12), st.integers(1, 9), st.integers(1, 40))
def test_shards_partition_the_units(times, channels, shards):
    units = list_units((times, channels, 4, 50, 20), 16, 4)
    parts = [units_of_shard(units, shard, shards) for shard in range(shards)]
    assert [unit for part in parts for unit in part] == units
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1 + (len(units) % shards > 0)


@given(st.integers(1, 20), st.integers(1, 3), st.integers(1, 12), st.integers(1, 9))
def test_chains_of_time_points_stay_in_one_job_in_order(times, channels, shards, chain):
    units = list_units((times, channels, 4, 50, 20), 16, 4)
    parts = [units_of_shard(units, shard, shards, chain) for shard in range(shards)]
    assert units_by_shard(units, shards, chain) == parts
    assert sorted((u for part in parts for u in part), key=lambda unit: unit.index) == units
    home = {u.index: shard for shard, part in enumerate(parts) for u in part}
    for part in parts:
        for before, unit in pairwise(part):
            if unit.t % chain:
                assert (before.t, before.c, before.tile) == (unit.t - 1, unit.c, unit.tile)
    for unit in units:
        if unit.t % chain:
            first = next(u for u in units if (u.c, u.tile, u.t) == (unit.c, unit.tile, unit.t - 1))
            assert home[first.index] == home[unit.index]


@given(LENGTHS, TILES, HALOS)
@settings(max_examples=200, deadline=None)
def test_weights_are_positive_and_sum_to_at_least_one(length, tile, halo):
    starts, size = tile_starts(length, tile, halo)
    total = np.zeros(length)
    for start in starts:
        window = slice(start, start + size)
        weights = blend_weights(window, length, halo)
        assert weights.shape == (size,)
        assert weights.min() > 0 and weights.max() <= 1
        total[window] += weights
    # A sum below 1 would mean that an edge of a window counts more than its weight says.
    assert total.min() >= 1 - 1e-9


@given(LENGTHS, TILES, HALOS)
@settings(max_examples=300, deadline=None)
def test_margined_windows_keep_every_pixel_once(length, tile, margin):
    image = np.arange(length)
    spans = margined_spans(length, tile, margin)
    assert np.array_equal(np.concatenate([image[span.kept] for span in spans]), image)
    for span in spans:
        seen, kept = image[span.seen], image[span.kept]
        assert np.array_equal(seen[span.own], kept)
        assert seen[0] == max(kept[0] - margin, 0)
        assert seen[-1] == min(kept[-1] + margin, length - 1)


def test_weights_rise_linearly_over_twice_the_halo():
    weights = blend_weights(slice(10, 30), 40, 3)
    ramp = np.arange(1, 7) / 7
    np.testing.assert_allclose(weights, [*ramp, *np.ones(8), *ramp[::-1]])
    np.testing.assert_array_equal(blend_weights(slice(0, 20), 20, 3), 1)


def cut(volume, units):
    return {
        unit.index: da.from_array(volume[unit.t, unit.c, :, unit.tile.y, unit.tile.x])
        for unit in units
    }


@given(
    st.tuples(
        st.integers(1, 2),
        st.integers(1, 2),
        st.integers(1, 3),
        st.integers(1, 60),
        st.integers(1, 60),
    ),
    st.integers(5, 40),
    st.integers(1, 9),
    st.integers(7, 70),
)
@settings(max_examples=40, deadline=None)
def test_tiles_of_a_volume_blend_back_to_it(shape, tile, halo, block):
    volume = np.random.default_rng(0).normal(100, 30, shape).astype(np.float32)
    units = list_units(shape, tile, halo)
    joined = blend_units(cut(volume, units), units, shape, halo, block)
    assert joined.shape == shape and joined.dtype == np.float32
    assert max(max(joined.chunks[3]), max(joined.chunks[4])) <= block
    np.testing.assert_allclose(joined.compute(scheduler="synchronous"), volume, rtol=1e-5)


def join_offsets(offsets, shape, tile, halo, block=64):
    """Join units that are constant, each with its own value."""
    units = list_units(shape, tile, halo)
    arrays = {
        unit.index: da.full(
            (shape[2], unit.tile.y.stop - unit.tile.y.start, unit.tile.x.stop - unit.tile.x.start),
            offsets[unit.index % len(offsets)],
            dtype="float32",
        )
        for unit in units
    }
    return units, blend_units(arrays, units, shape, halo, block).compute(scheduler="synchronous")


@given(st.integers(10, 60), st.integers(1, 12), st.integers(1, 60), st.integers(3, 50))
@settings(max_examples=60, deadline=None)
def test_two_units_that_differ_by_one_meet_in_a_ramp(tile, halo, more, block):
    length = 2 * halo + tile + min(more, tile)
    units, joined = join_offsets([0.0, 1.0], (1, 1, 1, 3, length), tile, halo, block)
    assert len(units) == 2
    profile = joined[0, 0, 0, 0]
    steps = np.diff(profile)
    assert steps.min() >= -1e-6
    assert steps.max() <= 1 / (2 * halo + 1) + 1e-6
    # Beyond the overlap each unit stands alone.
    np.testing.assert_array_equal(profile[: units[1].tile.x.start], 0)
    np.testing.assert_array_equal(profile[units[0].tile.x.stop :], 1)


@given(
    st.lists(st.floats(0, 1), min_size=4, max_size=12),
    st.integers(20, 110),
    st.integers(20, 110),
    st.integers(8, 40),
    st.integers(1, 12),
)
@settings(max_examples=40, deadline=None)
def test_units_with_different_offsets_show_no_seam(offsets, height, width, tile, halo):
    offsets = np.array(offsets, np.float32)
    units, joined = join_offsets(offsets, (1, 1, 1, height, width), tile, halo)
    image = joined[0, 0, 0]
    assert image.min() >= offsets.min() - 1e-5 and image.max() <= offsets.max() + 1e-5
    for axis, name in ((0, "y"), (1, "x")):
        windows = {(getattr(u.tile, name).start, getattr(u.tile, name).stop) for u in units}
        position = np.arange(image.shape[axis])
        covering = sum((position >= a) & (position < b) for a, b in windows)
        # Each unit that covers a place adds at most one step of its ramp.
        largest = max(covering.max(), 1) / (2 * halo + 1)
        assert np.abs(np.diff(image, axis=axis)).max() <= largest * np.ptp(offsets) + 1e-5


def test_blocks_of_a_time_series_take_their_own_units():
    shape = (2, 3, 2, 20, 24)
    volume = np.zeros(shape, np.float32) + np.arange(6).reshape(2, 3, 1, 1, 1)
    units = list_units(shape, 10, 2)
    joined = blend_units(cut(volume, units), units, shape, 2, 512)
    np.testing.assert_allclose(joined[1, 2].compute(), 5, rtol=1e-6)
    np.testing.assert_allclose(joined[0, 1].compute(), 1, rtol=1e-6)


@pytest.mark.parametrize("shards", [1, 3])
def test_few_units_leave_some_shards_empty(shards):
    units = list_units((1, 1, 4, 30, 30), 64, 8)
    assert sum(bool(units_of_shard(units, k, shards)) for k in range(shards)) == 1
