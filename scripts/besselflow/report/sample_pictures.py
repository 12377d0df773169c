"""The fixed pictures of a sample's page: views from three sides, and maps of the error."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np

from besselflow.report.figures import TrustMap, draw_trust_maps
from besselflow.report.inputs import SampleReportInputs
from besselflow.report.page import METHOD_NOTES, ThemedImage, themed_figure
from besselflow.report.pictures import (
    OrthogonalViews,
    Preview,
    brightest_position,
    display_window,
    load_preview,
    maximum_window,
    orthogonal_views,
    scale_bar_um,
)
from besselflow.store import Projections

_STATIC_CHARACTERS = 2_000_000
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
    cut_um: tuple[float, float, float]
    extent_um: tuple[float, float, float]
    first_um: float
    bar_um: float
    window: tuple[float, float]
    max_window: tuple[float, float]
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
    place: tuple[int, int] = (0, 0),
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
    place : tuple of int
        Time point and channel of `final` and of all pictures.
    """
    longest = max(final.values.shape[1:])
    true = None if inputs.truth is None else load_preview(inputs.truth, longest, place).values
    reference = final.values if true is None else true
    windows = display_window(reference), maximum_window(reference)
    cut = brightest_position(reference)
    suspect = int(np.abs(final.z_um - suspect_um).argmin())
    views = []
    for method, path in inputs.volumes.items():
        is_final = method == inputs.final
        values = final.values if is_final else load_preview(path, longest, place).values
        title = f"{method} (final)" if is_final else method
        images = orthogonal_views(values, cut, *windows)
        views.append(_Views(title, METHOD_NOTES.get(method, ""), images))
    if true is not None:
        images = orthogonal_views(true, cut, *windows)
        views.append(_Views("ground truth", "the point-scanned stack", images))
    maps = []
    if true is not None:
        error = np.abs(final.values - true)
        maps.append(_Map(f"error of {inputs.final}", _ERROR_MAP, error, measured.unit))
    if spread is not None:
        maps.append(_Map(f"uncertainty of {inputs.final}", _SPREAD_MAP, spread, measured.unit))
    if inputs.validation is not None:
        share = load_preview(inputs.validation.determined, longest, place).values
        title = f"measured share of {inputs.final}"
        maps.append(_Map(title, _SHARE_MAP, share, "share that was measured", 1.0))
    shape, voxel = final.values.shape, final.voxel_um
    return SamplePictures(
        views=views,
        cut_um=(float(final.z_um[cut[0]]), cut[1] * voxel[1], cut[2] * voxel[2]),
        extent_um=tuple(n * s for n, s in zip(shape, voxel, strict=True)),
        first_um=float(final.z_um[0]) - voxel[0] / 2,
        bar_um=scale_bar_um(shape[2] * voxel[2]),
        window=windows[0],
        max_window=windows[1],
        trust=_draw_trust(maps, final, suspect),
    )


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
