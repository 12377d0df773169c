"""Checks of every sample's files before anything runs, from headers and a few planes only."""

from besselflow.checks.images import check_images
from besselflow.checks.samples import CheckedSheet, check_samples, describe_rejections

__all__ = ["CheckedSheet", "check_images", "check_samples", "describe_rejections"]
