"""What to do about a volume: the consequences of its verdict, each as one instruction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from besselflow.held_out import Prediction
from besselflow.report.verdict import Suspect
from besselflow.validation import judge_fit

_NOTICEABLE_DB = 0.05
_BETWEEN = 0.25


def advise(
    scores: Mapping[str, Mapping[str, float]],
    final: str,
    has_truth: bool,
    suspect: Suspect,
    positions_um: np.ndarray,
    ranking: Sequence[Prediction] = (),
) -> list[str]:
    """Say what to do, the most urgent first.

    Parameters
    ----------
    scores : mapping
        Method -> metric -> value.
    final : str
        Method of the final volume.
    has_truth : bool
        Whether a ground truth exists.
    suspect : Suspect
        The slice to look at.
    positions_um : numpy.ndarray, shape (P,)
        Stage positions.
    ranking : sequence of Prediction
        Methods by how well they predicted what they did not see, the best first; may be empty.

    Returns
    -------
    list of str
        One sentence or two each; never empty.
    """
    own = scores.get(final, {})
    found = [
        _mend_the_model(judge_fit(own.get("chi2"), own.get("structure"))),
        _take_another(scores, final) if has_truth else _compare(ranking, final),
        _mind_the_gap(suspect, positions_um),
        None if has_truth else _verify(),
    ]
    return [each for each in found if each] or ["Use the volume; how to open it stands below."]


def _mend_the_model(judgement: str | None) -> str | None:
    if judgement == "underfits":
        return (
            "Check beam profile, stage positions and voxel size of this sample's row first: a "
            "volume that does not explain its projections often has a wrong one. The misfit of "
            "each projection shows where."
        )
    if judgement == "overfits":
        return (
            "Check offset and gain of this sample's row: where the noise is stated too large or "
            "too small, a method follows it."
        )
    return None


def _take_another(scores: Mapping[str, Mapping[str, float]], final: str) -> str | None:
    psnr = {name: values["psnr"] for name, values in scores.items() if "psnr" in values}
    if final not in psnr:
        return None
    best = max(psnr, key=psnr.__getitem__)
    if psnr[best] - psnr[final] <= _NOTICEABLE_DB:
        return None
    return (
        f"Take the volume of {best} for this sample (methods/{best}.ozx beside this page), which "
        f"is {psnr[best] - psnr[final]:.1f} dB better."
    )


def _compare(ranking: Sequence[Prediction], final: str) -> str | None:
    own = next((each for each in ranking if each.method == final), None)
    if own is None or own.tied:
        return None
    best = ranking[0].method
    return (
        f"Compare with {best} in the viewer, and believe what both show: it predicted better what "
        f"was kept from it. Its volume is methods/{best}.ozx beside this page."
    )


def _mind_the_gap(suspect: Suspect, positions_um: np.ndarray) -> str | None:
    """Speak of a slice that lies between projections, where most of the depth is inferred."""
    positions = np.sort(np.asarray(positions_um, float))
    if len(positions) < 2:
        return None
    step = float(np.median(np.diff(positions)))
    away = float(np.abs(positions - suspect.z_um).min())
    if away < _BETWEEN * step:
        return None
    return (
        f"At z = {suspect.z_um:g} µm, don't measure what only one method shows: the slice is "
        f"{away:.2g} µm from the nearest projection. Acquisitions in smaller steps than "
        f"{step:.2g} µm, or with a shorter beam, leave less to infer."
    )


def _verify() -> str:
    return (
        "Scan one sample of this kind point by point, and give the stack as its ground_truth: that "
        "is how to learn what such volumes are worth."
    )
