"""The light that many acquisitions share is found within its stated error, and nothing else is."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from besselflow.corrections.shading import estimate_shading
from besselflow.disturbance import uneven_light

SHAPE = (40, 48)


def samples(count, seed, light=1.0, photons=200.0):
    """Samples of very different brightness and density, with structures anywhere, and noise."""
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(count):
        share = rng.uniform(0.3, 1.0)
        spots = np.where(rng.random(SHAPE) < share, rng.lognormal(0, 0.5, SHAPE), 0)
        sample = gaussian_filter(spots, rng.uniform(0.5, 0.9), mode="wrap")
        sample *= photons * rng.lognormal(0, 1) / sample.max()
        images.append(rng.poisson(sample * light).astype(float))
    return np.array(images)


def rms(values):
    return float(np.sqrt(np.mean(np.square(values))))


@pytest.fixture(scope="module")
def found():
    """Estimates from 12 sheets of 16 acquisitions, and the light that they saw."""
    light = uneven_light(SHAPE, 0.25)
    return [estimate_shading(samples(16, seed, light)) for seed in range(12)], light


def test_the_error_is_below_3_percent_and_the_stated_one(found):
    shadings, light = found
    errors = [np.std(each.field(SHAPE) / light) for each in shadings]
    assert rms(errors) < 0.02 and max(errors) < 0.03
    # What is stated is the error before anything is shrunk.
    unshrunk = [replace(each, covariance=1e-12 * each.covariance) for each in shadings]
    raw = [np.std(each.field(SHAPE) / light) for each in unshrunk]
    assert rms(raw) == pytest.approx(rms([each.error for each in shadings]), rel=0.2)


def test_uneven_light_is_certain_and_halves_agree(found):
    shadings, _ = found
    assert sum(each.is_certain for each in shadings) >= 10
    assert np.median([each.agreement for each in shadings]) > 0.7


def test_even_light_is_not_certain_and_gives_hardly_a_field():
    shadings = [estimate_shading(samples(16, seed), halvings=3) for seed in range(100, 140)]
    # One of a hundred may be certain by chance.
    assert sum(each.is_certain for each in shadings) <= 2
    assert rms([each.field(SHAPE) - 1 for each in shadings]) < 0.5 * shadings[0].error < 0.02
    # Probabilities are spread evenly, or lie higher, since the five kinds are counted as separate.
    assert np.mean([each.chance < 0.5 for each in shadings]) < 0.75
    assert abs(np.median([each.agreement for each in shadings])) < 0.2


def test_four_times_as_many_acquisitions_halve_the_error():
    light = uneven_light(SHAPE, 0.25)
    few, many = (estimate_shading(samples(count, 7, light), halvings=1) for count in (32, 128))
    assert few.error / many.error == pytest.approx(2, rel=0.2)


def test_the_brightness_of_no_sample_matters():
    images = samples(12, 3, uneven_light(SHAPE, 0.3))
    scaled = images * np.random.default_rng(0).lognormal(0, 2, 12)[:, None, None]
    ours, theirs = estimate_shading(images), estimate_shading(scaled)
    np.testing.assert_allclose(ours.estimates, theirs.estimates, atol=1e-6)
    np.testing.assert_allclose(ours.covariance, theirs.covariance, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1)])
def test_mirrored_images_give_a_mirrored_field(axes):
    images = samples(12, 4, uneven_light(SHAPE, 0.3))
    ours = estimate_shading(images)
    theirs = estimate_shading(np.flip(images, [axis + 1 for axis in axes]))
    np.testing.assert_allclose(np.flip(ours.field(SHAPE), axes), theirs.field(SHAPE), atol=1e-5)
    np.testing.assert_allclose(
        np.flip(ours.error_map(SHAPE), axes), theirs.error_map(SHAPE), atol=1e-5
    )


def test_turned_images_give_a_turned_field():
    images = samples(12, 4, uneven_light(SHAPE, 0.3))
    ours, theirs = estimate_shading(images), estimate_shading(images.transpose(0, 2, 1))
    np.testing.assert_allclose(ours.field(SHAPE).T, theirs.field(SHAPE[::-1]), atol=1e-5)


def test_a_blinding_spot_moves_little():
    images = samples(16, 5, uneven_light(SHAPE, 0.25))
    before = estimate_shading(images)
    images[3, 2:8, 2:8] += 50 * images[3].max()
    after = estimate_shading(images)
    assert rms(after.field(SHAPE) - before.field(SHAPE)) < 0.5 * before.error


def test_samples_that_are_all_centred_are_taken_for_light():
    """What can't be known: it is said in the documentation, and this is what it means."""
    centred = uneven_light(SHAPE, 0.5)
    assert estimate_shading(samples(24, 6) * centred, halvings=1).is_certain


def test_the_field_is_the_same_at_every_size(found):
    shading = found[0][0]
    large = shading.field((3 * SHAPE[0], 3 * SHAPE[1]))
    assert large.mean() == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(large[1::3, 1::3], shading.field(SHAPE), atol=1e-3)


def test_images_without_any_structure_are_even_light():
    shading = estimate_shading(np.ones((8, *SHAPE)))
    assert shading.chance == 1 and not shading.is_certain
    np.testing.assert_allclose(shading.field(SHAPE), 1, atol=1e-9)


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match="7 images are fewer than 8"):
        estimate_shading(samples(7, 0))
