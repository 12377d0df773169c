"""Checks linear interpolation between projections."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from besselflow.baselines.interpolation import interpolate, interpolation_weights
from besselflow.beam import box_profile
from besselflow.projection import AxialGrid, AxialProjection


@st.composite
def stages(draw):
    """Increasing stage positions, and the centres of slices around and beyond them."""
    steps = draw(st.lists(st.floats(0.1, 10), min_size=1, max_size=8))
    positions = draw(st.floats(-30, 30)) + np.cumsum(steps)
    spacing = draw(st.floats(0.2, 3))
    centres = np.arange(positions[0] - 4 * spacing, positions[-1] + 4 * spacing, spacing)
    return positions, centres


@given(stages(), st.floats(-5, 5), st.floats(-50, 50))
@settings(max_examples=100, deadline=None)
def test_projections_linear_in_z_give_the_line(stage, slope, start):
    positions, centres = stage
    pattern = np.arange(6.0).reshape(2, 3)
    line = lambda z: (start + slope * z)[:, None, None] * pattern  # noqa: E731
    found = interpolate(line(positions), positions, centres)
    expected = line(np.clip(centres, positions[0], positions[-1]))
    np.testing.assert_allclose(found, expected, atol=1e-5 * (1 + np.abs(expected).max()))
    assert found.dtype == np.float32


def test_volume_linear_in_z_is_reconstructed_exactly_between_the_ends():
    grid, positions = AxialGrid(0.0, 1.0, 24), np.array([2.5, 8.5, 11.0, 20.5])
    volume = np.arange(24.0)[:, None, None] * np.ones((1, 3, 4)) + np.arange(4)
    measured = AxialProjection.from_geometry(box_profile(6.0), positions, grid).forward(volume)
    found = interpolate(measured, positions, grid.centres_um)
    inside = (grid.centres_um >= 2.5) & (grid.centres_um <= 20.5)
    np.testing.assert_allclose(found[inside], volume[inside], rtol=1e-6)


@given(stages())
@settings(max_examples=100, deadline=None)
def test_weights_are_a_partition_of_unity_of_two_neighbours(stage):
    positions, centres = stage
    weights = interpolation_weights(positions, centres)
    assert weights.shape == (len(centres), len(positions))
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-12)
    assert weights.min() >= 0
    for z, row in zip(centres, weights, strict=True):
        used = np.flatnonzero(row > 1e-12)
        inside = positions[0] < z < positions[-1]
        if inside:
            assert len(used) <= 2 and used[-1] - used[0] <= 1
            assert positions[used[0]] <= z + 1e-9 and positions[used[-1]] >= z - 1e-9


@given(stages())
@settings(max_examples=50, deadline=None)
def test_constant_beyond_the_ends(stage):
    positions, centres = stage
    images = np.random.default_rng(0).random((len(positions), 2, 2)).astype(np.float32)
    found = interpolate(images, positions, centres)
    for plane in found[centres <= positions[0]]:
        np.testing.assert_allclose(plane, images[0], rtol=1e-6)
    for plane in found[centres >= positions[-1]]:
        np.testing.assert_allclose(plane, images[-1], rtol=1e-6)


def test_projections_are_kept_at_their_own_positions():
    positions = np.array([0.0, 3.0, 7.0])
    images = np.random.default_rng(1).random((3, 4, 5)).astype(np.float32)
    np.testing.assert_array_equal(interpolate(images, positions, positions), images)
