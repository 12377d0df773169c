r"""Attenuation with depth: what scattering and absorption take from the light on its way.

A projection of a sample x whose brightness falls as :math:`g(z) = e^{-(z - z_0) / \ell}` is

.. math:: b_p = \int h(z - z_p) \, g(z) \, x(z) \, dz
              = g(z_p) \int h(u) \, e^{-u / \ell} \, x(z_p + u) \, du,

since an exponential is a product of its values at the stage position and around it. Divided by
:math:`g(z_p)`, the projections are those of x itself under one beam for all depths, whose profile
is tilted by :math:`e^{-u / \ell}`. Nothing is approximated but the profile within its bins, by less
than a hundredth. What is left of the error is that of the length, and whatever of the attenuation
is no exponential or differs from place to place.

The photons of a dim projection stay as few as they are. Divided by a gain :math:`G_p`, they have
the variance :math:`I / G_p` at the intensity I, which all later stages take from `noise_factors`
(`besselflow.projection.AxialProjection`); that the noise of the detector's electronics is divided
by the gain once more is left out.

A loss with depth, bleaching during a scan towards the depth, and a sample that holds less further
down give the same projections. The length is therefore given, or estimated only on request, for
samples that are known to hold as much at all depths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from besselflow.errors import InputError
from besselflow.store import Projections

LEAST_LEFT = 0.01
"""Share of the brightness below which a projection is not made as bright as the others."""
_FEWEST_PROJECTIONS = 8
_ERRORS = 4.0
_CORRELATION_LENGTHS = 24
_JITTER = 1e-6


@dataclass(frozen=True)
class Attenuation:
    """An attenuation length, and what it does to the projections of a sample.

    Attributes
    ----------
    length_um : float
        Depth over which brightness falls to 1/e; negative where z decreases with depth.
    log_gains : numpy.ndarray, shape (P,)
        Logarithm of the gain that every projection has to be divided by. Its reference is a sample
        of the brightness that is seen at the stage position nearest to the surface.
    """

    length_um: float
    log_gains: np.ndarray

    @classmethod
    def of(cls, projections: Projections, length_um: float) -> Attenuation:
        """Work out the gains of projections.

        Raises
        ------
        InputError
            The length can't be meant in micrometres.
        """
        positions = projections.positions_um
        require_plausible(positions, length_um)
        _, collected = projections.profile.attenuated(length_um)
        log_gains = np.log(collected) - depth_um(positions, length_um) / abs(length_um)
        return cls(length_um, log_gains)

    def account_for(self, projections: Projections) -> Projections:
        """Describe projections that are divided by the gains: their beam, and their noise."""
        profile, _ = projections.profile.attenuated(self.length_um)
        return replace(projections, profile=profile, noise_factors=np.exp(-self.log_gains))


@dataclass(frozen=True)
class Fall:
    """How the brightness of projections falls along z, on average.

    Attributes
    ----------
    rate_per_um : float
        What the logarithm of the brightness loses per micrometre towards larger z.
    rate_error_per_um : float
        Its standard error, if the sample varies at random about the same mean at all depths.
    """

    rate_per_um: float
    rate_error_per_um: float

    @property
    def is_certain(self) -> bool:
        """Whether brightness falls or rises by more than four times the error."""
        return abs(self.rate_per_um) > _ERRORS * self.rate_error_per_um

    @property
    def length_um(self) -> float:
        """The attenuation length, signed."""
        return 1 / self.rate_per_um

    @property
    def error_um(self) -> float:
        """Standard error of the length."""
        return self.rate_error_per_um / self.rate_per_um**2


def estimate_fall(regions: Sequence[np.ndarray], positions_um: np.ndarray) -> Fall | str:
    r"""Fit a line to the logarithm of the mean brightness.

    What the sample holds varies with depth, and neighbouring depths alike, so that the residuals
    of a line are no independent errors. They are taken for a Gaussian process of the covariance
    :math:`s^2 e^{-|z - z'| / r}`. Its correlation length r is averaged over, by the restricted
    likelihood (Patterson & Thompson, Recovery of inter-block information when block sizes are
    unequal, Biometrika 1971), from the smallest step of the stage to three times the depth: a few
    projections can't tell what correlation length they have.

    Parameters
    ----------
    regions : sequence of numpy.ndarray, shape (P, y, x)
        Intensities of the same lateral region in each channel, without the detector's offset.
    positions_um : numpy.ndarray, shape (P,)
        Stage positions, increasing.

    Returns
    -------
    Fall or str
        Or why there is none.
    """
    count = len(positions_um)
    if count < _FEWEST_PROJECTIONS:
        return f"there are fewer than {_FEWEST_PROJECTIONS} projections"
    means = np.array([region.mean(axis=(1, 2)) for region in regions])
    if (means <= 0).any():
        return "some projections hold no light"
    values = np.log(means).mean(axis=0)
    distance = np.abs(positions_um[:, None] - positions_um)
    step = distance[distance > 0].min(initial=np.inf)
    if not np.isfinite(step) or np.ptp(values) == 0:
        return "all projections are equally bright"
    design = np.stack([np.ones(count), positions_um - positions_um.mean()], axis=1)
    slopes, variances, likelihoods = [], [], []
    for reach in np.geomspace(step, 3 * distance.max(), _CORRELATION_LENGTHS):
        # Positions may repeat.
        covariance = np.exp(-distance / reach) + _JITTER * np.eye(count)
        weighed = np.linalg.solve(covariance, design)
        information = design.T @ weighed
        line = np.linalg.solve(information, weighed.T @ values)
        residual = values - design @ line
        scale = residual @ np.linalg.solve(covariance, residual) / (count - 2)
        slopes.append(line[1])
        variances.append(scale * np.linalg.inv(information)[1, 1])
        determinants = np.linalg.slogdet(covariance)[1] + np.linalg.slogdet(information)[1]
        likelihoods.append(-0.5 * (determinants + (count - 2) * np.log(scale)))
    weights = np.exp(np.array(likelihoods) - max(likelihoods))
    slope = np.average(slopes, weights=weights)
    spread = (np.array(slopes) - slope) ** 2
    error = np.sqrt(np.average(variances + spread, weights=weights))
    return Fall(-float(slope), float(error))


def depth_um(positions_um: np.ndarray, length_um: float) -> np.ndarray:
    """Return depths below the stage position nearest to the surface, not negative.

    Parameters
    ----------
    positions_um : numpy.ndarray, shape (P,)
        Stage positions.
    length_um : float
        Its sign says where the depth is: positive towards larger z.
    """
    positions = np.asarray(positions_um, float) * np.sign(length_um)
    return positions - positions.min()


def share_left(positions_um: np.ndarray, length_um: float) -> float:
    """Return the brightness at the deepest stage position over that at the other end."""
    return float(np.exp(-np.ptp(positions_um) / abs(length_um)))


def require_plausible(positions_um: np.ndarray, length_um: float) -> None:
    """Refuse a length that would leave no light to speak of.

    Raises
    ------
    InputError
        Less than 1 % would be left at the deepest projection.
    """
    if share_left(positions_um, length_um) < LEAST_LEFT:
        depth = np.ptp(positions_um)
        raise InputError(
            f"an attenuation length of {abs(length_um):g} um leaves less than {LEAST_LEFT:.0%} "
            f"of the brightness over the {depth:g} um from the first to the last projection, too "
            "little to see anything; write the depth in micrometres over which the brightness "
            "falls to 1/e (37 %) into corrections.depth_attenuation, or check the stage positions"
        )
