"""The traffic light of a sample: whether someone has to look at it, and why.

A light is the worst of several signals, each of which looks at one thing and says nothing where it
has nothing to say. Another check joins by adding its function to `SIGNALS`, and what it looks at to
`SampleFacts`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from textwrap import shorten
from typing import Literal

from besselflow.held_out import Prediction
from besselflow.preflight import Finding
from besselflow.report.verdict import Suspect, write_verdict
from besselflow.validation import judge_fit

Level = Literal["stop", "check", "unverified", "good", "none"]

LEVELS: tuple[Level, ...] = ("stop", "check", "unverified", "good", "none")
"""From the worst to none at all."""

LABELS = {
    "stop": "no result",
    "check": "check",
    "unverified": "not verified",
    "good": "good",
    "none": "training data",
}
"""What the page calls each level."""

_FITS = {
    "underfits": "leaves structure of the projections unexplained (underfits)",
    "overfits": "follows the noise of the projections (overfits)",
}
_NOTICEABLE_DB = 0.05
_LONGEST_REASON = 120


@dataclass(frozen=True)
class Light:
    """A level, and the reason for it.

    Attributes
    ----------
    level : str
        ``stop``: there is no volume. ``check``: something speaks against it. ``unverified``:
        nothing does, but its accuracy is unknown. ``good``: it was compared with a ground truth.
        ``none``: it is no sample to reconstruct.
    reason : str
        In words.
    """

    level: Level
    reason: str

    @property
    def label(self) -> str:
        """What the page calls the level."""
        return LABELS[self.level]


@dataclass(frozen=True)
class SampleFacts:
    """What is known of a sample.

    Attributes
    ----------
    status, role : str
        As in `SampleStatus`.
    reason : str or None
        Why it failed or was excluded.
    final : str
        Method of the final volume.
    scores : mapping
        Method -> metric -> value.
    ranking : sequence of Prediction
        Methods by how well they predicted what they did not see; may be empty.
    preflight : sequence of Finding
        What speaks against its acquisition; may be empty.
    """

    status: str
    role: str
    reason: str | None
    final: str
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    ranking: Sequence[Prediction] = ()
    preflight: Sequence[Finding] = ()


def light_of(facts: SampleFacts) -> Light:
    """Return the worst light that any signal gives, with the reasons of all that are as bad."""
    lights = [light for signal in SIGNALS if (light := signal(facts)) is not None]
    level = min((light.level for light in lights), key=LEVELS.index, default="none")
    reasons = [light.reason for light in lights if light.level == level and light.reason]
    return Light(level, "; ".join(reasons))


def _outcome(facts: SampleFacts) -> Light | None:
    """Signal that there is no volume."""
    if facts.status != "done":
        reason = facts.reason or "no reason was recorded"
        return Light("stop", shorten(reason, _LONGEST_REASON, placeholder=" …"))
    return Light("none", "") if facts.role == "train" else None


def _verdict(facts: SampleFacts) -> Light | None:
    """Signal what the verdict on the sample's page says."""
    if facts.status != "done" or facts.role == "train":
        return None
    own = facts.scores.get(facts.final, {})
    known = "psnr" in own
    verdict = write_verdict(facts.scores, facts.final, known, None, Suspect(0.0, ""), facts.ranking)
    doubts = _doubts(facts)
    if verdict.tone == "warning" or doubts:
        return Light("check", "; ".join(doubts))
    if verdict.tone == "good":
        return Light("good", _success(facts))
    agrees = "; it explains its projections" if "chi2" in own else ""
    return Light("unverified", f"no ground truth{agrees}")


def _preflight(facts: SampleFacts) -> Light | None:
    """Signal that the acquisition itself is bad; its lesser doubts have a column of their own."""
    if facts.status != "done":
        return None
    bad = [finding.reason for finding in facts.preflight if finding.light == "red"]
    return Light("check", f"preflight: {'; '.join(bad)}") if bad else None


SIGNALS: tuple[Callable[[SampleFacts], Light | None], ...] = (_outcome, _verdict, _preflight)
"""Everything that may turn on a light."""


def _doubts(facts: SampleFacts) -> list[str]:
    """Say shortly what speaks against the final volume."""
    own, doubts = facts.scores.get(facts.final, {}), []
    psnr = {name: values["psnr"] for name, values in facts.scores.items() if "psnr" in values}
    if facts.final in psnr:
        best = max(psnr, key=psnr.__getitem__)
        behind = psnr[best] - psnr[facts.final]
        if behind > _NOTICEABLE_DB:
            doubts.append(f"{behind:.1f} dB below {best}")
        elif "interpolation" in psnr and psnr[facts.final] < psnr["interpolation"]:
            doubts.append("no better than interpolation")
    judgement = judge_fit(own.get("chi2"), own.get("structure"))
    if judgement is not None:
        doubts.append(_FITS[judgement])
    predicted = next((each for each in facts.ranking if each.method == facts.final), None)
    if predicted is not None and not predicted.tied:
        ahead = facts.ranking[0].psnr - predicted.psnr
        doubts.append(f"{facts.ranking[0].method} predicts withheld data {ahead:.1f} dB better")
    return doubts


def _success(facts: SampleFacts) -> str:
    psnr = {name: values["psnr"] for name, values in facts.scores.items() if "psnr" in values}
    if facts.final == "interpolation" or "interpolation" not in psnr:
        return "agrees with the ground truth as well as any method"
    return f"{psnr[facts.final] - psnr['interpolation']:.1f} dB better than interpolation"
