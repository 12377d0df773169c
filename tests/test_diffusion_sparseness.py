"""Fewer projections make a prior less sure, as much as its errors on training volumes say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from besselflow.beam import box_profile
from besselflow.diffusion import assessment
from besselflow.diffusion.calibration import Calibration, _certain_slope, sparseness
from besselflow.projection import AxialGrid, AxialProjection
from besselflow.thinning import Thinning
from known_refinements import problem_of, sample, vessels
from tiny_priors import tiny_denoiser, toy_acquisition

SHAPE = (20, 30, 30)
SPARSENESS = (0.9, 1.0, 1.0, 1.5, 1.6, 1.4)


def of_a_box(length, positions, slices=60):
    operator = AxialProjection.from_geometry(
        box_profile(length), positions, AxialGrid(0.0, 1.0, slices)
    )
    return sparseness(operator.matrix, positions, 1.0)


@given(
    positions=st.lists(st.integers(3, 56), min_size=2, max_size=12, unique=True),
    scale=st.floats(0.1, 10.0),
    seed=st.integers(0, 100),
)
def test_it_has_no_unit_and_no_order(positions, scale, seed):
    positions = np.array(positions, float)
    matrix = AxialProjection.from_geometry(
        box_profile(5), positions, AxialGrid(0.0, 1.0, 60)
    ).matrix
    expected = sparseness(matrix, positions, 1.0)
    order = np.random.default_rng(seed).permutation(len(positions))
    found = sparseness(matrix[order], scale * positions[order], scale)
    assert found == pytest.approx(expected, rel=1e-6)


def test_regular_steps():
    assert of_a_box(6, np.arange(2.5, 57, 6.0)) == pytest.approx(1.0)
    assert of_a_box(6, np.arange(2.5, 57, 3.0)) == pytest.approx(0.5)


def test_gaps_count_by_their_length():
    positions = np.arange(2.5, 57, 6.0)
    distances = np.array([6.0] * 7 + [12.0])
    expected = np.sum(distances**2) / np.sum(distances) / 6
    assert of_a_box(6, np.delete(positions, 4)) == pytest.approx(expected)
    thinning = Thinning.of(len(positions), 6)
    assert of_a_box(6, thinning.apply(positions)) > 1.2


@pytest.mark.parametrize("positions", [[20.0], [20.0, 20.0, 20.0]])
def test_a_single_place_says_nothing(positions):
    assert of_a_box(6, np.array(positions)) == 1.0


def test_projections_that_see_nothing_of_the_volume_tell_no_length():
    positions = np.arange(2.5, 57, 6.0)
    matrix = AxialProjection.from_geometry(
        box_profile(6), positions, AxialGrid(0.0, 1.0, 60)
    ).matrix.copy()
    matrix[:6] = 0
    assert sparseness(matrix, positions, 1.0) == pytest.approx(1.0)
    assert sparseness(np.zeros_like(matrix), positions, 1.0) == 1.0


def test_a_sample_knows_its_own():
    acquisition = toy_acquisition(0, (24, 20, 18))
    problem = assessment.problem_of(acquisition)
    spacing = acquisition.centres_um[1] - acquisition.centres_um[0]
    expected = sparseness(acquisition.matrix, acquisition.positions_um, spacing)
    assert problem.sparseness == pytest.approx(expected) and expected > 0


def parts_of(exponent, seed):
    """Errors of acquisitions that spread alike, but err by a power of their sparseness."""
    rng = np.random.default_rng(seed)
    parts = []
    for known in SPARSENESS:
        spread = np.exp(rng.uniform(-6, -3, SHAPE))
        size = 2 * known**exponent
        parts.append((size * spread * rng.standard_normal(SHAPE), spread, np.zeros(SHAPE)))
    return parts


@given(exponent=st.floats(0.3, 2.5), seed=st.integers(0, 100))
@settings(max_examples=10)
def test_the_exponent_is_found_and_intervals_hold_for_each(exponent, seed):
    parts = parts_of(exponent, seed)
    calibration = Calibration.fit(*zip(*parts, strict=True), sparseness=SPARSENESS)
    assert calibration.exponent == pytest.approx(exponent, abs=0.1)
    for (error, spread, change), known in zip(
        parts_of(exponent, seed + 1), SPARSENESS, strict=True
    ):
        held = np.mean(np.abs(error) < 1.6448536 * calibration(spread, change, known))
        assert held == pytest.approx(0.9, abs=0.02)


def test_a_certain_slope_is_kept_and_one_that_may_be_chance_is_shrunk():
    x = np.log(SPARSENESS)
    assert _certain_slope(x, 2 * x + 1) == pytest.approx(2)
    rng = np.random.default_rng(0)
    scattered = rng.standard_normal((200, len(x)))
    plain = np.mean([abs(np.polyfit(x, y, 1)[0]) for y in scattered])
    shrunk = np.mean([abs(_certain_slope(x, y)) for y in scattered])
    assert shrunk < 0.6 * plain


@pytest.mark.parametrize("known", [(1.0, 1.0, 1.0, 1.0), (0.5, 2.0)], ids=["alike", "few"])
def test_nothing_is_told_by_acquisitions_that_are_alike_or_few(known):
    parts = parts_of(1.0, 0)[: len(known)]
    assert Calibration.fit(*zip(*parts, strict=True), sparseness=known).exponent == 0


def test_an_acquisition_denser_than_all_known_ones_is_not_taken_for_more_certain():
    calibration = Calibration.fit(*zip(*parts_of(1.0, 0), strict=True), sparseness=SPARSENESS)
    spread = np.full((2, 2, 2), 0.01)
    std = lambda known: calibration(spread, 0 * spread, known)  # noqa: E731
    np.testing.assert_array_equal(std(0.2), std(min(SPARSENESS)))
    assert (std(2.0) > std(1.6)).all()


def test_samples_and_their_uncertainty_know_how_sparse_the_acquisition_is():
    dense = problem_of(vessels(), np.arange(2.5, 24, 3.0))
    assert dense.sparseness == pytest.approx(0.5, rel=0.1)
    plain, raised = (
        sample(
            dense, tiny_denoiser(), calibration=Calibration((0.01, 0.1), (0.02, 0.3), exponent=e)
        )
        for e in (0.0, 1.5)
    )
    np.testing.assert_array_equal(raised.mean, plain.mean)
    np.testing.assert_allclose(raised.std, dense.sparseness**1.5 * plain.std, rtol=1e-4)
    assert np.std(raised.sample - raised.mean) < 0.8 * np.std(plain.sample - plain.mean)


def test_a_sample_deviates_as_its_standard_deviation_grows():
    calibration = Calibration((0.01, 0.1), (0.02, 0.3), exponent=1.5)
    spread = np.full((4, 5, 6), 0.05)
    change, deviation = 0 * spread, np.random.default_rng(0).standard_normal((4, 5, 6))
    for raised, plain in (
        (calibration(spread, change, 1.4), calibration(spread, change)),
        (
            calibration.enlarge(deviation, spread, change, 1.4),
            calibration.enlarge(deviation, spread, change),
        ),
    ):
        np.testing.assert_allclose(raised, 1.4**1.5 * plain, rtol=1e-5)
