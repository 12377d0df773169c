"""Quality control before compute: is an acquisition worth reconstructing, and what to expect."""

from besselflow.preflight.admission import require_admission
from besselflow.preflight.cost import TOLERANCE, in_words
from besselflow.preflight.examination import Examination, examine_subsample, read_examination
from besselflow.preflight.lights import LIGHTS, Finding, Light
from besselflow.preflight.subsample import Subsample, read_subsample

__all__ = [
    "LIGHTS",
    "TOLERANCE",
    "Examination",
    "Finding",
    "Light",
    "Subsample",
    "examine_subsample",
    "in_words",
    "read_examination",
    "read_subsample",
    "require_admission",
]
