"""Readers of acquisitions and ground-truth stacks, one module per format."""

from besselflow.acquisition.stage import read_stage_positions
from besselflow.acquisition.tiff import Stack, read_tiff_stack

__all__ = ["Stack", "read_stage_positions", "read_tiff_stack"]
