"""Measure how fast the INR is fitted and the prior trained and sampled, and the published scheme.

`make bench-gpu` runs it on the GPU where there is one; without, it says so and measures the CPU on
a smaller case. The volume is a phantom; for the prior, its INR and spectral estimate are the
phantom blurred along z: their content changes nothing of the cost. The published scheme visits 1000
noise levels with two network evaluations each; it is measured on a few slices and levels, and
extrapolated, to all levels and to those that leave a trace in the result.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from besselflow.baselines.spectral import fit_spectral_model, posterior_mean
from besselflow.beam import box_profile
from besselflow.config import Inr, Microdiffusion, Prior, Refine
from besselflow.device import compile_network, compute_precision, select_device
from besselflow.diffusion.assessment import problem_of
from besselflow.diffusion.geometry import Geometry
from besselflow.diffusion.network import Denoiser
from besselflow.diffusion.prior import BLIND, LOWEST_NOISE, DiffusionPrior
from besselflow.diffusion.sampling import VIEWS, sample_posterior
from besselflow.diffusion.simulation import SimulatedAcquisition
from besselflow.diffusion.training import train_prior
from besselflow.inr.fit import InrProblem, fit_inr
from besselflow.microdiffusion.sampling import SlicesProblem, sample_slices
from besselflow.microdiffusion.training import build_network, to_device
from besselflow.phantoms import draw_phantom

VOXEL_UM = (1.0, 1.0, 1.0)
PARTS = ("fit", "training", "sampling", "published")
PUBLISHED_LEVELS = 1000
_FEW_LEVELS, _FEW_SLICES = 10, 4


def main(
    edge: int,
    batches: list[int],
    steps: int,
    samples: int,
    threads: int,
    parts: list[str],
    compiled: bool,
) -> None:
    """Print one line per measurement.

    Parameters
    ----------
    edge : int
        Edge length of the volume in voxels.
    batches : list of int
        Blocks per training step.
    steps : int
        Training steps that are timed, after as many to warm up.
    samples : int
        Posterior samples.
    threads : int
        Threads on the CPU.
    parts : list of str
        What to measure, of `PARTS`.
    compiled : bool
        Measure training and sampling as `prior.compile` has them.
    """
    device, kind = select_device(threads), "compiled " if compiled else ""
    if device.type == "cuda":
        print(f"device: {torch.cuda.get_device_name()}")
    else:
        print(f"no GPU is visible; the CPU with {threads} threads is measured")
    acquisition = acquire(edge)
    if "fit" in parts:
        seconds, steps_taken = time_fit(acquisition, device)
        print(
            f"INR, {edge} x {edge} x {edge}: {seconds:.1f} s for {steps_taken} steps and the "
            f"volume{peak_memory(device)}"
        )
    for batch in batches if "training" in parts else ():
        settings = Prior(batch=batch, patch=min(64, edge // 16 * 16), compile=compiled)
        seconds, start = time_training(acquisition, settings, steps, device)
        print(
            f"{kind}training, batch {batch}: {steps / seconds:.2f} steps/s, "
            f"{8 * batch * steps / seconds:.0f} slices of {settings.patch} x {settings.patch} /s, "
            f"{start:.1f} s more to start{peak_memory(device)}"
        )
    if "sampling" in parts:
        own = Refine(samples=samples)
        seconds, start, evaluations = time_sampling(acquisition, own, device, compiled)
        rate = edge * evaluations / seconds
        print(
            f"{kind}sampling, {edge} x {edge} x {edge}, {samples} samples of "
            f"{Refine().evaluations} evaluations: {seconds:.1f} s, {rate:.0f} slices/s, "
            f"{start:.1f} s more for the first time{peak_memory(device)}"
        )
    if "published" in parts:
        seconds = time_published(acquisition, device)
        count = Microdiffusion(timesteps=PUBLISHED_LEVELS).levels_that_count
        print(
            f"published scheme, {edge} slices, {PUBLISHED_LEVELS} levels with guidance: "
            f"{seconds:.0f} s, extrapolated from {_FEW_SLICES} slices and {_FEW_LEVELS} levels; "
            f"the {count} that leave a trace: {seconds * count / PUBLISHED_LEVELS:.1f} s"
        )


def acquire(edge: int) -> SimulatedAcquisition:
    """Image a phantom with a box beam of 6 slices in steps of 6."""
    truth = draw_phantom("vessels", (edge,) * 3, 0)
    geometry = Geometry.of(box_profile(6.0), np.array([0.0, 6.0]), VOXEL_UM)
    positions, grid, operator = geometry.acquisition_of(edge, 0.0)
    noise = 0.02 * np.random.default_rng(0).standard_normal((len(positions), edge, edge))
    return SimulatedAcquisition(
        truth,
        gaussian_filter(truth, (1.0, 0.5, 0.5)),
        gaussian_filter(truth, (1.5, 0.5, 0.5)),
        (operator.forward(truth) + noise).astype(np.float32),
        operator.matrix,
        positions,
        grid.centres_um,
        0.02,
    )


def time_fit(acquisition: SimulatedAcquisition, device: torch.device) -> tuple[float, int]:
    """Return the seconds of a whole fit with the default settings, and its steps."""
    photons = 300
    operator, measured = acquisition.operator, photons * acquisition.projections
    model = fit_spectral_model([measured], operator, VOXEL_UM)
    expected = operator.forward(posterior_mean(measured, operator, model, VOXEL_UM))
    problem = InrProblem(measured, operator, VOXEL_UM, float(photons), model, expected)
    fit = lambda steps: fit_inr(  # noqa: E731
        problem, Inr(steps=steps), 0, Path(folder) / f"{steps}.pt", "timed", device
    )
    with tempfile.TemporaryDirectory() as folder:
        fit(20)
        found = []
        seconds = timed(lambda: found.append(fit("auto")), device)
    return seconds, found[0].record["steps"]


def time_training(
    acquisition: SimulatedAcquisition, settings: Prior, steps: int, device: torch.device
) -> tuple[float, float]:
    """Return the seconds of so many training steps, and what a first training takes longer.

    A first one, or one that is compiled, has work of its own at the start.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for count in (steps, steps, 2 * steps):
        own = settings.model_copy(update={"steps": count})
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = Path(folder) / "checkpoint.pt"
            _, info = train_prior({"phantom": acquisition}, own, 0, checkpoint, device)
        seconds.append(info["seconds"])
    return seconds[2] - seconds[1], seconds[0] - (seconds[2] - seconds[1])


def time_sampling(
    acquisition: SimulatedAcquisition, settings: Refine, device: torch.device, compiled: bool
) -> tuple[float, float, int]:
    """Return the seconds of sampling a unit, those more for the first time, and the evaluations.

    The evaluations are those of each slice. The network has the default size, and has learnt
    nothing, which takes as long.
    """
    shape = Prior()
    denoiser = Denoiser(shape.channels, shape.depth, 0.05)
    denoiser.to(device, memory_format=torch.channels_last).eval()
    denoiser.precision = compute_precision("auto", device)
    if compiled:
        compile_network(denoiser.unet)
    prior = DiffusionPrior(denoiser, [LOWEST_NOISE, BLIND], [0.02, 0.05])
    sample = lambda own: sample_posterior(problem_of(acquisition), prior, own, 0, device)  # noqa: E731
    first, seconds = (timed(lambda: sample(settings), device) for _ in range(2))
    return seconds, first - seconds, (settings.evaluations - 1) * settings.samples + len(VIEWS)


def time_published(acquisition: SimulatedAcquisition, device: torch.device) -> float:
    """Return the seconds for all slices and levels of the published scheme."""
    # Without the INR, no level is passed over.
    settings = Microdiffusion(sampling_steps=_FEW_LEVELS, inr_weight=0.0)
    network = to_device(build_network(settings), device, settings.precision).eval()
    problem = SlicesProblem(
        acquisition.inr[:_FEW_SLICES],
        acquisition.projections,
        acquisition.positions_um,
        acquisition.centres_um[:_FEW_SLICES],
    )
    sample = lambda: sample_slices(problem, network, settings, 0, device)  # noqa: E731
    sample()
    share = _FEW_SLICES * _FEW_LEVELS / (len(acquisition.truth) * PUBLISHED_LEVELS)
    return timed(sample, device) / share


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Return the seconds that some work takes, what it left to the GPU included."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def peak_memory(device: torch.device) -> str:
    """Return the peak memory of the last work on the GPU as text."""
    if device.type != "cuda":
        return ""
    return f", peak {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB"


if __name__ == "__main__":
    able = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--edge", type=int, default=128 if able else 64)
    parser.add_argument("--batches", type=int, nargs="+", default=[4, 32, 64] if able else [4])
    parser.add_argument("--steps", type=int, default=100 if able else 10)
    parser.add_argument("--samples", type=int, default=8 if able else 2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument(
        "--compiled", action="store_true", help="training and sampling as prior.compile has them"
    )
    main(**vars(parser.parse_args()))
