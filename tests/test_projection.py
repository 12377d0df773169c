"""Checks the projection operator: adjointness, exact geometry, and its solves, in every variant."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from besselflow.beam import AxialProfile, box_profile, gaussian_profile
from besselflow.lateral import LateralBlur
from besselflow.projection import AxialGrid, AxialProjection
from besselflow.proximal import RESIDUAL

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


def on_gpu(array):
    return torch.from_numpy(array).cuda()


KINDS = {
    "numpy float32": lambda array: array.astype(np.float32),
    "numpy float64": lambda array: array,
    "torch float32": lambda array: torch.from_numpy(array.astype(np.float32)),
    "torch float64": torch.from_numpy,
    "cuda float32": lambda array: on_gpu(array.astype(np.float32)),
    "cuda float64": on_gpu,
}
ON_GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is visible"),
]
EVERY_KIND = [pytest.param(kind, marks=ON_GPU if "cuda" in kind else ()) for kind in KINDS]
ROUNDING = {"float32": 1e-5, "float64": 1e-12}


def symmetric_kernel(corner):
    """Mirror the corner of a kernel, (y, x) with the origin first, and normalise it."""
    corner = np.asarray(corner, float)
    half = np.concatenate([corner[:0:-1], corner])
    kernel = np.concatenate([half[:, :0:-1], half], axis=1)
    return kernel / kernel.sum()


BLURS = {
    "sharp": None,
    "blurred": LateralBlur(symmetric_kernel([[4.0, 1.0, 0.3], [1.5, 0.4, 0.1]])),
}


def operator_of(profile, positions, blur="sharp"):
    return AxialProjection.from_geometry(PROFILES[profile], POSITIONS[positions], GRID, BLURS[blur])


def ratios_of(form, operator, leading, shape):
    """A noise ratio of each form that the proximal step takes."""
    drawn = 0.3 * np.exp(normal(9, *leading, operator.n_projections, *shape))
    return {"number": 0.3, "projection": drawn[..., :1, :1], "pixel": drawn}[form]


def as_numpy(array):
    return array if isinstance(array, np.ndarray) else array.cpu().numpy()


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


@pytest.mark.parametrize("kind", EVERY_KIND)
@pytest.mark.parametrize("blur", BLURS)
@pytest.mark.parametrize("leading", [(), (3,), (2, 3)], ids=str)
@pytest.mark.parametrize(("profile", "positions"), GEOMETRIES)
def test_adjointness(profile, positions, leading, blur, kind):
    operator = operator_of(profile, positions, blur)
    v = KINDS[kind](normal(0, *leading, operator.n_slices, 4, 5))
    y = KINDS[kind](normal(1, *leading, operator.n_projections, 4, 5))
    projected, spread = operator.forward(v), operator.adjoint(y)
    for found, kin in ((projected, y), (spread, v)):
        assert type(found) is type(kin) and found.dtype == kin.dtype and found.shape == kin.shape
        assert getattr(found, "device", None) == getattr(kin, "device", None)
    left, right = float((projected * y).sum()), float((v * spread).sum())
    scale = float((projected**2).sum() * (y**2).sum()) ** 0.5
    assert left == pytest.approx(right, abs=scale * ROUNDING[kind.split()[1]])


@pytest.mark.parametrize("kind", EVERY_KIND)
@pytest.mark.parametrize("form", ["number", "projection", "pixel"])
@pytest.mark.parametrize("blur", BLURS)
@pytest.mark.parametrize("leading", [(), (2, 3)], ids=str)
@pytest.mark.parametrize(("profile", "positions"), GEOMETRIES)
def test_gradient_is_zero_at_the_prox(profile, positions, leading, blur, form, kind):
    operator = operator_of(profile, positions, blur)
    v0 = KINDS[kind](normal(4, *leading, operator.n_slices, 3, 4))
    y = KINDS[kind](normal(5, *leading, operator.n_projections, 3, 4))
    ratio = ratios_of(form, operator, leading, (3, 4))
    v = operator.prox(v0, y, ratio if form == "number" else KINDS[kind](ratio))
    assert type(v) is type(v0) and v.dtype == v0.dtype and v.shape == v0.shape
    v0, y, v = (as_numpy(array).astype(float) for array in (v0, y, v))
    start = operator.adjoint((operator.forward(v0) - y) / ratio)
    gradient = operator.adjoint((operator.forward(v) - y) / ratio) + v - v0
    iterated = blur == "blurred" and form != "number"
    # A float32 result is only known to its rounding, which the smallest ratio magnifies.
    tolerance = 20 * ROUNDING[kind.split()[1]] + (50 * RESIDUAL[8] if iterated else 0)
    assert np.abs(gradient).max() < tolerance * np.abs(start).max()


@st.composite
def operators(draw):
    """Operators of any geometry, with any blur or none."""
    profile, positions, spacing = draw(geometries())
    blur = None
    if draw(st.booleans()):
        rows, columns = draw(st.integers(1, 4)), draw(st.integers(1, 4))
        weight = st.lists(st.floats(0, 1), min_size=columns, max_size=columns)
        corner = np.array(draw(st.lists(weight, min_size=rows, max_size=rows)))
        corner[0, 0] += 0.1
        blur = LateralBlur(symmetric_kernel(corner))
    grid = AxialGrid.covering(profile, positions, spacing)
    return AxialProjection.from_geometry(profile, positions, grid, blur)


SEEDS = st.integers(0, 2**32 - 1)
SHAPES = st.tuples(st.integers(1, 6), st.integers(1, 6))


@given(operators(), SHAPES, SEEDS)
@settings(max_examples=60, deadline=None)
def test_adjointness_for_any_operator(operator, shape, seed):
    v = normal(seed, operator.n_slices, *shape)
    y = normal(seed + 1, operator.n_projections, *shape)
    left, right = np.sum(operator.forward(v) * y), np.sum(v * operator.adjoint(y))
    assert left == pytest.approx(right, abs=1e-12 * np.linalg.norm(v) * np.linalg.norm(y))


@given(operators(), SHAPES, st.floats(-3, 3), st.booleans(), SEEDS)
@settings(max_examples=100, deadline=None)
def test_gradient_is_zero_at_the_prox_of_any_operator(operator, shape, level, uneven, seed):
    v0 = normal(seed, operator.n_slices, *shape)
    y = normal(seed + 1, operator.n_projections, *shape)
    ratio = 10.0**level
    if uneven:
        ratio = ratio * np.exp(normal(seed + 2, *y.shape))
    v = operator.prox(v0, y, ratio)
    start = operator.adjoint((operator.forward(v0) - y) / ratio)
    gradient = operator.adjoint((operator.forward(v) - y) / ratio) + v - v0
    limit = 1e-10 + (1e3 * RESIDUAL[8] if uneven and operator.lateral else 0)
    assert np.linalg.norm(gradient) < limit * max(np.linalg.norm(start), 1e-3)


@pytest.mark.parametrize("blur", BLURS)
@pytest.mark.parametrize("form", ["number", "pixel"])
def test_gradients_pass_through_forward_and_prox(form, blur):
    operator = operator_of("gaussian", "even", blur)
    v0 = torch.from_numpy(normal(4, 2, operator.n_slices, 3, 4)).requires_grad_()
    y = torch.from_numpy(normal(5, 2, operator.n_projections, 3, 4)).requires_grad_()
    ratio = ratios_of(form, operator, (2,), (3, 4))
    chosen = ratio if form == "number" else torch.from_numpy(ratio)
    weights = torch.from_numpy(normal(6, *v0.shape))
    (operator.prox(v0, y, chosen) * weights).sum().backward()
    # The step is linear in y: its gradient is A^T's counterpart, found by a prox at zero.
    step = torch.from_numpy(normal(7, *y.shape))
    moved = (operator.prox(v0.detach(), y.detach() + step, chosen) * weights).sum()
    change = moved - (operator.prox(v0.detach(), y.detach(), chosen) * weights).sum()
    assert float((y.grad * step).sum()) == pytest.approx(float(change), rel=1e-6)
    volume = v0.detach().requires_grad_()
    (operator.forward(volume) * step).sum().backward()
    torch.testing.assert_close(volume.grad, operator.adjoint(step))


@pytest.mark.parametrize("blur", BLURS)
def test_wide_and_narrow_bands_agree_with_one_dense_solve(blur):
    """Beams that overlap with none, few and all others take different ways to the same result."""
    for length, step in ((2.0, 3.0), (4.0, 3.0), (11.0, 1.5)):
        positions = np.arange(0.0, 13.0, step)
        operator = AxialProjection.from_geometry(box_profile(length), positions, GRID, BLURS[blur])
        y, shape = normal(1, len(positions), 3, 4), (3, 4)
        ratio = ratios_of("pixel", operator, (), shape)
        pixels = np.eye(12).reshape(12, *shape)
        blurring = pixels if operator.lateral is None else operator.lateral.apply(pixels)
        matrix = np.kron(operator.matrix, blurring.reshape(12, 12).T)
        weighted = matrix.T / ratio.ravel()
        dense = np.linalg.solve(weighted @ matrix + np.eye(matrix.shape[1]), weighted @ y.ravel())
        found = operator.prox(np.zeros((operator.n_slices, *shape)), y, ratio)
        np.testing.assert_allclose(found.ravel(), dense, atol=1e-7 if blur != "sharp" else 1e-12)


def test_prox_in_pieces_is_the_whole(monkeypatch):
    operator = operator_of("gaussian", "even")
    v0, y = normal(4, 2, operator.n_slices, 5, 4), normal(5, 2, operator.n_projections, 5, 4)
    ratio = ratios_of("pixel", operator, (2,), (5, 4))
    whole = operator.prox(v0, y, ratio)
    monkeypatch.setattr("besselflow.proximal._VALUES_AT_ONCE", 1)
    np.testing.assert_allclose(operator.prox(v0, y, ratio), whole, atol=1e-14)


@pytest.mark.parametrize("blur", BLURS)
def test_ratios_that_are_not_positive_are_refused(blur):
    operator = operator_of("box", "even", blur)
    y = normal(5, operator.n_projections, 3, 4)
    ratio = np.ones_like(y)
    ratio[0, 1, 2] = 0
    with pytest.raises(ValueError, match="must be positive at every pixel"):
        operator.prox(np.zeros((operator.n_slices, 3, 4)), y, ratio)


@pytest.mark.parametrize("blur", BLURS)
def test_mean_squared_weight_is_the_trace(blur):
    operator = operator_of("measured", "uneven", blur)
    size = operator.n_projections * 12
    units = np.eye(size).reshape(size, operator.n_projections, 3, 4)
    trace = np.sum(operator.adjoint(units) ** 2)
    assert operator.mean_squared_weight((3, 4)) == pytest.approx(trace / size)


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


@pytest.mark.parametrize("blur", BLURS)
@pytest.mark.parametrize(("profile", "positions"), GEOMETRIES)
def test_ratio_zero_projects_onto_the_data(profile, positions, blur):
    operator = operator_of(profile, positions, blur)
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


@given(operators(), SHAPES, SEEDS)
@settings(max_examples=60, deadline=None)
def test_pinv_is_the_pseudoinverse(operator, shape, seed):
    pixels = np.eye(np.prod(shape)).reshape(-1, *shape)
    blurring = pixels if operator.lateral is None else operator.lateral.apply(pixels)
    matrix = np.kron(operator.matrix, blurring.reshape(len(pixels), -1).T)
    singular = np.linalg.svd(matrix, compute_uv=False) / np.linalg.norm(matrix, 2)
    # The cut is on eigenvalues of A A^T, which are squared singular values.
    assume(not np.any((singular > 0.5e-3) & (singular < 2e-3)))
    y = normal(seed, operator.n_projections, *shape)
    expected = np.linalg.pinv(matrix, rcond=1e-3) @ y.ravel()
    np.testing.assert_allclose(
        operator.pinv(y).ravel(), expected, atol=1e-7 * max(1.0, np.abs(expected).max())
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
