"""Which samples are left out for what the preflight finds."""

from __future__ import annotations

from typing import Literal

from besselflow.errors import InputError
from besselflow.preflight.examination import Examination
from besselflow.preflight.lights import LIGHTS


def require_admission(found: Examination, stop_at: Literal["never", "yellow", "red"]) -> None:
    """End with the reasons why a sample is not reconstructed, if there are any.

    Parameters
    ----------
    found : Examination
        What the preflight found.
    stop_at : str
        The light from which on a sample is left out, or ``never``.

    Raises
    ------
    InputError
        The sample's light is at least that bad. The message begins with ``preflight is``.
    """
    if stop_at == "never" or LIGHTS.index(found.light) < LIGHTS.index(stop_at):
        return
    reasons = " ".join(f"({number}) {each}." for number, each in enumerate(found.findings, 1))
    raise InputError(f"preflight is {found.light} and preflight.stop_at is {stop_at}: {reasons}")
