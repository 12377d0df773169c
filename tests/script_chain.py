"""One sample taken through the scripts of the rules, on an acquisition that is simulated for it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

import assemble
import convert_ground_truth
import fit_inr
import preprocess
import reconstruct_baseline
import refine
import safeguard
import sample_microdiffusion
import simulate_training
import train_microdiffusion
import train_prior
from besselflow.beam import box_profile
from besselflow.config import (
    BASELINES,
    Inr,
    Microdiffusion,
    Prior,
    Refine,
    RichardsonLucy,
    Spectral,
    Tiling,
    Variational,
)
from besselflow.diffusion.geometry import Geometry
from besselflow.phantoms import draw_phantom
from besselflow.simulate import Detector, simulate_acquisition
from besselflow.store import open_volume

VOXEL = (1.0, 0.5, 0.5)
POSITIONS = np.array([2.5, 8.5, 14.5])
DETECTOR = Detector(photons=300.0, gain=2.0, offset=100.0, read_noise=2.0)
WHOLE = Tiling(tile=64, halo=8)
TILED = Tiling(tile=10, halo=3)
INR = Inr(width=8, depth=1, features=8, steps=30, columns=64, checkpoint_seconds=1e-9)
PRIOR = Prior(channels=[8, 16], depth=1, steps=4, batch=2, patch=16, checkpoint_seconds=1e-9)
ITERATIVE = {
    "variational": Variational(iterations=20),
    "richardson_lucy": RichardsonLucy(iterations=5),
}
REFINE = Refine(evaluations=2, samples=2, trust=1)
GEOMETRY = Geometry.of(box_profile(6.0), POSITIONS, VOXEL)
MICRODIFFUSION = Microdiffusion(
    channels=[8, 16], steps=4, batch=2, sampling_steps=10, checkpoint_seconds=1e-9
)
SEED = 3


def write_tiff(path, data):
    tifffile.imwrite(path, data, photometric="minisblack", metadata={"axes": "TCZYX"[-data.ndim :]})


@dataclass(frozen=True)
class Raw:
    """Files of an acquisition whose stage moved downwards, and the arrays in them."""

    acquisition: Path
    stage: Path
    truth: Path
    counts: np.ndarray
    truth_counts: np.ndarray


def acquire(folder, times=1, channels=1) -> Raw:
    counts = np.empty((times, channels, 3, 24, 24), np.uint16)
    truth = np.empty((times, channels, 18, 24, 24), np.uint16)
    for t, c in np.ndindex(times, channels):
        volume = (1 + c) * draw_phantom("vessels", (18, 24, 24), 10 * t + c, VOXEL)
        taken = simulate_acquisition(
            volume, box_profile(6.0), POSITIONS[::-1], VOXEL, DETECTOR, seed=t + 7 * c
        )
        counts[t, c], truth[t, c] = taken.counts, DETECTOR.noise_free_counts(volume)
    folder.mkdir(parents=True, exist_ok=True)
    raw = Raw(folder / "a.tif", folder / "a.csv", folder / "a_truth.tif", counts, truth)
    single = times == channels == 1
    write_tiff(raw.acquisition, counts[0, 0] if single else counts)
    write_tiff(raw.truth, truth[0, 0] if single else truth)
    # The rows of the table are not in the order of the stack, either.
    rows = [f"{i},{z:g}" for i, z in enumerate(POSITIONS[::-1])]
    raw.stage.write_text("\n".join(["projection,z_um", *rows[1:], rows[0]]) + "\n")
    return raw


def photons(counts):
    return (counts.astype(np.float32) - 100) / 2


def train_on_a_phantom(folder) -> Path:
    """Train a diffusion model on one simulated acquisition, in the folders of the workflow."""
    volume = draw_phantom("vessels", (18, 24, 24), 99, VOXEL)
    write_tiff(folder / "t.tif", DETECTOR.noise_free_counts(volume))
    stack = simulate_training.TrainingStack("other mouse", folder / "t.tif", VOXEL, 100.0)
    simulated, weights = folder / "abc" / "train-t", folder / "abc.safetensors"
    simulate_training.main(stack, GEOMETRY, Spectral(), INR, SEED, 1, simulated)
    info = weights.with_suffix(".json")
    train_prior.main([simulated], GEOMETRY.as_dict(), PRIOR, REFINE, SEED, 1, weights, info)
    return weights


class Chain:
    """The rules of the workflow for one sample, with the paths that the workflow gives them."""

    def __init__(self, raw, folder, tiling, truth=True, prior=None):
        self.raw, self.folder, self.tiling, self.truth = raw, folder, tiling, truth
        self.prior = prior
        self.projections = folder / "projections.zip"
        self.truth_volume = folder / "ground_truth.ozx" if truth else None
        self.volumes = {}

    def preprocess(self, offset=100.0, gain=2.0):
        preprocess.main(
            self.raw.acquisition,
            self.raw.stage,
            self.raw.truth if self.truth else None,
            "box:6um",
            VOXEL,
            offset,
            gain,
            "mouse",
            self.projections,
        )
        if self.truth:
            convert_ground_truth.main(
                self.raw.truth, VOXEL, offset, gain, "mouse", self.truth_volume
            )
        return self

    def units(self, method):
        shards = range(self.tiling.shards)
        return [self.folder / "units" / f"{method}-{shard}.zip" for shard in shards]

    def train_microdiffusion(self):
        path = self.folder / "microdiffusion.safetensors"
        train_microdiffusion.main(
            self.projections, self.units("inr"), MICRODIFFUSION, self.tiling, SEED, 1, path
        )
        return path

    def reconstruct(self, methods):
        for shard in range(self.tiling.shards):
            common = {"tiling": self.tiling, "shard": shard}
            path = lambda method, shard=shard: self.units(method)[shard]  # noqa: E731
            learned = {"seed": SEED, "threads": 1, "spectral_units": path("spectral")}
            for method in methods:
                if method in BASELINES:
                    reconstruct_baseline.main(
                        self.projections,
                        method,
                        units_path=path(method),
                        settings=ITERATIVE.get(method),
                        **learned,
                        **common,
                    )
                elif method == "inr":
                    fit_inr.main(
                        self.projections, settings=INR, units_path=path("inr"), **learned, **common
                    )
                elif method == "diffusion":
                    refine.main(
                        self.projections,
                        inr_units=path("inr"),
                        prior_path=self.prior,
                        settings=REFINE,
                        units_path=path("prior"),
                        **learned,
                        **common,
                    )
                    untrained = {"inr": path("inr"), "variational": path("variational")}
                    safeguard.main(
                        self.projections,
                        safeguard.Sources(path("prior"), untrained, path("spectral")),
                        self.projections,
                        None,
                        REFINE,
                        units_path=path("diffusion"),
                        **common,
                    )
        if "microdiffusion" in methods:
            network = self.train_microdiffusion()
            for shard in range(self.tiling.shards):
                sample_microdiffusion.main(
                    self.projections,
                    self.units("inr")[shard],
                    network,
                    MICRODIFFUSION,
                    self.tiling,
                    SEED,
                    shard,
                    1,
                    self.units("microdiffusion")[shard],
                )
        self.volumes = {method: self.folder / f"{method}.ome.zarr" for method in methods}
        self.uncertainty = {
            method: self.folder / f"{method}_std.ome.zarr"
            for method in ("spectral", "diffusion")
            if method in methods
        }
        assemble.main(
            self.projections,
            {method: self.units(method) for method in methods},
            self.tiling,
            self.volumes,
            self.uncertainty,
        )
        return self

    def volume(self, method):
        return np.asarray(open_volume(self.volumes[method]).data)
