"""The geometry that a prior is trained for: beam, step and voxels, without any sample's data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from besselflow.beam import AxialProfile, box_profile, gaussian_profile
from besselflow.fingerprint import fingerprint
from besselflow.lateral import LateralBlur
from besselflow.projection import AxialGrid, AxialProjection

# Share by which length and step of a beam vary around the nominal ones.
_VARIATION = 0.12
# A prior for any beam has seen these lengths and steps, in slices, and steps relative to lengths.
_BOX_SLICES, _GAUSSIAN_SLICES = (4.0, 10.0), (4.0, 12.0)
_BOX_STEPS, _GAUSSIAN_STEPS = (0.6, 1.3), (0.4, 0.9)
_STEP_SLICES = (2.5, 8.0)
_SKEW = 0.3
# Sizes in files are rounded.
_ROUNDING = 0.01

STRETCH = 0.25
"""Largest logarithm of the factor by which volumes are enlarged laterally in training."""
ANY = "any"
"""What stands in the place of a geometry for a prior that has seen many."""


@dataclass(frozen=True)
class Geometry:
    """What simulated training acquisitions share with the acquisitions the prior is used on.

    Attributes
    ----------
    profile_edges_um, profile_weights : tuple of float
        Axial profile of the beam.
    step_um : float
        Median distance of neighbouring stage positions.
    voxel_size_um : tuple of float
        (z, y, x).
    lateral_kernel : tuple of tuple of float, or None
        Rows of the blur of each projection by the side lobes of the beam.
    """

    profile_edges_um: tuple[float, ...]
    profile_weights: tuple[float, ...]
    step_um: float
    voxel_size_um: tuple[float, float, float]
    lateral_kernel: tuple[tuple[float, ...], ...] | None = None

    @classmethod
    def of(
        cls,
        profile: AxialProfile,
        positions_um: np.ndarray,
        voxel_size_um: tuple[float, float, float],
        lateral_kernel: np.ndarray | None = None,
    ) -> Geometry:
        """Describe an acquisition, rounded so that equal set-ups compare equal."""
        rounded = lambda values: tuple(float(f"{value:.4g}") for value in values)  # noqa: E731
        return cls(
            rounded(profile.edges_um),
            rounded(profile.weights),
            float(f"{np.median(np.diff(np.sort(positions_um))):.4g}"),
            rounded(voxel_size_um),
            None if lateral_kernel is None else tuple(map(rounded, lateral_kernel)),
        )

    @property
    def key(self) -> str:
        """Short identifier, safe as a file name."""
        return fingerprint(asdict(self))[:12]

    @property
    def profile(self) -> AxialProfile:
        """The axial profile."""
        return AxialProfile(
            np.array(self.profile_edges_um), np.array(self.profile_weights), "prior"
        )

    @property
    def lateral(self) -> LateralBlur | None:
        """The lateral blur, normalised again after the rounding."""
        if self.lateral_kernel is None:
            return None
        kernel = np.array(self.lateral_kernel)
        return LateralBlur(kernel / kernel.sum())

    def acquisition_of(
        self, n_slices: int, phase: float
    ) -> tuple[np.ndarray, AxialGrid, AxialProjection]:
        """Lay this geometry over a training volume.

        Parameters
        ----------
        n_slices : int
            Slices of the training volume.
        phase : float
            Where in the first step the first projection lies, 0 to 1.

        Returns
        -------
        positions_um : numpy.ndarray, shape (P,)
        grid : AxialGrid
        operator : AxialProjection
        """
        spacing = self.voxel_size_um[0]
        low, high = self.profile.support_um
        last = (n_slices - 1) * spacing
        margin = min(-low, last / 4), min(high, last / 4)
        positions = np.arange(margin[0] - spacing / 2 + phase * self.step_um, last, self.step_um)
        positions = positions[positions <= last + spacing / 2 - margin[1]]
        if len(positions) < 2:
            positions = np.array([last / 3, 2 * last / 3])
        grid = AxialGrid(0.0, spacing, n_slices)
        operator = AxialProjection.from_geometry(self.profile, positions, grid, self.lateral)
        return positions, grid, operator

    def varied(self, rng: np.random.Generator) -> Geometry:
        """Return this geometry, or as often a beam and a step a little longer or shorter."""
        if rng.random() < 0.5:
            return self
        length, step = 1 + rng.uniform(-_VARIATION, _VARIATION, 2)
        edges = tuple(length * edge for edge in self.profile_edges_um)
        return replace(self, profile_edges_um=edges, step_um=step * self.step_um)

    @classmethod
    def any(cls, rng: np.random.Generator) -> Geometry:
        """Draw a beam and a step, in voxels of 1 um: a box, or a bump that is skewed a little."""
        if rng.random() < 0.5:
            length, share = rng.uniform(*_BOX_SLICES), rng.uniform(*_BOX_STEPS)
            profile = box_profile(length)
        else:
            length, share = rng.uniform(*_GAUSSIAN_SLICES), rng.uniform(*_GAUSSIAN_STEPS)
            profile = gaussian_profile(length)
            middles = (profile.edges_um[:-1] + profile.edges_um[1:]) / 2
            skewed = 1 + rng.uniform(-_SKEW, _SKEW) * np.tanh(2.355 * middles / length)
            weights = profile.weights * skewed
            profile = replace(profile, weights=weights / weights.sum())
        step = float(np.clip(share * length, *_STEP_SLICES))
        return cls(tuple(profile.edges_um), tuple(profile.weights), step, (1.0, 1.0, 1.0))

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Geometry:
        """Inverse of `as_dict`."""
        kernel = values.get("lateral_kernel")
        return cls(
            tuple(values["profile_edges_um"]),
            tuple(values["profile_weights"]),
            values["step_um"],
            tuple(values["voxel_size_um"]),
            None if kernel is None else tuple(map(tuple, kernel)),
        )


def departures(
    known: Mapping[str, Any] | str,
    profile: AxialProfile,
    positions_um: np.ndarray,
    voxel_size_um: tuple[float, float, float],
    blurred: bool,
) -> list[str]:
    """Say in which respects an acquisition lies outside of what a prior has seen.

    Parameters
    ----------
    known : mapping or str
        What the prior was trained for: `ANY`, or a geometry as from `Geometry.as_dict`.
    profile : AxialProfile
        Axial profile of the beam.
    positions_um : numpy.ndarray, shape (P,)
        Stage positions; at least two.
    voxel_size_um : tuple of float
        (z, y, x).
    blurred : bool
        Whether the beam has a lateral blur.

    Returns
    -------
    list of str
        Such as ``the beam is 14 slices long, and the prior has seen 3.5 to 13``.
    """
    own = _measures(profile, positions_um, voxel_size_um)
    if known == ANY:
        lengths = _BOX_SLICES + _GAUSSIAN_SLICES
        shares = _BOX_STEPS + _GAUSSIAN_STEPS
        seen = [_STEP_SLICES, (min(lengths), max(lengths)), (min(shares), max(shares)), (1.0, 1.0)]
        was_blurred = False
    else:
        geometry = Geometry.from_dict(dict(known))
        places = np.array([0.0, geometry.step_um])
        seen = [(m, m) for m in _measures(geometry.profile, places, geometry.voxel_size_um)]
        was_blurred = geometry.lateral is not None
    # Beam and step were varied apart from each other.
    spread = (1 + _VARIATION, 1 + _VARIATION, (1 + _VARIATION) ** 2, math.exp(STRETCH))
    texts = (
        "the step is {:.3g} slices",
        "the beam is {:.3g} slices long",
        "the step is {:.3g} of the length of the beam",
        "the slices are {:.3g} times as far apart as pixels",
    )
    found = [
        f"{text.format(value)}, and the prior has seen {low / factor:.3g} to {high * factor:.3g}"
        for text, value, (low, high), factor in zip(texts, own, seen, spread, strict=True)
        if not low / factor * (1 - _ROUNDING) <= value <= high * factor * (1 + _ROUNDING)
    ]
    if blurred and not was_blurred:
        found.append("the beam has side lobes, and the prior has seen none")
    return found


def _measures(
    profile: AxialProfile, positions_um: np.ndarray, voxel_size_um: tuple[float, float, float]
) -> tuple[float, float, float, float]:
    """Return step and beam length in slices, their ratio, and the aspect of the voxels."""
    z, y, x = voxel_size_um
    step = float(np.median(np.diff(np.sort(positions_um))))
    return step / z, profile.fwhm_um / z, step / profile.fwhm_um, z / math.sqrt(y * x)
