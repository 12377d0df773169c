"""Masked pixels have no say: in the spectral process, in the fits, and in what is said of them."""

from dataclasses import replace

import dask.array as da
import numpy as np
import pytest

from besselflow.baselines import spectral_masked
from besselflow.baselines.richardson_lucy import richardson_lucy
from besselflow.baselines.spectral import SpectralModel, fit_spectral_model, posterior_mean
from besselflow.baselines.spectral_masked import fill_masked
from besselflow.baselines.spectral_model import lateral_frequency_squared
from besselflow.baselines.variational import Convergence, VariationalProblem, solve_variational
from besselflow.beam import box_profile
from besselflow.held_out import thin
from besselflow.lateral import LateralBlur
from besselflow.noise import EXCLUDED, pixel_variance
from besselflow.phantoms import draw_phantom
from besselflow.projection import AxialGrid, AxialProjection
from besselflow.store import Projections, open_projections, write_projections
from besselflow.tiling import list_units
from besselflow.validation import Noise, examine

VOXEL = (1.0, 1.0, 1.0)
MODEL = SpectralModel(200.0, 2.0, 1.6, 4.0, 5.0)
KERNEL = np.array([[0.02, 0.08, 0.02], [0.08, 0.6, 0.08], [0.02, 0.08, 0.02]])


def operator_of(count=5, slices=18, kernel=None):
    positions = np.linspace(2.5, slices - 3.5, count)
    lateral = None if kernel is None else LateralBlur(kernel)
    return AxialProjection.from_geometry(
        box_profile(6.0), positions, AxialGrid(0.0, 1.0, slices), lateral
    )


def draw(operator, shape=(16, 20), seed=0):
    rng = np.random.default_rng(seed)
    volume = 60 * draw_phantom("vessels", (operator.n_slices, *shape), 3, VOXEL)
    clean = operator.forward(volume.astype(np.float64))
    data = (clean + 2 * rng.standard_normal(clean.shape)).astype(np.float32)
    masked = rng.random(data.shape) < 0.05
    masked[1, 4:8, 5:10] = True
    return volume, data, masked


@pytest.mark.parametrize("kernel", [None, KERNEL])
def test_the_filled_grid_has_the_mean_of_the_unmasked_pixels_alone(kernel):
    operator = operator_of(kernel=kernel)
    _, data, masked = draw(operator)
    spoilt = np.where(masked, 1e4, data).astype(np.float32)
    filled = fill_masked(spoilt, masked, operator, MODEL, VOXEL)
    np.testing.assert_array_equal(filled[~masked], data[~masked])
    # Where a pixel has no say, the posterior mean predicts just what it was given there.
    predicted = operator.forward(posterior_mean(filled, operator, MODEL, VOXEL))
    np.testing.assert_allclose(predicted[masked], filled[masked], atol=0.05 * data.std())
    assert np.abs(predicted - filled)[~masked].max() > 0.3 * data.std()


@pytest.mark.parametrize("kernel", [None, KERNEL, np.array([[0.2, 0.6, 0.2]])])
@pytest.mark.parametrize("shape", [(16, 16), (15, 20), (1, 9)])
def test_what_is_kept_of_the_inverses_does_not_change_the_filled_grid(shape, kernel, monkeypatch):
    """Whole, halves or nothing; with pairs of modes that share one, or with none."""
    operator = operator_of(kernel=kernel)
    rng = np.random.default_rng(0)
    data = rng.poisson(50, (5, *shape)).astype(np.float32)
    masked = rng.random(data.shape) < 0.1
    lateral = lateral_frequency_squared(shape, VOXEL).ravel()
    gain = 1.0 if kernel is None else operator.lateral.transfer(shape).ravel() ** 2
    pairs = len(spectral_masked._pair_modes(lateral, np.broadcast_to(gain, lateral.shape)))
    # Of the 25 entries of an inverse, half are 15.
    found = []
    for kept in (25 * pairs, 15 * pairs, 0):
        monkeypatch.setattr(spectral_masked, "MOST_KEPT", kept)
        found.append(fill_masked(data, masked, operator, MODEL, VOXEL))
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=1e-5)
    assert np.abs(found[0] - data)[masked].max() > 1


def test_modes_of_equal_covariance_are_paired():
    lateral = lateral_frequency_squared((6, 6), VOXEL).ravel()
    pairs = spectral_masked._pair_modes(lateral, np.ones(36))
    assert len(pairs) == 21 and set(pairs.ravel()) == set(range(36))
    np.testing.assert_array_equal(lateral[pairs[:, 0]], lateral[pairs[:, 1]])
    # A blur along one axis tells the modes apart.
    pairs = spectral_masked._pair_modes(lateral, np.arange(36.0))
    np.testing.assert_array_equal(np.sort(pairs, axis=0), np.arange(36)[:, None].repeat(2, 1))


def test_the_filled_grid_agrees_with_a_dense_solve():
    operator = operator_of(count=3, slices=12)
    _, data, masked = draw(operator, shape=(6, 7))
    masked &= np.random.default_rng(1).random(masked.shape) < 0.7
    unit = np.eye(data.size).reshape(-1, *data.shape)
    # The covariance of the measurements, column by column, from the posterior mean's own operator:
    # with S = A C A^T M^-1, the covariance of the noise-free ones is noise S (I - S)^-1.
    bare = replace(MODEL, mean=0.0)
    smoother = np.stack(
        [
            operator.forward(posterior_mean(column, operator, bare, VOXEL).astype(float)).ravel()
            for column in unit
        ],
        axis=1,
    )
    signal = MODEL.noise_variance * smoother @ np.linalg.inv(np.eye(data.size) - smoother)
    covariance = signal + MODEL.noise_variance * np.eye(data.size)
    inside, outside = masked.ravel(), ~masked.ravel()
    centre = (MODEL.mean * operator.matrix.sum(axis=1))[:, None, None] * np.ones(data.shape)
    rest = (data - centre).ravel()[outside]
    cross = covariance[np.ix_(inside, outside)]
    expected = cross @ np.linalg.solve(covariance[np.ix_(outside, outside)], rest)
    filled = fill_masked(data, masked, operator, MODEL, VOXEL)
    np.testing.assert_allclose(filled[masked], expected + centre[masked], atol=0.1)


def test_masking_hot_pixels_repairs_the_reconstruction():
    operator = operator_of()
    volume, data, masked = draw(operator, (32, 32))
    hot = np.zeros(masked.shape, bool)
    hot[:, [5, 20], [9, 27]] = True
    spoilt = data + 300 * hot

    def error(measured, mask):
        model = fit_spectral_model([data], operator, VOXEL)
        filled = fill_masked(measured, mask, operator, model, VOXEL)
        return float(np.mean((posterior_mean(filled, operator, model, VOXEL) - volume) ** 2))

    assert error(spoilt, hot) < 1.05 * error(data, None) < 0.5 * error(spoilt, None)


def test_richardson_lucy_ignores_masked_pixels():
    operator = operator_of()
    _, data, masked = draw(operator)
    spoilt = np.where(masked, 1e3, data)
    found = richardson_lucy(spoilt, operator, 4, masked)
    np.testing.assert_array_equal(found, richardson_lucy(data, operator, 4, masked))
    assert np.abs(found - richardson_lucy(spoilt, operator, 4)).max() > found.max()


def test_a_masked_pixel_counts_a_ten_thousandth():
    expected = np.full((2, 3, 4), 7.0)
    masked = np.zeros(expected.shape, bool)
    masked[1, 2, 3] = True
    variance = pixel_variance(expected, 3.0, 7.0, masked)
    plain = pixel_variance(expected, 3.0, 7.0)
    np.testing.assert_allclose(variance / plain, np.where(masked, EXCLUDED, 1.0), rtol=1e-6)


@pytest.mark.parametrize("kernel", [None, KERNEL])
def test_the_data_step_of_a_sampler_hardly_sees_masked_pixels(kernel):
    operator = operator_of(kernel=kernel)
    volume, data, masked = draw(operator)
    variance = pixel_variance(operator.forward(volume), 4.0, float(data.mean()), masked)
    around = (volume + 3 * np.random.default_rng(2).standard_normal(volume.shape)).astype(float)
    step = operator.prox(around, data.astype(float), variance / 9.0)
    spoilt = operator.prox(around, np.where(masked, data + 100.0, data), variance / 9.0)
    unmasked = pixel_variance(operator.forward(volume), 4.0, float(data.mean()))
    naive = operator.prox(around, np.where(masked, data + 100.0, data), unmasked / 9.0)
    assert np.abs(spoilt - step).max() < 0.01 * np.abs(naive - step).max()


def test_the_variational_method_hardly_sees_masked_pixels():
    operator = operator_of()
    volume, data, masked = draw(operator)
    until = Convergence(60, 0.02)

    def solve(measured):
        start = volume.astype(np.float32)
        variance = pixel_variance(operator.forward(start), 4.0, float(data.mean()), masked)
        problem = VariationalProblem(measured, variance, operator, VOXEL, start, 2.0, masked)
        return solve_variational(problem, 0.1, until)

    plain, spoilt = solve(data), solve(np.where(masked, data + 50, data).astype(np.float32))
    assert np.abs(plain.volume - spoilt.volume).max() < 0.05 * plain.volume.max()
    assert spoilt.chi2 == pytest.approx(plain.chi2, rel=0.02)


def acquisition(data, masked, operator_count=9):
    positions = np.linspace(2.5, 26.5, operator_count)
    return Projections(
        data=da.from_array(data[None, None]),
        positions_um=positions,
        profile=box_profile(6.0),
        grid=AxialGrid(0.0, 1.0, 30),
        pixel_size_um=VOXEL[1:],
        unit="photons",
        attributes={"scale": [[1.0]]},
        masked=None if masked is None else da.from_array(masked[None, None]),
        pictures={"before": np.eye(3, dtype=np.float32)},
    )


def test_the_misfit_is_that_of_the_unmasked_pixels():
    operator = operator_of(count=9, slices=30)
    volume, data, masked = draw(operator)
    lazy = da.from_array(volume[None, None].astype(np.float32))
    noise = Noise(lazy, np.array([[4.0]]), np.array([[float(data.mean())]]))
    spoilt = np.where(masked, 1e3, data).astype(np.float32)
    measured = acquisition(spoilt, masked)
    found = examine(lazy, measured, noise)
    own = measured.operator
    variance = noise.variance_of(0, 0, own, slice(None), slice(None))
    squares = (own.forward(volume) - data) ** 2 / variance
    expected = [np.mean(each[~mask]) for each, mask in zip(squares, masked, strict=True)]
    np.testing.assert_allclose(found.chi2_by_projection[0, 0], expected, rtol=1e-4)
    assert examine(lazy, acquisition(spoilt, None), noise).summary()["chi2"] > 100
    assert np.isfinite(found.chi2_map).all() and found.chi2_map.max() < 10


def test_the_mask_and_the_pictures_come_back_from_the_store(tmp_path):
    _, data, masked = draw(operator_of(count=9, slices=30))
    write_projections(tmp_path / "p.zip", acquisition(data, masked))
    found = open_projections(tmp_path / "p.zip")
    np.testing.assert_array_equal(np.asarray(found.masked[0, 0]), masked)
    np.testing.assert_array_equal(found.pictures["before"], np.eye(3))
    unit = list_units(data[None, None].shape, 8, 2)[1]
    np.testing.assert_array_equal(found.unit_masked(unit), masked[:, unit.tile.y, unit.tile.x])
    write_projections(tmp_path / "q.zip", acquisition(data, None))
    assert open_projections(tmp_path / "q.zip").masked is None
    assert open_projections(tmp_path / "q.zip").unit_masked(unit) is None


def test_thinned_acquisitions_keep_their_masks():
    _, data, masked = draw(operator_of(count=9, slices=30))
    thinned = thin(acquisition(data, masked), 6, 64)
    taken = thinned.attributes["held_out"]
    assert taken["folded"]
    found = np.asarray(thinned.masked[0, 0])
    assert found.shape == thinned.data.shape[2:]
    first, second = taken["folded"][0]
    gone = {*taken["projections"], *(b for _, b in taken["folded"])}
    index = [p for p in range(9) if p not in gone].index(first)
    np.testing.assert_array_equal(found[index], masked[first] | masked[second])
