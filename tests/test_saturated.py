"""Saturated pixels are lower bounds: in every fit, and in nothing that is said of the misfit."""

from dataclasses import replace

import dask.array as da
import numpy as np
import pytest
import torch
from scipy.optimize import lsq_linear

from besselflow.baselines.richardson_lucy import richardson_lucy
from besselflow.baselines.spectral import fit_spectral_model, posterior_mean
from besselflow.baselines.spectral_masked import fill_masked, fit_with_bounds
from besselflow.baselines.variational import (
    Convergence,
    VariationalProblem,
    choose_rounds,
    solve_variational,
)
from besselflow.beam import box_profile
from besselflow.config import Corrections, Inr
from besselflow.corrections.pixels import correct_pixels
from besselflow.corrections.whole import apply, correct_whole
from besselflow.diffusion.sampling import DenoisedUnit, RefinementProblem
from besselflow.held_out import thin
from besselflow.inr.columns import BatchPlan, UnitColumns
from besselflow.inr.fit import InrProblem, prepare_fit
from besselflow.lateral import LateralBlur
from besselflow.noise import pixel_variance, unknown
from besselflow.phantoms import draw_phantom
from besselflow.projection import AxialGrid, AxialProjection
from besselflow.store import Projections, open_projections, write_projections
from besselflow.tiling import list_units
from tiny_networks import Constant
from tiny_priors import tiny_denoiser

pytestmark = pytest.mark.usefixtures("one_thread")
VOXEL = (1.0, 1.0, 1.0)
BEAM = box_profile(6.0)
CPU = torch.device("cpu")
LEVEL = 45.0
KERNEL = np.array([[0.02, 0.08, 0.02], [0.08, 0.6, 0.08], [0.02, 0.08, 0.02]])


class Scene:
    """Bright cells, measured with photon noise by a detector that saturates."""

    def __init__(self, shape=(24, 32, 36), step=3.0, kernel=None, seed=0, photons=150.0):
        self.volume = photons * draw_phantom("cells", shape, 7, VOXEL)
        self.positions = np.arange(2.5, shape[0] - 2, step)
        grid = AxialGrid(0.0, 1.0, shape[0])
        lateral = None if kernel is None else LateralBlur(kernel)
        self.operator = AxialProjection.from_geometry(BEAM, self.positions, grid, lateral)
        clean = self.operator.forward(self.volume.astype(np.float64))
        rng = np.random.default_rng(seed)
        self.full = rng.poisson(np.maximum(clean, 0)).astype(np.float32)
        self.saturated = self.full >= LEVEL
        self.clipped = np.minimum(self.full, LEVEL).astype(np.float32)
        self.model = fit_spectral_model([self.clipped], self.operator, VOXEL)

    def filled(self, saturated=None):
        args = (self.clipped, self.saturated, self.operator, self.model, VOXEL)
        return fill_masked(*args, saturated)

    def error(self, volume):
        return float(np.sqrt(np.mean((volume - self.volume) ** 2)))

    def projections(self, **options):
        own = lambda array: da.from_array(array[None, None], chunks=(1, 1, 2, 16, 16))  # noqa: E731
        return Projections(
            data=own(self.clipped),
            positions_um=self.positions,
            profile=BEAM,
            grid=AxialGrid(0.0, 1.0, len(self.volume)),
            pixel_size_um=VOXEL[1:],
            unit="photons",
            attributes={"scale": [[LEVEL]]},
            masked=own(self.saturated),
            saturated=own(self.saturated),
            **options,
        )


@pytest.fixture(scope="module")
def scene():
    return Scene()


def test_the_scene_is_saturated_as_bright_samples_are(scene):
    assert 0.01 < scene.saturated.mean() < 0.06


def test_bounds_far_below_what_is_predicted_say_nothing(scene):
    low = replace_bounds(scene, -1e3)
    masked = scene.filled()
    np.testing.assert_allclose(low.filled(low.saturated), masked, atol=0.02 * LEVEL)
    np.testing.assert_array_equal(scene.filled(np.zeros_like(scene.saturated)), masked)
    assert unknown(None, None) is None and unknown(scene.saturated, None) is scene.saturated


def replace_bounds(scene, value):
    other = Scene.__new__(Scene)
    other.__dict__ = scene.__dict__ | {
        "clipped": np.where(scene.saturated, value, scene.clipped).astype(np.float32)
    }
    return other


@pytest.mark.parametrize("kernel", [None, KERNEL])
def test_the_filled_grid_is_the_most_probable_one_above_the_bounds(kernel):
    scene = Scene((12, 6, 7), kernel=kernel, photons=60.0)
    chosen = np.zeros_like(scene.saturated)
    chosen[:, 1:4, 2:5] = True
    hot = chosen & (np.random.default_rng(0).random(chosen.shape) < 0.1)
    scene.saturated = chosen
    found = scene.filled(chosen & ~hot)
    assert (found >= scene.clipped - 1e-3)[chosen & ~hot].all()
    # The density's square root, column by column, from what a dense solve needs of the process.
    count = chosen.sum()
    inside, base = np.flatnonzero(chosen), np.where(chosen, 0, scene.clipped)
    energy = dense_precision(scene)
    centre = scene.model.mean * scene.operator.matrix.sum(axis=1)[:, None, None]
    right = -(energy @ (base - np.where(chosen, 0, centre)).ravel())[inside]
    lower = np.linalg.cholesky(energy[np.ix_(inside, inside)])
    centre = np.broadcast_to(centre, chosen.shape).ravel()[inside]
    bounds = np.where(hot, -np.inf, scene.clipped).ravel()[inside] - centre
    target = np.linalg.solve(lower, right)
    exact = lsq_linear(lower.T, target, (bounds, np.full(count, np.inf)), tol=1e-10).x
    np.testing.assert_allclose(found[chosen], exact + centre, atol=0.02 * LEVEL)


def dense_precision(scene):
    """Return the inverse covariance of all measurements, from the posterior mean's operator."""
    unit = np.eye(scene.full.size).reshape(-1, *scene.full.shape)
    bare = replace(scene.model, mean=0.0)
    forward = lambda column: scene.operator.forward(  # noqa: E731
        posterior_mean(column, scene.operator, bare, VOXEL).astype(float)
    )
    smoother = np.stack([forward(column).ravel() for column in unit], axis=1)
    # What is left of a measurement is the noise times the precision.
    precision = (np.eye(len(unit)) - smoother) / scene.model.noise_variance
    return (precision + precision.T) / 2


def test_bounds_recover_bright_structures_better_than_a_mask(scene):
    bright = scene.volume > 0.5 * scene.volume.max()

    def error(data):
        found = posterior_mean(data, scene.operator, scene.model, VOXEL)
        return float(np.sqrt(np.mean((found - scene.volume)[bright] ** 2)))

    bounded = error(scene.filled(scene.saturated))
    assert bounded < 0.95 * min(error(scene.filled()), error(scene.clipped))


def test_a_spectrum_is_fitted_again_to_what_was_completed(scene):
    args = ([scene.clipped], [scene.saturated], [scene.saturated], scene.operator, VOXEL)
    completed = scene.filled(scene.saturated)
    assert fit_with_bounds(*args) == fit_spectral_model([completed], scene.operator, VOXEL)
    nothing = fit_with_bounds([scene.clipped], [None], [None], scene.operator, VOXEL)
    assert nothing == scene.model


def variational(scene, saturated):
    start = posterior_mean(scene.filled(saturated), scene.operator, scene.model, VOXEL)
    expected, noise = scene.operator.forward(start), scene.model.noise_variance
    left_out = unknown(scene.saturated, saturated)
    variance = pixel_variance(expected, noise, scene.model.mean, left_out)
    args = (scene.clipped, variance, scene.operator, VOXEL, start, noise**0.5)
    return VariationalProblem(*args, scene.saturated, saturated)


@pytest.mark.parametrize("kernel", [None, KERNEL])
def test_the_variational_solution_is_that_of_its_own_predictions_above_the_bounds(kernel):
    scene, until = Scene((12, 16, 18), kernel=kernel), Convergence(400, 1e-3)
    # Some bounds say little, and none is above what was measured.
    scene.clipped[:, :, ::2] *= np.where(scene.saturated[:, :, ::2], np.float32(0.5), 1)
    problem = variational(scene, scene.saturated)
    found = solve_variational(problem, 0.4, until)
    predicted = scene.operator.forward(found.volume)
    above = scene.saturated & (predicted > scene.clipped)
    assert above.any() and (scene.saturated & ~above).any()
    # A convex problem is solved where its volume solves the one of equal gradient.
    raised = np.where(above, predicted, scene.clipped).astype(np.float32)
    same = solve_variational(replace(problem, projections=raised, saturated=None), 0.4, until)
    assert np.abs(same.volume - found.volume).max() < 0.05 * found.volume.max()
    assert same.objective == pytest.approx(found.objective, rel=5e-3)


def test_the_variational_method_heeds_bounds():
    scene, until = Scene((12, 16, 18)), Convergence(40, 0.01)

    def missing(saturated):
        found = solve_variational(variational(scene, saturated), 0.4, until, 2)
        below = scene.clipped - scene.operator.forward(found.volume)
        return float(np.maximum(below, 0)[scene.saturated].mean())

    assert missing(scene.saturated) < 0.8 * missing(None)
    rounds, errors = choose_rounds(variational(scene, scene.saturated), Convergence(10, 0.05), 0)
    assert 1 <= rounds <= len(errors) and np.isfinite(list(errors.values())).all()


def test_richardson_lucy_is_only_ever_raised_by_bounds(scene):
    run = lambda data, *masks: richardson_lucy(data, scene.operator, 8, *masks)  # noqa: E731
    masked = run(scene.clipped, scene.saturated)
    bounded = run(scene.clipped, scene.saturated, scene.saturated)
    assert scene.error(bounded) < scene.error(masked)
    low = np.where(scene.saturated, 0.0, scene.clipped)
    np.testing.assert_array_equal(run(low, scene.saturated, scene.saturated), masked)


@pytest.mark.parametrize("kernel", [None, KERNEL])
def test_the_network_errs_where_it_is_below_a_bound(kernel):
    scene = Scene((12, 16, 18), kernel=kernel)
    shape, radius = scene.full.shape[1:], (0, 0) if kernel is None else (1, 1)
    data = UnitColumns.of(
        scene.clipped,
        np.ones_like(scene.clipped),
        *(scene.operator, VOXEL, 40.0, 0.0, False, CPU, scene.saturated),
    )
    network = Constant((scene.volume / 4).astype(np.float32))
    data = replace(data, unit=1.0, shift=0.0)
    batch = BatchPlan(shape, 10**6, radius, 0).of_step(0)
    network.wanted = batch.columns.flatten()
    own = lambda array: array.reshape(len(array), -1).T[batch.targets.numpy()]  # noqa: E731
    difference = own(scene.operator.forward(scene.volume) - scene.clipped)
    bound = own(scene.saturated)
    expected = np.where(bound, np.minimum(difference, 0), difference) ** 2
    assert (bound & (difference > 0)).any() and (bound & (difference < 0)).any()
    found = data.squared_error(network, batch).numpy()
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)


def test_the_network_is_held_to_bounds_but_not_judged_by_them():
    scene = Scene((12, 16, 18))
    expected = scene.operator.forward(scene.volume)
    args = (scene.clipped, scene.operator, VOXEL, LEVEL, scene.model, expected, scene.saturated)
    bounded, masked = InrProblem(*args, scene.saturated), InrProblem(*args)
    np.testing.assert_array_equal(bounded.kept, ~scene.saturated)
    ratio = masked.noise_variance() / bounded.noise_variance()
    assert (ratio[scene.saturated] > 1e3).all() and (ratio[~scene.saturated] == 1).all()
    settings = Inr(width=8, depth=2, features=8, steps=4, columns=32)
    assert bounded.identity(settings, 0, None) != masked.identity(settings, 0, None)
    prepared = prepare_fit(bounded, settings, 0, CPU)
    everywhere = InrProblem(*args[:-1], np.ones_like(scene.saturated), scene.saturated)
    assert np.isfinite(prepared.held_out())
    # Where nothing was measured, nothing is held out.
    assert not prepare_fit(everywhere, settings, 0, CPU).held_out() > 0


@pytest.mark.parametrize("kernel", [None, KERNEL])
def test_a_sampler_agrees_with_bounds_where_it_is_above_them(kernel):
    scene = Scene((12, 16, 18), kernel=kernel)
    array = lambda value, like: np.full(like.shape, value, np.float32)  # noqa: E731
    problem = RefinementProblem(
        inr=array(0, scene.volume),
        spectral=array(0, scene.volume),
        projections=scene.clipped,
        operator=scene.operator,
        positions_um=scene.positions,
        centres_um=np.arange(12.0),
        noise=1.0,
        variance=array(4.0, scene.full),
        masked=scene.saturated,
        saturated=scene.saturated,
        shown=scene.full,
    )
    unit = DenoisedUnit(problem, tiny_denoiser(), CPU)
    volume = torch.from_numpy(scene.volume.astype(np.float32))
    found, error = unit.agree(volume, 1.0)
    predicted = scene.operator.forward(volume).numpy()
    raised = np.where(scene.saturated, np.maximum(predicted, scene.clipped), scene.clipped)
    measured, ratio = torch.from_numpy(raised), torch.from_numpy(problem.variance / error**2)
    expected = scene.operator.prox(volume, measured, ratio)
    np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=1e-3)
    np.testing.assert_array_equal(unit.shown.numpy(), scene.full)


def test_bounds_come_back_from_the_store_and_from_its_units(scene, tmp_path):
    write_projections(tmp_path / "p.zip", scene.projections())
    found = open_projections(tmp_path / "p.zip")
    np.testing.assert_array_equal(np.asarray(found.saturated[0, 0]), scene.saturated)
    units = list_units(found.data.shape, 16, 2)
    for unit in units:
        own = scene.saturated[:, unit.tile.y, unit.tile.x]
        saturated = found.unit_saturated(unit)
        assert saturated is None if not own.any() else (saturated == own).all()
    write_projections(tmp_path / "q.zip", replace(scene.projections(), saturated=None))
    assert open_projections(tmp_path / "q.zip").unit_saturated(units[0]) is None


def test_the_mean_of_a_bound_and_a_measurement_is_a_bound():
    scene = Scene((30, 16, 16))
    hot = np.zeros_like(scene.saturated)
    hot[:, 3, 4] = True
    lazy = lambda mask: da.from_array(mask[None, None])  # noqa: E731
    masks = {"masked": lazy(scene.saturated | hot), "saturated": lazy(scene.saturated & ~hot)}
    thinned = thin(replace(scene.projections(), **masks), 5, 64)
    taken = thinned.attributes["held_out"]
    gone = {*taken["projections"], *(b for _, b in taken["folded"])}
    left = [p for p in range(len(scene.positions)) if p not in gone]
    masked, saturated = np.asarray(thinned.masked[0, 0]), np.asarray(thinned.saturated[0, 0])
    some = False
    for first, second in taken["folded"]:
        index = left.index(first)
        either = scene.saturated[first] | scene.saturated[second]
        np.testing.assert_array_equal(saturated[index], either & ~hot[0])
        np.testing.assert_array_equal(masked[index], either | hot[0])
        some |= (scene.saturated[first] != scene.saturated[second]).any()
        mean = (scene.full[first] + scene.full[second]) / 2
        assert (mean >= np.asarray(thinned.data[0, 0, index]))[saturated[index]].all()
    assert some


def counts_of(scene, hot=None):
    counts = (100 + 10 * scene.clipped).astype(np.uint16)
    if hot is not None:
        counts[:, hot] = 100 + 10 * int(LEVEL)
    return da.from_array(counts[None, None], chunks=(1, 1, 2, -1, -1))


def test_saturated_pixels_keep_their_counts_and_hot_ones_do_not(scene):
    found = correct_pixels(counts_of(scene), 100.0, 10.0, Corrections())
    np.testing.assert_array_equal(np.asarray(found.saturated[0, 0]), scene.saturated)
    np.testing.assert_array_equal(np.asarray(found.masked[0, 0]), scene.saturated)
    np.testing.assert_array_equal(np.asarray(found.intensity[0, 0]), scene.clipped)
    hot = np.zeros(scene.full.shape[1:], bool)
    dark = scene.full.max(axis=0)
    hot[np.unravel_index(np.argsort(dark, axis=None)[:3], dark.shape)] = True
    found = correct_pixels(counts_of(scene, hot), 100.0, 10.0, Corrections())
    assert found.record["hot_pixels"]["pixels"] >= 3
    saturated, masked = (np.asarray(mask[0, 0]) for mask in (found.saturated, found.masked))
    assert not saturated[:, hot].any() and masked[:, hot].all()
    assert (np.asarray(found.intensity[0, 0])[:, hot] < LEVEL).all()
    nothing = correct_pixels(counts_of(scene), 100.0, 10.0, Corrections(saturation=9e4))
    assert nothing.masked is None and nothing.saturated is None


def test_what_is_moved_stays_a_bound(scene):
    settings = Corrections(scan_phase=0.5, line_noise="none")
    found = correct_pixels(counts_of(scene), 100.0, 10.0, settings)
    masked, saturated = (np.asarray(mask[0, 0]) for mask in (found.masked, found.saturated))
    # What came from beyond the edge is masked, and no bound.
    edge = masked & ~saturated
    assert edge[:, 1::2].any() and not edge[:, :, 4:-4].any() and not edge[:, ::2].any()
    assert (saturated[:, ::2] == scene.saturated[:, ::2]).all()
    moved = apply(
        scene.projections(), np.log([[2.0]] * 1) * np.ones((1, 7)), 0.5 * np.ones((1, 7, 2))
    )
    saturated, masked = (np.asarray(mask[0, 0]) for mask in (moved.saturated, moved.masked))
    inner = (slice(None), slice(2, -2), slice(2, -2))
    np.testing.assert_array_equal(saturated[inner], masked[inner])
    assert not saturated[:, -1].any() and masked[:, -1].all()
    assert (np.asarray(moved.data[0, 0])[inner][saturated[inner]] < 0.7 * LEVEL).all()


def test_the_report_gets_a_picture_of_what_is_above_the_bounds(scene):
    settings = Corrections(drift="none", laser="none")
    found = correct_whole(scene.projections(), np.arange(7), settings)
    before, after = found.pictures["saturation"]
    assert before.max() == LEVEL and after.max() > 1.05 * LEVEL
    np.testing.assert_array_equal(np.asarray(found.data[0, 0]), scene.clipped)
    plain = replace(scene.projections(), masked=None, saturated=None)
    assert "saturation" not in correct_whole(plain, np.arange(7), settings).pictures
