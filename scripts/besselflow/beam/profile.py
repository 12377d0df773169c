"""The axial profile of a beam: how much of each depth one projection collects."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.special import erf

from besselflow.errors import InputError
from besselflow.tables import read_numeric_csv

_GAUSSIAN_BINS = 240
_GAUSSIAN_REACH = 3.0
_SPACING_TOLERANCE = 0.05
_TILT_WITHIN_BIN = 0.02


@dataclass(frozen=True)
class AxialProfile:
    """A normalised axial profile, constant within each of its bins.

    Attributes
    ----------
    edges_um : numpy.ndarray, shape (n + 1,)
        Increasing bin edges in micrometres, relative to the stage position.
    weights : numpy.ndarray, shape (n,)
        Share of the collected light that each bin contributes; the sum is 1.
    source : str
        The model or the file that the profile comes from.
    """

    edges_um: np.ndarray
    weights: np.ndarray
    source: str

    @property
    def support_um(self) -> tuple[float, float]:
        """First and last edge with light between them, in micrometres."""
        lit = np.flatnonzero(self.weights)
        return float(self.edges_um[lit[0]]), float(self.edges_um[lit[-1] + 1])

    @property
    def extent_um(self) -> float:
        """Length of the support in micrometres."""
        low, high = self.support_um
        return high - low

    @property
    def fwhm_um(self) -> float:
        """Full width at half maximum in micrometres, to the nearest bin edge."""
        density = self.weights / np.diff(self.edges_um)
        above = np.flatnonzero(density >= density.max() / 2)
        return float(self.edges_um[above[-1] + 1] - self.edges_um[above[0]])

    def collected(self, low_um: np.ndarray, high_um: np.ndarray) -> np.ndarray:
        """Share of the light collected between two depths relative to the stage position.

        Parameters
        ----------
        low_um, high_um : numpy.ndarray
            Depths in micrometres, ``low_um <= high_um``, broadcastable.

        Returns
        -------
        numpy.ndarray
            Integral of the profile over ``[low_um, high_um]``, between 0 and 1.
        """
        cumulative = np.concatenate([[0.0], np.cumsum(self.weights)])
        high = np.interp(high_um, self.edges_um, cumulative)
        return high - np.interp(low_um, self.edges_um, cumulative)

    def attenuated(self, length_um: float) -> tuple[AxialProfile, float]:
        """Return what is collected where brightness falls as exp(-dz / length), and how much.

        Parameters
        ----------
        length_um : float
            In micrometres, not 0; negative where brightness falls towards smaller z.

        Returns
        -------
        profile : AxialProfile
            Weights of the sum 1, as ever. Bins are split until brightness changes by no more than
            2 % within each, and hold the exact integral over them.
        collected : float
            Light of the attenuated profile over that of this one, the brightness at the stage
            position being 1.
        """
        widths = np.diff(self.edges_um)
        parts = np.maximum(1, np.ceil(widths / (_TILT_WITHIN_BIN * abs(length_um)))).astype(int)
        own = np.repeat(np.arange(len(parts)), parts)
        place = np.arange(len(own)) - np.repeat(np.cumsum(parts) - parts, parts)
        width = widths[own] / parts[own]
        low = self.edges_um[own] + place * width
        density = self.weights[own] / widths[own]
        falling = np.exp(-low / length_um) * -np.expm1(-width / length_um)
        weights = density * length_um * falling
        total = float(weights.sum())
        edges = np.append(low, self.edges_um[-1])
        return replace(self, edges_um=edges, weights=weights / total), total


def box_profile(length_um: float) -> AxialProfile:
    """Return the profile of a beam that is uniform over a length in micrometres."""
    half = length_um / 2
    return AxialProfile(np.array([-half, half]), np.array([1.0]), f"box:{length_um:g}um")


def gaussian_profile(fwhm_um: float) -> AxialProfile:
    """Return a Gaussian profile of a full width at half maximum in micrometres, cut at 3 sigma."""
    sigma = fwhm_um / (2 * np.sqrt(2 * np.log(2)))
    edges = np.linspace(-_GAUSSIAN_REACH * sigma, _GAUSSIAN_REACH * sigma, _GAUSSIAN_BINS + 1)
    weights = np.diff(erf(edges / (sigma * np.sqrt(2))))
    return AxialProfile(edges, weights / weights.sum(), f"gaussian:{fwhm_um:g}um")


def read_beam_csv(path: Path | str) -> AxialProfile:
    """Read a measured axial profile from a CSV file.

    Parameters
    ----------
    path : path
        CSV with the columns ``dz_um`` (bin centre relative to the stage position, evenly
        spaced and increasing, micrometres) and ``weight`` (not negative, any scale).

    Returns
    -------
    AxialProfile

    Raises
    ------
    InputError
        A column is missing, a value is not a number, the spacing is uneven, a weight is negative,
        or all weights are zero.
    """
    path = Path(path)
    table = read_numeric_csv(path, ["dz_um", "weight"])
    dz, weights, lines = table.columns["dz_um"], table.columns["weight"], table.lines
    if len(dz) < 2:
        raise InputError(
            f"{path}: a profile needs at least two rows, since a row is a bin as wide as the "
            f"spacing; for a uniform beam write a model such as box:6um in the sheet instead"
        )
    step = np.diff(dz)
    # Positions rounded to two or three digits must pass.
    if np.any(step <= 0) or not np.allclose(step, step.mean(), rtol=_SPACING_TOLERANCE):
        bad = int(np.argmax(np.abs(step - np.median(step)))) + 1
        raise InputError(
            f'{path}:{lines[bad]}, column "dz_um", value "{dz[bad]:g}": the bins are not evenly '
            f"spaced in increasing order; resample the profile to a regular spacing"
        )
    negative = np.flatnonzero(weights < 0)
    if negative.size:
        row = int(negative[0])
        raise InputError(
            f'{path}:{lines[row]}, column "weight", value "{weights[row]:g}": a weight is '
            f"negative; subtract the background of the bead scan and set what is below zero to 0"
        )
    if weights.sum() <= 0:
        raise InputError(
            f'{path}, column "weight": all weights are zero; the profile must collect light'
        )
    half = step.mean() / 2
    edges = np.concatenate([[dz[0] - half], (dz[:-1] + dz[1:]) / 2, [dz[-1] + half]])
    return AxialProfile(edges, weights / weights.sum(), str(path))
