"""The registry of scores: what the pages call each metric, how it is printed, and what it means."""

from __future__ import annotations

from dataclasses import dataclass


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
        1 where the highest value is the best, -1 where the lowest is, 0 where none is marked.
    is_main : bool
        Whether it stands in the first table; else among the further scores.
    """

    key: str
    title: str
    unit: str
    meaning: str
    digits: int = 2
    better: int = 1
    is_main: bool = True


METRICS = (
    Metric(
        "psnr",
        "PSNR",
        "dB",
        "peak signal-to-noise ratio, mean over slices; 3 dB more is half the squared error",
    ),
    Metric(
        "gain",
        "gain",
        "dB",
        "PSNR above that of interpolating the projections, which needs no model at all",
    ),
    Metric(
        "gain_inr",
        "over inr",
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
        "in 50 %",
        "%",
        "share of true values inside the stated 50 % interval; ideally 50",
        digits=0,
        better=0,
        is_main=False,
    ),
    Metric(
        "coverage_90",
        "in 90 %",
        "%",
        "share of true values inside the stated 90 % interval; ideally 90",
        digits=0,
        better=0,
        is_main=False,
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
        is_main=False,
    ),
    Metric(
        "scale",
        "scale",
        "",
        "that scale: what the volume must be multiplied with; 1 is right",
        digits=3,
        better=0,
        is_main=False,
    ),
    Metric(
        "offset",
        "offset",
        "intensity",
        "that offset: what must be added then; 0 is right",
        digits=2,
        better=0,
        is_main=False,
    ),
    Metric(
        "micro_ssim",
        "MicroSSIM",
        "",
        "SSIM as it was adapted to micrographs, whose signal is far below the peak; 1 is equal",
        digits=3,
        is_main=False,
    ),
    Metric(
        "dice_best",
        "Dice, best threshold",
        "",
        "the best Dice at any threshold: a low Dice beside a high one here is a matter of scale",
        digits=3,
        is_main=False,
    ),
    Metric(
        "centreline_dice",
        "centre-line Dice",
        "",
        "whether the centre lines of vessels and neurites are followed; 1 is equal",
        digits=3,
        is_main=False,
    ),
    *(
        Metric(
            f"resolution_{axis}",
            f"resolution, {axis}",
            "µm",
            f"finest detail along {axis} that agrees with the ground truth (Fourier shell "
            "correlation above 0.5); smaller is better",
            better=-1,
            is_main=False,
        )
        for axis in "xyz"
    ),
    Metric(
        "published_psnr",
        "published PSNR",
        "dB",
        "as the released code of Hui et al. computes it, for comparison with their paper alone: a "
        "volume on a wrong scale can score well",
        is_main=False,
    ),
    Metric(
        "published_dice",
        "published Dice",
        "",
        "likewise: every slice of every volume at its own threshold",
        digits=3,
        is_main=False,
    ),
)
"""All scores that pages know, in the order of their columns; others stay in the table file."""

SHARES = ("coverage_50", "coverage_90")
"""Scores that are shares of 1 in the file, and per cent on the page."""
