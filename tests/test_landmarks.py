"""Landmarks: the same wherever a stack was cut, and in no other one."""

import numpy as np
import pytest

from besselflow.landmarks import Landmarks, decode, encode, landmarks, some_of
from besselflow.phantoms import PHANTOMS, draw_phantom


def noise(seed, shape=(64, 72)):
    return np.random.default_rng(seed).poisson(100, shape).astype(np.uint16)


def test_a_cut_out_has_the_landmarks_that_lie_in_it():
    whole = noise(0)
    found, part = landmarks(whole), landmarks(whole[11:51, 20:61])
    assert len(part) > 30 and np.isin(part, found).all()
    # A twenty-fifth of the pixels of noise are the brightest of their surroundings.
    assert len(found) == pytest.approx(whole.size / 25, rel=0.25)
    assert (np.diff(found.astype(object)) > 0).all()


@pytest.mark.parametrize(
    "change", [lambda v: v.astype(np.float32), lambda v: v - 50, lambda v: v.astype(">f8") + 7]
)
def test_type_and_offset_change_nothing(change):
    np.testing.assert_array_equal(landmarks(change(noise(0))), landmarks(noise(0)))


def test_other_noise_has_other_landmarks():
    assert not np.isin(landmarks(noise(1)), landmarks(noise(0))).any()


@pytest.mark.parametrize("kind", PHANTOMS)
def test_phantoms_without_noise_have_landmarks_of_their_own(kind):
    one, other = (
        np.unique(
            np.concatenate([landmarks(z) for z in draw_phantom(kind, (16, 48, 48), s, (1.0,) * 3)])
        )
        for s in (1, 2)
    )
    assert len(one) > 10 and not np.isin(one, other).any()


@pytest.mark.parametrize("image", [np.zeros((9, 9)), np.eye(30), np.ones((4, 50)), np.ones((0, 5))])
def test_what_looks_alike_everywhere_is_no_landmark(image):
    assert not len(landmarks(image))


def test_the_smallest_are_kept_and_survive_being_text():
    stack = [noise(seed) for seed in range(3)]
    everything = np.unique(np.concatenate([landmarks(image) for image in stack]))
    kept = some_of(map(landmarks, stack), 20)
    np.testing.assert_array_equal(kept, everything[:20])
    np.testing.assert_array_equal(decode(encode(kept)), kept)
    assert len(some_of([], 5)) == 0 == len(decode(encode(some_of([], 5))))


def test_the_volume_that_shares_voxels_is_named_and_no_more_is_read_than_needed():
    known = Landmarks(
        {"one": landmarks(noise(0)), "two": landmarks(noise(1)), "none": some_of([], 9)}
    )
    slices = [noise(8), noise(9), noise(1)[30:60], noise(0)]
    left = iter(slices)
    assert known.found_in(left) == "two"
    assert len(list(left)) == 1
    assert known.found_in(slices[:2]) is None
    assert Landmarks({}).found_in(slices) is None
