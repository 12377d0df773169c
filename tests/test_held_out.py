"""Which projections are withheld, what is kept, and how predictions are ranked."""

from dataclasses import replace

import dask.array as da
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from besselflow.beam import box_profile
from besselflow.held_out import (
    COLUMNS,
    FEWEST_PROJECTIONS,
    FOLDED,
    WITHHELD,
    ask,
    choose_region,
    deciding,
    left_out_projections,
    prediction_errors,
    questions_of,
    rank_predictions,
    take,
    thin,
)
from besselflow.projection import AxialGrid
from besselflow.store import Projections, open_projections, write_projections
from besselflow.thinning import Thinning
from besselflow.validation import Noise

SHAPE = (1, 1, 50, 60, 64)
POSITIONS = np.arange(2.5, 48, 5.0)
SIGMA = 3.0


def acquisition(data, attributes=None):
    return Projections(
        data=da.from_array(data.astype("float32"), chunks=(1, 1, 4, 32, 32)),
        positions_um=POSITIONS,
        profile=box_profile(6.0),
        grid=AxialGrid(0.0, 1.0, SHAPE[2]),
        pixel_size_um=(1.0, 1.0),
        unit="photons",
        attributes=attributes or {},
    )


@given(st.integers(1, 300), st.integers(0, 40).filter(lambda every: every != 1))
def test_the_ends_stay_and_one_in_so_many_goes(count, every):
    left_out = left_out_projections(count, every)
    if not every or count < FEWEST_PROJECTIONS:
        assert left_out == []
        return
    assert left_out and all(0 < p < count - 1 for p in left_out)
    assert set(np.diff(left_out)) <= {every}
    assert len(left_out) <= count / every + 1
    assert count - len(left_out) >= count / 2


def test_eight_projections_lose_two_of_them():
    assert left_out_projections(8, 4) == [2, 6]
    assert left_out_projections(21, 4) == [2, 6, 10, 14, 18]


def test_the_brightest_window_is_found():
    image = np.ones((40, 60))
    image[25:31, 7:13] = 50
    y, x = choose_region(image, 8)
    assert (y.stop - y.start, x.stop - x.start) == (8, 8)
    assert y.start <= 25 and y.stop >= 31 and x.start <= 7 and x.stop >= 13
    assert choose_region(image, 50) == (slice(0, 40), slice(0, 50))


@pytest.fixture(scope="module")
def series():
    rng = np.random.default_rng(1)
    data = rng.random((3, 2, len(POSITIONS), 60, 64)) + 1
    data[1, :, :, 30:50, 20:40] += 5
    data[2, :, :, :10, :10] += 500
    return acquisition(data, {"scale": [[1, 2], [3, 4], [5, 6]], "sample": "s"})


def test_the_thinned_acquisition_is_the_brightest_region_of_the_middle_time(series, tmp_path):
    write_projections(tmp_path / "thinned.zip", thin(series, 4, 20))
    thinned = open_projections(tmp_path / "thinned.zip")
    taken = thinned.attributes["held_out"]
    expected = {"projections": [2, 6], "folded": [], "t": 1, "y": [30, 50], "x": [20, 40]}
    assert taken == expected and thinned.members_um is None
    assert thinned.data.shape == (1, 2, len(POSITIONS) - 2, 20, 20)
    assert thinned.grid == series.grid and thinned.attributes["scale"] == [[3, 4]]
    kept = [0, 1, 3, 4, 5, 7, 8, 9]
    np.testing.assert_array_equal(thinned.positions_um, POSITIONS[kept])
    expected = np.asarray(series.data)[1:2, :, kept, 30:50, 20:40]
    np.testing.assert_array_equal(np.asarray(thinned.data), expected)


def test_folded_neighbours_become_a_projection_of_a_longer_beam(series, tmp_path):
    write_projections(tmp_path / "thinned.zip", thin(series, 6, 20))
    thinned = open_projections(tmp_path / "thinned.zip")
    taken = thinned.attributes["held_out"]
    assert taken["projections"] == [3] and taken["folded"] == [[6, 7]]
    data = np.asarray(series.data)[1:2, :, :, 30:50, 20:40]
    expected = np.stack(
        [data[:, :, group].mean(axis=2) for group in ([0], [1], [2], [4], [5], [6, 7], [8], [9])],
        axis=2,
    )
    np.testing.assert_allclose(np.asarray(thinned.data), expected, rtol=1e-6)
    assert thinned.data.dtype == np.float32
    assert thinned.positions_um[5] == pytest.approx(POSITIONS[6:8].mean())
    assert thinned.members_um[5] == POSITIONS[6:8].tolist()
    # How noisy a projection is goes with it.
    factors = np.linspace(1, 2, len(POSITIONS))
    write_projections(tmp_path / "f.zip", thin(replace(series, noise_factors=factors), 6, 20))
    left = open_projections(tmp_path / "f.zip").operator.noise_factors
    np.testing.assert_allclose(left[[2, 3, 5]], [factors[2], factors[4], factors[6:8].mean()])
    # The operator of what is left sees with both beams at once.
    volume = np.random.default_rng(0).random((SHAPE[2], 4, 4)).astype(np.float32)
    whole = series.operator.forward(volume)
    found = thinned.operator.forward(volume)
    np.testing.assert_allclose(found[5], whole[6:8].mean(axis=0), rtol=1e-5)
    kept = [0, 1, 2, 4, 5, 8, 9]
    np.testing.assert_allclose(np.delete(found, 5, axis=0), whole[kept], rtol=1e-5)


def test_too_few_projections_can_not_be_thinned(series):
    few = take(series, [0, 1, 2], 0, (slice(0, 20), slice(0, 20)))
    with pytest.raises(ValueError, match="too few"):
        thin(few, 4, 20)


class Predicted:
    """A true volume, its noisy projections, and volumes of known error."""

    def __init__(self):
        rng = np.random.default_rng(2)
        self.true = rng.random(SHAPE).astype("float32") * 50
        empty = acquisition(np.zeros((1, 1, len(POSITIONS), *SHAPE[3:])))
        self.clean = empty.operator.forward(self.true)
        self.measured = acquisition(self.clean + rng.normal(0, SIGMA, self.clean.shape))
        flat = da.full(SHAPE, 25.0, dtype="float32")
        self.noise = Noise(flat, np.full((1, 1), SIGMA**2), np.full((1, 1), 25.0))

    def errors(self, noise=True, every=4, **shifts):
        volumes = {name: da.from_array(self.true + shift) for name, shift in shifts.items()}
        noise = self.noise if noise else None
        thinned = thin(self.measured, every, 1000)
        return prediction_errors(volumes, thinned, self.measured, noise, "s")


@pytest.fixture(scope="module")
def predicted():
    return Predicted()


def test_the_true_volume_predicts_within_the_noise_and_a_shift_adds_its_square(predicted):
    table = predicted.errors(true=0, bright=1.5, dark=-6)
    assert list(table.columns) == COLUMNS
    assert len(table) == 3 * 2 * 16
    assert set(table["projection"]) == {2, 6} and set(table["z_um"]) == {12.5, 32.5}
    ranking = rank_predictions(table)
    assert [each.method for each in ranking] == ["true", "bright", "dark"]
    error = 5 * np.sqrt(2 / (2 * 60 * 64))
    for each, shift in zip(ranking, (0, 1.5, 6), strict=True):
        expected = 1 + shift**2 / SIGMA**2
        assert each.chi2 == pytest.approx(expected, abs=error * expected)
    peak = float(np.asarray(predicted.measured.data)[0, 0, [2, 6]].max())
    mse = table[table["method"] == "dark"]["mse"].mean()
    assert ranking[2].psnr == pytest.approx(10 * np.log10(peak**2 / mse))
    assert [each.tied for each in ranking] == [True, False, False]


def test_what_the_noise_hides_is_a_tie(predicted):
    rng = np.random.default_rng(3)
    tiny = rng.normal(0, 0.02, SHAPE).astype("float32")
    ranking = rank_predictions(predicted.errors(one=tiny, two=-tiny, bad=4))
    assert [each.tied for each in ranking] == [True, True, False]


def test_without_noise_methods_are_ranked_all_the_same(predicted):
    ranking = rank_predictions(predicted.errors(noise=False, true=0, bright=1.5))
    assert [(each.method, each.chi2) for each in ranking] == [("true", None), ("bright", None)]


def test_where_neighbours_are_folded_their_difference_decides(predicted):
    """What is too bright everywhere is wrong about what was withheld, and right about these."""
    tilt = np.linspace(-4, 4, SHAPE[2], dtype="float32")[:, None, None]
    table = predicted.errors(every=5, true=0, bright=3, tilted=tilt)
    folded = table[table["question"] == FOLDED]
    assert set(table["question"]) == {WITHHELD, FOLDED}
    pairs = Thinning.of(len(POSITIONS), 5).folded
    assert set(folded["projection"]) == {first for first, _ in pairs}
    assert set(folded["z_um"]) == {float(POSITIONS[list(pair)].mean()) for pair in pairs}
    # The noise of a difference is that of both.
    np.testing.assert_allclose(folded["noise_variance"], 2 * SIGMA**2, rtol=0.02)
    ranking = rank_predictions(table)
    assert {each.question for each in ranking} == {FOLDED}
    assert [each.tied for each in ranking] == [True, True, False]
    assert ranking[2].method == "tilted"
    withheld = rank_predictions(table, WITHHELD)
    assert withheld[0].method == "true" and withheld[-1].method == "bright"
    tilted = next(each for each in ranking if each.method == "tilted")
    step = float(POSITIONS[1] - POSITIONS[0]) * 8 / (SHAPE[2] - 1)
    assert tilted.chi2 == pytest.approx(1 + step**2 / (2 * SIGMA**2), rel=0.15)


def test_the_questions_are_rows_of_weights():
    stack = np.random.default_rng(0).random((12, 3, 4))
    asked = questions_of({"projections": [2, 6, 10], "folded": []})
    assert list(asked) == [WITHHELD] and deciding(asked) == WITHHELD
    np.testing.assert_array_equal(ask(asked[WITHHELD], stack), stack[[2, 6, 10]])
    asked = questions_of({"projections": [3, 9], "folded": [[6, 7]]})
    assert deciding(asked) == FOLDED
    np.testing.assert_array_equal(ask(asked[FOLDED], stack), stack[[6]] - stack[[7]])


def test_nothing_withheld_is_nothing_ranked(predicted):
    assert rank_predictions(predicted.errors(true=0)[:0]) == []
