"""The traffic light of a sample: what is wrong with its acquisition, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from besselflow.config import Preflight
from besselflow.preflight.coverage import Coverage
from besselflow.preflight.expectation import Expectation
from besselflow.preflight.signal import Signal

Light = Literal["green", "yellow", "red"]
LIGHTS: tuple[Light, ...] = ("green", "yellow", "red")
"""From good to bad."""

_MOST_NAMED = 6


@dataclass(frozen=True)
class Finding:
    """One reason for a light.

    Attributes
    ----------
    light : str
        ``yellow`` or ``red``.
    topic : str
        ``signal``, ``saturation``, ``projections``, ``density``, ``coverage``, ``steps`` or
        ``quality``.
    reason : str
        What was found, as a clause without a full stop.
    remedy : str
        What to do about it, likewise.
    """

    light: Light
    topic: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        """Format as ``reason; remedy``."""
        return f"{self.reason}; {self.remedy}"


@dataclass(frozen=True)
class Channel:
    """What was measured of one channel; where it holds no structure, the rest is None.

    Attributes
    ----------
    saturated : float
        Share of saturated pixels.
    ceiling : float or None
        Count at which the detector saturates, where the data show it.
    signal : Signal or None
    expectation : Expectation or None
    """

    saturated: float
    ceiling: float | None
    signal: Signal | None
    expectation: Expectation | None


def worst(lights: Sequence[Light]) -> Light:
    """Return the worst of some lights; green of none."""
    return max(lights, key=LIGHTS.index, default="green")


def judge(
    channels: Sequence[Channel],
    coverage: Coverage,
    positions_um: np.ndarray,
    settings: Preflight,
    offset_known: bool,
) -> list[Finding]:
    """List what is wrong with an acquisition, the worst first.

    Parameters
    ----------
    channels : sequence of Channel
    coverage : Coverage
    positions_um : numpy.ndarray, shape (P,)
        Stage positions, increasing.
    settings : Preflight
        Thresholds.
    offset_known : bool
        Whether the sheet states the offset of the detector.
    """
    found = [*_of_depth(coverage, settings)]
    for number, channel in enumerate(channels):
        where = f"channel {number}: " if len(channels) > 1 else ""
        found += _of_channel(channel, where, coverage, positions_um, settings, offset_known)
    return sorted(found, key=lambda finding: -LIGHTS.index(finding.light))


def _above(value: float, yellow: float, red: float) -> Light:
    """Compare with thresholds that a value should not exceed."""
    return "red" if value > red else "yellow" if value > yellow else "green"


def _below(value: float, yellow: float, red: float) -> Light:
    """Compare with thresholds that a value should not fall below."""
    return _above(-value, -yellow, -red)


def _of_depth(coverage: Coverage, settings: Preflight) -> list[Finding]:
    found = []
    level = _above(coverage.unseen, settings.unseen_yellow, settings.unseen_red)
    if level != "green":
        count = len(coverage.gaps_um)
        places = ", ".join(f"{low:g} to {high:g}" for low, high in coverage.gaps_um[:_MOST_NAMED])
        more = ", ..." if count > _MOST_NAMED else ""
        found.append(
            Finding(
                level,
                "coverage",
                f"no projection sees {100 * coverage.unseen:.0f} % of the depth (z = {places}"
                f"{more} um)",
                f"reduce the step to {coverage.reach_um:.3g} um, which is how far the beam "
                f"reaches, or use a longer beam",
            )
        )
    if coverage.unevenness > settings.uneven_yellow:
        found.append(
            Finding(
                "yellow",
                "steps",
                f"the stage steps by {coverage.largest_step_um:.3g} um at z = "
                f"{coverage.largest_step_at_um:g} um, where its median step is "
                f"{coverage.step_um:.3g} um",
                "check the stage positions, and whether projections are missing there",
            )
        )
    return found


def _of_channel(
    channel: Channel,
    where: str,
    coverage: Coverage,
    positions_um: np.ndarray,
    settings: Preflight,
    offset_known: bool,
) -> list[Finding]:
    found = []

    def add(level: Light, topic: str, reason: str, remedy: str) -> None:
        if level != "green":
            found.append(Finding(level, topic, where + reason, remedy))

    add(
        _above(channel.saturated, settings.saturated_yellow, settings.saturated_red),
        "saturation",
        f"{100 * channel.saturated:.2g} % of the pixels are saturated (at {channel.ceiling:g} "
        f"counts)"
        if channel.ceiling is not None
        else "",
        "lower the laser power or the gain of the detector",
    )
    signal = channel.signal
    if signal is None:
        add(
            "red",
            "signal",
            "the projections are constant and hold no image",
            "check laser, shutter and detector",
        )
        return found
    add(
        _below(signal.snr, settings.snr_yellow, settings.snr_red),
        "signal",
        f"bright structures stand out of the noise by a factor of {signal.snr:.2g} only",
        "raise the laser power or the dwell time, or average frames",
    )
    faint = signal.faint
    if signal.snr >= settings.snr_red:
        add(
            _above(faint.size / len(positions_um), settings.faint_yellow, settings.faint_red),
            "projections",
            f"{faint.size} of {len(positions_um)} projections show little or nothing (z = "
            f"{_list(positions_um[faint])} um)",
            "check shutter and laser there, or, where the sample has ended, leave them out",
        )
        shorter = coverage.beam_um * settings.density_yellow / signal.density
        add(
            _above(signal.density, settings.density_yellow, settings.density_red),
            "density",
            f"about {signal.density:.2g} structures overlap within the beam, which is too dense "
            f"to tell their depths apart well",
            f"use a beam of {shorter:.2g} um instead of {coverage.beam_um:.3g} um, or a sparser "
            f"labelling"
            + ("" if offset_known else "; give the offset of the detector first, which this needs"),
        )
    if channel.expectation is not None:
        expected = channel.expectation
        add(
            _below(expected.psnr_db, settings.psnr_yellow, settings.psnr_red),
            "quality",
            f"the spectral reconstruction is expected to reach a PSNR of {expected.psnr_db:.0f} dB "
            f"only (within {expected.spread_db:.0f} dB)",
            "take more light, shorter steps or a shorter beam",
        )
    return found


def _list(positions: np.ndarray) -> str:
    text = ", ".join(f"{z:g}" for z in positions[:_MOST_NAMED])
    return text + (", ..." if len(positions) > _MOST_NAMED else "")
