"""How each baseline reconstructs one work unit of a sample, with what its units share."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from besselflow.baselines.interpolation import interpolate
from besselflow.baselines.richardson_lucy import richardson_lucy
from besselflow.baselines.spectral import SpectralModel, posterior_mean, posterior_std
from besselflow.baselines.spectral_masked import fill_masked, fit_with_bounds
from besselflow.config import RichardsonLucy, Spectral, Variational
from besselflow.job import Progress, logger
from besselflow.noise import pixel_variance, unknown
from besselflow.store import Projections, open_units
from besselflow.tiling import Unit

REGIONS_TO_FIT = 9
"""Units of a time point and channel, at most, that its spectrum is fitted to."""

_PIXELS_TO_CHOOSE_ROUNDS = 64

Reconstruct = Callable[[Unit], tuple[dict[str, np.ndarray], dict[str, Any]]]
"""A work unit -> its arrays (Z, y, x) by name, and a record of numbers about it."""


def by_interpolation(measured: Projections) -> Reconstruct:
    """Interpolate linearly between the projections."""

    def reconstruct(unit: Unit) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        data = measured.unit_data(unit)
        return {"volume": interpolate(data, measured.positions_um, measured.grid.centres_um)}, {}

    return reconstruct


def by_spectral(measured: Projections, units: list[Unit], settings: Spectral) -> Reconstruct:
    """Fit the spectral Gaussian process to each time point and channel.

    The arrays of a unit are its mean as ``volume``, and its standard deviation as ``std``. Masked
    pixels are excluded from the mean exactly, and saturated ones have a say where the mean would be
    below their bounds; the fit of the spectrum sees them so, and the neighbours' guess of all other
    masked pixels, and the standard deviation is that of an acquisition without any.

    Parameters
    ----------
    measured : Projections
    units : list of Unit
        All units of the sample.
    settings : Spectral
    """
    operator, voxels = measured.operator, measured.voxel_size_um

    @cache
    def model_of(t: int, c: int) -> SpectralModel:
        return fit_place(measured, units, (t, c), settings)

    # It depends on the model and the shape only, which all tiles of a place share.
    @lru_cache(maxsize=1)
    def std_of(model: SpectralModel, shape: tuple[int, int]) -> np.ndarray:
        return posterior_std(shape, operator, model, voxels)

    def reconstruct(unit: Unit) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        model = model_of(unit.t, unit.c)
        data = measured.unit_data(unit)
        masked, saturated = measured.unit_masked(unit), measured.unit_saturated(unit)
        data = fill_masked(data, masked, operator, model, voxels, saturated)
        arrays = {
            "volume": posterior_mean(data, operator, model, voxels),
            "std": std_of(model, data.shape[1:]),
        }
        return arrays, model.as_record()

    return reconstruct


def by_richardson_lucy(measured: Projections, settings: RichardsonLucy) -> Reconstruct:
    """Deconvolve along z."""

    def reconstruct(unit: Unit) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        data = measured.unit_data(unit)
        masked, saturated = measured.unit_masked(unit), measured.unit_saturated(unit)
        iterations = settings.iterations
        volume = richardson_lucy(data, measured.operator, iterations, masked, saturated)
        return {"volume": volume}, {"iterations": settings.iterations}

    return reconstruct


def by_variational(
    measured: Projections, spectral_units: Path, settings: Variational, seed: int, threads: int
) -> Reconstruct:
    """Solve the variational problem from the spectral solution.

    Without a weight in the settings it runs Bregman rounds; their number is chosen on one region
    for all tiles of a time point and channel, which would show seams otherwise.

    Parameters
    ----------
    measured : Projections
    spectral_units : path
        Unit store of the spectral Gaussian process, same shard.
    settings : Variational
    seed : int
        Seed of the noise that splits the data to choose the number of Bregman rounds.
    threads : int
        Threads on the CPU.
    """
    # Torch takes a second to import, which the other methods need not wait for.
    from besselflow.baselines.variational import (
        ROUND_WEIGHT,
        Convergence,
        VariationalProblem,
        choose_rounds,
        solve_variational,
    )
    from besselflow.device import set_threads

    set_threads(threads)
    spectral = open_units([spectral_units])
    operator, voxels = measured.operator, measured.voxel_size_um

    until = Convergence(settings.iterations, settings.tolerance)

    def problem_of(
        data: np.ndarray,
        masked: np.ndarray | None,
        saturated: np.ndarray | None,
        start: np.ndarray,
        model: SpectralModel,
    ) -> VariationalProblem:
        expected, left_out = operator.forward(start), unknown(masked, saturated)
        variance = pixel_variance(
            expected, model.noise_variance, model.mean, left_out, operator.noise_factors
        )
        noise = math.sqrt(model.noise_variance)
        if left_out is not None:
            data = np.where(left_out, expected, data)
        return VariationalProblem(data, variance, operator, voxels, start, noise, masked, saturated)

    @cache
    def rounds_of(t: int, c: int, model: SpectralModel) -> tuple[int, dict[str, float]]:
        # The same central region in every shard.
        window = central_window(measured)
        data = np.asarray(measured.data[t, c, :, *window])
        masked, saturated = (
            at(t, c, *window) for at in (measured.masked_at, measured.saturated_at)
        )
        filled = fill_masked(data, masked, operator, model, voxels, saturated)
        start = posterior_mean(filled, operator, model, voxels)
        problem = problem_of(data, masked, saturated, start, model)
        rounds, errors = choose_rounds(problem, until, seed)
        logger.info("t %d, channel %d: %d Bregman rounds", t, c, rounds)
        return rounds, errors

    def reconstruct(unit: Unit) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        model = SpectralModel.from_record(spectral.records[unit.index])
        start = np.asarray(spectral.arrays["volume"][unit.index])
        weight, rounds, errors = settings.weight, 1, {}
        if weight == "auto":
            weight = ROUND_WEIGHT
            rounds, errors = rounds_of(unit.t, unit.c, model)
        progress = Progress("variational", rounds * until.iterations)
        data, masked = measured.unit_data(unit), measured.unit_masked(unit)
        problem = problem_of(data, masked, measured.unit_saturated(unit), start, model)
        fit = solve_variational(problem, weight, until, rounds, progress)
        record = {
            "weight": weight,
            "rounds": rounds,
            "prediction_errors": errors,
            "iterations": fit.iterations,
            "chi2": fit.chi2,
            "objective": fit.objective,
            "gap": fit.gap,
        }
        return {"volume": fit.volume}, record

    return reconstruct


def central_window(measured: Projections) -> tuple[slice, slice]:
    """Return a small central region (y, x)."""
    height, width = measured.data.shape[3:]
    size = _PIXELS_TO_CHOOSE_ROUNDS
    y, x = max(0, (height - size) // 2), max(0, (width - size) // 2)
    return slice(y, y + size), slice(x, x + size)


def fit_place(
    measured: Projections, units: list[Unit], place: tuple[int, int], settings: Spectral
) -> SpectralModel:
    """Fit the spectrum of one time point and channel on evenly spread units.

    Every shard fits the same units, so that all tiles share one model and show no seams.
    """
    own = [unit for unit in units if (unit.t, unit.c) == place]
    every = -(-len(own) // REGIONS_TO_FIT)
    chosen = own[::every]
    model = fit_with_bounds(
        [measured.unit_data(unit) for unit in chosen],
        [measured.unit_masked(unit) for unit in chosen],
        [measured.unit_saturated(unit) for unit in chosen],
        measured.operator,
        measured.voxel_size_um,
        settings.anisotropy,
    )
    logger.info(
        "t %d, channel %d: correlation length %.3g um (times %.3g along z), smoothness %.3g, "
        "noise variance %.3g",
        *place,
        model.length_um,
        model.anisotropy,
        model.smoothness,
        model.noise_variance,
    )
    return model
