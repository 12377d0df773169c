"""Scores of volumes against ground truth, as the literature says that they must be computed."""

from besselflow.metrics.reference import Reference, describe_truth, scored_slices
from besselflow.metrics.scores import METRIC_COLUMNS, PSNR_CAP_DB, Scores, score_volume

__all__ = [
    "METRIC_COLUMNS",
    "PSNR_CAP_DB",
    "Reference",
    "Scores",
    "describe_truth",
    "score_volume",
    "scored_slices",
]
