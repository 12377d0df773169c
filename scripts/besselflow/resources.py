"""How much memory and time a stage needs, estimated from the shape of the data.

A cluster kills a job that takes more than it asked for, and keeps one waiting that asks for more
than it takes. So the estimates are upper bounds within a small factor, and a job that was killed
is given more (`Need.at`).

Memory is what the process itself takes, PyTorch included, plus what grows with the data: some
number of bytes per voxel of the array that a stage holds at once. That is one work unit (a tile
with its halo and all slices) for a stage that works unit by unit. The others work through a time
point and channel block by block, and hold no more than a number of its planes, whatever its depth.
Time is proportional to the voxels of all that a job works through, once for every method where the
work is done for each. The numbers come from `benchmarks/*.tsv` of finished samples and from
`tests/benchmarks/README.md`, for two cores; nodes differ, so that time has a generous margin.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

from besselflow.baselines.spectral_masked import MOST_KEPT
from besselflow.baselines.units import REGIONS_TO_FIT
from besselflow.config import Config, Microdiffusion, Prior, Tiling
from besselflow.extent import Extent, within_region
from besselflow.inr.steps import automatic_steps
from besselflow.tiling import list_units, unit_shape, units_by_shard

# Python with our libraries takes 0.2 GiB, with PyTorch 0.45 GiB, and the two processes of Snakemake
# around it as much again: a job is killed for the sum.
_BASE_MB = 900
# Loading the libraries from a shared file system takes up to a minute, and so does the wait for
# files that another node has written.
BASE_MINUTES = 2.0
# Nodes are slower than the machine that was measured on, or shared with other jobs.
_MARGIN = 4.0

# Bytes per voxel held at once; seconds on two cores per million voxels, for stages in `_PER_METHOD`
# of one method, for `spectral` and `fit_inr` besides what is counted apart. Seconds of the stages
# in `_ONCE` are at least a quarter above those of "Cost of large volumes" in
# tests/benchmarks/README.md. Bytes are counted in float32 copies of 4 bytes: what reads or writes a
# store holds a block, its copy in the other type, and what is compressed; the variational method
# some 40 copies, for the gradient, momentum and the six second derivatives of both; the INR and the
# prior the samples, and what a block of slices takes in the layers of the network, which is counted
# apart.
_COSTS = {
    # Some crops of one time point, whatever the size.
    "preflight_sample": (1, 0.1),
    "preprocess": (24, 0.2),
    "estimate_shading": (12, 0.3),
    "convert_ground_truth": (24, 0.07),
    "hold_out": (24, 0.2),
    "interpolation": (16, 0.5),
    "spectral": (20, 0.04),
    "richardson_lucy": (32, 5.0),
    "variational": (200, 70.0),
    "fit_inr": (64, 10.0),
    "refine": (64, 10.0),
    "safeguard": (48, 2.0),
    "assemble": (24, 0.13),
    "validate": (32, 0.27),
    "evaluate": (32, 0.65),
    "report_sample": (24, 0.11),
    "scan_points": (48, 20.0),
}
_ONCE = (
    "preflight_sample",
    "preprocess",
    "convert_ground_truth",
    "hold_out",
    "assemble",
    "validate",
    "evaluate",
    "report_sample",
)
# Of no sample, but as those of one.
_BY_BLOCK = (*_ONCE, "estimate_shading")
_PER_METHOD = ("assemble", "validate", "evaluate", "report_sample")
_BY_UNIT = (
    *("interpolation", "spectral", "richardson_lucy", "variational"),
    *("fit_inr", "refine", "safeguard"),
)
# What a stage that works block by block holds of a large volume, by "Cost of large volumes" in
# tests/benchmarks/README.md: its peak grows with the images and not with their number.
_VOXELS_HELD, _PLANES_HELD = 2**26, 16
# Microseconds of `spectral`: per pixel, projection and slice for the mean and for the standard
# deviation, which all tiles of a time point and channel share; per pixel and squared number of
# projections for masked pixels. A quarter above those of tiles with hot pixels, as nearly every
# acquisition has some, in "Cost of `spectral`" of tests/benchmarks/README.md. Whether pixels are
# saturated is not known beforehand: their solution takes twenty times as many steps, and four to
# ten times as long, which is within the margin.
_SPECTRAL_MEAN, _SPECTRAL_STD, _SPECTRAL_MASKED = 6.5e-3, 14e-3, 4e-2
# How many times as long the latter take, with saturated pixels among them, where the inverses that
# they need can't be kept: in a default tile, from 54 projections on.
_SPECTRAL_NOT_KEPT = 6
# Slices whose activations a U-Net holds at once, how many feature maps of full size, and the
# seconds on two cores per slice of 64 x 64 pixels and evaluation.
_NETWORK_SLICES, _NETWORK_MAPS, _NETWORK_SECONDS = 8, 20, 1 / 430
_REFERENCE_CHANNELS = 48
# Seconds on two cores per step of the INR, for 128 columns, 128 slices and a width of 128.
_INR_STEP_SECONDS, _INR_COLUMNS = 0.03, 128
# What a block of columns takes whose gradient is computed.
_GRADIENT_BYTES = 400e6
# Per voxel of a training volume: as it was read, as it is compared, and its reconstructions.
_TRAINING_BYTES = 16
# Seconds on two cores per step of the training of a prior with 4 blocks of 64 x 64 pixels.
_TRAINING_STEP_SECONDS = 0.4
# Seconds on two cores, in single precision, per million pixels of the published network of 32
# channels: of an evaluation, and of a step of its training.
_PUBLISHED_SECONDS, _PUBLISHED_TRAINING_SECONDS, _PUBLISHED_CHANNELS = 5.2, 15.0, 32
# It has more feature maps: those of the embedding of images, and of four levels.
_PUBLISHED_MAPS = 90


@dataclass(frozen=True)
class _Share:
    """What a job is given of the work units of a sample, at most.

    Attributes
    ----------
    units, pixels : int
        Their number, and the pixels of each, halo included.
    places : int
        Time points and channels that they are of.
    """

    units: int
    pixels: int
    places: int


@dataclass(frozen=True)
class Need:
    """What a job needs at its first attempt.

    Attributes
    ----------
    memory_mb : float
        Megabytes of memory.
    minutes : float
        Minutes of time.
    """

    memory_mb: float
    minutes: float

    def at(self, attempt: int) -> tuple[int, int]:
        """Return whole megabytes and minutes of the first, second, ... attempt of a job.

        Memory doubles each time: an estimate that was too low by a factor of two is as likely as
        one that was too low by a tenth. Time grows by its first value, as fits resume.
        """
        return math.ceil(self.memory_mb * 2 ** (attempt - 1)), math.ceil(self.minutes * attempt)


def need_of(stage: str, extent: Extent, config: Config, shards: int = 1) -> Need:
    """Estimate what a job of a stage needs.

    Parameters
    ----------
    stage : str
        Rule, or method of the rule `reconstruct_baseline`.
    extent : Extent
        Size of its sample, or of the volume to learn from.
    config : Config
        Configuration of the run.
    shards : int
        Number of jobs that the work units of the sample are split among.
    """
    if stage == "simulate_training":
        # It does to a simulated acquisition what the stages below do to a measured one.
        parts = [need_of(part, extent, config) for part in ("spectral", "fit_inr")]
        # Unlike them, it holds whole volumes, of all channels.
        volumes_mb = _TRAINING_BYTES * extent.channels * extent.frame / 1e6
        memory_mb = max(part.memory_mb for part in parts) + volumes_mb
        return Need(memory_mb, sum(part.minutes for part in parts))
    if stage == "train_prior":
        return _training_need(_NETWORK_SLICES * config.prior.patch**2, config.prior)
    if stage == "train_microdiffusion":
        held, _, _ = _voxels("refine", extent, config, shards)
        pixels = held // max(extent.slices, extent.projections)
        alone = _training_need(pixels, config.microdiffusion)
        if config.microdiffusion.inr_training == "pretrained":
            return alone
        beside = _joint_need(pixels, extent, config)
        return Need(
            alone.memory_mb + beside.memory_mb - _BASE_MB,
            alone.minutes + beside.minutes - BASE_MINUTES,
        )
    if stage == "sample_microdiffusion":
        settings = config.microdiffusion
        evaluations = 2 * settings.levels_that_count
        seconds = _published_seconds(_PUBLISHED_SECONDS, settings) / 1e6
        return _network_need(extent, config, settings.channels[0], evaluations * seconds, shards)
    if stage == "refine":
        evaluations = config.refine.evaluations * config.refine.samples
        seconds = _NETWORK_SECONDS * _channels_cost(config.prior.channels[0]) / 64**2
        return _network_need(
            extent, config, config.prior.channels[0], evaluations * seconds, shards
        )
    held, done, count = _voxels(stage, extent, config, shards)
    bytes_per_voxel, seconds = _COSTS[stage]
    work = seconds * done / 1e6
    if stage in _PER_METHOD:
        work *= len(config.methods)
    if stage == "fit_inr":
        work += count * _fit_seconds(held, extent.slices, config)
    held_bytes = bytes_per_voxel * held
    if stage == "spectral":
        share = _largest_share(extent, config.tiling, shards)
        work += _spectral_seconds(share, extent)
        # Inverses for masked pixels.
        held_bytes += 8 * min(MOST_KEPT, share.pixels * extent.projections**2)
    return _need(held_bytes, work)


def computing_minutes(extent: Extent, config: Config) -> float:
    """Estimate how long all stages of a sample compute one after the other, without their starts.

    Parameters
    ----------
    extent : Extent
        Size of the sample.
    config : Config
        Configuration of the run.
    """
    return sum(need.minutes - BASE_MINUTES for need in _needs_of_all(extent, config))


def asked_minutes(extent: Extent, config: Config, attempt: int) -> int:
    """Return the minutes that a single job for all stages of a sample asks for.

    Parameters
    ----------
    extent, config
        See `computing_minutes`.
    attempt : int
        1 for the first.
    """
    return sum(need.at(attempt)[1] for need in _needs_of_all(extent, config))


def _needs_of_all(extent: Extent, config: Config) -> list[Need]:
    learned = {
        "inr": ["fit_inr"],
        "microdiffusion": ["train_microdiffusion", "sample_microdiffusion"],
        "diffusion": ["refine", "safeguard"],
    }
    stages_of = lambda methods: [  # noqa: E731
        stage for name in methods for stage in learned.get(name, [name])
    ]
    withheld = within_region(extent, config.validation.region)
    stages = [(stage, extent) for stage in (*_ONCE, *stages_of(config.methods))]
    if config.validation.hold_out:
        stages += [(stage, withheld) for stage in stages_of(config.ranked_methods)]
    return [need_of(stage, size, config) for stage, size in stages]


def _need(held_bytes: float, seconds: float) -> Need:
    return Need(_BASE_MB + held_bytes / 1e6, BASE_MINUTES + _MARGIN * seconds / 60)


def _voxels(stage: str, extent: Extent, config: Config, shards: int) -> tuple[int, int, int]:
    """Return the voxels held at once, those that a job works through, and its number of units."""
    if stage not in _BY_UNIT:
        held = extent.frame
        if stage in _BY_BLOCK:
            planes = _PLANES_HELD * extent.rows * extent.columns
            held = min(held, max(_VOXELS_HELD, planes))
        return held, extent.frames * extent.frame, extent.frames
    share = _largest_share(extent, config.tiling, shards)
    held = share.pixels * max(extent.slices, extent.projections)
    return held, share.units * held, share.units


@cache
def _largest_share(extent: Extent, tiling: Tiling, shards: int) -> _Share:
    shape = (extent.times, extent.channels, extent.projections, extent.rows, extent.columns)
    units = list_units(shape, tiling.tile, tiling.halo)
    shares = units_by_shard(units, shards, tiling.chain)
    return _Share(
        units=max(map(len, shares)),
        pixels=math.prod(unit_shape(units, 1)),
        places=max(len({(unit.t, unit.c) for unit in own}) for own in shares),
    )


def _spectral_seconds(share: _Share, extent: Extent) -> float:
    """Return the seconds that the spectral method takes for the units of a job, but for the files.

    What is solved for every pixel couples its projections, whose covariance is a sum over as many
    axial frequencies as there are slices.
    """
    couplings = extent.projections * extent.slices
    means = couplings * (share.units * _SPECTRAL_MEAN + share.places * _SPECTRAL_STD)
    # Saturated pixels are completed before the fit, too, in the units that are fitted.
    completed = share.units + min(share.units, share.places * REGIONS_TO_FIT)
    masked = _SPECTRAL_MASKED * extent.projections**2
    if share.pixels * extent.projections**2 > 4 * MOST_KEPT:
        masked *= _SPECTRAL_NOT_KEPT
    return 1e-6 * share.pixels * (means + completed * masked)


def _fit_seconds(held: int, slices: int, config: Config) -> float:
    """Return the seconds that the INR of one unit takes.

    A step renders a number of whole columns, and so its cost grows with the slices, and with the
    square of the width of a hidden layer.
    """
    steps = config.inr.steps
    if steps == "auto":
        steps = automatic_steps(held // slices)
    return steps * _inr_step_seconds(slices, config)


def _inr_step_seconds(slices: int, config: Config) -> float:
    return _INR_STEP_SECONDS * max(slices / 128, 0.2) * max((config.inr.width / 128) ** 2, 1)


def _joint_need(pixels: int, extent: Extent, config: Config) -> Need:
    """Return the need of the INRs of all units that are fitted while the network is trained.

    In every step, each of them takes a step, and those of the projections that the network is shown
    are evaluated once more on whole images, in the slices that the beams reach: three times as many
    as there are per projection, roughly.
    """
    settings = config.microdiffusion
    shape = (extent.times, extent.channels, extent.projections, extent.rows, extent.columns)
    units = len(list_units(shape, config.tiling.tile, config.tiling.halo))
    reached = min(extent.slices, 3 * extent.slices // extent.projections + 6)
    images = settings.images_per_step(pixels) * pixels / _INR_COLUMNS
    step = units * _inr_step_seconds(extent.slices, config)
    step += images * _inr_step_seconds(reached, config)
    bytes_per_voxel, _ = _COSTS["fit_inr"]
    rendered = bytes_per_voxel * pixels * max(extent.slices, extent.projections)
    # Projections, as they are expected, and their precision, on and off the device.
    arrays = 4 * 6 * units * pixels * extent.projections
    return _need(rendered + arrays + _GRADIENT_BYTES, step * settings.steps)


def _network_need(
    extent: Extent, config: Config, channels: int, seconds_per_pixel: float, shards: int
) -> Need:
    """Return the need of a U-Net that runs over all slices: its activations, and its time."""
    held, done, _ = _voxels("refine", extent, config, shards)
    pixels = held / max(extent.slices, extent.projections)
    activations = 4 * _NETWORK_SLICES * _NETWORK_MAPS * channels * pixels
    bytes_per_voxel, seconds = _COSTS["refine"]
    work = seconds * done / 1e6 + done * seconds_per_pixel
    return _need(bytes_per_voxel * held + activations, work)


def _channels_cost(channels: int) -> float:
    return max(channels / _REFERENCE_CHANNELS, 0.5) ** 2


def _published_seconds(per_million: float, settings: Microdiffusion) -> float:
    return per_million * max(settings.channels[0] / _PUBLISHED_CHANNELS, 0.5) ** 2


def _training_need(pixels: int, settings: Prior | Microdiffusion) -> Need:
    """Return the need of the training of a U-Net on images or blocks of some pixels.

    The gradient needs the feature maps of all layers, which are about six times those of a layer
    that is only run through; half of them are of lower resolution.
    """
    channels = settings.channels[0]
    if isinstance(settings, Prior):
        # More blocks are seen at once on a GPU, but not in the memory of the host.
        batch = settings.blocks_per_step(False)
        step = _TRAINING_STEP_SECONDS * _channels_cost(channels)
        step *= max(batch * pixels / (4 * _NETWORK_SLICES * 64**2), 0.1)
        maps = _NETWORK_MAPS
    else:
        maps = _PUBLISHED_MAPS
        batch = settings.images_per_step(pixels)
        step = _published_seconds(_PUBLISHED_TRAINING_SECONDS, settings) * batch * pixels / 1e6
    kept = 4 * 6 / 2 * maps * channels * batch * pixels / 2
    return _need(kept, step * settings.steps)
