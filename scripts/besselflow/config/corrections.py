"""The section of what is corrected before anything is reconstructed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from besselflow.config.section import PositiveFloat, Section


def _not_zero(length_um: float) -> float:
    if length_um == 0:
        raise ValueError("a length of 0 leaves no light")
    return length_um


class Corrections(Section):
    """From raw counts to what the beam's operator describes.

    What is estimated is applied only where it is certain, and stands in the report with its error.
    """

    saturation: Literal["auto", "none"] | PositiveFloat = Field(
        "auto",
        description="Counts from which on a pixel is saturated: it says that the light was at "
        "least so bright, and every fit takes no more from it; where the misfit is judged, it is "
        "left out. `auto` finds the value at which counts pile up, if there is one; `none` takes "
        "clipped counts for measurements.",
    )
    flat_field: str = Field(
        "none",
        min_length=1,
        description="Path of an image (TIFF) of an even sample, without the detector's offset, at "
        "the size of the images, or one such image for each channel: all projections are divided "
        "by it, after its mean was set to 1; `none` divides by nothing. Relative paths start from "
        "the working directory. It is never estimated from one acquisition, where a sample that is "
        "brighter in the middle can't be told from uneven light; `scripts/estimate_flat_field.py` "
        "estimates it from many. State the offset in the sheet, or it is divided, too. "
        "The ground truth is left as it is, and so is the noise model: after the division, the "
        "noise is stronger where less light came, and the report says by how much. `auto` "
        "estimates the field in the same way from the acquisitions of the run, before anything is "
        "reconstructed, and divides where it is certain that the light is uneven: choose it where "
        "samples lie anywhere in their images, since what all of them share, such as a sample that "
        "was moved into the middle every time, is taken for light. The preflight, which waits for "
        "nothing, divides by a given field only.",
    )
    hot_pixels: Literal["auto", "none"] = Field(
        "auto",
        description="`auto` leaves out pixels that stand out of their neighbours in every image; "
        "it needs at least 6 images (projections times time points).",
    )
    scan_phase: Literal["auto", "none"] | float = Field(
        "auto",
        description="Displacement of the odd lines against the even ones along x, in pixels, that "
        "is taken back: the phase of a scanner that records in both directions. `auto` estimates "
        "it, one for all images.",
    )
    line_noise: Literal["auto", "none"] = Field(
        "auto",
        description="`auto` takes back the flicker of the laser from line to line (along x), as a "
        "gain of every line of every image, where both halves of the image agree on it and the "
        "next image does not share it, and the detector's offset is known. What changes over "
        "many lines can't be told from the sample, and stays, as do offsets of lines. The noise "
        "model stays, too: a line that was dim is noisier now, and the report says by how much.",
    )
    motion: Literal["auto", "none"] = Field(
        "auto",
        description="`auto` registers every time point of a series to the first, as a whole.",
    )
    drift: Literal["auto", "none"] = Field(
        "auto",
        description="`auto` takes back lateral displacements of single projections, registered "
        "against what all others predict. It needs beams that overlap by 30 % or more: without "
        "an overlap, a displacement can't be told from a sample that leans. What is smooth over "
        "many projections looks like a leaning sample in any case.",
    )
    laser: Literal["auto", "none"] = Field(
        "auto",
        description="`auto` takes back the fluctuation of the brightness from projection to "
        "projection, found in what overlapping beams have in common; not what is smooth in "
        "depth.",
    )
    bleaching: Literal["auto", "none"] | Annotated[float, Field(gt=0, lt=1)] = Field(
        "auto",
        description="Share of the brightness that is lost from the first to the last image, "
        "exponentially. `auto` estimates it in series of at least 3 time points; a single stack "
        "can't tell it from the attenuation with depth, and is then left as it is.",
    )
    depth_attenuation: (
        Literal["none", "auto"]
        | Annotated[float, Field(allow_inf_nan=False), AfterValidator(_not_zero)]
    ) = Field(
        "none",
        description="Attenuation length of the sample in micrometres: the depth over which its "
        "brightness falls to 1/e (37 %), by scattering and absorption; one for all channels. A "
        "positive length says that z grows with depth, a negative one that it falls. Every "
        "projection is divided by what is left at its depth, the beam's profile is tilted alike, "
        "and all stages know how much noisier the deep projections are. The projection nearest to "
        "the surface stays as bright as it is. `auto` fits the length to the mean brightness of "
        "the projections, after bleaching was taken back, and applies it only where it is "
        "certain. Choose it for samples of which you know that they hold as much at all depths: no "
        "acquisition can tell attenuation from a sample that holds less further down, or a single "
        "stack from bleaching on the way down. State the offset in the sheet, or a given length "
        "divides it, too, and `auto` does nothing. The ground truth is left as it is. Where it was "
        "attenuated alike, as a point-scanned stack of the same place is, scores compare a "
        "corrected volume with one that grows dark with depth, and fall: leave this at `none` "
        "then, or correct the ground truth yourself.",
    )

    @property
    def given_flat_field(self) -> str | None:
        """Path of the flat field that is given, if one is."""
        return None if self.flat_field in ("auto", "none") else self.flat_field
