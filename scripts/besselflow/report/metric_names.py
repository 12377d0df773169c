"""The registry of scores: what the pages call each metric, how it is printed, and what it means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """One score and its column.

    Attributes
    ----------
    key, title, unit, meaning : str
        Name in the table file, heading, unit, and explanation for readers who do not know it.
    digits : int
        Decimals.
    better : int
        1 where the highest value is the best, -1 where the lowest is, 0 where neither.
    place : {"main", "further", "elsewhere"}
        Where it stands on the page of a sample: in the first table, among the further scores, or
        in a table of its own.
    """

    key: str
    title: str
    unit: str
    meaning: str
    digits: int = 2
    better: int = 1
    place: Literal["main", "further", "elsewhere"] = "main"

    @property
    def heading(self) -> str:
        """Title with unit."""
        return f"{self.title} ({self.unit})" if self.unit else self.title


METRICS = (
    Metric(
        "psnr",
        "PSNR",
        "dB",
        "peak signal-to-noise ratio, mean over slices; 3 dB more is half the squared error",
    ),
    Metric(
        "gain",
        "Gain",
        "dB",
        "PSNR above that of interpolating the projections, which needs no model at all",
    ),
    Metric(
        "gain_inr",
        "Gain over inr",
        "dB",
        "PSNR above that of the network fitted to this sample alone: what the refinement adds",
    ),
    Metric("psnr_3d", "PSNR 3D", "dB", "the same from the mean error of all slices"),
    Metric("psnr_seen", "PSNR, seen", "dB", "mean over the slices that some projection saw"),
    Metric(
        "psnr_unseen",
        "PSNR, unseen",
        "dB",
        "mean over the slices that no projection saw, where a method can only guess",
    ),
    Metric(
        "ssim", "SSIM", "", "similarity of local structure, mean over slices; 1 is equal", digits=3
    ),
    Metric(
        "dice",
        "Dice",
        "",
        "overlap of what is brighter than Otsu's threshold of the ground truth; 1 is equal",
        digits=3,
    ),
    Metric(
        "coverage_50",
        "In 50 % interval",
        "%",
        "share of true values inside the stated 50 % interval; ideally 50",
        digits=0,
        better=0,
        place="further",
    ),
    Metric(
        "coverage_90",
        "In 90 % interval",
        "%",
        "share of true values inside the stated 90 % interval; ideally 90",
        digits=0,
        better=0,
        place="further",
    ),
    Metric(
        "chi2",
        "chi²",
        "",
        "misfit to the measured projections in units of their noise; well above 1 contradicts "
        "them, well below 1 follows their noise",
        better=0,
    ),
    Metric(
        "psnr_affine",
        "PSNR, any scale",
        "dB",
        "PSNR after the best scale and offset: what remains is wrong in shape, not in brightness",
        place="further",
    ),
    Metric(
        "scale",
        "Scale",
        "",
        "that scale: what the volume must be multiplied with; 1 is right",
        digits=3,
        better=0,
        place="further",
    ),
    Metric(
        "offset",
        "Offset",
        "intensity",
        "that offset: what must be added then; 0 is right",
        digits=2,
        better=0,
        place="further",
    ),
    Metric(
        "micro_ssim",
        "MicroSSIM",
        "",
        "SSIM as it was adapted to micrographs, whose signal is far below the peak; 1 is equal",
        digits=3,
        place="further",
    ),
    Metric(
        "dice_best",
        "Dice, best threshold",
        "",
        "the best Dice at any threshold: a low Dice beside a high one here is a matter of scale",
        digits=3,
        place="further",
    ),
    Metric(
        "centreline_dice",
        "Centre-line Dice",
        "",
        "whether the centre lines of vessels and neurites are followed; 1 is equal",
        digits=3,
        place="further",
    ),
    *(
        Metric(
            f"resolution_{axis}",
            f"Resolution, {axis}",
            "µm",
            f"finest detail along {axis} that agrees with the ground truth (Fourier shell "
            "correlation above 0.5); smaller is better",
            better=-1,
            place="further",
        )
        for axis in "xyz"
    ),
    Metric(
        "published_psnr",
        "PSNR as published",
        "dB",
        "as the released code of Hui et al. computes it, for comparison with their paper alone: a "
        "volume on a wrong scale can score well",
        place="further",
    ),
    Metric(
        "published_dice",
        "Dice as published",
        "",
        "likewise: every slice of every volume at its own threshold",
        digits=3,
        place="further",
    ),
    Metric(
        "held_out_psnr",
        "Prediction of withheld data",
        "dB",
        "PSNR of the projections that the method had not seen",
        place="elsewhere",
    ),
    Metric(
        "structure",
        "Structure left",
        "",
        "what neighbouring pixels share of the residual; 0 for pure noise",
        better=-1,
        place="elsewhere",
    ),
    Metric(
        "determined",
        "Measured",
        "%",
        "share of the volume that the projections determine",
        digits=0,
        better=0,
        place="elsewhere",
    ),
)
"""All scores that pages know, in the order of their columns; others stay in the table file."""

SHARES = ("coverage_50", "coverage_90", "determined")
"""Scores that are shares of 1 in the file, and per cent on the pages."""

BY_KEY = {metric.key: metric for metric in METRICS}

COHORT_METRICS = tuple(
    BY_KEY[key]
    for key in (
        "psnr",
        "psnr_3d",
        "psnr_affine",
        "ssim",
        "micro_ssim",
        "dice",
        "dice_best",
        "centreline_dice",
        "resolution_z",
        "resolution_y",
        "resolution_x",
        "psnr_unseen",
        "coverage_50",
        "coverage_90",
        "held_out_psnr",
        "chi2",
        "structure",
        "determined",
        "scale",
        "published_psnr",
        "published_dice",
    )
)
"""The scores whose distributions and comparisons the cohort's page shows, in its order."""

SUMMARY_KEYS = ("psnr", "gain", "ssim", "dice", "resolution_z", "chi2")
"""What the table of samples, and MultiQC's general statistics, show of the final method."""
