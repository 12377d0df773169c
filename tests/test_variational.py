"""Checks the variational reconstruction against its definition, and Richardson-Lucy."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from besselflow.baselines.richardson_lucy import richardson_lucy
from besselflow.baselines.variational import (
    VariationalProblem,
    choose_weight,
    hessian,
    hessian_adjoint,
    solve_variational,
)
from besselflow.beam import box_profile, gaussian_profile
from besselflow.lateral import LateralBlur
from besselflow.phantoms import draw_phantom
from besselflow.projection import AxialGrid, AxialProjection

SCALES = (0.5, 1.0, 0.8)


def operator_of(profile, n_slices=18, step=6.0):
    positions = np.arange(2.5, n_slices - 2, step)
    return AxialProjection.from_geometry(profile, positions, AxialGrid(0.0, 1.0, n_slices))


def noisy_problem(seed=0, photons=100.0):
    truth = photons * draw_phantom("cells", (18, 32, 32), 7)
    operator = operator_of(box_profile(6))
    clean = operator.forward(truth)
    rng = np.random.default_rng(seed)
    measured = rng.poisson(clean).astype(np.float32)
    variance = np.maximum(clean, 0.5).astype(np.float32)
    start = operator.pinv(measured).astype(np.float32)
    return truth, VariationalProblem(measured, variance, operator, (1.0, 1.0, 1.0), start)


def objective(problem, volume, weight):
    unit = np.sqrt(problem.variance.mean())
    residual = problem.operator.forward(volume) - problem.projections
    fields = hessian(torch.from_numpy(volume / unit), (1.0, 1.0, 1.0))
    penalty = float(fields.square().sum(dim=0).sqrt().sum())
    data = unit**2 * float((residual**2 / problem.variance).sum()) / unit**2
    return (0.5 * data + weight * penalty) / volume.size


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


def test_solution_is_a_minimum_among_nonnegative_volumes():
    _, problem = noisy_problem()
    weight = 0.05
    fit = solve_variational(problem, weight, 600)
    assert fit.volume.min() >= 0
    assert fit.objective == pytest.approx(objective(problem, fit.volume, weight), rel=1e-3)
    rng = np.random.default_rng(1)
    for size in (0.3, 3.0):
        for _ in range(5):
            step = size * rng.standard_normal(fit.volume.shape).astype(np.float32)
            other = np.maximum(fit.volume + step, 0)
            assert objective(problem, other, weight) > fit.objective


def test_longer_iteration_does_not_raise_the_objective_and_converges():
    _, problem = noisy_problem()
    values = [solve_variational(problem, 0.05, n).objective for n in (10, 100, 400, 800)]
    assert values[0] > values[1] > values[2]
    assert values[3] == pytest.approx(values[2], rel=0.02)


def test_a_larger_weight_fits_less():
    _, problem = noisy_problem()
    misfits = [solve_variational(problem, weight, 200).chi2 for weight in (0.01, 0.1, 1.0)]
    assert misfits[0] < misfits[1] < misfits[2]


def test_intensity_unit_does_not_matter():
    _, problem = noisy_problem()
    scaled = VariationalProblem(
        problem.projections * 10,
        problem.variance * 100,
        problem.operator,
        problem.voxel_size_um,
        problem.start * 10,
    )
    one, ten = (solve_variational(p, 0.05, 50).volume for p in (problem, scaled))
    np.testing.assert_allclose(ten, 10 * one, rtol=1e-3, atol=1e-2)


def test_chosen_weight_is_better_than_much_smaller_and_larger_ones():
    truth, problem = noisy_problem()
    weight, errors = choose_weight(problem, seed=0)
    assert len(errors) == 5 and all(error > 0 for error in errors.values())
    error = {
        factor: np.mean((solve_variational(problem, weight * factor, 200).volume - truth) ** 2)
        for factor in (0.05, 1.0, 20.0)
    }
    assert error[1.0] < error[0.05] and error[1.0] < error[20.0]
    assert choose_weight(problem, seed=0) == (weight, errors)


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
