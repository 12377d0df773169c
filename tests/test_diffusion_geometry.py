"""The geometry that a prior is trained for: told apart, laid over any volume, varied, and drawn."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from besselflow.beam import box_profile, gaussian_profile
from besselflow.diffusion import geometry as drawn
from besselflow.diffusion.geometry import Geometry, departures

VOXEL = (1.0, 1.0, 1.0)
KERNEL = np.outer([0.2, 0.6, 0.2], [0.3, 0.4, 0.3])
GEOMETRY = Geometry.of(box_profile(6.0), np.array([2.5, 8.5, 14.5]), VOXEL)
SKEWED = replace(GEOMETRY, profile_edges_um=(-2.0, 0.0, 5.0), profile_weights=(0.7, 0.3))


def generator(seed):
    return np.random.default_rng(seed)


def test_equal_setups_compare_equal():
    exact = Geometry.of(gaussian_profile(12.0), np.arange(0, 60, 6.0), (1.5, 0.5, 0.5))
    jittered = Geometry.of(
        gaussian_profile(12.0),
        np.arange(3, 90, 6.0)[::-1] + 1e-4 * np.sin(np.arange(15)),
        (1.5, 0.5 + 1e-6, 0.5),
    )
    assert exact == jittered and exact.key == jittered.key
    assert exact.key.isalnum() and len(exact.key) == 12


@pytest.mark.parametrize(
    "other",
    [
        Geometry.of(box_profile(6.0), np.array([2.5, 7.5, 12.5]), VOXEL),
        Geometry.of(box_profile(5.0), np.array([2.5, 8.5, 14.5]), VOXEL),
        Geometry.of(gaussian_profile(6.0), np.array([2.5, 8.5, 14.5]), VOXEL),
        Geometry.of(box_profile(6.0), np.array([2.5, 8.5, 14.5]), (1.0, 1.0, 0.9)),
        Geometry.of(box_profile(6.0), np.array([2.5, 8.5, 14.5]), VOXEL, KERNEL),
    ],
    ids=["step", "length", "profile", "voxel", "side lobes"],
)
def test_other_setups_have_another_prior(other):
    assert other != GEOMETRY and other.key != GEOMETRY.key


@pytest.mark.parametrize("kernel", [None, KERNEL], ids=["sharp", "blurred"])
def test_geometry_survives_json(kernel):
    positions = np.array([1.0, 3.3, 5.7])
    geometry = Geometry.of(gaussian_profile(4.0), positions, (0.5, 0.2, 0.3), kernel)
    restored = Geometry.from_dict(json.loads(json.dumps(geometry.as_dict())))
    assert restored == geometry and restored.key == geometry.key


def test_drawn_geometry_survives_json():
    for seed in range(6):
        geometry = Geometry.any(generator(seed))
        assert Geometry.from_dict(json.loads(json.dumps(geometry.as_dict()))) == geometry


@given(st.integers(8, 80), st.floats(0, 1, exclude_max=True), st.floats(1, 12), st.floats(1, 9))
@settings(max_examples=150, deadline=None)
def test_geometry_is_laid_over_any_training_volume(n_slices, phase, length, step):
    geometry = Geometry.of(box_profile(length), np.array([0.0, step]), VOXEL)
    positions, grid, operator = geometry.acquisition_of(n_slices, phase)
    assert grid.n_slices == n_slices and operator.n_projections == len(positions) >= 2
    assert positions.min() >= -0.5 and positions.max() <= n_slices - 0.5
    if len(positions) > 2:
        np.testing.assert_allclose(np.diff(positions), geometry.step_um)
    if length <= n_slices / 4:
        # Where the volume is thick enough, no projection is cut.
        np.testing.assert_allclose(operator.matrix.sum(axis=1), 1, atol=1e-3)


def test_side_lobes_of_the_geometry_blur_its_acquisitions():
    positions = np.array([2.5, 8.5])
    geometry = Geometry.of(box_profile(6.0), positions, VOXEL, KERNEL)
    operator = geometry.acquisition_of(40, 0.0)[2]
    np.testing.assert_allclose(operator.lateral.kernel, KERNEL, rtol=1e-3)


def test_phase_moves_the_projections_by_a_part_of_a_step():
    first = GEOMETRY.acquisition_of(40, 0.0)[0]
    moved = GEOMETRY.acquisition_of(40, 0.25)[0]
    np.testing.assert_allclose(moved[:5] - first[:5], 0.25 * 6)


@given(st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_varied_beams_are_a_little_longer_or_shorter(seed):
    varied = SKEWED.varied(generator(seed))
    assert varied == SKEWED.varied(generator(seed))
    # The whole profile is stretched, so that its shape stays.
    lengths = np.array([a / b for a, b in zip(*edges_of(varied, SKEWED), strict=True) if b])
    assert lengths.std() < 1e-12 and abs(lengths[0] - 1) <= 0.12
    assert abs(varied.step_um / SKEWED.step_um - 1) <= 0.12
    unchanged = {"profile_edges_um": SKEWED.profile_edges_um, "step_um": SKEWED.step_um}
    assert replace(varied, **unchanged) == SKEWED


def edges_of(*geometries):
    return [geometry.profile_edges_um for geometry in geometries]


def test_half_of_the_varied_beams_are_the_nominal_one():
    rng = generator(0)
    varied = [SKEWED.varied(rng) for _ in range(400)]
    others = [each for each in varied if each != SKEWED]
    assert 160 < len(others) < 240
    # Length and step vary by themselves, and over all of their range.
    length = np.array([each.profile_edges_um[0] / -2 for each in others])
    step = np.array([each.step_um / 6 for each in others])
    assert abs(np.corrcoef(length, step)[0, 1]) < 0.25
    for share in (length, step):
        assert share.min() < 0.9 and share.max() > 1.1
        assert share.mean() == pytest.approx(1, abs=0.02)


@given(st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_drawn_beams_can_image_a_phantom(seed):
    geometry = Geometry.any(generator(seed))
    assert geometry == Geometry.any(generator(seed))
    assert geometry.voxel_size_um == VOXEL and geometry.lateral is None
    assert sum(geometry.profile_weights) == pytest.approx(1) and min(geometry.profile_weights) > 0
    length = geometry.profile.fwhm_um
    box = len(geometry.profile_weights) == 1
    lengths = drawn._BOX_SLICES if box else drawn._GAUSSIAN_SLICES
    shares, steps = drawn._BOX_STEPS if box else drawn._GAUSSIAN_STEPS, drawn._STEP_SLICES
    # The width of a skewed bump is not quite that of the bump.
    slack = 1 if box else 1.2
    assert lengths[0] / slack <= length <= lengths[1] * slack
    assert steps[0] <= geometry.step_um <= steps[1]
    share = geometry.step_um / length
    assert share >= shares[0] / slack or geometry.step_um == steps[1]
    assert share <= shares[1] * slack or geometry.step_um == steps[0]
    positions, _, operator = geometry.acquisition_of(64, 0.5)
    assert len(positions) >= 3
    assert operator.matrix.sum(axis=1) == pytest.approx(np.ones(len(positions)), abs=0.02)


def test_drawn_beams_are_of_both_kinds_and_lean_to_both_sides():
    beams = [Geometry.any(generator(seed)) for seed in range(300)]
    assert len({geometry.key for geometry in beams}) == 300
    boxes = [geometry for geometry in beams if len(geometry.profile_weights) == 1]
    assert 110 < len(boxes) < 190
    leaning = []
    for geometry in beams:
        weights = np.array(geometry.profile_weights)
        half = len(weights) // 2
        if half:
            leaning.append(weights[half:].sum() - weights[:half].sum())
    assert min(leaning) < -0.08 and max(leaning) > 0.08
    assert max(np.abs(leaning)) < 0.2
    # All of the range is drawn, short beams as often as long ones.
    shortest, longest = drawn._BOX_SLICES
    place = (np.array([geometry.profile.fwhm_um for geometry in boxes]) - shortest) / (
        longest - shortest
    )
    assert place.min() < 0.05 and place.max() > 0.95
    assert place.mean() == pytest.approx(0.5, abs=0.1)


def measured(beam, step, voxel=VOXEL, blurred=False):
    return box_profile(beam), np.arange(0.0, 8 * step, step)[::-1], voxel, blurred


@pytest.mark.parametrize(
    ("acquisition", "words"),
    [
        (measured(6.0, 6.0), []),
        (measured(13.0, 6.0), []),
        (measured(6.0, 6.0, (1.0, 1.2, 1.2)), []),
        # Micrometres mean nothing to a network, slices do.
        (measured(3.0, 3.0, (0.5, 0.5, 0.5)), []),
        (measured(3.0, 3.0), ["the beam is 3 slices long, and the prior has seen 3.57 to 13.4"]),
        (measured(9.0, 9.5), ["the step is 9.5 slices, and the prior has seen 2.23 to 8.96"]),
        (measured(12.0, 3.0), ["the step is 0.25 of the length of the beam"]),
        (measured(6.0, 6.0, (1.0, 0.5, 0.5)), ["the slices are 2 times as far apart as pixels"]),
        (measured(6.0, 6.0, blurred=True), ["side lobes, and the prior has seen none"]),
        (measured(20.0, 2.0), ["step is 2 slices", "beam is 20 slices", "0.1 of the length"]),
    ],
)
def test_what_a_prior_for_any_beam_has_not_seen(acquisition, words):
    found = departures(drawn.ANY, *acquisition)
    assert len(found) == len(words)
    assert all(word in text for word, text in zip(words, found, strict=True))


def test_no_drawn_beam_is_one_that_was_not_seen():
    for seed in range(200):
        rng = generator(seed)
        geometry = Geometry.any(rng).varied(rng)
        places = geometry.step_um * np.arange(5)
        assert departures(drawn.ANY, geometry.profile, places, VOXEL, False) == []


@pytest.mark.parametrize("factor", [0.8, 0.9, 1.0, 1.1, 1.25])
@pytest.mark.parametrize("what", ["beam", "step"])
def test_what_a_prior_for_one_beam_has_not_seen(what, factor):
    """It has seen beams and steps that differ by up to 12 % from its own."""
    known = json.loads(json.dumps(GEOMETRY.as_dict()))
    sizes = {"beam": 6.0, "step": 6.0} | {what: 6.0 * factor}
    found = departures(known, *measured(sizes["beam"], sizes["step"]))
    assert any(what in text for text in found) == (factor in (0.8, 1.25))


def test_a_prior_for_a_beam_with_side_lobes_has_seen_them():
    known = replace(GEOMETRY, lateral_kernel=tuple(map(tuple, KERNEL))).as_dict()
    assert departures(known, *measured(6.0, 6.0, blurred=True)) == []
    assert len(departures(GEOMETRY.as_dict(), *measured(6.0, 6.0, blurred=True))) == 1
