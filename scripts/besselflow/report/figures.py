"""Drawings of the reports: curves, maps and distributions, for light and for dark pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

DPI = 150
"""Resolution of all drawings."""

LINE_STYLES = ("--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1, 1, 1)))
"""Of the methods that are not the final one."""


@dataclass(frozen=True)
class Theme:
    """Colours of a drawing.

    Attributes
    ----------
    text, grid, face : str
        Colours of text, of helper lines, and of the ground.
    methods : dict
        Method -> colour, distinguishable with colour-blindness (after Okabe and Ito, 2008).
    """

    text: str
    grid: str
    face: str
    methods: dict[str, str]


LIGHT = Theme(
    text="#1b2430",
    grid="#d5dbe3",
    face="#ffffff",
    methods={
        "interpolation": "#6b7280",
        "spectral": "#0072b2",
        "variational": "#00795a",
        "richardson_lucy": "#7a5c3e",
        "inr": "#b87800",
        "microdiffusion": "#a8538a",
        "diffusion": "#c44d00",
    },
)
DARK = Theme(
    text="#e6eaf0",
    grid="#3a4452",
    face="#161c25",
    methods={
        "interpolation": "#a3acb9",
        "spectral": "#56b4e9",
        "variational": "#2fc79a",
        "richardson_lucy": "#c9a27e",
        "inr": "#f0b429",
        "microdiffusion": "#dd93c0",
        "diffusion": "#ff8a4c",
    },
)


@dataclass(frozen=True)
class TrustMap:
    """A map of how wrong, or how unsure, a volume is.

    Attributes
    ----------
    title, colormap : str
        What is shown, and in which matplotlib colour map.
    xy : numpy.ndarray, shape (Y, X)
        One slice.
    xz : numpy.ndarray, shape (Z, X)
        Mean along y.
    unit : str
        Unit of the values.
    high : float or None
        Value of the brightest colour; None for the 99.9th percentile of each picture.
    """

    title: str
    colormap: str
    xy: np.ndarray
    xz: np.ndarray
    unit: str
    high: float | None = None


@dataclass(frozen=True)
class Band:
    """Values that are as they should be, shaded in a chart."""

    low: float
    high: float
    label: str


def draw_along_depth(
    table: pd.DataFrame,
    column: str,
    label: str,
    positions_um: np.ndarray,
    final: str,
    theme: Theme,
    band: Band | None = None,
) -> Figure:
    """Draw a number of every method along z, with the positions of the projections.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns ``method z_um`` and the one to draw, and ``seen`` where it has one row per slice;
        times and channels are averaged.
    column, label : str
        What to draw, and the name of its axis.
    positions_um : numpy.ndarray, shape (P,)
        Stage positions.
    final : str
        Method to draw on top, as a solid line.
    theme : Theme
        Colours.
    band : Band or None
        Values to shade; the axis is logarithmic then.
    """
    figure, axes = _axes(theme, (8.2, 3.6))
    methods = list(dict.fromkeys(table["method"]))
    styles = dict(zip([m for m in methods if m != final], LINE_STYLES * 9, strict=False))
    for method in methods:
        curve = table[table["method"] == method].groupby("z_um")[column].mean()
        axes.plot(
            curve.index,
            curve.to_numpy(),
            color=method_colour(theme, method),
            linestyle=styles.get(method, "-"),
            linewidth=2.2 if method == final else 1.4,
            zorder=3 if method == final else 2,
            label=f"{method} (final)" if method == final else method,
        )
    if band is not None:
        axes.axhspan(band.low, band.high, color=theme.grid, lw=0, zorder=0, label=band.label)
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        bottom, top = axes.get_ylim()
        axes.set_ylim(bottom - 0.08 * (top - bottom), top)
    axes.plot(
        positions_um,
        np.zeros(len(positions_um)),
        "^",
        transform=axes.get_xaxis_transform(),
        color=theme.text,
        markersize=6,
        clip_on=False,
        linestyle="none",
        label="projection",
    )
    if "seen" in table:
        _shade_unseen(axes, table, theme)
    axes.set_xlabel("z (µm)")
    axes.set_ylabel(label)
    legend_beside(axes, theme)
    return figure


def _shade_unseen(axes: Axes, slices: pd.DataFrame, theme: Theme) -> None:
    by_slice = slices.groupby("z_um")["seen"].first().astype(bool)
    z = by_slice.index.to_numpy(float)
    if by_slice.all() or len(z) < 2:
        return
    half, label = np.diff(z).min() / 2, "not seen by any projection"
    for unseen in z[~by_slice.to_numpy()]:
        axes.axvspan(unseen - half, unseen + half, color=theme.grid, lw=0, zorder=0, label=label)
        label = None


def draw_training_curve(
    curves: list[list[list[float]]], what: str, colour_of: str, theme: Theme
) -> Figure:
    """Draw loss against step for one or more fits, on a logarithmic scale where it is positive.

    Parameters
    ----------
    curves : list of list of (step, loss) or (step, loss, held-out error)
        One curve per fit; errors on held-out data are drawn dashed.
    what : str
        Name of the vertical axis.
    colour_of : str
        Method whose colour the curves have.
    theme : Theme
        Colours.
    """
    figure, axes = _axes(theme, (5.6, 2.9))
    for curve in curves:
        points = np.atleast_2d(np.asarray(curve, float))
        for column, style in ((1, "-"), (2, "--"))[: points.shape[1] - 1]:
            axes.plot(
                points[:, 0],
                points[:, column],
                style,
                color=method_colour(theme, colour_of),
                linewidth=1.6 if column == 1 else 1.1,
                alpha=1 if len(curves) == 1 else 0.5,
                marker="o" if len(points) < 3 else None,
                label=("fitted", "held out")[column - 1] if curve is curves[0] else None,
            )
    if any(len(curve[0]) > 2 for curve in curves):
        axes.legend(frameon=False, fontsize=8, labelcolor=theme.text)
    if all(min(point[1:]) > 0 for curve in curves for point in curve):
        axes.set_yscale("log")
    axes.set_xlabel("optimiser step")
    axes.set_ylabel(what)
    return figure


def draw_signal_along_depth(
    positions_um: np.ndarray, curves: dict[int, np.ndarray], theme: Theme
) -> Figure:
    """Draw the signal-to-noise ratio of every projection.

    Parameters
    ----------
    positions_um : numpy.ndarray, shape (P,)
        Stage positions.
    curves : dict
        Channel -> ratio of each projection, shape (P,).
    theme : Theme
        Colours.
    """
    figure, axes = _axes(theme, (7.2, 2.4))
    colours = [theme.methods[name] for name in ("spectral", "diffusion", "variational", "inr")]
    for (channel, values), colour in zip(curves.items(), cycle(colours)):
        axes.plot(
            positions_um, values, "o-", markersize=3.5, color=colour, label=f"channel {channel}"
        )
    axes.set_xlabel("z of the projection (µm)")
    axes.set_ylabel("signal to noise")
    axes.set_ylim(0, 1.1 * max(1e-3, *(values.max() for values in curves.values())))
    if len(curves) > 1:
        legend_beside(axes, theme)
    return figure


def draw_photon_transfer(lines: Sequence[Mapping[str, Any]], theme: Theme) -> Figure:
    """Draw the variance of the counts over their mean, and the fitted line of every channel.

    Parameters
    ----------
    lines : sequence of dict
        Of each channel, as in the record of the projection store: ``offset``, ``gain``, ``means``
        and ``variances``.
    theme : Theme
        Colours.
    """
    figure, axes = _axes(theme, (7.2, 3.0))
    colours = cycle(theme.methods[name] for name in ("spectral", "diffusion", "variational", "inr"))
    for channel, (line, colour) in enumerate(zip(lines, colours, strict=False)):
        means = np.array(line["means"])
        ends = np.array([line["offset"], means.max()])
        label = f"channel {channel + 1}"
        axes.plot(means, line["variances"], "o", markersize=4, color=colour, label=label)
        axes.plot(ends, line["gain"] * (ends - line["offset"]), color=colour)
    axes.set_xlabel("mean (counts)")
    axes.set_ylabel("variance (counts²)")
    axes.set_ylim(bottom=0)
    if len(lines) > 1:
        legend_beside(axes, theme)
    return figure


def draw_trust_maps(
    maps: list[TrustMap], voxel_um: tuple[float, float, float], z_um: float, theme: Theme
) -> Figure:
    """Draw each map as one xy slice and as its mean along y, with a shared colour bar.

    Parameters
    ----------
    maps : list of TrustMap
        One row each.
    voxel_um : tuple of float
        (z, y, x) size of the pixels of the maps.
    z_um : float
        Position of the xy slice.
    theme : Theme
        Colours.
    """
    figure = Figure(
        figsize=(8.2, 3.4 * len(maps)), dpi=DPI, facecolor=theme.face, layout="constrained"
    )
    # The layout leaves out of account that an image narrows its axes, and cuts their labels.
    figure.get_layout_engine().set(w_pad=0.12)
    grid = figure.subplots(len(maps), 2, squeeze=False)
    for row, each in zip(grid, maps, strict=True):
        sides = (
            (each.xy, voxel_um[1], f"{each.title}, z = {z_um:g} µm", "y (µm)"),
            (each.xz, voxel_um[0], "mean along y", "z (µm)"),
        )
        for axes, (values, height_um, title, vertical) in zip(row, sides, strict=True):
            extent = (0, values.shape[1] * voxel_um[2], values.shape[0] * height_um, 0)
            top = each.high or max(float(np.percentile(values, 99.9)), 1e-9)
            shown = axes.imshow(values, cmap=each.colormap, vmin=0, vmax=top, extent=extent)
            axes.set_title(title, color=theme.text, fontsize=10)
            axes.set_xlabel("x (µm)")
            axes.set_ylabel(vertical)
            bar = figure.colorbar(shown, ax=axes, shrink=0.85)
            bar.set_label(each.unit, color=theme.text, fontsize=9)
            bar.ax.tick_params(colors=theme.text, labelsize=8)
            bar.outline.set_visible(False)
            style_axes(axes, theme)
            axes.grid(False)
    return figure


def draw_misfit_maps(
    maps: dict[str, np.ndarray], pixel_um: tuple[float, float], theme: Theme
) -> Figure:
    """Draw the lateral map of chi-square of every method on one scale around 1.

    Parameters
    ----------
    maps : dict
        Method -> map, shape (y, x).
    pixel_um : tuple of float
        (y, x) size of a pixel of the maps.
    theme : Theme
        Colours.
    """
    columns = min(3, len(maps))
    rows = -(-len(maps) // columns)
    size = (2.7 * columns + 0.8, 2.6 * rows)
    figure = Figure(figsize=size, dpi=DPI, facecolor=theme.face, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    shades = TwoSlopeNorm(1.0, 0.0, 3.0)
    for axes, (method, values) in zip(grid.flat, maps.items(), strict=False):
        extent = (0, values.shape[1] * pixel_um[1], values.shape[0] * pixel_um[0], 0)
        shown = axes.imshow(values, cmap="RdBu_r", norm=shades, extent=extent)
        axes.set_title(method, color=theme.text, fontsize=10)
        style_axes(axes, theme)
        axes.grid(False)
    for axes in grid.flat[len(maps) :]:
        axes.set_axis_off()
    for axes in grid[:, 0]:
        axes.set_ylabel("y (µm)")
    for axes in grid[-1]:
        axes.set_xlabel("x (µm)")
    bar = figure.colorbar(shown, ax=grid, shrink=0.85, ticks=[0, 0.5, 1, 2, 3], extend="max")
    bar.set_label("chi²", color=theme.text, fontsize=9)
    bar.ax.tick_params(colors=theme.text, labelsize=8)
    bar.outline.set_visible(False)
    return figure


def draw_quality_by_step(
    table: pd.DataFrame,
    metric: str | None,
    label: str,
    references: Sequence[str],
    theme: Theme,
) -> Figure:
    """Draw the quality of every configuration against the step of the stage, beam by beam.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns ``configuration beam step_um`` and the metric; one row for each of them.
    metric, label : str
        Which column to draw, and what the axis calls it; without a metric, the axes stay empty.
    references : sequence of str
        Rows that are no configurations, drawn in grey.
    theme : Theme
        Colours.
    """
    beams = list(dict.fromkeys(table["beam"])) if metric else [""]
    size = (5.2 + 3 * len(beams), 4.2)
    figure = Figure(figsize=size, dpi=DPI, facecolor=theme.face, layout="constrained")
    panels = figure.subplots(1, max(len(beams), 1), sharex=True, sharey=True, squeeze=False)[0]
    for axes in panels:
        style_axes(axes, theme)
        axes.set_xlabel("step of the stage (µm)")
    panels[0].set_ylabel(label)
    if metric is None:
        return figure
    present = list(dict.fromkeys(table["configuration"]))
    names = [name for name in present if name not in references]
    looks = {}
    for number, (name, marker) in enumerate(zip(names, cycle("osD^vPX<>*"), strict=False)):
        colour = colormaps["turbo"](0.08 + 0.84 * number / max(len(names) - 1, 1))
        looks[name] = {"color": colour, "marker": marker, "ms": 5}
    compared = [name for name in present if name in references]
    for name, style in zip(compared, cycle(zip(LINE_STYLES, "x+1", strict=False)), strict=False):
        grey = theme.methods["interpolation"]
        looks[name] = {"color": grey, "ls": style[0], "marker": style[1], "ms": 8}
    for axes, beam in zip(panels, beams, strict=False):
        if len(beams) > 1:
            axes.set_title(f"beam of {beam}", color=theme.text, fontsize=10)
        for name, look in looks.items():
            own = (table["configuration"] == name) & (table["beam"] == beam)
            rows = table[own].sort_values("step_um")
            axes.plot(rows["step_um"], rows[metric], label=name, **look)
    legend_beside(panels[-1], theme)
    return figure


def _axes(theme: Theme, size: tuple[float, float]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size, dpi=DPI, facecolor=theme.face, layout="constrained")
    axes = figure.subplots()
    style_axes(axes, theme)
    return figure, axes


def style_axes(axes: Axes, theme: Theme) -> None:
    """Give axes the colours of a theme, and only two sides of their frame."""
    axes.set_facecolor(theme.face)
    axes.grid(True, color=theme.grid, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=theme.text, labelsize=9)
    axes.xaxis.label.set_color(theme.text)
    axes.yaxis.label.set_color(theme.text)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(theme.grid)


def legend_beside(axes: Axes, theme: Theme) -> None:
    """Put the legend to the right of the axes, where it hides nothing."""
    axes.legend(
        loc="upper left",
        bbox_to_anchor=(1.01, 1),
        frameon=False,
        labelcolor=theme.text,
        fontsize=9,
        borderaxespad=0,
    )


def method_colour(theme: Theme, method: str) -> str:
    """Return the colour of a method; that of text for an unknown one."""
    return theme.methods.get(method, theme.text)
