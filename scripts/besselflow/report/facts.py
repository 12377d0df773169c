"""The facts of an acquisition and of its fits, and the paragraph for a paper's methods section."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np

from besselflow import __version__
from besselflow.report.page import software_versions
from besselflow.report.prior import describe_diffusion, mean_of
from besselflow.scored import scored_slices
from besselflow.store import Projections

CITATION = (
    "Hui, M., Wei, Z., Zhu, H., Xia, F. & Zhou, Y. MicroDiffusion: Implicit "
    "representation-guided diffusion for 3D reconstruction from limited 2D microscopy projections. "
    "CVPR 2024, arXiv:2403.10815."
)
"""The publication whose approach the final method follows."""

_ISOTROPY_TOLERANCE = 0.005


def acquisition_facts(measured: Projections) -> list[tuple[str, str]]:
    """List what was acquired, as pairs of a name and a value with its unit.

    Parameters
    ----------
    measured : Projections
        Opened projection store; its pixels are reduced block by block.
    """
    n_times, n_channels, count, height, width = measured.data.shape
    grid, positions = measured.grid, measured.positions_um
    inside = scored_slices(grid, positions)
    n_inside = int(inside.sum())
    unseen = int((inside & ~measured.operator.seen).sum())
    mean, brightest = da.compute(measured.data.mean(), measured.data.max())
    z, y, x = measured.voxel_size_um
    facts = [
        ("Projections", f"{count} of {height} × {width} pixels"),
        ("Volume", f"{grid.n_slices} slices, voxel {z:g} × {y:g} × {x:g} µm (z, y, x)"),
        (
            "Speed-up",
            f"{n_inside / count:.1f} × ({count} images instead of {n_inside} slices over "
            f"{np.ptp(positions):g} µm)",
        ),
        ("Beam", f"{measured.profile.fwhm_um:g} µm long (full width at half maximum)"),
        ("Beam profile", _describe_source(measured.profile.source)),
        ("Step", _describe_step(positions)),
        (
            "Depth never seen",
            f"{unseen} of {n_inside} slices" if unseen else "none: the projections leave no gap",
        ),
        (
            "Signal",
            f"{float(mean):.3g} {measured.unit} per pixel on average, {float(brightest):.3g} "
            f"at most",
        ),
    ]
    known = measured.attributes.get("acquisition", {})
    if n_times > 1 or n_channels > 1:
        names = ", ".join(known.get("channels", []))
        named = f" ({names})" if names else ""
        facts.append(("Series", f"{n_times} time points, {n_channels} channels{named}"))
    if known:
        facts.append(("Recorded", _describe_recording(known)))
    return facts


def _describe_recording(known: Mapping[str, Any]) -> str:
    """Say when and with what an acquisition was recorded, and what was read from its files."""
    parts = [known["format"], known.get("software"), known.get("date", "").replace("T", " ")]
    parts += [f"{what} from {source}" for what, source in known.get("read from", {}).items()]
    return "; ".join(part for part in [*parts, *known.get("notes", [])] if part)


def _describe_source(source: str) -> str:
    """Name a file without its folder, which the row of the sheet has, and which breaks the line."""
    return Path(source).name if os.path.sep in source else source


def _describe_step(positions_um: np.ndarray) -> str:
    steps = np.diff(positions_um)
    if not len(steps):
        return "a single projection"
    if np.ptp(steps) <= 1e-3 * steps.mean():
        return f"{steps.mean():g} µm"
    return f"{steps.min():g} to {steps.max():g} µm, median {np.median(steps):g} µm"


def fit_facts(records: Mapping[str, list[dict[str, Any]]], unit: str) -> list[tuple[str, str, str]]:
    """List what the fits found, as (method, quantity, value), averaged over work units.

    Parameters
    ----------
    records : mapping
        Method -> one record per work unit.
    unit : str
        Unit of intensity.
    """
    quantities = (
        ("length_um", "correlation length", "µm"),
        ("anisotropy", "correlation length along z over that along y and x", ""),
        ("smoothness", "smoothness of the spectrum", ""),
        ("amplitude", "amplitude", ""),
        ("mean", "mean intensity", unit),
        ("noise_variance", "noise variance", f"{unit}²"),
        ("weight", "weight of the penalty", ""),
        ("bandwidth_per_um", "bandwidth", "cycles per µm"),
        ("axial_bandwidth_per_um", "bandwidth along z", "cycles per µm"),
        ("chi2", "reduced chi-square of the fit", ""),
        ("evaluations", "network evaluations per slice", ""),
        ("samples", "posterior samples", ""),
        ("trained_on", "projections trained on", ""),
        ("training_steps", "optimiser steps of the training", ""),
        ("seconds", "computing time per work unit", "s"),
    )
    facts = []
    for method, units in records.items():
        for key, name, symbol in quantities:
            values = [record[key] for record in units if record.get(key) is not None]
            if values:
                facts.append((method, name, f"{np.mean(values):.3g} {symbol}".strip()))
        hardware = dict.fromkeys(record["hardware"] for record in units if "hardware" in record)
        if hardware:
            facts.append((method, "hardware", "; ".join(hardware)))
    return facts


def methods_paragraph(
    measured: Projections,
    records: Mapping[str, list[dict[str, Any]]],
    final: str,
    prior_info: Mapping[str, Any] | None,
    has_truth: bool,
) -> str:
    """Write the paragraph that can be pasted into the methods section of a paper.

    Parameters
    ----------
    measured : Projections
        The acquisition.
    records : mapping
        Method -> one record per work unit, for all methods that were run.
    final : str
        Method of the final volume.
    prior_info : mapping or None
        What the prior was trained on and for how long.
    has_truth : bool
        Whether scores against ground truth were computed.
    """
    text = [
        f"Volumes of {measured.grid.n_slices} slices were reconstructed with BesselFlow "
        f"{__version__} from {len(measured.positions_um)} Bessel-beam projections (step "
        f"{_describe_step(measured.positions_um)}; axial profile of "
        f"{measured.profile.fwhm_um:.3g} µm full width at half maximum). Each projection was "
        "modelled as the sample's intensity integrated along z with the axial profile as weight."
    ]
    if measured.lateral_kernel is not None:
        text.append(
            "The side lobes of the beam were modelled as a lateral blur of each projection."
        )
    if final == "interpolation":
        text.append("The volume is the linear interpolation of the projections along z.")
    elif final == "richardson_lucy":
        text.append("The volume was deconvolved along z by the Richardson-Lucy iteration.")
    else:
        spectral = records.get("spectral", [])
        stretch = mean_of(spectral, "anisotropy") or 1.0
        prior = "an isotropic stationary 3D prior"
        if abs(stretch - 1) > _ISOTROPY_TOLERANCE:
            prior = (
                f"a stationary 3D prior (correlation length along z {stretch:.3g} times lateral)"
            )
        text.append(
            f"A Gaussian process with {prior}, whose spectrum and noise variance were fitted by "
            "marginal likelihood, gave an exact posterior mean."
        )
    if final == "spectral":
        text.append("Its posterior standard deviation is the stated uncertainty.")
    if final == "variational":
        text.append(
            "From there, the misfit to the photon noise plus a penalty on the Frobenius norm of "
            "the Hessian was minimised over nonnegative volumes by the alternating direction "
            "method of multipliers."
        )
        rounds = mean_of(records.get("variational", []), "rounds") or 1.0
        if rounds > 1:
            text.append(
                f"The fit was repeated in {rounds:.3g} Bregman rounds, chosen by how well they "
                "predict projections of independent noise, to restore contrast in depth."
            )
    if final in ("inr", "diffusion", "microdiffusion"):
        width = mean_of(records.get("inr", []), "bandwidth_per_um")
        axial = mean_of(records.get("inr", []), "axial_bandwidth_per_um")
        band = "" if width is None else f" with a bandwidth of {width:.3g} cycles per µm"
        if band and axial not in (None, width):
            band += f" ({axial:.3g} along z, to bridge the depths that were not seen)"
        text.append(
            "An implicit neural representation, a multilayer perceptron on Gaussian Fourier "
            f"features{band}, was fitted to the projections through the same forward model."
        )
    if final == "microdiffusion":
        text.append(_describe_microdiffusion(records.get("microdiffusion", [])))
    if final == "diffusion":
        text.append(describe_diffusion(records.get("diffusion", []), prior_info))
    text.append("The approach follows MicroDiffusion (Hui et al., CVPR 2024, arXiv:2403.10815).")
    if has_truth:
        text.append(
            "PSNR, SSIM and Dice were computed over the slices between the first and the last "
            "stage position, with intensities clipped to and a data range of zero to the maximum "
            "of the ground truth, and Otsu's threshold of the ground truth."
        )
    software = ", ".join(f"{name} {number}" for name, number in software_versions().items())
    text.append(f"Software: {software}.")
    return " ".join(text)


def _describe_microdiffusion(records: list[dict[str, Any]]) -> str:
    weight, guidance = mean_of(records, "inr_weight"), mean_of(records, "guidance")
    evaluations, trained_on = mean_of(records, "evaluations"), mean_of(records, "trained_on")
    known = [
        name
        for key, name in (("image", "on the nearest projection"), ("position", "on its depth"))
        if any(record.get(f"{key}_embedding") for record in records)
    ]
    text = "Each slice was sampled from a two-dimensional denoising diffusion model"
    if trained_on is not None:
        text += f", trained on {trained_on:.0f} projections of this sample alone"
    if known:
        text += f", and conditioned {' and '.join(known)}"
        if guidance:
            text += f" with classifier-free guidance of weight {guidance:g}"
    if evaluations is not None:
        text += f", in {evaluations:.0f} network evaluations"
    visited, levels = mean_of(records, "levels_visited"), mean_of(records, "levels")
    if visited is not None and visited < levels:
        text += (
            f" at the last {visited:.0f} of {levels:.0f} noise levels (of what the others would "
            "have left in the state, the representation takes all but a millionth away)"
        )
    if not weight:
        return text + "; the representation did not take part in it."
    smooth = any(record.get("neighbour_average") for record in records)
    jointly = any(record.get("inr_training") == "joint" for record in records)
    return (
        f"{text}; before every step, its state was interpolated linearly with the slice of the "
        f"representation{', averaged with its neighbours,' if smooth else ''} at a weight of "
        f"{weight:g} for the latter."
        + (
            " That representation was not the one above, but was fitted anew in the steps that "
            "trained the model, to the projections and to the loss of the model."
            if jointly
            else ""
        )
    )
