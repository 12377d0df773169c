"""A trained prior: the denoiser, how wrong it is, and where both are kept."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from besselflow.device import compute_precision
from besselflow.diffusion.calibration import Calibration
from besselflow.diffusion.network import Denoiser
from besselflow.errors import on_one_line
from besselflow.weights import load_weights, save_weights

BLIND = 1.0
"""Stands for the noise level of an estimate without a state, in whose place the INR is given."""
HIGHEST_NOISE = 0.3
"""Highest noise level of a state: far above the error of the INR."""
LOWEST_NOISE = 0.003
"""Lowest level that a denoiser is trained for."""


@dataclass(frozen=True)
class DiffusionPrior:
    """A trained denoiser and what is known about it.

    Attributes
    ----------
    denoiser : Denoiser
        In evaluation mode.
    error_levels, errors : list of float
        Noise levels, and at each of them the error of the denoiser that the data can correct, in
        volumes that it has not learnt: the standard deviation of a white error, independent of the
        noise of the data, that would give the data the weight that they deserve. Relative to the
        intensity scale.
    info : dict
        What it was trained on, settings, loss curve, duration.
    calibration : Calibration or None
        Turns the spread of samples, and how far they are from the INR, into a standard deviation.
    """

    denoiser: Denoiser
    error_levels: list[float]
    errors: list[float]
    info: dict[str, Any] = field(default_factory=dict)
    calibration: Calibration | None = None

    def error_at(self, sigma: float) -> float:
        """Interpolate the expected error at a noise level."""
        levels = np.log(self.error_levels)
        return float(np.exp(np.interp(math.log(sigma), levels, np.log(self.errors))))


def save_prior(path: Path | str, prior: DiffusionPrior) -> None:
    """Write weights and facts as one safetensors file, which holds no code.

    The weights are in half precision: what it rounds off is far below the error of the prior.
    """
    metadata = {
        "channels": json.dumps(prior.denoiser.channels),
        "depth": json.dumps(prior.denoiser.depth),
        "inr_error": repr(prior.denoiser.inr_error),
        "error_levels": json.dumps(prior.error_levels),
        "errors": json.dumps(prior.errors),
        "info": json.dumps(prior.info),
        "calibration": json.dumps(prior.calibration and asdict(prior.calibration)),
    }
    state = prior.denoiser.state_dict()
    save_weights(path, {key: value.half().cpu().numpy() for key, value in state.items()}, metadata)


def load_prior(path: Path | str, device: torch.device, precision: str = "auto") -> DiffusionPrior:
    """Read a prior written by `save_prior`.

    Parameters
    ----------
    path : path
        The file.
    device : torch.device
        Where it is to compute.
    precision : str
        Of its hidden layers, as for `besselflow.device.compute_precision`.

    Raises
    ------
    RuntimeError
        The file is not a prior; the message says to delete it.
    """
    try:
        tensors, metadata = load_weights(path)
        denoiser = Denoiser(
            json.loads(metadata["channels"]),
            json.loads(metadata["depth"]),
            float(metadata["inr_error"]),
        )
        denoiser.load_state_dict(
            {key: torch.from_numpy(value).float() for key, value in tensors.items()}
        )
        errors = json.loads(metadata["error_levels"]), json.loads(metadata["errors"])
        info, curve = json.loads(metadata["info"]), json.loads(metadata.get("calibration", "null"))
        if curve and "spreads" in curve:
            # Written before the change of the INR counted, too.
            curve["levels"] = curve.pop("spreads")
        calibration = Calibration(**curve) if curve else None
    except Exception as error:
        raise RuntimeError(
            f"{path}: not a readable prior ({on_one_line(error)}); delete the file and run again"
        ) from error
    denoiser.to(device, memory_format=torch.channels_last)
    denoiser.precision = compute_precision(precision, device)
    return DiffusionPrior(denoiser.eval(), *errors, info, calibration)
