r"""The noise schedule: how a clean image is noised, and how a sampling step goes back.

A clean image :math:`x_0` is noised to :math:`x_t = \sqrt{\bar\alpha_t} x_0 +
\sqrt{1 - \bar\alpha_t} \epsilon` with :math:`\bar\alpha_t = \prod_{s \le t} (1 - \beta_s)` and
variances :math:`\beta` that grow linearly (Ho et al., Denoising diffusion probabilistic models,
NeurIPS 2020, eq. 4).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from besselflow.config import Microdiffusion


@dataclass(frozen=True)
class Schedule:
    """Shares of signal at every noise level.

    Attributes
    ----------
    alpha_bar : numpy.ndarray, shape (T,)
        Squared weight of the clean image, falling.
    """

    alpha_bar: np.ndarray

    @classmethod
    def of(cls, settings: Microdiffusion) -> Schedule:
        """Return the schedule of the settings."""
        betas = np.linspace(settings.beta_start, settings.beta_end, settings.timesteps)
        return cls(np.cumprod(1 - betas))

    def noised(
        self, clean: torch.Tensor, noise: torch.Tensor, timesteps: np.ndarray
    ) -> torch.Tensor:
        """Return images (n, Y, X) at a noise level each, from noise of unit variance."""
        kept = torch.as_tensor(self.alpha_bar[timesteps], dtype=clean.dtype, device=clean.device)
        kept = kept[:, None, None]
        return kept.sqrt() * clean + (1 - kept).sqrt() * noise

    def visited(self, count: int) -> list[int]:
        """Return the noise levels of `count` sampling steps, falling to 0, evenly spaced."""
        levels = np.linspace(len(self.alpha_bar) - 1, 0, count)
        return levels.round().astype(int).tolist()

    def step(
        self,
        state: torch.Tensor,
        noise_estimate: torch.Tensor,
        level: int,
        following: int | None,
        eta: float,
        fresh: torch.Tensor,
    ) -> torch.Tensor:
        r"""Go from one noise level to a lower one.

        .. math:: x' = \sqrt{\bar\alpha'} \hat x_0 + \sqrt{1 - \bar\alpha' - \sigma^2}
                  \hat\epsilon + \sigma n, \qquad
                  \sigma^2 = \eta^2 \frac{1 - \bar\alpha'}{1 - \bar\alpha}
                  \left(1 - \frac{\bar\alpha}{\bar\alpha'}\right)

        (Song et al., Denoising diffusion implicit models, ICLR 2021, eqs. 12 and 16). With eta = 1
        and neighbouring levels, it is the step of Ho et al. (eq. 7).

        Parameters
        ----------
        state, noise_estimate, fresh : torch.Tensor
            :math:`x`, :math:`\hat\epsilon`, and n of unit variance.
        level : int
            Noise level of the state.
        following : int or None
            Level to go to; None is the clean image.
        eta : float
            Share of fresh noise.
        """
        kept = float(self.alpha_bar[level])
        clean = (state - math.sqrt(1 - kept) * noise_estimate) / math.sqrt(kept)
        if following is None:
            return clean
        ahead = float(self.alpha_bar[following])
        variance = eta**2 * (1 - ahead) / (1 - kept) * (1 - kept / ahead)
        remaining = math.sqrt(max(1 - ahead - variance, 0.0))
        return math.sqrt(ahead) * clean + remaining * noise_estimate + math.sqrt(variance) * fresh
