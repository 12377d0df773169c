"""The benchmark of estimated flat fields on a small sheet: what is lost, and what comes back."""

import flat_field_gain as bench
import numpy as np
import pytest

from besselflow.disturbance import uneven_light

COUNT, SCORED, SHAPE = 24, 2, (12, 64, 64)


@pytest.fixture(scope="module")
def found():
    volumes = bench.draw(COUNT, SHAPE, seed=0)
    return bench.measure(volumes, SCORED, (0.7,))


def test_uneven_light_costs_and_its_estimate_returns_most_of_it(found):
    certain, error, scores = found[0.7]
    even, none, auto = scores.mean(axis=0)
    assert certain and error < 0.5 * np.std(uneven_light(SHAPE[1:], 0.7))
    assert none < even - 0.5
    assert auto > none + 0.5 * (even - none)


def test_even_light_is_left_as_it_is(found):
    certain, _, scores = found[0.0]
    assert not certain
    np.testing.assert_array_equal(scores[:, 2], scores[:, 1])
    np.testing.assert_array_equal(found[0.7][2][:, 0], scores[:, 1])
