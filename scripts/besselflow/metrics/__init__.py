"""Scores of volumes against ground truth, as the literature says that they must be computed."""

from besselflow.metrics.centreline import is_thin, score_centrelines
from besselflow.metrics.fourier import correlate_shells, resolutions_um
from besselflow.metrics.reference import Reference, describe_truth
from besselflow.metrics.scores import METRIC_COLUMNS, Scores, score_volume
from besselflow.scored import PSNR_CAP_DB, scored_slices

__all__ = [
    "METRIC_COLUMNS",
    "PSNR_CAP_DB",
    "Reference",
    "Scores",
    "correlate_shells",
    "describe_truth",
    "is_thin",
    "resolutions_um",
    "score_centrelines",
    "score_volume",
    "scored_slices",
]
