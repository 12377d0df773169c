"""Section of the check of an acquisition before anything heavy is computed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from besselflow.config.section import Positive, PositiveFloat, Section

Share = Annotated[float, Field(ge=0, le=1)]


class Preflight(Section):
    """Quality control before compute: a traffic light per sample, from a subsample of its data.

    A value beyond `..._yellow` makes the light yellow, and one beyond `..._red` red.
    """

    stop_at: Literal["never", "yellow", "red"] = Field(
        "never",
        description="Leave out samples whose light is `red`, or at least `yellow`; they are named "
        "in the report with the reasons, and the others go on. `never` computes all samples and "
        "shows the lights only.",
    )
    crop: Annotated[int, Field(ge=16)] = Field(
        64, description="Edge length of a lateral crop of the subsample, in pixels."
    )
    crops: Positive = Field(
        9,
        description="Crops of the subsample at most, evenly spread over the image. Each is read "
        "from all projections of the middle time point.",
    )
    snr_yellow: PositiveFloat = Field(
        2.0,
        description="Signal-to-noise ratio of bright structures below which the light is yellow: "
        "their intensity above the background, in units of the noise there.",
    )
    snr_red: PositiveFloat = Field(0.5, description="The same for red.")
    saturated_yellow: Share = Field(
        1e-4, description="Share of saturated pixels above which the light is yellow."
    )
    saturated_red: Share = Field(0.01, description="The same for red.")
    faint_yellow: Share = Field(
        0.1, description="Share of faint or dark projections above which the light is yellow."
    )
    faint_red: Share = Field(0.5, description="The same for red.")
    density_yellow: PositiveFloat = Field(
        1.0,
        description="Mean number of structures that overlap within the length of the beam, above "
        "which the light is yellow.",
    )
    density_red: PositiveFloat = Field(4.0, description="The same for red.")
    unseen_yellow: Share = Field(
        0.02,
        description="Share of the depth between the first and the last projection that no "
        "projection sees, above which the light is yellow.",
    )
    unseen_red: Share = Field(0.4, description="The same for red.")
    uneven_yellow: PositiveFloat = Field(
        1.5,
        description="Largest step of the stage divided by the median step, above which the light "
        "is yellow.",
    )
    psnr_yellow: PositiveFloat = Field(
        25.0,
        description="Expected PSNR of the spectral reconstruction in dB below which the light is "
        "yellow.",
    )
    psnr_red: PositiveFloat = Field(20.0, description="The same for red.")

    @model_validator(mode="after")
    def _check_order(self) -> Preflight:
        for name in ("saturated", "faint", "density", "unseen"):
            if getattr(self, f"{name}_red") < getattr(self, f"{name}_yellow"):
                raise ValueError(
                    f"{name}_red is below {name}_yellow; red is the worse of the two, so raise "
                    f"{name}_red or lower {name}_yellow"
                )
        for name in ("snr", "psnr"):
            if getattr(self, f"{name}_red") > getattr(self, f"{name}_yellow"):
                raise ValueError(
                    f"{name}_red is above {name}_yellow; red is the worse of the two, so lower "
                    f"{name}_red or raise {name}_yellow"
                )
        return self
