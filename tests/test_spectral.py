"""Checks the spectral Gaussian process against dense linear algebra and data drawn from itself."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.fft
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from besselflow.baselines import spectral_fit
from besselflow.baselines.interpolation import interpolate
from besselflow.baselines.spectral import (
    SpectralModel,
    fit_spectral_model,
    posterior_mean,
    posterior_std,
)
from besselflow.beam import box_profile, gaussian_profile
from besselflow.lateral import LateralBlur
from besselflow.phantoms import draw_phantom
from besselflow.projection import AxialGrid, AxialProjection

VOXEL = (1.0, 0.6, 0.8)
KERNEL = np.outer([0.25, 0.5, 0.25], [0.1, 0.2, 0.4, 0.2, 0.1])


def regular_operator(n_slices=24, profile=None, step=3.0, first=2.5, spacing=1.0):
    profile = profile or box_profile(6.0)
    positions = np.arange(first, n_slices * spacing - first, step)
    grid = AxialGrid(0.0, spacing, n_slices)
    return positions, AxialProjection.from_geometry(profile, positions, grid)


def axial_covariances(model, n_slices, shape, voxel):
    """Return C_k of every cosine mode, (Y, X, Z, Z), by direct summation of its cosine series."""
    period = scipy.fft.next_fast_len(2 * n_slices, real=True)
    period += period % 2
    axial = np.arange(period) / (period * voxel[0])
    axial = np.where(axial > 0.5 / voxel[0], axial - 1 / voxel[0], axial)
    fy, fx = (np.arange(n) / (2 * n * d) for n, d in zip(shape, voxel[1:], strict=True))
    distance = voxel[0] * np.subtract.outer(np.arange(n_slices), np.arange(n_slices))
    waves = np.cos(2 * np.pi * axial * distance[..., None]) / period
    stretched = (model.anisotropy * axial) ** 2
    squared = fy[:, None, None] ** 2 + fx[None, :, None] ** 2 + stretched
    ratio = squared * (2 * np.pi * model.length_um) ** 2
    return np.einsum("zwf,yxf->yxzw", waves, model.amplitude / (1 + ratio) ** model.smoothness)


def dense_posterior(y, operator, model, voxel):
    """Return mean and standard deviation, from the covariance of all pairs of voxels."""
    matrix, shape, n_slices = operator.matrix, y.shape[1:], operator.n_slices
    modes = [scipy.fft.idct(np.eye(n), axis=0, norm="ortho") for n in shape]
    axial = axial_covariances(model, n_slices, shape, voxel)
    covariance = np.einsum("yk,xl,klzw,vk,ul->zyxwvu", modes[0], modes[1], axial, *modes)
    size = n_slices * shape[0] * shape[1]
    covariance = covariance.reshape(size, size)
    pixels = np.eye(shape[0] * shape[1]).reshape(-1, *shape)
    blurred = pixels if operator.lateral is None else operator.lateral.apply(pixels)
    whole = np.kron(matrix, blurred.reshape(len(pixels), -1).T)
    relative = operator.noise_factors
    relative = np.ones(len(matrix)) if relative is None else relative
    noise = model.noise_variance * np.diag(np.repeat(relative, len(pixels)))
    measured = whole @ covariance @ whole.T + noise
    residual = y.ravel() - whole @ np.full(size, model.mean)
    gain = covariance @ whole.T @ np.linalg.inv(measured)
    variance = np.diag(covariance - gain @ whole @ covariance)
    mean = model.mean + gain @ residual
    return mean.reshape(n_slices, *shape), np.sqrt(variance).reshape(n_slices, *shape)


def draw_from(model, operator, shape, voxel, seed):
    """Draw a volume from the prior, and noisy projections of it."""
    rng = np.random.default_rng(seed)
    axial = axial_covariances(model, operator.n_slices, shape, voxel)
    jitter = 1e-10 * axial[0, 0, 0, 0] * np.eye(operator.n_slices)
    roots = np.linalg.cholesky(axial + jitter)
    coefficients = np.einsum(
        "yxzw,wyx->zyx", roots, rng.standard_normal((operator.n_slices, *shape))
    )
    volume = model.mean + scipy.fft.idctn(coefficients, axes=(1, 2), norm="ortho")
    noise = rng.standard_normal((operator.n_projections, *shape)) * model.noise_variance**0.5
    return volume, operator.forward(volume) + noise


@pytest.mark.parametrize(
    "model",
    [
        SpectralModel(40.0, 1.5, 2.0, 0.3, 5.0),
        SpectralModel(900.0, 4.0, 1.2, 2.0, -3.0),
        SpectralModel(5.0, 0.4, 6.0, 0.01, 0.0),
        SpectralModel(40.0, 1.5, 2.0, 0.3, 5.0, anisotropy=1.7),
    ],
    ids=["short", "long", "smooth", "anisotropic"],
)
@pytest.mark.parametrize("kernel", [None, KERNEL], ids=["sharp", "blurred"])
@pytest.mark.parametrize(("n_slices", "shape"), [(10, (6, 5)), (11, (5, 5)), (10, (1, 4))], ids=str)
def test_posterior_is_that_of_a_dense_solve(model, kernel, n_slices, shape):
    positions = np.array([0.8, 2.5, 5.1, 8.4])
    grid = AxialGrid(0.0, 1.0, n_slices)
    blur = None if kernel is None else LateralBlur(kernel)
    for profile in (box_profile(3.0), gaussian_profile(2.5)):
        operator = AxialProjection.from_geometry(profile, positions, grid, blur)
        y = np.random.default_rng(0).normal(model.mean, 3.0, (4, *shape))
        mean, std = dense_posterior(y, operator, model, VOXEL)
        found = posterior_mean(y, operator, model, VOXEL)
        spread = posterior_std(shape, operator, model, VOXEL)
        for array, expected in ((found, mean), (spread, std)):
            assert array.shape == (n_slices, *shape) and array.dtype == np.float32
            np.testing.assert_allclose(array, expected, atol=1e-6 * np.abs(expected).max())


def test_noisier_projections_count_for_less_as_in_a_dense_solve():
    model, shape = SpectralModel(40.0, 1.5, 2.0, 0.3, 5.0), (5, 6)
    grid = AxialGrid(0.0, 1.0, 10)
    operator = AxialProjection.from_geometry(box_profile(3.0), np.array([0.8, 2.5, 5.1]), grid)
    noisy = replace(operator, noise_factors=np.array([1.0, 2.5, 20.0]))
    y = np.random.default_rng(0).normal(model.mean, 3.0, (3, *shape))
    mean, std = dense_posterior(y, noisy, model, VOXEL)
    np.testing.assert_allclose(posterior_mean(y, noisy, model, VOXEL), mean, atol=1e-5)
    np.testing.assert_allclose(posterior_std(shape, noisy, model, VOXEL), std, rtol=1e-5)
    # Far more than the tolerance.
    assert np.abs(posterior_mean(y, operator, model, VOXEL) - mean).max() > 0.1


@pytest.mark.parametrize("edge", [7, 8])
def test_std_in_square_pixels_is_that_of_a_dense_solve(edge):
    """Equal edges and pixels let modes share their solves."""
    model = SpectralModel(40.0, 1.5, 2.0, 0.3, 5.0)
    grid = AxialGrid(0.0, 1.0, 6)
    operator = AxialProjection.from_geometry(box_profile(3.0), np.array([1.0, 4.0]), grid)
    expected = dense_posterior(np.zeros((2, edge, edge)), operator, model, (1, 1, 1))[1]
    found = posterior_std((edge, edge), operator, model, (1, 1, 1))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("kernel", [None, KERNEL], ids=["sharp", "blurred"])
def test_std_is_the_error_of_the_mean_when_the_model_is_true(kernel):
    model = SpectralModel(60.0, 2.0, 2.0, 0.2, 10.0)
    operator = regular_operator(24)[1]
    operator = replace(operator, lateral=None if kernel is None else LateralBlur(kernel))
    volume, y = draw_from(model, operator, (48, 48), VOXEL, 6)
    errors = (posterior_mean(y, operator, model, VOXEL) - volume) / posterior_std(
        y.shape[1:], operator, model, VOXEL
    )
    assert np.mean(errors**2) == pytest.approx(1, abs=0.05)
    assert np.mean(np.abs(errors) < 1.645) == pytest.approx(0.9, abs=0.02)


@given(
    st.floats(-2, 2), st.floats(-1, 1.5), st.floats(-1, 1), st.floats(-3, 0), st.floats(-0.8, 0.8)
)
@settings(max_examples=20, deadline=None)
def test_gradient_of_the_likelihood(amplitude, length, smoothness, noise, anisotropy):
    operator = replace(regular_operator(12)[1], lateral=LateralBlur(KERNEL))
    operator = replace(operator, noise_factors=np.linspace(0.7, 3, operator.n_projections))
    y = np.random.default_rng(0).normal(3, 1, (operator.n_projections, 12, 9))
    rings = spectral_fit._collect([y], 3.0, operator, VOXEL)
    basis = spectral_fit.AxialBasis.of(operator, VOXEL[0])
    theta = np.array([amplitude, length, smoothness, noise, anisotropy])
    for choice, count in ((1.3, 4), ("auto", 5)):
        likelihood = spectral_fit._Likelihood(rings, basis, 3.0, choice)
        gradient = likelihood(theta[:count])[1]
        for i, step in enumerate(1e-5 * np.eye(count)):
            change = likelihood(theta[:count] + step)[0] - likelihood(theta[:count] - step)[0]
            assert gradient[i] == pytest.approx(change / 2e-5, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("kernel", [None, KERNEL], ids=["sharp", "blurred"])
@pytest.mark.parametrize("anisotropy", [0.5, 1.0, 2.0])
def test_fit_finds_the_anisotropy_where_beams_overlap(anisotropy, kernel):
    model = SpectralModel(60.0, 2.0, 2.0, 0.05, 10.0, anisotropy)
    operator = regular_operator(24, box_profile(3.0), step=1.5)[1]
    operator = replace(operator, lateral=None if kernel is None else LateralBlur(kernel))
    y = draw_from(model, operator, (48, 48), VOXEL, 7)[1]
    found = fit_spectral_model([y], operator, VOXEL, "auto")
    assert found.anisotropy == pytest.approx(anisotropy, rel=0.2)
    assert found.length_um == pytest.approx(model.length_um, rel=0.3)
    assert found.noise_variance == pytest.approx(model.noise_variance, rel=0.2)
    assert fit_spectral_model([y], operator, VOXEL, 1.7).anisotropy == 1.7


def test_anisotropy_that_one_projection_cannot_show_stays_one():
    grid = AxialGrid(0.0, 1.0, 8)
    operator = AxialProjection.from_geometry(box_profile(8.0), np.array([3.5]), grid)
    y = gaussian_filter(np.random.default_rng(0).normal(0, 1, (1, 32, 32)), (0, 2, 2))
    found = fit_spectral_model([y], operator, VOXEL, "auto")
    assert found.anisotropy == pytest.approx(1, rel=0.3)


def test_models_survive_their_record_and_old_ones_are_isotropic():
    model = SpectralModel(40.0, 1.5, 2.0, 0.3, 5.0, 1.7)
    record = {**model.as_record(), "seconds": 3.0}
    assert SpectralModel.from_record(record) == model
    del record["anisotropy"]
    assert SpectralModel.from_record(record) == replace(model, anisotropy=1.0)


def test_posterior_mean_of_many_modes_is_that_of_a_dense_solve_per_mode():
    """More lateral modes than are solved at once; a wave along y lets one solve stand for all."""
    model = SpectralModel(40.0, 2.0, 2.0, 0.3, 5.0)
    _, operator = regular_operator(12)
    shape, mode = (80, 60), 3
    wave = scipy.fft.idct(np.eye(shape[0])[mode], norm="ortho")
    y = model.mean + np.arange(1.0, 1 + operator.n_projections)[:, None, None] * wave[:, None]
    found = posterior_mean(np.broadcast_to(y, (*y.shape[:2], shape[1])), operator, model, VOXEL)
    covariance = axial_covariances(model, 12, shape, VOXEL)[mode, 0]
    a = operator.matrix
    weights = np.linalg.solve(
        a @ covariance @ a.T + model.noise_variance * np.eye(len(a)), np.arange(1.0, 1 + len(a))
    )
    expected = model.mean + (covariance @ a.T @ weights)[:, None] * wave
    np.testing.assert_allclose(found, np.repeat(expected[..., None], 60, axis=2), atol=1e-5)


def test_posterior_mean_has_the_smallest_error_when_the_model_is_true():
    model = SpectralModel(60.0, 2.0, 2.0, 0.2, 10.0)
    _, operator = regular_operator(24)
    volume, y = draw_from(model, operator, (32, 32), VOXEL, 1)
    error = np.mean((posterior_mean(y, operator, model, VOXEL) - volume) ** 2)
    for wrong in (
        replace(model, length_um=3.0),
        replace(model, length_um=1.3),
        replace(model, noise_variance=1.0),
        replace(model, noise_variance=0.04),
    ):
        assert np.mean((posterior_mean(y, operator, wrong, VOXEL) - volume) ** 2) > error


@pytest.mark.parametrize(
    "model",
    [
        SpectralModel(60.0, 2.0, 2.0, 0.05, 10.0),
        SpectralModel(60.0, 1.2, 3.0, 0.4, 50.0),
    ],
    ids=["quiet", "noisy"],
)
def test_fit_recovers_the_model_that_drew_the_data(model):
    _, operator = regular_operator(24)
    _, y = draw_from(model, operator, (48, 48), VOXEL, 2)
    found = fit_spectral_model([y[:, :, :24], y[:, :, 24:]], operator, VOXEL)
    assert found.noise_variance == pytest.approx(model.noise_variance, rel=0.15)
    assert found.length_um == pytest.approx(model.length_um, rel=0.3)
    assert found.amplitude == pytest.approx(model.amplitude, rel=0.4)
    assert found.cutoff_per_um() == pytest.approx(model.cutoff_per_um(), rel=0.2)
    assert found.mean == pytest.approx(y.mean(), rel=1e-6)


def test_fit_is_equivariant_to_scale_and_background():
    scale, shift = 37.0, 120.0
    model = SpectralModel(60.0, 2.0, 2.0, 0.2, 10.0)
    _, operator = regular_operator(16, gaussian_profile(4.0), first=0.5)
    _, y = draw_from(model, operator, (24, 20), VOXEL, 3)
    assert operator.matrix.sum(axis=1).min() < 0.9
    moved = scale * y + shift * operator.matrix.sum(axis=1)[:, None, None]
    first = fit_spectral_model([y], operator, VOXEL)
    second = fit_spectral_model([moved], operator, VOXEL)
    assert second.noise_variance == pytest.approx(scale**2 * first.noise_variance, rel=1e-3)
    assert second.amplitude == pytest.approx(scale**2 * first.amplitude, rel=1e-3)
    assert second.length_um == pytest.approx(first.length_um, rel=1e-3)
    assert second.mean == pytest.approx(scale * first.mean + shift, rel=1e-9)
    before = posterior_mean(y, operator, first, VOXEL)
    after = posterior_mean(moved, operator, second, VOXEL)
    np.testing.assert_allclose(after, scale * before + shift, atol=1e-4 * np.abs(after).max())


def test_posterior_mean_is_equivariant_for_a_given_model():
    model = SpectralModel(60.0, 2.0, 2.0, 0.2, 10.0)
    _, operator = regular_operator(16, gaussian_profile(4.0), first=0.5)
    y = np.random.default_rng(4).normal(10, 2, (operator.n_projections, 7, 9))
    moved = 3 * y + 20 * operator.matrix.sum(axis=1)[:, None, None]
    scaled = replace(model, amplitude=540.0, noise_variance=1.8, mean=50.0)
    np.testing.assert_allclose(
        posterior_mean(moved, operator, scaled, VOXEL),
        3 * posterior_mean(y, operator, model, VOXEL) + 20,
        rtol=1e-5,
    )


@pytest.mark.parametrize("kind", ["vessels", "neuron", "cells"])
def test_spectral_beats_interpolation_on_phantoms(kind):
    volume = 200 * gaussian_filter(draw_phantom(kind, (30, 48, 48), 5, (1.0, 1.0, 1.0)), 0.7)
    positions, operator = regular_operator(30, step=6.0)
    y = np.random.default_rng(0).poisson(operator.forward(volume)).astype(np.float32)
    model = fit_spectral_model([y], operator, (1.0, 1.0, 1.0))
    scored = slice(3, 27)
    spectral = posterior_mean(y, operator, model, (1.0, 1.0, 1.0))[scored]
    straight = interpolate(y, positions, np.arange(30.0))[scored]
    truth = volume[scored]
    assert np.mean((spectral - truth) ** 2) < 0.9 * np.mean((straight - truth) ** 2)


@pytest.mark.parametrize("value", [0.0, 0.1, 5.3, 100.1, 1234.567])
@pytest.mark.parametrize("profile", [box_profile(6.0), gaussian_profile(9.0)], ids=str)
def test_constant_projections_are_refused(value, profile):
    _, operator = regular_operator(18, profile)
    flat = np.full((operator.n_projections, 17, 13), value, np.float32)
    with pytest.raises(ValueError, match=r"constant.*check that the acquisition holds an image"):
        fit_spectral_model([flat, flat[:, 3:]], operator, VOXEL)


def test_one_structured_region_is_enough():
    _, operator = regular_operator(18)
    flat = np.full((operator.n_projections, 16, 16), 5.0, np.float32)
    textured = flat + np.random.default_rng(0).normal(0, 1, flat.shape).astype(np.float32)
    assert fit_spectral_model([flat, textured], operator, VOXEL).noise_variance > 0.1


@given(st.floats(0.1, 1e4), st.floats(0.2, 30), st.floats(0.6, 20), st.floats(0.01, 0.9), st.data())
@settings(max_examples=100, deadline=None)
def test_spectrum_and_cutoff(amplitude, length, smoothness, share, data):
    model = SpectralModel(amplitude, length, smoothness, share * amplitude, 0.0)
    cutoff = model.cutoff_per_um()
    assert model.density(cutoff**2) == pytest.approx(model.noise_variance, rel=1e-6)
    assert model.density(0.0) == amplitude
    frequency = data.draw(st.floats(0, 10))
    expected = amplitude * (1 + (2 * np.pi * length * frequency) ** 2) ** -smoothness
    assert model.density(frequency**2) == pytest.approx(expected, rel=1e-9)


def test_cutoff_is_zero_where_noise_is_above_the_spectrum():
    assert SpectralModel(1.0, 2.0, 2.0, 3.0, 0.0).cutoff_per_um() < 1e-4
