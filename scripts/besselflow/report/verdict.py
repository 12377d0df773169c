"""What a report says in words: the verdict, the facts of the acquisition, the methods paragraph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd

from besselflow import __version__
from besselflow.metrics import scored_slices
from besselflow.report.page import format_number, software_versions
from besselflow.store import Projections

CITATION = (
    "Hui, M., Wei, Z., Zhu, H., Xia, F. & Zhou, Y. MicroDiffusion: Implicit "
    "representation-guided diffusion for 3D reconstruction from limited 2D microscopy projections. "
    "CVPR 2024, arXiv:2403.10815."
)
"""The publication whose approach the final method follows."""

CHI2_AGREES, CHI2_DOUBTFUL = 1.25, 2.0
"""Up to the first, a volume explains its projections within their noise; above the second, not."""

_COVERAGE_TOLERANCE = 0.05
_ISOTROPY_TOLERANCE = 0.005


@dataclass(frozen=True)
class Verdict:
    """The judgement at the top of a sample's page.

    Attributes
    ----------
    sentence : str
        Everything in one sentence.
    how_good, how_sure, look_at : str
        Its three reasons, in a little more detail.
    z_um : float
        The slice to look at.
    tone : str
        ``good``, ``unknown`` or ``warning``: how the page marks the verdict.
    """

    sentence: str
    how_good: str
    how_sure: str
    look_at: str
    z_um: float
    tone: str


@dataclass(frozen=True)
class Suspect:
    """The slice that deserves the first look.

    Attributes
    ----------
    z_um : float
        Its centre.
    why : str
        The reason, as the end of a sentence.
    """

    z_um: float
    why: str


def find_suspect(
    slices: pd.DataFrame,
    final: str,
    spread_by_slice: np.ndarray | None,
    z_um: np.ndarray,
    positions_um: np.ndarray,
) -> Suspect:
    """Choose the slice to look at first.

    It is that of the lowest PSNR, else that of the largest mean uncertainty, else the middle of the
    widest gap between projections.

    Parameters
    ----------
    slices : pandas.DataFrame
        Columns ``method z_um psnr``; empty without ground truth.
    final : str
        Method of the final volume.
    spread_by_slice : numpy.ndarray, shape (Z,), or None
        Mean standard deviation of each slice.
    z_um : numpy.ndarray, shape (Z,)
        Centres of these slices.
    positions_um : numpy.ndarray, shape (P,)
        Stage positions, increasing.
    """
    own = slices[slices["method"] == final]
    if len(own):
        psnr = own.groupby("z_um")["psnr"].mean()
        low = format_number(psnr.min(), 1)
        return Suspect(float(psnr.idxmin()), f"where the error is largest (PSNR {low} dB)")
    inside = (z_um >= positions_um.min()) & (z_um <= positions_um.max())
    if spread_by_slice is not None and inside.any():
        index = int(np.argmax(np.where(inside, spread_by_slice, -np.inf)))
        return Suspect(float(z_um[index]), "where the stated uncertainty is largest")
    if len(positions_um) < 2:
        return Suspect(float(positions_um[0]), "the only depth that was imaged")
    gap = int(np.argmax(np.diff(positions_um)))
    middle = float(positions_um[gap : gap + 2].mean())
    nearest = float(z_um[np.abs(z_um - middle).argmin()])
    return Suspect(nearest, "midway between the two neighbouring projections furthest apart")


def write_verdict(
    scores: Mapping[str, Mapping[str, float]],
    final: str,
    has_truth: bool,
    relative_spread: float | None,
    suspect: Suspect,
) -> Verdict:
    """Put the scores of a sample into words.

    Parameters
    ----------
    scores : mapping
        Method -> metric -> value.
    final : str
        Method of the final volume.
    has_truth : bool
        Whether a ground truth exists.
    relative_spread : float or None
        Mean standard deviation over mean intensity among the brightest voxels; None where the
        method states no uncertainty.
    suspect : Suspect
        The slice to look at.
    """
    own = scores.get(final, {})
    if has_truth and "psnr" in own:
        good, detail, tone = _against_truth(scores, final)
    else:
        good, detail, tone = _against_projections(own, final)
    sure, sure_detail = _certainty(own, relative_spread)
    look = f"look first at z = {suspect.z_um:g} µm, {suspect.why}"
    return Verdict(
        sentence=f"{good}; {sure}; {look}.",
        how_good=detail,
        how_sure=sure_detail,
        look_at=f"The slice at z = {suspect.z_um:g} µm, {suspect.why}.",
        z_um=suspect.z_um,
        tone=tone,
    )


def _against_truth(scores: Mapping[str, Mapping[str, float]], final: str) -> tuple[str, str, str]:
    psnr = {name: values["psnr"] for name, values in scores.items() if "psnr" in values}
    sentence = f"The {final} volume reaches a PSNR of {psnr[final]:.1f} dB against the ground truth"
    tone = "good"
    if final != "interpolation" and "interpolation" in psnr:
        gain = psnr[final] - psnr["interpolation"]
        direction = "better" if gain >= 0 else "worse"
        sentence += f", {abs(gain):.1f} dB {direction} than interpolating the projections"
        tone = "good" if gain >= 0 else "warning"
    best = max(psnr, key=psnr.__getitem__)
    if psnr[best] - psnr[final] > 0.05:
        sentence += f" but {psnr[best] - psnr[final]:.1f} dB below {best}"
        tone = "warning"
    own = scores[final]
    detail = (
        f"PSNR {own['psnr']:.1f} dB (mean over slices), SSIM {own['ssim']:.2f}, Dice "
        f"{own['dice']:.2f}. Higher is better; 3 dB more means half the squared error."
    )
    return sentence, detail, tone


def _against_projections(own: Mapping[str, float], final: str) -> tuple[str, str, str]:
    opening = "No ground truth exists for this sample, so the accuracy of its volume is unknown"
    caution = (
        "Agreement with the projections is necessary, but not sufficient: between them, structure "
        "is inferred and not measured."
    )
    if "chi2" not in own:
        return opening, f"Not measured: there is no ground truth. {caution}", "unknown"
    chi2 = own["chi2"]
    if chi2 <= CHI2_AGREES:
        agrees, tone = "explains the measured projections within their noise", "unknown"
    elif chi2 <= CHI2_DOUBTFUL:
        agrees, tone = "explains the measured projections nearly within their noise", "unknown"
    else:
        agrees, tone = "contradicts the measured projections beyond their noise", "warning"
    sentence = f"{opening}, but the {final} volume {agrees} (reduced chi-square {chi2:.2f})"
    return sentence, f"Imaged again through the beam, the volume {agrees}. {caution}", tone


def _certainty(own: Mapping[str, float], relative_spread: float | None) -> tuple[str, str]:
    if relative_spread is None:
        return (
            "no uncertainty is stated",
            "The final method states no uncertainty; compare the methods with each other instead.",
        )
    spread = (
        f"In bright structures, the standard deviation is {100 * relative_spread:.0f} % of the "
        f"intensity"
    )
    if "coverage_90" not in own:
        return (
            f"in bright structures it is uncertain by {100 * relative_spread:.0f} %",
            f"{spread}. Without ground truth, this statement can't be checked.",
        )
    covered = own["coverage_90"]
    if covered < 0.9 - _COVERAGE_TOLERANCE:
        word = "too small"
    elif covered > 0.9 + _COVERAGE_TOLERANCE:
        word = "cautious"
    else:
        word = "trustworthy"
    share = f"its 90 % interval holds {100 * covered:.0f} % of the true values"
    return f"its stated uncertainty is {word} ({share})", f"{spread}; {share}, so it is {word}."


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
        ("Beam profile", measured.profile.source),
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
    if n_times > 1 or n_channels > 1:
        facts.append(("Series", f"{n_times} time points, {n_channels} channels"))
    return facts


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
        ("chi2", "reduced chi-square of the fit", ""),
        ("evaluations", "network evaluations per slice", ""),
        ("samples", "posterior samples", ""),
        ("seconds", "computing time per work unit", "s"),
    )
    facts = []
    for method, units in records.items():
        for key, name, symbol in quantities:
            values = [record[key] for record in units if record.get(key) is not None]
            if values:
                facts.append((method, name, f"{np.mean(values):.3g} {symbol}".strip()))
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
        stretch = _mean_of(spectral, "anisotropy") or 1.0
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
        rounds = _mean_of(records.get("variational", []), "rounds") or 1.0
        if rounds > 1:
            text.append(
                f"The fit was repeated in {rounds:.3g} Bregman rounds, chosen by how well they "
                "predict projections of independent noise, to restore contrast in depth."
            )
    if final in ("inr", "diffusion", "microdiffusion"):
        width = _mean_of(records.get("inr", []), "bandwidth_per_um")
        band = "" if width is None else f" with a bandwidth of {width:.3g} cycles per µm"
        text.append(
            "An implicit neural representation, a multilayer perceptron on Gaussian Fourier "
            f"features{band}, was fitted to the projections through the same forward model."
        )
    if final == "diffusion":
        fit = records.get("diffusion", [])
        evaluations, samples = _mean_of(fit, "evaluations"), _mean_of(fit, "samples")
        count = "several" if samples is None else f"{samples:.0f}"
        steps = "few" if evaluations is None else f"{evaluations:.0f}"
        sources = [str(name) for name in (prior_info or {}).get("trained_on", [])]
        trained = ", ".join(sources) or "other volumes"
        text.append(
            "It guided a conditional diffusion model over slices, trained on simulated "
            f"acquisitions of {trained}; after each of {steps} evaluations, the estimate was "
            "brought into agreement with the measured projections within their noise. The volume "
            f"is the mean of {count} posterior samples"
            + (", whose standard deviation is the stated uncertainty." if count != "1" else ".")
        )
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


def _mean_of(records: list[dict[str, Any]], key: str) -> float | None:
    values = [record[key] for record in records if record.get(key) is not None]
    return float(np.mean(values)) if values else None
