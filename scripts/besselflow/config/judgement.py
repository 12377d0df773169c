"""Sections of what is said about the results."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from besselflow.config.methods import Method
from besselflow.config.section import Positive, Section


class Evaluate(Section):
    """Scores against ground truth."""

    ssim_window: Annotated[int, Field(ge=3)] = Field(
        7, description="Edge length of the windows of SSIM and MicroSSIM in pixels; odd."
    )
    centreline: Literal["auto"] | bool = Field(
        "auto",
        description="Whether the centre lines of result and ground truth are compared (clDice), "
        "which makes sense for vessels and neurites. `auto`: where the parts of the ground truth "
        "above its threshold are at least 15 times longer than thick.",
    )

    @field_validator("ssim_window")
    @classmethod
    def _check_odd(cls, ssim_window: int) -> int:
        if ssim_window % 2 == 0:
            raise ValueError("ssim_window must be odd, such as 7")
        return ssim_window


class Validation(Section):
    """Trust without ground truth: projections that are withheld, predicted, and compared."""

    hold_out: int = Field(
        6,
        ge=0,
        description="One of so many projections is withheld, every method reconstructs from the "
        "others, and is ranked by how well it predicts what was withheld. From 5 on, two others "
        "are also replaced by their mean, and how well their difference is predicted decides the "
        "ranking, and how far the prior is followed. 0 turns this off; "
        "acquisitions of fewer than 8 projections are neither ranked nor checked.",
    )
    region: Positive = Field(
        128,
        description="Edge length of the lateral region, in pixels, that the ranking is computed "
        "on: the brightest one of the middle time point. It bounds the cost, which for small "
        "samples is about that of the reconstruction itself, and for large ones a share of it.",
    )
    methods: list[Method] = Field(
        [],
        description="Methods to rank. If none is listed, all of `methods`, without "
        "`microdiffusion` where it is not `final`, as it would have to be trained once more. What "
        "a listed method builds on is computed with it.",
    )

    @field_validator("hold_out")
    @classmethod
    def _check_hold_out(cls, hold_out: int) -> int:
        if hold_out == 1:
            raise ValueError("1 would withhold every projection; use 0 for none, or 2 or more")
        return hold_out


class Report(Section):
    """Pictures in the HTML reports."""

    picture_pixels: Annotated[int, Field(ge=64, le=2048)] = Field(
        320, description="Longest edge of one picture panel in the report, in pixels."
    )
