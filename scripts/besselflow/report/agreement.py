"""How a sample's volumes agree with its ground truth: calibration, detail, spectra, thresholds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from besselflow.report.calibration import LEVELS, observe_coverage
from besselflow.report.curves import (
    TRUTH,
    Chart,
    calibration_chart,
    draw_charts,
    shell_charts,
    sweep_chart,
)
from besselflow.report.inputs import SampleReportInputs
from besselflow.report.page import ThemedImage, themed_figure
from besselflow.report.spectra import axial_spectrum, central_part, lateral_spectrum
from besselflow.scored import scored_slices
from besselflow.store import Projections, open_volume

_FEWEST_SLICES = 8
_TOLERANCE = 5.0


@dataclass(frozen=True)
class Agreement:
    """Charts of a page, where there is what they need, and what they show in words.

    Attributes
    ----------
    calibration, shells, spectra, sweep : ThemedImage or None
        Observed against stated coverage; Fourier shell correlation; power spectra; Dice by
        threshold.
    calibrated, resolved : str or None
        The first two in words.
    """

    calibration: ThemedImage | None = None
    shells: ThemedImage | None = None
    spectra: ThemedImage | None = None
    sweep: ThemedImage | None = None
    calibrated: str | None = None
    resolved: str | None = None


def read_conditions(inputs: SampleReportInputs) -> dict:
    """Read how the scores were taken; empty without ground truth."""
    if inputs.evaluation is None:
        return {}
    return json.loads(Path(inputs.evaluation.conditions).read_text(encoding="utf-8"))


def describe_agreement(
    inputs: SampleReportInputs,
    measured: Projections,
    scores: Mapping[str, Mapping[str, float]],
    place: tuple[int, int],
) -> Agreement:
    """Draw how the volumes of a sample agree with its ground truth.

    Parameters
    ----------
    inputs : SampleReportInputs
        What to show.
    measured : Projections
        Opened projection store.
    scores : mapping
        Method -> metric -> value.
    place : tuple of int
        Time point and channel of the spectra.
    """
    final = inputs.final
    calibration, calibrated = None, None
    if inputs.truth is not None and inputs.uncertainty is not None:
        paths = (inputs.volumes[final], inputs.uncertainty, inputs.truth)
        volumes = [open_volume(path).data for path in paths]
        scored = scored_slices(measured.grid, measured.positions_um)
        observed = observe_coverage(*volumes, scored)
        calibration = _draw([calibration_chart({final: (LEVELS, observed)})], final)
        calibrated = describe_calibration(observed)
    shells, sweep = None, None
    conditions = read_conditions(inputs)
    if conditions:
        table = pd.read_csv(inputs.evaluation.shells, sep="\t")
        shells = _draw(shell_charts(table, conditions["criterion"]), final) if len(table) else None
        sweep = _draw([sweep_chart(pd.read_csv(inputs.evaluation.sweep, sep="\t"))], final)
    return Agreement(
        calibration,
        shells,
        _draw(_spectra(inputs, measured, place), final),
        sweep,
        calibrated,
        describe_resolution(scores.get(final, {}), final, measured.voxel_size_um),
    )


def _draw(charts: list[Chart], final: str) -> ThemedImage:
    return themed_figure(partial(draw_charts, charts, final))


def describe_calibration(observed: np.ndarray) -> str:
    """Say in words how observed coverage departs from what was stated.

    Parameters
    ----------
    observed : numpy.ndarray, shape of `LEVELS`
        In per cent.
    """
    # Wide intervals are what readers rely on; the narrowest hold few values, of little weight.
    excess = np.where(LEVELS >= 50, observed - LEVELS, 0)
    worst = int(np.abs(excess).argmax())
    if abs(excess[worst]) <= _TOLERANCE:
        return "The stated intervals hold about as many true values as they should."
    word = "wider than needed" if excess[worst] > 0 else "too narrow"
    return (
        f"The stated intervals are {word}: that of {LEVELS[worst]} % holds {observed[worst]:.0f} % "
        "of the true values."
    )


def describe_resolution(
    own: Mapping[str, float], final: str, voxel_um: tuple[float, float, float]
) -> str | None:
    """Say how fine the right detail is along each axis; None where it was not computed."""
    found = []
    for axis, size in zip("xyz", reversed(voxel_um), strict=True):
        value = own.get(f"resolution_{axis}")
        if value is not None:
            limit = " (the finest that the voxels can show)" if value <= 2.05 * size else ""
            found.append(f"{value:.3g} µm along {axis}{limit}")
    if not found:
        return None
    return f"Detail of the {final} volume agrees with the ground truth down to {', '.join(found)}."


def _spectra(
    inputs: SampleReportInputs, measured: Projections, place: tuple[int, int]
) -> list[Chart]:
    scored = scored_slices(measured.grid, measured.positions_um)
    if scored.sum() < _FEWEST_SLICES:
        scored[:] = True
    named = dict(inputs.volumes) | ({} if inputs.truth is None else {TRUTH: inputs.truth})
    lateral, axial = {}, {}
    spacing, *pixel = measured.voxel_size_um
    for name, path in named.items():
        values = central_part(open_volume(path).data, place, scored)
        lateral[name] = lateral_spectrum(values, tuple(pixel))
        axial[name] = axial_spectrum(values, spacing)
    label = "cycles per µm"
    return [
        Chart("lateral (x and y)", label, "power per voxel", lateral, is_log=True),
        Chart("along z", label, "", axial, is_log=True),
    ]
