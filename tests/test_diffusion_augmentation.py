"""Views of training patches: that a view of an acquisition is the acquisition of a view."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from besselflow.diffusion.augmentation import View
from tiny_priors import toy_acquisition

PLAIN = View(None, (False, False), False, False, 1.0)
SIZE, WHOLE = 16, (40, 36)


def drawn(seed, **options):
    return View.draw(np.random.default_rng(seed), **options)


def turn(angle, factor=1.0):
    c, s = factor * math.cos(angle), factor * math.sin(angle)
    return View(((c, -s), (s, c)), (False, False), False, False, 1.0)


def cut(view, images, corner):
    return view.of(images[:, *view.window(corner, SIZE, tuple(images.shape[1:]))], SIZE)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), y=st.integers(0, 24), x=st.integers(0, 20))
def test_a_window_lies_in_the_images_and_around_the_patch(seed, y, x):
    view = drawn(seed)
    window = view.window((y, x), SIZE, WHOLE)
    for part, length, start in zip(window, WHOLE, (y, x), strict=True):
        assert 0 <= part.start <= start and start + SIZE <= part.stop <= length
    assert len({part.stop - part.start for part in window}) == 1


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), y=st.integers(0, 24), x=st.integers(0, 20))
def test_projections_of_a_view_are_the_view_of_the_projections(seed, y, x):
    acquisition, view = toy_acquisition(1, (24, *WHOLE), noise=0.0), drawn(seed)
    truth, measured = map(torch.from_numpy, (acquisition.truth, acquisition.projections))
    matrix = torch.from_numpy(acquisition.matrix.astype(np.float32))
    seen = torch.einsum("pz,zyx->pyx", matrix, cut(view, truth, (y, x)))
    torch.testing.assert_close(seen, cut(view, measured, (y, x)), atol=1e-5, rtol=1e-4)


def test_a_quarter_turn_is_exact():
    images = torch.randn(3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    for quarters in range(4):
        expected = torch.rot90(images, quarters, (-2, -1))
        found = turn(quarters * math.pi / 2).of(images, SIZE)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("factor", [0.8, 1.25])
def test_a_stretch_changes_the_size_of_things(factor):
    y, x = np.mgrid[:40, :40] - 19.5
    spot = torch.tensor(np.exp(-(y**2 + x**2) / 18), dtype=torch.float32)[None]
    view = turn(0.3, factor)
    found = view.of(spot[:, 8:32, 8:32], SIZE)[0].numpy()
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    np.testing.assert_allclose(found, np.exp(-(y**2 + x**2) * factor**2 / 18), atol=0.02)


def test_flips_transposition_and_gain():
    images = torch.arange(2 * 3 * 3.0).reshape(2, 3, 3)
    view = View(None, (True, False), True, False, 2.0)
    torch.testing.assert_close(view.of(images, 3), 2 * images.flip(-2).transpose(-2, -1))
    torch.testing.assert_close(PLAIN.of(images, 3), images)


def test_all_kinds_of_views_are_drawn():
    views = [drawn(seed) for seed in range(300)]
    assert {view.flipped for view in views} == {(a, b) for a in (0, 1) for b in (0, 1)}
    assert {view.transposed for view in views} == {view.upside_down for view in views} == {0, 1}
    warped = [np.array(view.warp) for view in views if view.warp]
    assert 0.4 < len(warped) / 300 < 0.6
    sizes = [math.sqrt(np.linalg.det(each)) for each in warped]
    assert 0.77 < min(sizes) < 0.83 and 1.2 < max(sizes) < 1.29
    gains = [view.gain for view in views]
    assert min(gains) < 0.7 and max(gains) > 1.4 and abs(np.log(gains).mean()) < 0.05


def test_without_stretching_views_are_turned_only():
    for seed in range(40):
        warp = drawn(seed, stretched=False).warp
        if warp:
            np.testing.assert_allclose(np.array(warp) @ np.array(warp).T, np.eye(2), atol=1e-12)
