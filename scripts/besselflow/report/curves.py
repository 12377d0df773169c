"""Drawings of curves side by side, one per method: spectra, correlations, calibration, beam."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from besselflow.beam import AxialProfile
from besselflow.corrections.attenuation import depth_um
from besselflow.projection import AxialProjection
from besselflow.report.figures import (
    DPI,
    LINE_STYLES,
    Theme,
    legend_beside,
    method_colour,
    style_axes,
)

TRUTH = "ground truth"


@dataclass(frozen=True)
class Chart:
    """One of several charts that share their legend.

    Attributes
    ----------
    title, x_label, y_label : str
        Its texts.
    curves : dict
        Method -> (x, y); the method `TRUTH` is drawn as a thick line in the colour of text.
    level : float or None
        Where to draw a thin line across.
    is_diagonal : bool
        Whether equality of x and y is drawn, as what is ideal.
    is_log : bool
        Whether y is logarithmic.
    y_limits : tuple of float or None
        Lowest and highest y.
    """

    title: str
    x_label: str
    y_label: str
    curves: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    level: float | None = None
    is_diagonal: bool = False
    is_log: bool = False
    y_limits: tuple[float, float] | None = None


def draw_charts(charts: list[Chart], final: str, theme: Theme) -> Figure:
    """Draw some charts in a row, with one legend.

    Parameters
    ----------
    charts : list of Chart
        One to three.
    final : str
        Method to draw on top, as a solid line.
    theme : Theme
        Colours.
    """
    size = (2.5 * len(charts) + 1.7, 2.9)
    figure = Figure(figsize=size, dpi=DPI, facecolor=theme.face, layout="constrained")
    row = figure.subplots(1, len(charts), squeeze=False)[0]
    names = list(dict.fromkeys(name for chart in charts for name in chart.curves))
    others = [name for name in names if name not in (final, TRUTH)]
    styles = dict(zip(others, LINE_STYLES * 9, strict=False))
    for axes, chart in zip(row, charts, strict=True):
        style_axes(axes, theme)
        _draw_helpers(axes, chart, theme)
        for name, (x, y) in chart.curves.items():
            on_top = name in (final, TRUTH)
            axes.plot(
                x,
                y,
                color=theme.text if name == TRUTH else method_colour(theme, name),
                linestyle=styles.get(name, "-"),
                linewidth=2.2 if on_top else 1.4,
                alpha=0.6 if name == TRUTH else 1,
                marker="o" if chart.is_diagonal else None,
                markersize=4,
                zorder=3 if name == final else 2,
                label=f"{name} (final)" if name == final else name,
            )
        axes.set_title(chart.title, color=theme.text, fontsize=10)
        axes.set_xlabel(chart.x_label)
        axes.set_ylabel(chart.y_label)
        if chart.is_log:
            axes.set_yscale("log")
        if chart.y_limits:
            axes.set_ylim(*chart.y_limits)
    legend_beside(row[-1], theme)
    return figure


def _draw_helpers(axes: Axes, chart: Chart, theme: Theme) -> None:
    if chart.level is not None:
        axes.axhline(chart.level, color=theme.text, lw=0.8, ls=":", zorder=1)
    if chart.is_diagonal:
        axes.plot([0, 100], [0, 100], color=theme.text, lw=0.8, ls=":", zorder=1, label="ideal")


def shell_charts(shells: pd.DataFrame, criterion: float) -> list[Chart]:
    """Arrange Fourier shell correlations by axis.

    Parameters
    ----------
    shells : pandas.DataFrame
        Columns ``method axis frequency_per_um correlation``.
    criterion : float
        The correlation at which detail counts as lost.
    """
    charts = []
    for axis in [axis for axis in "xyz" if (shells["axis"] == axis).any()]:
        own = shells[shells["axis"] == axis]
        curves = {
            str(method): (table["frequency_per_um"].to_numpy(), table["correlation"].to_numpy())
            for method, table in own.groupby("method", sort=False)
        }
        label = "correlation with the truth" if not charts else ""
        charts.append(
            Chart(f"along {axis}", "cycles per µm", label, curves, criterion, y_limits=(-0.1, 1.03))
        )
    return charts


def sweep_chart(sweep: pd.DataFrame) -> Chart:
    """Arrange Dice by threshold; columns ``method threshold dice``, in units of Otsu's."""
    curves = {
        str(method): (table["threshold"].to_numpy(), table["dice"].to_numpy())
        for method, table in sweep.groupby("method", sort=False)
    }
    return Chart("", "threshold, in units of Otsu's", "Dice", curves, y_limits=(0, 1.03))


def calibration_chart(curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Chart:
    """Arrange observed against stated coverage, in per cent."""
    return Chart(
        "",
        "stated interval (%)",
        "true values inside (%)",
        dict(curves),
        is_diagonal=True,
        y_limits=(0, 103),
    )


def draw_beam(
    profile: AxialProfile,
    positions_um: np.ndarray,
    z_um: np.ndarray,
    operator: AxialProjection,
    theme: Theme,
) -> Figure:
    """Draw the axial profile of the beam, and how much light each depth gives in all projections.

    Parameters
    ----------
    profile : AxialProfile
        Axial profile.
    positions_um : numpy.ndarray, shape (P,)
        Stage positions.
    z_um : numpy.ndarray, shape (Z,)
        Centres of the slices.
    operator : AxialProjection
        From slices to projections.
    theme : Theme
        Colours.
    """
    figure = Figure(figsize=(8.2, 2.9), dpi=DPI, facecolor=theme.face, layout="constrained")
    beam, light = figure.subplots(1, 2, width_ratios=(1, 1.7))
    for axes in (beam, light):
        style_axes(axes, theme)
    colour = method_colour(theme, "spectral")
    density = profile.weights / np.diff(profile.edges_um)
    beam.stairs(density / density.max(), profile.edges_um, color=colour, lw=1.8)
    beam.set_xlabel("z − stage position (µm)")
    beam.set_ylabel("relative brightness")
    beam.set_title("axial profile of the beam", color=theme.text, fontsize=10)
    collected = np.asarray(operator.matrix).sum(axis=0)
    light.plot(z_um, collected / max(collected.max(), 1e-12), color=colour, lw=1.8)
    light.plot(
        positions_um,
        np.zeros(len(positions_um)),
        "^",
        transform=light.get_xaxis_transform(),
        color=theme.text,
        markersize=6,
        clip_on=False,
    )
    light.set_ylim(bottom=0)
    light.set_xlabel("z (µm); triangles: stage positions")
    light.set_ylabel("light collected")
    light.set_title("all projections together", color=theme.text, fontsize=10)
    return figure


def draw_depth_attenuation(found: Mapping[str, Any], theme: Theme) -> Figure:
    """Draw the brightness of every projection over z, before and after a correction.

    Parameters
    ----------
    found : dict
        Record of the projection store: ``z_um`` (P values), ``before`` and ``after`` (C lists of P
        values), and ``length_um``, the exponential of which is drawn through the mean.
    theme : Theme
        Colours.
    """
    figure = Figure(figsize=(7.2, 3.0), dpi=DPI, facecolor=theme.face, layout="constrained")
    axes = figure.subplots()
    style_axes(axes, theme)
    z = np.array(found["z_um"])
    falling = np.exp(-depth_um(z, found["length_um"]) / abs(found["length_um"]))
    colours = cycle(theme.methods[name] for name in ("spectral", "diffusion", "variational", "inr"))
    several = len(found["before"]) > 1
    pairs = zip(found["before"], found["after"], colours, strict=False)
    for channel, (before, after, colour) in enumerate(pairs, start=1):
        name = f"channel {channel}, " if several else ""
        axes.plot(z, before, "o", color=colour, markersize=4, label=f"{name}before")
        axes.plot(z, np.mean(after) * falling, "--", color=colour)
        axes.plot(z, after, "o-", color=colour, markersize=4, mfc="none", label=f"{name}after")
    axes.set_xlabel("z of the projection (µm)")
    axes.set_ylabel("mean intensity")
    axes.set_ylim(bottom=0)
    legend_beside(axes, theme)
    return figure
