"""The beam: how much of each depth a projection collects, and how it blurs it laterally."""

from besselflow.beam.bead import BeadScan, read_bead_scan
from besselflow.beam.bessel import BesselBeam, parse_bessel
from besselflow.beam.lateral import LateralPsf, blur, read_lateral_psf
from besselflow.beam.parse import parse_beam_profile
from besselflow.beam.profile import AxialProfile, box_profile, gaussian_profile, read_beam_csv

__all__ = [
    "AxialProfile",
    "BeadScan",
    "BesselBeam",
    "LateralPsf",
    "blur",
    "box_profile",
    "gaussian_profile",
    "parse_beam_profile",
    "parse_bessel",
    "read_bead_scan",
    "read_beam_csv",
    "read_lateral_psf",
]
