"""What the reports say about the prior: what it was trained on, and how far it was followed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from besselflow.diffusion.geometry import departures
from besselflow.diffusion.names import volume_name
from besselflow.diffusion.safeguard import PRIOR
from besselflow.store import Projections

# Below and above these weights, the prior was of little help, or knew the structures.
STRANGE, _KNOWN = 0.3, 0.7
IGNORED = 0.005
"""Below this weight, what the prior adds is not worth a word."""

SPECTRAL_NOTE = (
    "The uncertainty is the standard deviation that the Gaussian process states: it follows from "
    "the noise and from where the projections lie, not from what the sample looks like there."
)
"""What the stated standard deviation of `spectral` is."""


def describe_diffusion(records: list[dict[str, Any]], prior_info: Mapping[str, Any] | None) -> str:
    """Write what `diffusion` did, for the methods section of a paper."""
    evaluations, samples = mean_of(records, "evaluations"), mean_of(records, "samples")
    count = "several" if samples is None else f"{samples:.0f}"
    steps = "few" if evaluations is None else f"{evaluations:.0f}"
    text = (
        "It guided a conditional diffusion model over blocks of slices, trained on simulated "
        f"acquisitions of {describe_sources(prior_info)}; after each of {steps} evaluations, the "
        "estimate was brought into agreement with the measured projections within their noise. "
    )
    weights = mean_weights(records)
    if weights and weights[PRIOR] < IGNORED:
        return (
            f"{text}Since it did not help to predict measurements that were kept from it, the "
            "result is the implicit neural representation alone; its stated uncertainty follows "
            f"from the spread of {count} posterior samples of the model and from their distance to "
            "this representation, as calibrated on known volumes."
        )
    text += (
        f"The stated uncertainty follows from the spread of {count} posterior samples and from "
        "their distance to the representation, as calibrated on known volumes"
    )
    if not weights:
        return text + "."
    shares = [
        f"{share:.0%} of {'the model' if name == PRIOR else name}"
        for name, share in weights.items()
        if share >= IGNORED
    ]
    return (
        f"{text}, together with the disagreement of the volumes that were mixed: "
        f"{', '.join(shares)}, the mixture that best predicted measurements that were kept from it."
    )


def describe_sources(prior_info: Mapping[str, Any] | None) -> str:
    """Say in a few words what a prior was trained on; many phantoms are counted by kind."""
    names = [str(name) for name in (prior_info or {}).get("trained_on", [])]
    phantoms = [name.split()[1] for name in names if name.startswith("phantom ")]
    others = Counter(volume_name(name) for name in names if not name.startswith("phantom "))
    imaged = [f"{name} ({n} acquisitions)" if n > 1 else name for name, n in others.items()]
    counted = [
        f"{n} phantom{'s' if n > 1 else ''} of {kind}" for kind, n in Counter(phantoms).items()
    ]
    return ", ".join(imaged + counted) or "other volumes"


def describe_departures(measured: Projections, prior_info: Mapping[str, Any] | None) -> list[str]:
    """Say in which respects an acquisition lies outside of what the prior has seen."""
    known = (prior_info or {}).get("geometry")
    if known is None or len(measured.positions_um) < 2:
        return []
    return departures(
        known,
        measured.profile,
        measured.positions_um,
        measured.voxel_size_um,
        measured.lateral_kernel is not None,
    )


def mean_weights(records: list[dict[str, Any]]) -> dict[str, float]:
    """Return the share of each volume in the result of `diffusion`, mean over all units."""
    found = [record["weights"] for record in records if record.get("weights")]
    if not found:
        return {}
    return {name: float(np.mean([weights[name] for weights in found])) for name in found[0]}


def uncertainty_note(records: list[dict[str, Any]]) -> str:
    """Say what the stated standard deviation of `diffusion` is."""
    text = (
        "The uncertainty follows from how much posterior samples differ, and how far they are from "
        "the INR: where it is large, the data allow several structures."
    )
    if not IGNORED < mean_weights(records).get(PRIOR, 1.0) < 1 - IGNORED:
        return text
    return f"{text} The disagreement of the prior and the INR, which were mixed, is part of it."


def prior_note(records: list[dict[str, Any]], prior_info: Mapping[str, Any] | None) -> str | None:
    """Say how far the prior was followed on a sample, and what that means.

    Parameters
    ----------
    records : list of dict
        One record of `diffusion` per work unit.
    prior_info : mapping or None
        What the prior was trained on.
    """
    weights = mean_weights(records)
    if not weights:
        return None
    sources, share = describe_sources(prior_info), weights[PRIOR]
    others = [f"{value:.0%} {name}" for name, value in weights.items() if name != PRIOR and value]
    mixture = f"The volume of diffusion is {share:.0%} that of the prior"
    mixture += f" and {', '.join(others)}." if others else "."
    if share >= _KNOWN:
        judged = "The prior knows structures like those of this sample."
    elif share > STRANGE:
        judged = "The prior knows structures like those of this sample in part."
    else:
        judged = "The prior knows little of structures like these, and was hardly followed."
    checked = " This was decided by measurements that were kept from it."
    if any(not record.get("checked", True) for record in records):
        judged, checked = "", " Nothing that was kept from it decided this."
    doubt = ""
    if any(record.get("doubted") for record in records):
        judged = ""
        doubt = (
            "The projections contradict the prior more than they did in its training: these "
            "structures may be new to it, and the stated uncertainty is at least that of spectral."
        )
    text = f"{mixture} {judged}{checked} {doubt} Prior trained on: {sources}."
    return " ".join(text.split())


def mean_of(records: list[dict[str, Any]], key: str) -> float | None:
    """Return the mean of a figure over the records that have it."""
    values = [record[key] for record in records if record.get(key) is not None]
    return float(np.mean(values)) if values else None
