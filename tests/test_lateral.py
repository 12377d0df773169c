"""Checks the lateral blur against a plain convolution, and what it refuses."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import convolve

from besselflow.lateral import LateralBlur, from_modes, to_modes


def ring_kernel(radius):
    """A focus with half of its light in a ring."""
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    distance = np.hypot(y, x)
    focus, ring = np.exp(-(distance**2)), np.exp(-((distance - radius + 1) ** 2))
    return 0.5 * focus / focus.sum() + 0.5 * ring / ring.sum()


def images_of(*shape):
    return np.random.default_rng(0).normal(5, 2, shape)


@given(st.integers(0, 3), st.integers(0, 3), st.integers(1, 12), st.integers(1, 12), st.booleans())
@settings(max_examples=60, deadline=None)
def test_blur_is_a_convolution_with_mirror_boundaries(ky, kx, height, width, as_tensor):
    corner = np.random.default_rng(ky + 4 * kx).uniform(0, 1, (ky + 1, kx + 1))
    kernel = np.pad(corner, ((ky, 0), (kx, 0)), mode="reflect")
    blur = LateralBlur(kernel / kernel.sum())
    assert blur.radius == (ky, kx)
    images = images_of(2, height, width)
    expected = np.stack([convolve(image, blur.kernel, mode="reflect") for image in images])
    found = blur.apply(torch.from_numpy(images) if as_tensor else images)
    np.testing.assert_allclose(np.asarray(found), expected, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (7, 6), (6, 11), (64, 45)], ids=str)
def test_tensors_and_arrays_have_the_same_modes(shape, dtype):
    images = torch.from_numpy(images_of(2, 3, *shape)).to(dtype)
    modes = to_modes(images)
    assert modes.dtype == dtype
    tolerance = 1e-12 if dtype == torch.float64 else 2e-6
    scale = float(images.abs().max()) * np.prod(shape) ** 0.5
    np.testing.assert_allclose(modes, to_modes(images.numpy()), atol=tolerance * scale)
    np.testing.assert_allclose(from_modes(modes), images, atol=tolerance * scale)


def test_gradients_pass_through_the_blur():
    blur = LateralBlur(ring_kernel(3))
    images = torch.from_numpy(images_of(5, 4)).requires_grad_()
    assert torch.autograd.gradcheck(blur.apply, (images,))


def test_uniform_light_stays_and_no_mode_grows():
    blur = LateralBlur(ring_kernel(4))
    np.testing.assert_allclose(blur.apply(np.full((9, 13), 3.0)), 3.0)
    transfer = blur.transfer((9, 13))
    assert transfer[0, 0] == pytest.approx(1)
    assert np.abs(transfer).max() <= 1 + 1e-12


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (np.full((2, 3), 1 / 6), "odd"),
        (np.full(3, 1 / 3), "two axes"),
        (np.full((3, 3), 0.2), "sums up to 1.8"),
        (np.array([[0.2, 0.5, 0.3]]), "mirror image along x"),
        (np.array([[0.2], [0.5], [0.3]]), "mirror image along y"),
        (np.array([[-0.1, 1.2, -0.1]]), "not negative"),
        (np.array([[np.nan]]), "finite"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_kernels_that_are_refused(kernel, message):
    with pytest.raises(ValueError, match=message):
        LateralBlur(kernel)
