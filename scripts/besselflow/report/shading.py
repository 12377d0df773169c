"""The picture and the words of a flat field that was estimated from many acquisitions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from besselflow.corrections.estimated_fields import Estimates
from besselflow.corrections.shading import HALVINGS, Shading
from besselflow.report.figures import DPI, LIGHT, Theme, style_axes
from besselflow.report.page import ThemedImage, themed_figure

_LEAST_SPAN = 0.02
_FINER = 3


@dataclass(frozen=True)
class EstimatesView:
    """The section of the cohort's page about the flat fields that the run estimated.

    Attributes
    ----------
    fields : list of (str, ThemedImage or None)
        What was found in each field of view in a sentence, and its drawing, where there is one.
    left_out : dict of str to str
        Sample that was not compared -> why.
    later : list of str
        Samples that were not yet in the sheet.
    """

    fields: list[tuple[str, ThemedImage | None]]
    left_out: dict[str, str]
    later: list[str]


def describe_estimates(estimates: Estimates, samples: Sequence[str]) -> EstimatesView:
    """Tell of all flat fields that a run estimated.

    Parameters
    ----------
    estimates : Estimates
    samples : sequence of str
        Names of all that are to be reconstructed.
    """
    fields = [
        (
            each.describe(),
            themed_figure(partial(draw_shading, each.shadings, each.mean, each.view.size))
            if each.shadings
            else None,
        )
        for each in estimates.fields
    ]
    known = estimates.rows.keys() | estimates.left_out.keys()
    later = [name for name in samples if name not in known]
    return EstimatesView(fields, estimates.left_out, later)


def describe_shading(shading: Shading, channel: int) -> str:
    """Say how uneven the light of a channel is, how well that is known, and whether it is certain.

    Parameters
    ----------
    shading : Shading
    channel : int
        Its number, from 0.
    """
    field = shading.field((64, 64))
    verdict = "certain" if shading.is_certain else "NOT certain"
    return (
        f"channel {channel + 1}: the light varies by {shading.variation:.1%} (standard deviation, "
        f"from {field.min():.2f} to {field.max():.2f} of its mean), with a standard error of "
        f"{shading.error:.1%}.\n"
        f"  That it is uneven is {verdict}: even light would look so with a probability of "
        f"{shading.chance:.2g}.\n"
        f"  Cross-check: the field of one half of the acquisitions and what the other half shows "
        f"have a correlation of {shading.agreement:.2f} (median of {HALVINGS} random halvings)."
    )


def draw_shading(
    shadings: Sequence[Shading], mean: np.ndarray, size: tuple[int, int], theme: Theme = LIGHT
) -> Figure:
    """Draw field, standard error, and the mean of all acquisitions before and after, by channel.

    Parameters
    ----------
    shadings : sequence of Shading
        One per channel.
    mean : numpy.ndarray, shape (C, y, x)
        Mean of all acquisitions.
    size : tuple of int
        (Y, X) of the acquisitions, in pixels.
    theme : Theme
        Colours.
    """
    rows = len(shadings)
    width, height = 3.0, 2.6 * min(2.0, max(0.5, size[0] / size[1])) + 1.7
    figure = Figure(
        figsize=(4 * width, rows * height), dpi=DPI, facecolor=theme.face, layout="constrained"
    )
    # The layout leaves out of account that an image narrows its axes, and cuts their labels.
    figure.get_layout_engine().set(w_pad=0.15, h_pad=0.12)
    grid = figure.subplots(rows, 4, squeeze=False)
    for channel, (row, shading) in enumerate(zip(grid, shadings, strict=True)):
        fine = tuple(_FINER * length for length in mean.shape[1:])
        field, error = shading.field(fine), 100 * shading.error_map(fine)
        before = mean[channel]
        after = before / shading.field(before.shape)
        span = max(_LEAST_SPAN, float(np.abs(field - 1).max()))
        top = float(np.percentile([before, after], 99.5))
        name = f"channel {channel + 1}: " if rows > 1 else ""
        averaged = f"mean of {shading.acquisitions} acquisitions"
        verdict = "" if shading.is_certain else "\n(not certain: not used)"
        panels = (
            (field, f"{name}field{verdict}", "RdBu_r", (1 - span, 1 + span), "of the mean"),
            (error, "standard error", "viridis", (0.0, float(error.max())), "%"),
            (before, averaged, "gray", (0.0, top), "of the mean"),
            (after, "the same, divided by the field", "gray", (0.0, top), "of the mean"),
        )
        for axes, (values, title, colours, limits, unit) in zip(row, panels, strict=True):
            low, high = limits
            shown = axes.imshow(
                values, cmap=colours, vmin=low, vmax=high, extent=(0, size[1], size[0], 0)
            )
            _label(axes, title, theme)
            bar = figure.colorbar(shown, ax=axes, orientation="horizontal", shrink=0.9)
            bar.set_label(unit, color=theme.text, fontsize=9)
            bar.ax.tick_params(colors=theme.text, labelsize=8)
            bar.outline.set_visible(False)
        row[0].set_ylabel("y (pixels)")
    return figure


def _label(axes: Axes, title: str, theme: Theme) -> None:
    axes.set_title(title, color=theme.text, fontsize=10)
    axes.set_xlabel("x (pixels)")
    style_axes(axes, theme)
    axes.grid(False)
