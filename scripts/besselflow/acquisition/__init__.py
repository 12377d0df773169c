"""Readers of acquisitions and ground-truth stacks, one module per format."""

from besselflow.acquisition.model import Acquisition, Frames
from besselflow.acquisition.registry import READERS, open_acquisition, recognise
from besselflow.acquisition.stage import read_stage_positions

__all__ = [
    "READERS",
    "Acquisition",
    "Frames",
    "open_acquisition",
    "read_stage_positions",
    "recognise",
]
