"""Simulated acquisitions of training volumes: what the prior learns from.

The forward model is known, so that what a microscope would have measured of a known volume can be
computed, and what the methods without training would have made of it: the spectral posterior mean
and the INR, which the prior is conditioned on, as it will be on a real sample.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from besselflow.baselines.spectral import fit_spectral_model, posterior_mean
from besselflow.config import Inr, Spectral
from besselflow.corrections import intensity_scale
from besselflow.diffusion.geometry import Geometry
from besselflow.fingerprint import fingerprint
from besselflow.inr.fit import InrProblem, fit_inr
from besselflow.lateral import LateralBlur
from besselflow.projection import AxialProjection
from besselflow.store import atomic_path
from besselflow.thinning import Thinning

# Photons of a bright pixel: from barely usable to nearly noise-free.
_PHOTON_RANGE = (75.0, 1500.0)
_READ_NOISE = 0.5
_EXACT = (
    *("projections", "matrix", "positions_um", "centres_um", "noise", "kernel"),
    *("digest", "landmarks"),
)
# One row in so many is not learnt from, so that errors are known of what a prior has not seen.
_UNSEEN_ROWS = 8
# Every second acquisition is thinned as those are that a prior is checked on.
_THINNED_EVERY = 6


@dataclass(frozen=True)
class SimulatedAcquisition:
    """A training volume and what was reconstructed of it, intensities relative to the scale.

    Attributes
    ----------
    truth, inr, spectral : numpy.ndarray, shape (Z, Y, X), float32
        The volume, and both estimates of it.
    projections : numpy.ndarray, shape (P, Y, X), float32
        Measured intensities.
    matrix : numpy.ndarray, shape (P, Z)
        Axial weights.
    positions_um, centres_um : numpy.ndarray
        Stage positions (P,) and slices (Z,).
    noise : float
        Standard deviation of the noise of a projection, as the spectral Gaussian process found it.
    kernel : numpy.ndarray or None
        Lateral blur of the beam.
    digest : str
        Identifies the voxels of the file that the volume came from; empty for a phantom.
    landmarks : numpy.ndarray of uint64, shape (n,)
        Some landmarks of the same voxels (`besselflow.landmarks`).
    """

    truth: np.ndarray
    inr: np.ndarray
    spectral: np.ndarray
    projections: np.ndarray
    matrix: np.ndarray
    positions_um: np.ndarray
    centres_um: np.ndarray
    noise: float
    kernel: np.ndarray | None = None
    digest: str = ""
    landmarks: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))

    @property
    def operator(self) -> AxialProjection:
        """How it was measured."""
        lateral = None if self.kernel is None else LateralBlur(self.kernel)
        return AxialProjection(self.matrix, lateral)

    @property
    def learnt_rows(self) -> slice:
        """Rows of the images that a prior may learn from: all but the last eighth."""
        rows = self.truth.shape[1]
        return slice(0, rows - max(1, rows // _UNSEEN_ROWS))

    def save(self, path: Path | str) -> None:
        """Write it as ``.npz``; the volumes in half precision, whose error is far below theirs."""
        halves = {
            name: getattr(self, name).astype(np.float16) for name in ("truth", "inr", "spectral")
        }
        others = {name: getattr(self, name) for name in _EXACT if getattr(self, name) is not None}
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, **halves, **others)

    @classmethod
    def load(cls, path: Path | str) -> SimulatedAcquisition:
        """Read what `save` wrote."""
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        for name in ("truth", "inr", "spectral"):
            arrays[name] = arrays[name].astype(np.float32)
        return cls(
            **arrays | {"noise": float(arrays["noise"]), "digest": str(arrays.get("digest", ""))}
        )


def simulate_acquisition(
    volume: np.ndarray,
    geometry: Geometry,
    seed: int,
    spectral: Spectral,
    inr: Inr,
    checkpoint: Path,
    device: torch.device,
    label: str = "fit",
) -> SimulatedAcquisition:
    """Simulate an acquisition of a volume and reconstruct it without a prior.

    The number of photons is drawn at random, and so is where the first projection lies. In half of
    the acquisitions beam and step differ a little from the nominal ones, and half are thinned.

    Parameters
    ----------
    volume : numpy.ndarray, shape (Z, Y, X)
        Intensities above background, any scale.
    geometry : Geometry
        Beam, step and voxels.
    seed : int
        Seed of everything random.
    spectral : Spectral
        Settings of the spectral reconstruction, those of the samples.
    inr : Inr
        Settings of the INR, those of the samples.
    checkpoint : pathlib.Path
        File for the fit to resume from.
    device : torch.device
        Where to compute.
    label : str
        What the progress lines call the fit.
    """
    rng = np.random.default_rng(seed)
    positions, grid, operator = geometry.varied(rng).acquisition_of(len(volume), rng.random())
    volume = np.maximum(volume, 0).astype(np.float32)
    clean = operator.forward(volume)
    photons = math.exp(rng.uniform(*np.log(_PHOTON_RANGE))) / intensity_scale(clean)
    counts = rng.poisson(clean * photons) + rng.normal(0, _READ_NOISE, clean.shape)
    measured = counts.astype(np.float32)
    if rng.random() < 0.5:
        thinning = Thinning.of(len(positions), _THINNED_EVERY, int(rng.integers(_THINNED_EVERY)))
        positions, measured = thinning.apply(positions), thinning.apply(measured)
        operator = AxialProjection(thinning.apply(operator.matrix), operator.lateral)
    scale = intensity_scale(measured)
    voxel = geometry.voxel_size_um
    model = fit_spectral_model([measured], operator, voxel, spectral.anisotropy)
    mean = posterior_mean(measured, operator, model, voxel)
    problem = InrProblem(measured, operator, voxel, scale, model, operator.forward(mean))
    identity = fingerprint(inr.model_dump(exclude={"checkpoint_seconds"}), seed, measured)
    fit = fit_inr(problem, inr, seed, checkpoint, identity, device, label)
    relative = lambda array: (array / scale).astype(np.float32)  # noqa: E731
    return SimulatedAcquisition(
        truth=relative(volume * photons),
        inr=relative(fit.volume),
        spectral=relative(mean),
        projections=relative(measured),
        matrix=operator.matrix,
        positions_um=positions,
        centres_um=grid.centres_um,
        noise=math.sqrt(model.noise_variance) / scale,
        kernel=None if operator.lateral is None else operator.lateral.kernel,
    )


def facts_of(acquisitions: list[SimulatedAcquisition]) -> dict[str, Any]:
    """Return the mean errors of both estimates, relative to the scale, for the record."""
    error = lambda name: math.sqrt(  # noqa: E731
        np.mean([np.mean(np.square(getattr(a, name) - a.truth)) for a in acquisitions])
    )
    return {"inr_error": error("inr"), "spectral_error": error("spectral")}
