"""From raw counts to what the operator describes: one module per correction.

Offset and gain first, where they are to be estimated (`besselflow.corrections.photon_transfer`).
Then pixels: saturated ones become lower bounds, hot ones are masked, odd lines shifted back, lines
that flicker evened, counts become photons (`besselflow.corrections.pixels`). Then whole
projections, given what the others show: lateral drift and brightness
(`besselflow.corrections.whole`), of which the attenuation with depth has to be given or asked for
(`besselflow.corrections.attenuation`). Every other parameter is estimated from the data unless the
configuration gives it, and is applied only where the data leave no doubt that it is needed.
What no single acquisition can tell, the light that many have in common, is estimated apart from
them (`besselflow.corrections.shading`), by hand or once per run
(`besselflow.corrections.estimated_fields`).
"""

from besselflow.corrections.detector import (
    Stated,
    counts_to_intensity,
    estimated_detector,
    intensity_scale,
    resolve_detector,
)

__all__ = [
    "Stated",
    "counts_to_intensity",
    "estimated_detector",
    "intensity_scale",
    "resolve_detector",
]
