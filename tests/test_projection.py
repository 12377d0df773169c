"""Checks the axial projection operator: adjointness, exact geometry, and its closed-form solves."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from besselflow.beam import AxialProfile, box_profile, gaussian_profile
from besselflow.projection import AxialGrid, AxialProjection

MEASURED = AxialProfile(
    np.array([-4.0, -2.5, -1.0, 0.5, 2.0, 3.5]), np.array([0.05, 0.2, 0.4, 0.3, 0.05]), "beam.csv"
)
PROFILES = {"box": box_profile(5.3), "gaussian": gaussian_profile(4.0), "measured": MEASURED}
GRID = AxialGrid(-2.25, 0.75, 24)
POSITIONS = {
    "even": np.arange(0.0, 13.0, 3.0),
    "real-valued": 0.37 + 2.9173 * np.arange(5),
    "uneven": np.array([-0.4, 1.1, 5.2, 6.0, 11.7]),
    # The first and the last beam reach far beyond the grid.
    "cut": np.array([-4.4, 2.0, 7.0, 16.2]),
}
GEOMETRIES = [(profile, positions) for profile in PROFILES for positions in POSITIONS]
KINDS = {
    "numpy float32": lambda array: array.astype(np.float32),
    "numpy float64": lambda array: array,
    "torch float32": lambda array: torch.from_numpy(array.astype(np.float32)),
    "torch float64": torch.from_numpy,
}


def operator_of(profile, positions):
    return AxialProjection.from_geometry(PROFILES[profile], POSITIONS[positions], GRID)


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


@st.composite
def profiles(draw):
    kind = draw(st.sampled_from(["box", "gaussian", "measured"]))
    size = draw(st.floats(0.5, 12.0))
    if kind == "box":
        return box_profile(size)
    if kind == "gaussian":
        return gaussian_profile(size)
    count = draw(st.integers(2, 8))
    weight = st.just(0.0) | st.floats(0.01, 1)
    weights = np.array(draw(st.lists(weight, min_size=count, max_size=count)))
    assume(weights.any())
    edges = draw(st.floats(-6.0, 1.0)) + size / count * np.arange(count + 1)
    return AxialProfile(edges, weights / weights.sum(), "drawn")


@st.composite
def geometries(draw):
    """Profiles, sorted stage positions and a spacing, of any real values."""
    count = draw(st.integers(1, 6))
    steps = draw(st.lists(st.floats(0.3, 8.0), min_size=count, max_size=count))
    positions = draw(st.floats(-20.0, 20.0)) + np.cumsum(steps)
    return draw(profiles()), positions, draw(st.floats(0.2, 3.0))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("leading", [(), (3,), (2, 3)], ids=str)
@pytest.mark.parametrize(("profile", "positions"), GEOMETRIES)
def test_adjointness(profile, positions, leading, kind):
    operator = operator_of(profile, positions)
    as_kind = KINDS[kind]
    v = as_kind(normal(0, *leading, operator.n_slices, 4, 5))
    y = as_kind(normal(1, *leading, operator.n_projections, 4, 5))
    projected, spread = operator.forward(v), operator.adjoint(y)
    assert type(projected) is type(v) and type(spread) is type(v)
    assert projected.dtype == v.dtype and projected.shape == y.shape
    assert spread.dtype == v.dtype and spread.shape == v.shape
    left, right = float((projected * y).sum()), float((v * spread).sum())
    scale = float((projected**2).sum() * (y**2).sum()) ** 0.5
    assert left == pytest.approx(right, abs=scale * (1e-5 if "32" in kind else 1e-13))


@given(geometries(), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_adjointness_for_any_geometry(geometry, seed):
    profile, positions, spacing = geometry
    operator = AxialProjection.from_geometry(
        profile, positions, AxialGrid.covering(profile, positions, spacing)
    )
    v, y = normal(seed, operator.n_slices, 2, 3), normal(seed + 1, operator.n_projections, 2, 3)
    left, right = np.sum(operator.forward(v) * y), np.sum(v * operator.adjoint(y))
    assert left == pytest.approx(right, abs=1e-12 * np.linalg.norm(v) * np.linalg.norm(y))


def test_leading_axes_are_independent():
    operator = operator_of("measured", "uneven")
    v = normal(2, 2, 3, operator.n_slices, 4, 5)
    together = operator.forward(v)
    for t, c in np.ndindex(2, 3):
        np.testing.assert_allclose(together[t, c], operator.forward(v[t, c]), atol=1e-14)


def test_forward_is_the_matrix_along_z():
    operator = operator_of("gaussian", "uneven")
    v = normal(3, operator.n_slices, 3, 2)
    np.testing.assert_allclose(
        operator.forward(v)[:, 2, 1], operator.matrix @ v[:, 2, 1], atol=1e-14
    )


def test_integers_are_not_truncated():
    operator = operator_of("gaussian", "uneven")
    v = np.random.default_rng(0).integers(0, 200, (operator.n_slices, 2, 2)).astype(np.uint8)
    np.testing.assert_allclose(operator.forward(v), operator.forward(v.astype(float)))


@pytest.mark.parametrize(("profile", "positions"), GEOMETRIES)
def test_matrix_is_the_integral_of_the_profile_over_each_slice(profile, positions):
    chosen, fine = PROFILES[profile], 2000
    density = chosen.weights / np.diff(chosen.edges_um)
    expected = np.empty((len(POSITIONS[positions]), GRID.n_slices))
    for p, position in enumerate(POSITIONS[positions]):
        for z, centre in enumerate(GRID.centres_um):
            u = centre - position + GRID.spacing_um * ((np.arange(fine) + 0.5) / fine - 0.5)
            bins = np.searchsorted(chosen.edges_um, u, side="right") - 1
            lit = (u >= chosen.edges_um[0]) & (u < chosen.edges_um[-1])
            values = np.where(lit, density[np.clip(bins, 0, len(density) - 1)], 0)
            expected[p, z] = values.sum() * GRID.spacing_um / fine
    matrix = operator_of(profile, positions).matrix
    # A sample next to a jump of the profile may fall on the wrong side of it.
    np.testing.assert_allclose(matrix, expected, atol=density.max() * GRID.spacing_um / fine * 2)


@given(
    st.floats(0.2, 20), st.floats(-30, 30), st.floats(0.1, 5), st.floats(-5, 5), st.integers(1, 60)
)
@settings(max_examples=200, deadline=None)
def test_box_weights_are_the_overlap_of_two_intervals(length, position, spacing, first, n_slices):
    """Positions are real numbers: nothing is rounded to slices, and a shift is a shift."""
    grid = AxialGrid(first, spacing, n_slices)
    low = np.maximum(grid.centres_um - spacing / 2, position - length / 2)
    high = np.minimum(grid.centres_um + spacing / 2, position + length / 2)
    expected = np.maximum(high - low, 0) / length
    assume(expected.sum() > 1e-6)
    matrix = AxialProjection.from_geometry(box_profile(length), np.array([position]), grid).matrix
    np.testing.assert_allclose(matrix[0], expected, atol=1e-12)


def test_gaussian_weights_at_a_real_position_follow_the_normal_distribution():
    grid, position, sigma = AxialGrid(0.0, 0.7, 40), 13.3711, 6 / 2.354820045
    matrix = AxialProjection.from_geometry(gaussian_profile(6.0), np.array([position]), grid).matrix
    edges = (np.append(grid.centres_um, grid.centres_um[-1] + 0.7) - 0.35 - position) / sigma
    expected = np.diff(norm.cdf(np.clip(edges, -3, 3))) / (norm.cdf(3) - norm.cdf(-3))
    np.testing.assert_allclose(matrix[0], expected, atol=1e-5)


def test_window_of_six_slices_averages_six_slices():
    operator = AxialProjection.from_geometry(
        box_profile(6.0), np.array([2.5, 8.5]), AxialGrid(0.0, 1.0, 12)
    )
    expected = np.kron(np.eye(2), np.full(6, 1 / 6))
    np.testing.assert_allclose(operator.matrix, expected, atol=1e-15)


def test_projection_that_sees_nothing_is_named():
    with pytest.raises(ValueError, match=r"projection 1 at 40 um sees no slice"):
        AxialProjection.from_geometry(box_profile(4), np.array([0.0, 40.0]), GRID)


@pytest.mark.parametrize("ratio", [1e-4, 0.1, 5.0])
@pytest.mark.parametrize(("profile", "positions"), GEOMETRIES)
def test_gradient_is_zero_at_the_prox(profile, positions, ratio):
    operator = operator_of(profile, positions)
    v0 = normal(4, operator.n_slices, 3, 4)
    y = normal(5, operator.n_projections, 3, 4)
    v = operator.prox(v0, y, ratio)
    gradient = operator.adjoint(operator.forward(v) - y) + ratio * (v - v0)
    assert np.abs(gradient).max() < 1e-12


@pytest.mark.parametrize("kind", KINDS)
def test_prox_keeps_kind_and_precision(kind):
    operator = operator_of("box", "uneven")
    v0, y = normal(4, 2, operator.n_slices, 3, 4), normal(5, 2, operator.n_projections, 3, 4)
    exact = operator.prox(v0, y, 0.3)
    v = operator.prox(KINDS[kind](v0), KINDS[kind](y), 0.3)
    assert type(v) is type(KINDS[kind](v0)) and v.dtype == KINDS[kind](v0).dtype
    np.testing.assert_allclose(np.asarray(v), exact, atol=1e-5 if "32" in kind else 1e-13)


@pytest.mark.parametrize(("profile", "positions"), GEOMETRIES)
def test_ratio_zero_projects_onto_the_data(profile, positions):
    operator = operator_of(profile, positions)
    assert np.linalg.cond(operator.matrix) < 100
    v0 = normal(6, operator.n_slices, 3, 4)
    y = normal(7, operator.n_projections, 3, 4)
    v = operator.prox(v0, y, 0)
    np.testing.assert_allclose(operator.forward(v), y, atol=1e-11)
    np.testing.assert_allclose(operator.prox(v, y, 0), v, atol=1e-11)
    # Of all volumes that agree with the data, it is the closest to v0.
    free = normal(8, *v0.shape)
    free -= operator.pinv(operator.forward(free))
    np.testing.assert_allclose(operator.forward(free), 0, atol=1e-11)
    assert np.sum((v - v0) * free) == pytest.approx(0, abs=1e-9)
    assert np.linalg.norm(v + 0.1 * free - v0) > np.linalg.norm(v - v0)


def test_small_ratios_lead_to_the_projection():
    operator = operator_of("measured", "uneven")
    v0, y = normal(6, operator.n_slices, 2, 2), normal(7, operator.n_projections, 2, 2)
    np.testing.assert_allclose(operator.prox(v0, y, 1e-10), operator.prox(v0, y, 0), atol=1e-6)
    np.testing.assert_allclose(operator.prox(v0, y, 1e10), v0, atol=1e-6)


@given(geometries(), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_pinv_is_the_pseudoinverse(geometry, seed):
    profile, positions, spacing = geometry
    grid = AxialGrid.covering(profile, positions, spacing)
    operator = AxialProjection.from_geometry(profile, positions, grid)
    singular = np.linalg.svd(operator.matrix, compute_uv=False) / np.linalg.norm(operator.matrix, 2)
    # The cut is on eigenvalues of A A^T, which are squared singular values.
    assume(not np.any((singular > 0.5e-3) & (singular < 2e-3)))
    y = normal(seed, operator.n_projections, 2, 2)
    expected = np.einsum("zp,pyx->zyx", np.linalg.pinv(operator.matrix, rcond=1e-3), y)
    np.testing.assert_allclose(
        operator.pinv(y), expected, atol=1e-7 * max(1.0, np.abs(expected).max())
    )


def test_two_projections_at_one_place_share_what_they_disagree_on():
    matrix = np.repeat(operator_of("box", "even").matrix[1:2], 2, axis=0)
    operator = AxialProjection(matrix)
    y = np.array([1.0, 3.0]).reshape(2, 1, 1)
    v = operator.prox(np.zeros((operator.n_slices, 1, 1)), y, 0)
    np.testing.assert_allclose(operator.forward(v).ravel(), [2.0, 2.0], atol=1e-12)


def test_seen_slices():
    operator = AxialProjection.from_geometry(
        box_profile(2.0), np.array([1.5, 6.5]), AxialGrid(0.0, 1.0, 10)
    )
    assert (
        operator.seen.tolist() == [False, True, True, False, False, False, True, True] + [False] * 2
    )


@given(geometries())
@settings(max_examples=200, deadline=None)
def test_covering_grid_holds_all_light_and_no_dark_slice(geometry):
    profile, positions, spacing = geometry
    grid = AxialGrid.covering(profile, positions, spacing)
    matrix = AxialProjection.from_geometry(profile, positions, grid).matrix
    density = np.max(profile.weights / np.diff(profile.edges_um))
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=2.1e-6 * spacing * density + 1e-12)
    assert matrix[:, 0].max() > 0 and matrix[:, -1].max() > 0
    slices = grid.first_um / spacing
    assert slices == pytest.approx(round(slices), abs=1e-9)


def test_covering_grid_of_whole_slices():
    grid = AxialGrid.covering(box_profile(6.0), np.array([2.5, 8.5]), 1.0)
    assert grid == AxialGrid(0.0, 1.0, 12)
    np.testing.assert_array_equal(grid.centres_um, np.arange(12.0))
