"""The micrographs and maps of a sample's page: views, viewer, and maps of error."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from besselflow.report.figures import TrustMap, draw_trust_maps
from besselflow.report.inputs import SampleReportInputs
from besselflow.report.page import METHOD_NOTES, ThemedImage, themed_figure, to_colour, to_grey
from besselflow.report.pictures import (
    OrthogonalViews,
    Panel,
    Preview,
    brightest_position,
    display_window,
    frames_size,
    load_preview,
    maximum_window,
    nearest_projection,
    orthogonal_views,
    projection_panel,
    scale_bar_um,
    slice_panel,
    viewer_slices,
)
from besselflow.store import Projections

_MOST_SLICES = 64
_VIEWER_CHARACTERS = 5_500_000
_STATIC_CHARACTERS = 2_000_000
_FEWEST_SLICES = 8
_ERROR_MAP, _SPREAD_MAP, _SHARE_MAP = "inferno", "viridis", "cividis"


@dataclass(frozen=True)
class _Views:
    """The orthogonal views of one method, with its heading."""

    title: str
    note: str
    images: OrthogonalViews


@dataclass(frozen=True)
class _Map:
    """A volume that is drawn in colours: title, colour map, values (Z, Y, X), unit, brightest."""

    title: str
    colormap: str
    values: np.ndarray
    unit: str
    high: float | None = None


@dataclass(frozen=True)
class SamplePictures:
    """All micrographs of a page, and what the reader must know about them."""

    views: list[_Views]
    panels: list[Panel]
    slices_um: list[float]
    start: int
    z_step: str
    cut_um: tuple[float, float, float]
    extent_um: tuple[float, float, float]
    first_um: float
    bar_um: float
    window: tuple[float, float]
    max_window: tuple[float, float]
    preview: Preview
    trust: ThemedImage | None


def affordable_pixels(inputs: SampleReportInputs) -> int:
    """Reduce the size of the pictures until the static ones fit into their share of the page."""
    pixels = inputs.picture_pixels
    while pixels > 64:
        sample = load_preview(inputs.volumes[inputs.final], pixels)
        cut = brightest_position(sample.values)
        windows = display_window(sample.values), maximum_window(sample.values)
        views = orthogonal_views(sample.values, cut, *windows)
        size = sum(len(image) for image in vars(views).values()) * (len(inputs.volumes) + 1)
        if size <= _STATIC_CHARACTERS:
            break
        pixels = max(64, int(pixels * 0.9 * math.sqrt(_STATIC_CHARACTERS / size)))
    return pixels


def draw_pictures(
    inputs: SampleReportInputs,
    measured: Projections,
    final: Preview,
    spread: np.ndarray | None,
    suspect_um: float,
) -> SamplePictures:
    """Draw all micrographs of a page.

    Parameters
    ----------
    inputs : SampleReportInputs
        What to show.
    measured : Projections
        Opened projection store.
    final : Preview
        The final volume at the size of the pictures.
    spread : numpy.ndarray, shape (Z, Y, X), or None
        Its standard deviation at the same size.
    suspect_um : float
        The slice to look at.
    """
    size = final.values.shape[1:]
    true = None if inputs.truth is None else load_preview(inputs.truth, max(size)).values
    reference = final.values if true is None else true
    window = display_window(reference)
    max_window = maximum_window(reference)
    cut = brightest_position(reference)
    suspect = int(np.abs(final.z_um - suspect_um).argmin())
    chosen = viewer_slices(len(final.z_um), _MOST_SLICES, suspect)
    views, panels = [], [projection_panel(measured, size, final.z_um[chosen], "what was measured")]
    for method, path in inputs.volumes.items():
        is_final = method == inputs.final
        values = final.values if is_final else load_preview(path, max(size)).values
        title = f"{method} (final)" if is_final else method
        _add_method(views, panels, method, title, values, cut, (window, max_window), chosen)
    if true is not None:
        _add_method(views, panels, "truth", "ground truth", true, cut, (window, max_window), chosen)
    maps = []
    if true is not None:
        error = np.abs(final.values - true)
        _add_map(
            panels,
            maps,
            f"error of {inputs.final}",
            "error",
            error,
            _ERROR_MAP,
            measured.unit,
            chosen,
        )
    if spread is not None:
        title = f"uncertainty of {inputs.final}"
        _add_map(panels, maps, title, "uncertainty", spread, _SPREAD_MAP, measured.unit, chosen)
    if inputs.validation is not None:
        share = load_preview(inputs.validation.determined, max(size)).values
        title = f"measured share of {inputs.final}"
        maps.append(_Map(title, _SHARE_MAP, share, "share that was measured", 1.0))
    while frames_size(panels) > _VIEWER_CHARACTERS and len(chosen) > _FEWEST_SLICES:
        keep = [i for i, z in enumerate(chosen) if i % 2 == 0 or z == suspect]
        chosen = [chosen[i] for i in keep]
        panels = [_keep_frames(panel, keep) for panel in panels]
    shape, voxel = final.values.shape, final.voxel_um
    return SamplePictures(
        views=views,
        panels=panels,
        slices_um=[float(z) for z in final.z_um[chosen]],
        start=chosen.index(suspect),
        z_step=_describe_choice(len(chosen), final),
        cut_um=(float(final.z_um[cut[0]]), cut[1] * voxel[1], cut[2] * voxel[2]),
        extent_um=tuple(n * s for n, s in zip(shape, voxel, strict=True)),
        first_um=float(final.z_um[0]) - voxel[0] / 2,
        bar_um=scale_bar_um(shape[2] * voxel[2]),
        window=window,
        max_window=max_window,
        preview=final,
        trust=_draw_trust(maps, final, suspect),
    )


def _add_method(
    views: list[_Views],
    panels: list[Panel],
    method: str,
    title: str,
    values: np.ndarray,
    cut: tuple[int, int, int],
    windows: tuple[tuple[float, float], tuple[float, float]],
    chosen: list[int],
) -> None:
    note = METHOD_NOTES.get(method, "the point-scanned stack" if method == "truth" else "")
    views.append(_Views(title, note, orthogonal_views(values, cut, *windows)))
    panels.append(
        slice_panel(method, title, note, values, chosen, partial(to_grey, window=windows[0]))
    )


def _add_map(
    panels: list[Panel],
    maps: list[_Map],
    title: str,
    key: str,
    values: np.ndarray,
    colormap: str,
    unit: str,
    chosen: list[int],
) -> None:
    high = max(float(np.percentile(values, 99.9)), 1e-9)
    note = f"black or violet: 0; brightest yellow: {high:.3g} {unit} or more"
    render = partial(to_colour, high=high, colormap=colormap)
    panels.append(slice_panel(key, title, note, values, chosen, render, is_intensity=False))
    maps.append(_Map(title, colormap, values, unit))


def _draw_trust(maps: list[_Map], final: Preview, suspect: int) -> ThemedImage | None:
    if not maps:
        return None
    drawn = [
        TrustMap(
            each.title,
            each.colormap,
            each.values[suspect],
            each.values.mean(axis=1),
            each.unit,
            each.high,
        )
        for each in maps
    ]
    z_um = float(final.z_um[suspect])
    return themed_figure(partial(draw_trust_maps, drawn, final.voxel_um, z_um))


def _keep_frames(panel: Panel, keep: list[int]) -> Panel:
    frames = [panel.frame_of_slice[i] for i in keep]
    used = sorted(set(frames))
    return Panel(
        panel.key,
        panel.title,
        panel.note,
        [panel.frames[i] for i in used],
        [used.index(i) for i in frames],
        panel.is_intensity,
    )


def _describe_choice(shown: int, final: Preview) -> str:
    stored = final.stored_shape
    text = f"{shown} of {stored[0]} slices" if shown < stored[0] else f"all {stored[0]} slices"
    if final.values.shape[1:] != stored[1:]:
        height, width = final.values.shape[1:]
        text += f", reduced from {stored[1]} × {stored[2]} to {height} × {width} pixels"
    return text


def viewer_data(
    pictures: SamplePictures,
    inputs: SampleReportInputs,
    measured: Projections,
    slices: pd.DataFrame,
) -> dict[str, Any]:
    """Collect what the script of the viewer needs: images, captions and scores by slice."""
    z_um = np.array(pictures.slices_um)
    nearest = nearest_projection(measured.positions_um, z_um)
    psnr: dict[str, list[float | None]] = {}
    first = slices[(slices["t"] == 0) & (slices["c"] == 0)]
    for method in inputs.volumes:
        own = first[first["method"] == method]
        psnr[method] = [_nearest_score(own, z, measured.grid.spacing_um) for z in z_um]
    return {
        "z": [round(z, 4) for z in z_um],
        "projection": [
            f"projection {p + 1} of {len(measured.positions_um)}, at "
            f"{measured.positions_um[p]:g} µm, {abs(measured.positions_um[p] - z):.3g} µm away"
            for p, z in zip(nearest, z_um, strict=True)
        ],
        "psnr": psnr,
        "start": pictures.start,
        "panels": {
            panel.key: {"frames": panel.frames, "of": panel.frame_of_slice}
            for panel in pictures.panels
        },
    }


def _nearest_score(own: pd.DataFrame, z_um: float, spacing_um: float) -> float | None:
    if own.empty:
        return None
    distance = (own["z_um"] - z_um).abs()
    if distance.min() > spacing_um / 2 + 1e-6:
        return None
    return round(float(own.loc[distance.idxmin(), "psnr"]), 1)
