"""Checks the variational reconstruction against its definition, and Richardson-Lucy."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from besselflow.baselines.richardson_lucy import richardson_lucy
from besselflow.baselines.variational import (
    ROUND_WEIGHT,
    Convergence,
    VariationalProblem,
    bregman,
    choose_rounds,
    hessian,
    hessian_adjoint,
    solve_variational,
)
from besselflow.beam import box_profile, gaussian_profile
from besselflow.lateral import LateralBlur
from besselflow.phantoms import draw_phantom
from besselflow.projection import AxialGrid, AxialProjection

SCALES = (0.5, 1.0, 0.8)
UNTIL = Convergence(iterations=150, tolerance=0.02)
EXACT = Convergence(iterations=2000, tolerance=1e-3)
BLUR = LateralBlur(np.outer([0.1, 0.2, 0.4, 0.2, 0.1], [0.1, 0.2, 0.4, 0.2, 0.1]))


def operator_of(profile, n_slices=18, step=6.0):
    positions = np.arange(2.5, n_slices - 2, step)
    return AxialProjection.from_geometry(profile, positions, AxialGrid(0.0, 1.0, n_slices))


def noisy_problem(seed=0, photons=100.0, smooth_px=0.0, blur=None):
    truth = photons * gaussian_filter(draw_phantom("cells", (18, 32, 32), 7), smooth_px)
    operator = replace(operator_of(box_profile(6)), lateral=blur)
    clean = operator.forward(truth)
    rng = np.random.default_rng(seed)
    measured = rng.poisson(np.maximum(clean, 0)).astype(np.float32)
    variance = np.maximum(clean, 0.5).astype(np.float32)
    start = operator.pinv(measured, rcond=1e-3).astype(np.float32)
    noise = float(np.sqrt(variance.mean()))
    return truth, VariationalProblem(measured, variance, operator, (1.0, 1.0, 1.0), start, noise)


def objective(problem, volume, weight):
    residual = problem.operator.forward(volume) - problem.projections
    fields = hessian(torch.from_numpy(volume / problem.noise), (1.0, 1.0, 1.0))
    penalty = float(fields.square().sum(dim=0).sqrt().sum())
    return (0.5 * float((residual**2 / problem.variance).sum()) + weight * penalty) / volume.size


def primal_dual(problem, weight, iterations):
    """Solve by another method: the primal-dual splitting of Condat (JOTA 2013)."""
    variance = torch.from_numpy(problem.variance / problem.noise**2)
    measured = torch.from_numpy(problem.projections / problem.noise)
    volume = torch.from_numpy(np.maximum(problem.start / problem.noise, 0))
    dual = torch.zeros((6, *volume.shape))
    data_norm = np.linalg.norm(problem.operator.matrix, 2) ** 2 / float(variance.min())
    sigma = data_norm / 2 / 12**2
    for _ in range(iterations):
        misfit = (problem.operator.forward(volume) - measured) / variance
        gradient = problem.operator.adjoint(misfit) + hessian_adjoint(dual, (1.0, 1.0, 1.0))
        moved = (volume - gradient / data_norm).clamp_(min=0)
        dual += sigma * hessian(2 * moved - volume, (1.0, 1.0, 1.0))
        dual /= (dual.square().sum(dim=0).sqrt() / weight).clamp_(min=1)
        volume = moved
    return volume.numpy() * problem.noise


def test_hessian_and_its_adjoint_agree():
    generator = torch.Generator().manual_seed(0)
    volume = torch.randn(7, 6, 5, generator=generator, dtype=torch.float64)
    fields = torch.randn(6, 7, 6, 5, generator=generator, dtype=torch.float64)
    left = (hessian(volume, SCALES) * fields).sum()
    right = (volume * hessian_adjoint(fields, SCALES)).sum()
    assert left == pytest.approx(float(right), rel=1e-12)


def test_hessian_of_a_quadratic_is_its_curvature():
    z, y, x = np.mgrid[:9, :8, :7].astype(float)
    volume = torch.from_numpy(1.5 * z**2 - y**2 + 0.5 * x**2 + 2 * z * y - 3 * y * x + z + 4)
    inner = hessian(volume, (1.0, 1.0, 1.0))[:, 1:-1, 1:-1, 1:-1]
    root = np.sqrt(2)
    expected = [3, -2, 1, 2 * root, 0, -3 * root]
    for field, value in zip(inner, expected, strict=True):
        np.testing.assert_allclose(field, value, atol=1e-9)


@pytest.mark.parametrize("blur", [None, BLUR])
@pytest.mark.parametrize("weight", [0.05, ROUND_WEIGHT])
def test_solution_agrees_with_another_solver_within_its_gap(weight, blur):
    _, problem = noisy_problem(blur=blur)
    fit = solve_variational(problem, weight, EXACT)
    assert fit.volume.min() >= 0
    assert fit.gap <= EXACT.tolerance
    assert fit.objective == pytest.approx(objective(problem, fit.volume, weight), rel=1e-4)
    other = objective(problem, primal_dual(problem, weight, 1500), weight)
    # No volume lies below what the gap allows, and the slower solver has not gone far above.
    assert (1 - fit.gap) * fit.objective <= other < 1.03 * fit.objective


def test_gap_bounds_how_far_an_early_solution_is_from_the_best():
    _, problem = noisy_problem()
    best = solve_variational(problem, 0.1, EXACT).objective
    for iterations in (2, 5, 10, 40):
        fit = solve_variational(problem, 0.1, Convergence(iterations, 1e-9))
        assert fit.iterations == iterations
        assert 0 <= 1 - best / fit.objective <= fit.gap + 1e-6


def test_a_looser_tolerance_ends_earlier():
    _, problem = noisy_problem()
    loose, tight = (
        solve_variational(problem, ROUND_WEIGHT, Convergence(500, tolerance))
        for tolerance in (0.2, 0.005)
    )
    assert loose.iterations < tight.iterations < 500
    assert loose.gap <= 0.2 and tight.gap <= 0.005


def test_a_larger_weight_fits_less():
    _, problem = noisy_problem()
    misfits = [solve_variational(problem, weight, UNTIL).chi2 for weight in (0.01, 0.1, 1.0)]
    assert misfits[0] < misfits[1] < misfits[2]


def test_intensity_unit_does_not_matter():
    _, problem = noisy_problem()
    scaled = replace(
        problem,
        projections=problem.projections * 10,
        variance=problem.variance * 100,
        start=problem.start * 10,
        noise=problem.noise * 10,
    )
    one, ten = (solve_variational(p, ROUND_WEIGHT, UNTIL, 2).volume for p in (problem, scaled))
    np.testing.assert_allclose(ten, 10 * one, rtol=1e-3, atol=1e-2)


def test_a_tile_is_penalised_like_its_volume():
    _, problem = noisy_problem()
    half = np.s_[:, :, :16]
    mirrored = replace(
        problem,
        **{
            name: np.concatenate(
                [getattr(problem, name)[half], getattr(problem, name)[half][..., ::-1]], axis=2
            )
            for name in ("projections", "variance", "start")
        },
    )
    tile = replace(
        problem,
        **{name: getattr(problem, name)[half] for name in ("projections", "variance", "start")},
    )
    exact = Convergence(400, 1e-9)
    whole, part = (solve_variational(p, ROUND_WEIGHT, exact, 2).volume for p in (mirrored, tile))
    assert np.abs(whole[half] - part).mean() < 0.02 * part.std()


def test_bregman_rounds_restore_the_contrast_of_a_small_bright_structure():
    shape = (18, 24, 24)
    z, y, x = np.indices(shape) - np.array([9, 12, 12])[:, None, None, None]
    bump = np.exp(-(z**2 + y**2 + x**2) / (2 * 1.8**2))
    truth = 300 * bump.astype(np.float32) + 5
    operator = operator_of(box_profile(6))
    clean = operator.forward(truth).astype(np.float32)
    measured = np.random.default_rng(0).poisson(clean).astype(np.float32)
    start = operator.pinv(measured).astype(np.float32)
    problem = VariationalProblem(
        measured, clean, operator, (1.0, 1.0, 1.0), start, float(np.sqrt(clean.mean()))
    )
    peaks, misfits = [], []
    for fit in bregman(problem, ROUND_WEIGHT, UNTIL, 4):
        peaks.append(fit.volume.max())
        misfits.append(fit.chi2)
        assert fit.volume.min() >= 0
    assert peaks[0] < 0.7 * truth.max()
    assert peaks[0] < peaks[1] < peaks[2]
    assert abs(peaks[2] - truth.max()) < 0.5 * abs(peaks[0] - truth.max())
    assert misfits == sorted(misfits, reverse=True)


@pytest.mark.parametrize(("smooth_px", "lowest_chi2"), [(0.0, 0.3), (1.5, 0.75)])
def test_chosen_rounds_are_the_best_and_explain_the_data_to_their_noise(smooth_px, lowest_chi2):
    truth, problem = noisy_problem(smooth_px=smooth_px)
    rounds, errors = choose_rounds(problem, UNTIL, seed=0)
    assert rounds == int(min(errors, key=errors.get)) < len(errors)
    fits = list(bregman(problem, ROUND_WEIGHT, UNTIL, len(errors)))
    assert lowest_chi2 < fits[rounds - 1].chi2 < 1.1
    found = [float(np.mean((fit.volume - truth) ** 2)) for fit in fits]
    assert found[rounds - 1] < 1.05 * min(found)
    assert found[rounds - 1] < 0.7 * found[0]


def test_chosen_rounds_are_repeatable():
    _, problem = noisy_problem()
    assert choose_rounds(problem, UNTIL, seed=0) == choose_rounds(problem, UNTIL, seed=0)


def test_solutions_are_repeatable():
    _, problem = noisy_problem(blur=BLUR)
    one, two = (solve_variational(problem, ROUND_WEIGHT, UNTIL, 3) for _ in range(2))
    assert np.array_equal(one.volume, two.volume) and one.gap == two.gap


def test_progress_counts_all_rounds():
    told = []

    class Listener:
        def update(self, done, detail):
            told.append((done, detail))

    _, problem = noisy_problem()
    fit = solve_variational(problem, ROUND_WEIGHT, Convergence(10, 0.5), 3, Listener())
    counts = [done for done, _ in told]
    assert counts == sorted(counts) and counts[-1] == 30
    assert told[-1][1].startswith("round 3 of 3, duality gap")
    assert fit.iterations <= 30


def test_no_rounds_are_refused():
    _, problem = noisy_problem()
    with pytest.raises(ValueError, match="0 rounds"):
        solve_variational(problem, ROUND_WEIGHT, UNTIL, 0)


def test_richardson_lucy_keeps_exact_data_and_total_light():
    operator = operator_of(gaussian_profile(5), step=3.0)
    truth = draw_phantom("vessels", (18, 16, 16), 3)
    measured = operator.forward(truth)
    short, long = (richardson_lucy(measured, operator, n) for n in (3, 200))
    misfit = [np.abs(operator.forward(v) - measured).mean() for v in (short, long)]
    assert long.min() >= 0
    assert misfit[1] < misfit[0] / 3
    weights = operator.matrix.sum(axis=0)[:, None, None]
    assert (weights * long).sum() == pytest.approx(measured.sum(), rel=1e-4)


def test_richardson_lucy_undoes_a_blur():
    blur = LateralBlur(np.outer([0.25, 0.5, 0.25], [0.25, 0.5, 0.25]))
    operator = replace(operator_of(gaussian_profile(5), step=3.0), lateral=blur)
    truth = draw_phantom("vessels", (18, 16, 16), 3)
    measured = operator.forward(truth)
    volume = richardson_lucy(measured, operator, 200)
    assert volume.min() >= 0
    start = np.abs(operator.forward(richardson_lucy(measured, operator, 3)) - measured).mean()
    assert np.abs(operator.forward(volume) - measured).mean() < start / 3
    sharp = replace(operator, lateral=None)
    blurry = richardson_lucy(measured, sharp, 200)
    assert np.mean((volume - truth) ** 2) < np.mean((blurry - truth) ** 2)


def test_richardson_lucy_leaves_unseen_slices_at_the_start():
    operator = operator_of(box_profile(2), step=6.0)
    measured = np.full((3, 4, 4), 5.0, np.float32)
    volume = richardson_lucy(measured, operator, 10)
    assert (~operator.seen).any()
    np.testing.assert_allclose(volume[~operator.seen], 5.0)
    np.testing.assert_allclose(operator.forward(volume), measured, rtol=1e-5)
