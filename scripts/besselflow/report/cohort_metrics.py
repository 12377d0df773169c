"""The scores that the cohort's page compares: their names, units, and which way is better."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CohortMetric:
    """A score.

    Attributes
    ----------
    key, title, unit : str
        Name in the table of scores, name on the page, and unit; empty where there is none.
    digits : int
        Decimals.
    direction : int
        1 where higher is better, -1 where lower is, 0 where neither.
    """

    key: str
    title: str
    unit: str
    digits: int
    direction: int

    @property
    def heading(self) -> str:
        """Name with unit."""
        return f"{self.title} ({self.unit})" if self.unit else self.title


COHORT_METRICS = (
    CohortMetric("psnr", "PSNR", "dB", 2, 1),
    CohortMetric("psnr_3d", "PSNR 3D", "dB", 2, 1),
    CohortMetric("psnr_affine", "PSNR, affine", "dB", 2, 1),
    CohortMetric("ssim", "SSIM", "", 3, 1),
    CohortMetric("micro_ssim", "MicroSSIM", "", 3, 1),
    CohortMetric("dice", "Dice", "", 3, 1),
    CohortMetric("dice_best", "Dice, best threshold", "", 3, 1),
    CohortMetric("centreline_dice", "Centre-line Dice", "", 3, 1),
    CohortMetric("resolution_z", "Resolution z", "µm", 2, -1),
    CohortMetric("resolution_y", "Resolution y", "µm", 2, -1),
    CohortMetric("resolution_x", "Resolution x", "µm", 2, -1),
    CohortMetric("psnr_unseen", "PSNR, unseen slices", "dB", 2, 1),
    CohortMetric("coverage_50", "In 50 % interval", "", 2, 0),
    CohortMetric("coverage_90", "In 90 % interval", "", 2, 0),
    CohortMetric("held_out_psnr", "Prediction of withheld data", "dB", 2, 1),
    CohortMetric("chi2", "chi²", "", 2, 0),
    CohortMetric("structure", "Structure left", "", 2, -1),
    CohortMetric("determined", "Determined share", "", 2, 0),
    CohortMetric("scale", "Fitted scale", "", 3, 0),
    CohortMetric("published_psnr", "PSNR as published", "dB", 2, 1),
    CohortMetric("published_dice", "Dice as published", "", 3, 1),
)
"""All of them, in the order of the page."""

TABLE_KEYS = ("psnr", "gain", "ssim", "dice", "resolution_z", "chi2")
"""What the table of samples shows of the final method."""

GAIN = CohortMetric("gain", "Gain", "dB", 2, 1)
"""PSNR above that of interpolation."""

BY_KEY = {metric.key: metric for metric in (*COHORT_METRICS, GAIN)}


def directions() -> dict[str, int]:
    """Return metric -> 1 or -1, of those of which one way is better."""
    return {metric.key: metric.direction for metric in COHORT_METRICS if metric.direction}
