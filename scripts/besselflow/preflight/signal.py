r"""Signal, noise, saturation and density of one channel, from crops of its projections.

The spectral Gaussian process is fitted to the crops (`besselflow.baselines.spectral_fit`), which
gives the noise, and by it every crop is freed of most of its noise: the Wiener filter of a
projection under that model passes the share :math:`S_p / (S_p + \sigma^2)` of a lateral frequency,
:math:`S_p` being the mean over the projections of the diagonal of :math:`A C_k A^T`.

**Density.** Let structures of brightness a be scattered independently, such that a beam through a
pixel meets a Poisson number of them with the mean m. The intensity is then a compound Poisson
variable with the mean :math:`m \langle a \rangle` and the variance :math:`m \langle a^2 \rangle`
(Campbell's theorem), so that

.. math:: \hat m = \frac{\mathrm{mean}^2}{\mathrm{variance}}
                 = m \frac{\langle a \rangle^2}{\langle a^2 \rangle} \le m

is the mean number of structures that overlap within the beam, weighed by their brightness: the
square of the inverse contrast, as it counts independent patterns in speckle (Goodman, Speckle
Phenomena in Optics, 2007, sec. 3.3). It needs no threshold, grows in proportion to the length of
the beam, and :math:`\hat m / (1 + \hat m)` is the share of pixels that are effectively bright.
Light without contrast, such as a haze, counts as dense as well: it says as little about depth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft

from besselflow.baselines.spectral_model import (
    AxialBasis,
    SpectralModel,
    lateral_frequency_squared,
)
from besselflow.noise import pixel_variance
from besselflow.projection import AxialProjection

_BRIGHT_PERCENTILE = 99.9
_DARK_PERCENTILE = 1.0
_FAINT = 0.25
# A spike at the highest value, unlike the thin end of a distribution.
_FEWEST_IN_SPIKE = 20
_SPIKE = 2.0
_LEAST_CEILING = 255


@dataclass(frozen=True)
class Signal:
    """What was found of one channel.

    Attributes
    ----------
    snr : float
        Intensity of bright structures (99.9th percentile) above the background (median), in units
        of the standard deviation of the noise at that intensity.
    snr_by_projection : numpy.ndarray, shape (P,)
        The same for each projection, with the background of all.
    noise : float
        Standard deviation of the noise at the mean intensity.
    bright, background : float
        Intensities, freed of noise.
    density : float
        Mean number of structures that overlap within the length of the beam.
    """

    snr: float
    snr_by_projection: np.ndarray
    noise: float
    bright: float
    background: float
    density: float

    @property
    def faint(self) -> np.ndarray:
        """Indices of projections whose structures are far fainter than those of the others."""
        least = _FAINT * float(np.median(self.snr_by_projection))
        return np.flatnonzero(self.snr_by_projection < least)


def measure_signal(
    crops: np.ndarray,
    operator: AxialProjection,
    voxel_size_um: tuple[float, float, float],
    model: SpectralModel,
    offset_known: bool,
) -> Signal:
    """Measure signal, noise and density.

    Parameters
    ----------
    crops : numpy.ndarray, shape (N, P, y, x)
        Intensities.
    operator : AxialProjection
        Of all projections or of some of them, with the same beam.
    voxel_size_um : tuple of float
        (z, y, x) voxel size.
    model : SpectralModel
        Fitted to the crops.
    offset_known : bool
        False where the intensity of a place without light is not known: the 1st percentile is then
        taken for it.
    """
    clean = denoise(crops, operator, voxel_size_um, model)
    background = float(np.median(clean))
    by_projection = np.percentile(clean, _BRIGHT_PERCENTILE, axis=(0, 2, 3))
    bright = float(np.percentile(clean, _BRIGHT_PERCENTILE))
    dark = 0.0 if offset_known else float(np.percentile(clean, _DARK_PERCENTILE))
    mean = float(clean.mean())
    levels = np.append(by_projection, bright)
    noise = np.sqrt(pixel_variance(levels - dark, model.noise_variance, mean - dark))
    snr = np.maximum(levels - background, 0) / noise
    variance = float(clean.var())
    return Signal(
        snr=float(snr[-1]),
        snr_by_projection=snr[:-1],
        noise=float(np.sqrt(model.noise_variance)),
        bright=bright,
        background=background,
        density=(mean - dark) ** 2 / variance if variance > 0 else float("inf"),
    )


def denoise(
    crops: np.ndarray,
    operator: AxialProjection,
    voxel_size_um: tuple[float, float, float],
    model: SpectralModel,
) -> np.ndarray:
    """Take most of the noise off each projection by itself, shape (N, P, y, x) as given."""
    shape = crops.shape[2:]
    basis = AxialBasis.of(operator, voxel_size_um[0])
    lateral = lateral_frequency_squared(shape, voxel_size_um).ravel()
    seen = ((np.abs(basis.spectrum) ** 2) * basis.weights).mean(axis=0)
    power = (model.density_of(lateral, basis.frequency_squared) @ seen).reshape(shape)
    if operator.lateral is not None:
        power *= operator.lateral.transfer(shape) ** 2
    mean = crops.mean(axis=(0, 2, 3), dtype=np.float64)[None, :, None, None]
    modes = scipy.fft.dctn(crops - mean, axes=(2, 3), norm="ortho", overwrite_x=True)
    modes *= power / (power + model.noise_variance)
    return scipy.fft.idctn(modes, axes=(2, 3), norm="ortho", overwrite_x=True) + mean


def saturated_share(counts: np.ndarray) -> tuple[float, float | None]:
    """Return the share of saturated pixels, and the value at which the detector saturates.

    That value is the largest one in the data where it is the largest of 8, 10, 12, 14 or 16 bits,
    or where it is by far more frequent than each of the values just below it, as where something
    clipped the counts.

    Parameters
    ----------
    counts : numpy.ndarray
        Raw counts, any shape.

    Returns
    -------
    share : float
        0 where nothing saturates.
    ceiling : float or None
        None where the data don't show it.
    """
    largest = counts.max()
    at_largest = int((counts == largest).sum())
    ceilings = {2**bits - 1 for bits in (8, 10, 12, 14, 16)}
    if counts.dtype.kind in "ui":
        ceilings.add(int(np.iinfo(counts.dtype).max))
    full = counts.dtype.kind in "ui" and int(largest) in ceilings
    if not full:
        low = counts.min()
        near = counts[(counts < largest) & (counts > largest - 0.1 * (largest - low))]
        commonest = int(np.unique(near, return_counts=True)[1].max(initial=0))
        full = (
            largest - low >= _LEAST_CEILING
            and at_largest >= _FEWEST_IN_SPIKE
            and at_largest > _SPIKE * commonest
        )
    return (at_largest / counts.size, float(largest)) if full else (0.0, None)
