"""The verdict on a volume, in words: how good, how sure, and where to look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from besselflow.held_out import Prediction
from besselflow.report.page import format_number
from besselflow.validation import CHI2_CONTRADICTS, CHI2_UNDERFITS, judge_fit

_COVERAGE_TOLERANCE = 0.05


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
    t, c : int
        Its time point and channel.
    """

    z_um: float
    why: str
    t: int = 0
    c: int = 0


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
        Columns ``method t c z_um psnr``; empty without ground truth.
    final : str
        Method of the final volume.
    spread_by_slice : numpy.ndarray, shape (T, C, Z), or None
        Mean standard deviation of each slice.
    z_um : numpy.ndarray, shape (Z,)
        Centres of these slices.
    positions_um : numpy.ndarray, shape (P,)
        Stage positions, increasing.
    """
    own = slices[slices["method"] == final]
    if len(own):
        worst = own.loc[own["psnr"].idxmin()]
        why = f"where the error is largest (PSNR {format_number(float(worst['psnr']), 1)} dB)"
        return Suspect(float(worst["z_um"]), why, int(worst["t"]), int(worst["c"]))
    inside = (z_um >= positions_um.min()) & (z_um <= positions_um.max())
    if spread_by_slice is not None and inside.any():
        judged = np.where(inside, spread_by_slice, -np.inf)
        t, c, z = (int(i) for i in np.unravel_index(int(judged.argmax()), judged.shape))
        return Suspect(float(z_um[z]), "where the stated uncertainty is largest", t, c)
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
    ranking: Sequence[Prediction] = (),
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
    ranking : sequence of Prediction
        Methods by how well they predicted what they did not see, the best first; may be empty.
    """
    own = scores.get(final, {})
    beaten = _beaten(ranking, final)
    if has_truth and "psnr" in own:
        good, detail, tone = _against_truth(scores, final)
        agrees, doubtful = _agreement(own)
        if doubtful:
            tone = "warning"
            detail += f" But the volume {agrees}."
    else:
        good, detail, tone = _against_projections(own, final)
        if beaten:
            good = f"{good}, and {beaten}"
    if beaten:
        detail += f" However, {beaten}."
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
    interval = ""
    if {"psnr_lower", "psnr_upper"} <= set(own):
        interval = f"; 95 % interval {own['psnr_lower']:.1f} to {own['psnr_upper']:.1f} dB"
    detail = (
        f"PSNR {own['psnr']:.1f} dB (mean over slices{interval}), SSIM {own['ssim']:.2f}, Dice "
        f"{own['dice']:.2f}. Higher is better; 3 dB more means half the squared error."
    )
    if "inr" in psnr and final != "inr":
        gain = psnr[final] - psnr["inr"]
        detail += f" Against inr: {'+' if gain >= 0 else '−'}{abs(gain):.1f} dB."
    return sentence, detail, tone


def _against_projections(own: Mapping[str, float], final: str) -> tuple[str, str, str]:
    opening = "No ground truth exists for this sample, so the accuracy of its volume is unknown"
    caution = (
        "Agreement with the projections is necessary, but not sufficient: between them, structure "
        "is inferred and not measured."
    )
    if "chi2" not in own:
        return opening, f"Not measured: there is no ground truth. {caution}", "unknown"
    agrees, doubtful = _agreement(own)
    tone = "warning" if doubtful else "unknown"
    link = "and" if doubtful else "but"
    sentence = (
        f"{opening}, {link} the {final} volume {agrees} (reduced chi-square {own['chi2']:.2f})"
    )
    return sentence, f"Imaged again through the beam, the volume {agrees}. {caution}", tone


def _agreement(own: Mapping[str, float]) -> tuple[str, bool]:
    """Say how a volume agrees with its projections, and whether that is a reason to doubt it."""
    if "chi2" not in own:
        return "was not compared with the measured projections", False
    chi2 = own["chi2"]
    judgement = judge_fit(chi2, own.get("structure"))
    if judgement == "overfits":
        return "follows the noise of the measured projections", True
    if judgement is None:
        return "explains the measured projections within their noise", False
    if chi2 > CHI2_CONTRADICTS:
        return "contradicts the measured projections beyond their noise", True
    if chi2 > CHI2_UNDERFITS:
        return "explains the measured projections only nearly within their noise", True
    return "leaves structure of the measured projections unexplained", True


def _beaten(ranking: Sequence[Prediction], final: str) -> str:
    """Say that another method predicts better, where the final one was asked and one does."""
    own = next((each for each in ranking if each.method == final), None)
    if own is None or own.tied:
        return ""
    behind = ranking[0].psnr - own.psnr
    return f"{ranking[0].method} predicts what was kept from it {behind:.1f} dB better"


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
