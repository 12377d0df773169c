"""What may stand for a beam profile in the sample sheet: a model or a file."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np

from besselflow.beam.bead import read_bead_scan
from besselflow.beam.bessel import parse_bessel
from besselflow.beam.profile import AxialProfile, box_profile, gaussian_profile, read_beam_csv
from besselflow.beam.spec import split_tiff
from besselflow.errors import InputError

_MODEL = re.compile(r"^(?P<model>[a-zA-Z]+):\s*(?P<size>.*?)\s*(?P<unit>[a-zA-Zµμ]*)$")
_MODELS = {"box": box_profile, "gaussian": gaussian_profile}


def parse_beam_profile(spec: str, base_dir: Path | str = ".") -> AxialProfile:
    """Read a beam profile from a model or a file.

    Parameters
    ----------
    spec : str
        ``box:6um`` (uniform over 6 um), ``gaussian:12um`` (full width at half maximum 12 um),
        ``bessel:NA=0.40-0.43,wavelength=0.94um`` (see `parse_bessel`), the path of a CSV file
        with the columns ``dz_um,weight``, or that of a TIFF with a z-stack of beads (see
        `read_bead_scan`).
    base_dir : path
        Folder that a relative path starts from.

    Returns
    -------
    AxialProfile

    Raises
    ------
    InputError
        The model is unknown or wrong, the unit is not micrometres, or the file is not a profile.
    """
    spec = spec.strip()
    if split_tiff(spec):
        return read_bead_scan(str(Path(base_dir) / spec)).profile
    match, path = _MODEL.match(spec), Path(base_dir) / spec
    if match and not os.path.exists(path):
        return _parse_model(spec, match)
    if not os.path.isfile(path):
        raise InputError(
            f'beam profile "{spec}" is neither a model ({_model_examples()}) nor an existing file; '
            f"give one of the models, or the path of a CSV with the columns dz_um,weight or of a "
            f"TIFF with beads"
        )
    return read_beam_csv(path)


def _model_examples() -> str:
    sizes = ", ".join(f"{name}:6um" for name in _MODELS)
    return f"{sizes}, bessel:NA=0.40-0.43,wavelength=0.94um"


def _parse_model(spec: str, match: re.Match) -> AxialProfile:
    model, unit = match["model"].lower(), match["unit"]
    if model == "bessel":
        return parse_bessel(spec).axial_profile(spec)
    if model not in _MODELS:
        raise InputError(
            f'beam profile "{spec}": model "{model}" is unknown; use one of {_model_examples()}'
        )
    if unit not in ("um", "µm", "μm"):
        raise InputError(
            f'beam profile "{spec}": the unit must be micrometres; write it as {model}:6um'
        )
    try:
        size = float(match["size"])
    except ValueError:
        size = float("nan")
    if not (np.isfinite(size) and size > 0):
        raise InputError(
            f'beam profile "{spec}": the length must be a positive number; write it as {model}:6um'
        )
    return _MODELS[model](size)
