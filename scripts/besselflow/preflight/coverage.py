"""How the beams cover the depth: gaps that no projection sees, overlap, and uneven steps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from besselflow.beam import AxialProfile

_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Coverage:
    """How the stage positions cover the depth.

    Attributes
    ----------
    depth_um : float
        From the first to the last depth that any projection sees.
    gaps_um : tuple of (float, float)
        Depths between these that no projection sees.
    unseen : float
        Share of the depth in the gaps.
    step_um, largest_step_um : float
        Median and largest distance of neighbouring positions.
    largest_step_at_um : float
        Where the largest step begins.
    beam_um : float
        Length of the beam: full width at half maximum of its axial profile.
    reach_um : float
        Length of the support of the axial profile.
    overlap : float
        Beam lengths per median step: below 1, neighbouring beams don't meet at half maximum.
    """

    depth_um: float
    gaps_um: tuple[tuple[float, float], ...]
    unseen: float
    step_um: float
    largest_step_um: float
    largest_step_at_um: float
    beam_um: float
    reach_um: float
    overlap: float

    @property
    def unevenness(self) -> float:
        """Largest step divided by the median step."""
        return self.largest_step_um / self.step_um if self.step_um > 0 else 1.0


def describe_coverage(positions_um: np.ndarray, profile: AxialProfile) -> Coverage:
    """Measure the coverage of the depth, from stage positions and beam alone.

    Parameters
    ----------
    positions_um : numpy.ndarray, shape (P,)
        Stage positions, increasing.
    profile : AxialProfile
        Axial profile of the beam.
    """
    low, high = profile.support_um
    positions = np.asarray(positions_um, float)
    steps = np.diff(positions)
    depth = positions[-1] - positions[0] + high - low
    gap = steps - (high - low)
    empty = np.flatnonzero(gap > _TOLERANCE * depth)
    gaps = tuple((float(positions[i] + high), float(positions[i + 1] + low)) for i in empty)
    median = float(np.median(steps)) if len(steps) else 0.0
    widest = int(np.argmax(steps)) if len(steps) else 0
    return Coverage(
        depth_um=float(depth),
        gaps_um=gaps,
        unseen=float(gap[empty].sum() / depth),
        step_um=median,
        largest_step_um=float(steps[widest]) if len(steps) else 0.0,
        largest_step_at_um=float(positions[widest]),
        beam_um=profile.fwhm_um,
        reach_um=profile.extent_um,
        overlap=profile.fwhm_um / median if median > 0 else float("inf"),
    )
