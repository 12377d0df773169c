"""How much processor time and memory the full run of a sample takes, from shape and settings.

Every stage takes a time for its start and a time in proportion to its work. The coefficients are
those that `python tests/benchmarks/fit_costs.py RESULTS` prints of a finished run, as processor
seconds, which other work on a machine hardly changes.
"""

from __future__ import annotations

import math

import numpy as np

from besselflow.config import Config
from besselflow.extent import Extent
from besselflow.inr.steps import automatic_steps
from besselflow.resources import need_of
from besselflow.store import Projections
from besselflow.tiling import list_units, unit_shape

START_S = 2.0
"""Processor seconds that a job takes for its start; where PyTorch is loaded, twice as many."""

PER_MILLION = {
    "interpolation": 0.2,
    "spectral": 1.0,
    "variational": 50.0,
    "richardson_lucy": 10.0,
    "inr": 7.0,
    "microdiffusion": 4.6,
    "diffusion": 2.5,
    "other": 1.0,
}
"""Processor seconds per million voxels of the work units. Those of `diffusion` and `microdiffusion`
are per network evaluation, the latter of 32 channels; those of `inr` per million voxels that a
network of 128 units and 3 layers has seen, of which there are steps x columns x slices, and half of
their time does not depend on its size. `other` is per method, and all that is done with the
volumes: writing, judging and scoring."""

_GRADIENT = 4.4
"""Evaluations of the network of `microdiffusion` that take as long as a step of its training."""

TOLERANCE = 3.0
"""Factor within which an estimate is to be trusted: the INR ends early on some samples."""

WARM_SHARE = 0.4
"""Share of the steps that the INR of a time point takes which starts from that of the one before,
as in `besselflow.inr.fit`, which is not imported for the time that PyTorch takes."""

_JOBS = {
    "inr": ("fit_inr",),
    "diffusion": ("refine", "safeguard"),
    "microdiffusion": ("train_microdiffusion", "sample_microdiffusion"),
}
"""The jobs of a method that are not called like it."""

_ALL_SAMPLES = ("preprocess", "assemble", "validate", "evaluate", "report_sample")


def estimate_memory_mb(measured: Projections, config: Config) -> dict[str, float]:
    """Estimate the memory that the job of every stage takes at most.

    Parameters
    ----------
    measured : Projections
        The acquisition; its shape alone is used.
    config : Config
        Methods, tiling and settings.

    Returns
    -------
    dict
        Stage -> megabytes, as a cluster is asked for (`besselflow.resources`).
    """
    times, channels, count, rows, columns = measured.data.shape
    extent = Extent(times, channels, count, measured.grid.n_slices, rows, columns)
    stages = [job for method in config.methods for job in _JOBS.get(method, (method,))]
    shards = config.tiling.shards
    return {
        stage: need_of(stage, extent, config, shards).memory_mb
        for stage in (*stages, *_ALL_SAMPLES)
    }


def estimate_core_seconds(
    measured: Projections, config: Config, held_out: bool
) -> dict[str, float]:
    """Estimate the processor time of every stage on a CPU.

    Parameters
    ----------
    measured : Projections
        The acquisition; its shape alone is used.
    config : Config
        Methods, tiling and settings.
    held_out : bool
        Whether the methods are also run on an acquisition with projections withheld.

    Returns
    -------
    dict
        Method, or ``other``, -> processor seconds. The training of a prior, which several samples
        share, is not among them.
    """
    tiling = config.tiling
    shape = measured.data.shape
    units = list_units(shape, tiling.tile, tiling.halo)
    size = unit_shape(units, measured.grid.n_slices)
    chained = 1 / tiling.chain + WARM_SHARE * (1 - 1 / tiling.chain)
    warm = 1.0 if shape[0] == 1 else max(chained, 1 / shape[0])
    places = [(len(units), size, warm, list(config.methods))]
    if held_out:
        edges = [min(config.validation.region, length) for length in shape[3:]]
        region = (measured.grid.n_slices, *edges)
        places.append((shape[1], region, 1.0, config.ranked_methods))
    seconds: dict[str, float] = {}
    for count, unit, share, methods in places:
        for method in methods:
            work = count * work_of(method, unit, config) * (share if method == "inr" else 1.0)
            spent = start_of(method)
            if method == "microdiffusion":
                work += training_work(unit, config)
                spent *= 2
            spent += work * PER_MILLION[method] / 1e6
            seconds[method] = seconds.get(method, 0.0) + spent
    voxels = math.prod(shape[:2]) * measured.grid.n_slices * math.prod(shape[3:])
    seconds["other"] = 8 * START_S + voxels * len(config.methods) * PER_MILLION["other"] / 1e6
    return seconds


def start_of(method: str) -> float:
    """Return the processor seconds that a method's job takes before it does anything."""
    return START_S * (2 if method in ("inr", "microdiffusion", "diffusion") else 1)


def work_of(method: str, unit: tuple[int, int, int], config: Config) -> float:
    """Return what a method's time is proportional to, for one work unit.

    Parameters
    ----------
    method : str
        One of `besselflow.config.METHODS`.
    unit : tuple of int
        (Z, y, x) of the work unit, halo included.
    config : Config
        Its settings.
    """
    voxels = float(math.prod(unit))
    if method == "inr":
        settings, columns = config.inr, math.prod(unit[1:])
        steps = automatic_steps(columns) if settings.steps == "auto" else settings.steps
        network = 0.5 + 0.5 * settings.width * settings.depth / (128 * 3)
        return float(steps * settings.columns * unit[0]) * network
    if method == "diffusion":
        settings = config.refine
        return voxels * (1 + settings.samples * (settings.evaluations - 1))
    if method == "microdiffusion":
        settings = config.microdiffusion
        evaluations = settings.levels_that_count * (2 if settings.guidance else 1)
        return voxels * evaluations * _published_size(config)
    if method == "variational":
        return voxels * config.variational.iterations / 150
    if method == "richardson_lucy":
        return voxels * config.richardson_lucy.iterations / 20
    return voxels


def training_work(unit: tuple[int, int, int], config: Config) -> float:
    """Return the work of training the network of `microdiffusion`, once for all work units.

    Parameters
    ----------
    unit : tuple of int
        (Z, y, x) of a work unit, whose projections it sees.
    config : Config
        Its settings.
    """
    settings, pixels = config.microdiffusion, math.prod(unit[1:])
    images = settings.steps * settings.images_per_step(pixels)
    return _GRADIENT * images * pixels * _published_size(config)


def _published_size(config: Config) -> float:
    return (config.microdiffusion.channels[0] / 32) ** 2


def in_words(seconds: float) -> str:
    """Write a duration as a person would, rounded to one or two digits."""
    for unit, length in (("h", 3600.0), ("min", 60.0)):
        if seconds >= length:
            value = seconds / length
            return f"{value:.1f} {unit}" if value < 9.95 else f"{value:.0f} {unit}"
    return f"{max(int(np.ceil(seconds)), 1)} s"
