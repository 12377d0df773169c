"""The report of one sample: verdict, pictures, scores, and what was done."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from besselflow.report.figures import (
    TrustMap,
    draw_psnr_by_slice,
    draw_training_curve,
    draw_trust_maps,
)
from besselflow.report.page import (
    METHOD_NOTES,
    ThemedImage,
    format_number,
    software_versions,
    themed_figure,
    to_colour,
    to_grey,
    write_page,
)
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
from besselflow.report.verdict import (
    CITATION,
    acquisition_facts,
    find_suspect,
    fit_facts,
    methods_paragraph,
    write_verdict,
)
from besselflow.store import Projections, open_projections, open_volume

_MOST_SLICES = 64
_VIEWER_CHARACTERS = 5_500_000
_STATIC_CHARACTERS = 2_000_000
_FEWEST_SLICES = 8
_BRIGHT_PERCENTILE = 99
_ERROR_MAP, _SPREAD_MAP = "inferno", "viridis"


@dataclass(frozen=True)
class SampleReportInputs:
    """Everything that the page of a sample shows.

    Attributes
    ----------
    sample : str
        Name of the sample.
    projections : path
        Projection store.
    volumes : dict
        Method -> OME-Zarr volume, in the order of the page.
    final : str
        Method of the final volume, a key of `volumes`.
    metrics, slices : path
        Tables that `evaluate` wrote.
    truth, uncertainty : path or None
        OME-Zarr volumes of the ground truth, and of the final method's standard deviation.
    prior_info : dict or None
        What the prior was trained on: ``trained_on``, ``curve``, ``seconds``, ``steps``.
    settings : dict
        The resolved configuration.
    row : dict
        The sample's row of the sheet.
    picture_pixels : int
        Longest edge of one picture.
    benchmarks : dict
        Stage -> benchmark table of Snakemake; files that do not exist are left out.
    """

    sample: str
    projections: Path
    volumes: dict[str, Path]
    final: str
    metrics: Path
    slices: Path
    truth: Path | None = None
    uncertainty: Path | None = None
    prior_info: dict[str, Any] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    row: dict[str, Any] = field(default_factory=dict)
    picture_pixels: int = 320
    benchmarks: dict[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class _Views:
    """The orthogonal views of one method, with its heading."""

    title: str
    note: str
    images: OrthogonalViews


@dataclass(frozen=True)
class _Pictures:
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


@dataclass(frozen=True)
class _ScoreRow:
    """One line of the table of methods."""

    method: str
    note: str
    is_final: bool
    cells: list[tuple[str, bool]]


@dataclass(frozen=True)
class _Stage:
    """Time and memory of one stage."""

    name: str
    seconds: float
    memory_mb: float


def write_sample_report(path: Path | str, inputs: SampleReportInputs) -> None:
    """Write the self-contained page of one sample.

    Parameters
    ----------
    path : path
        HTML file to write.
    inputs : SampleReportInputs
        What to show.
    """
    measured = open_projections(inputs.projections)
    scores = _read_scores(inputs.metrics)
    slices = pd.read_csv(inputs.slices, sep="\t")
    records = {
        method: open_volume(volume).attributes.get("records", [])
        for method, volume in inputs.volumes.items()
    }
    final = load_preview(inputs.volumes[inputs.final], _affordable_pixels(inputs))
    spread = None
    if inputs.uncertainty is not None:
        spread = load_preview(inputs.uncertainty, max(final.values.shape[1:])).values
    suspect = find_suspect(
        slices,
        inputs.final,
        None if spread is None else spread.mean(axis=(1, 2)),
        final.z_um,
        measured.positions_um,
    )
    has_truth = inputs.truth is not None
    verdict = write_verdict(
        scores, inputs.final, has_truth, _relative_spread(final.values, spread), suspect
    )
    pictures = _draw_pictures(inputs, measured, final, spread, verdict.z_um)
    columns = _score_columns(scores)
    write_page(
        path,
        "sample.html.j2",
        title=f"{inputs.sample} · BesselFlow",
        inputs=inputs,
        has_truth=has_truth,
        verdict=verdict,
        facts=acquisition_facts(measured),
        unit=measured.unit,
        several=math.prod(measured.data.shape[:2]) > 1,
        pictures=pictures,
        viewer=_viewer_data(pictures, inputs, measured, slices),
        columns=columns,
        slices_name=Path(inputs.slices).name,
        rows=_score_rows(scores, columns, inputs),
        seen=_seen_and_unseen(slices, inputs.final),
        curve=(
            themed_figure(partial(draw_psnr_by_slice, slices, measured.positions_um, inputs.final))
            if len(slices)
            else None
        ),
        inr_curve=_training_figure(
            [record["curve"] for record in records.get("inr", []) if record.get("curve")],
            "data misfit",
            "inr",
        ),
        prior_curve=_training_figure(
            [inputs.prior_info["curve"]] if (inputs.prior_info or {}).get("curve") else [],
            "training loss",
            "diffusion",
        ),
        prior=inputs.prior_info or {},
        fits=fit_facts(records, measured.unit),
        stages=_read_benchmarks(inputs.benchmarks),
        settings=_flatten(inputs.settings),
        software=software_versions(),
        paragraph=methods_paragraph(measured, records, inputs.final, inputs.prior_info, has_truth),
        citation=CITATION,
    )


def _read_scores(path: Path) -> dict[str, dict[str, float]]:
    scores: dict[str, dict[str, float]] = {}
    for row in pd.read_csv(path, sep="\t").itertuples():
        scores.setdefault(str(row.method), {})[str(row.metric)] = float(row.value)
    return scores


def _relative_spread(final: np.ndarray, spread: np.ndarray | None) -> float | None:
    if spread is None:
        return None
    bright = final >= np.percentile(final, _BRIGHT_PERCENTILE)
    level = float(final[bright].mean())
    return float(spread[bright].mean()) / level if level > 0 else None


def _affordable_pixels(inputs: SampleReportInputs) -> int:
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


def _draw_pictures(
    inputs: SampleReportInputs,
    measured: Projections,
    final: Preview,
    spread: np.ndarray | None,
    suspect_um: float,
) -> _Pictures:
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
    while frames_size(panels) > _VIEWER_CHARACTERS and len(chosen) > _FEWEST_SLICES:
        keep = [i for i, z in enumerate(chosen) if i % 2 == 0 or z == suspect]
        chosen = [chosen[i] for i in keep]
        panels = [_keep_frames(panel, keep) for panel in panels]
    shape, voxel = final.values.shape, final.voxel_um
    return _Pictures(
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
        trust=_draw_trust(maps, measured.unit, final, suspect),
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
    maps: list[tuple[str, str, np.ndarray]],
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
    maps.append((title, colormap, values))


def _draw_trust(
    maps: list[tuple[str, str, np.ndarray]], unit: str, final: Preview, suspect: int
) -> ThemedImage | None:
    if not maps:
        return None
    drawn = [
        TrustMap(title, colormap, values[suspect], values.mean(axis=1))
        for title, colormap, values in maps
    ]
    z_um = float(final.z_um[suspect])
    return themed_figure(partial(draw_trust_maps, drawn, unit, final.voxel_um, z_um))


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


def _viewer_data(
    pictures: _Pictures,
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


@dataclass(frozen=True)
class _Column:
    """One metric of the table of methods.

    Attributes
    ----------
    key, title, unit, meaning : str
        Name in the table file, heading, unit, and explanation for readers who do not know it.
    digits : int
        Decimals.
    higher_is_better : bool
        Whether the highest value is marked; else none is.
    """

    key: str
    title: str
    unit: str
    meaning: str
    digits: int
    higher_is_better: bool


_COLUMNS = (
    _Column(
        "psnr",
        "PSNR",
        "dB",
        "peak signal-to-noise ratio, mean over slices; 3 dB more is half the squared error",
        2,
        True,
    ),
    _Column(
        "gain",
        "gain",
        "dB",
        "PSNR above that of interpolating the projections, which needs no model at all",
        2,
        True,
    ),
    _Column("psnr_3d", "PSNR 3D", "dB", "the same from the mean error of all slices", 2, True),
    _Column(
        "ssim", "SSIM", "", "similarity of local structure, mean over slices; 1 is equal", 3, True
    ),
    _Column(
        "dice",
        "Dice",
        "",
        "overlap of what is brighter than Otsu's threshold of the ground truth; 1 is equal",
        3,
        True,
    ),
    _Column(
        "coverage_50",
        "in 50 %",
        "%",
        "share of true values inside the stated 50 % interval; ideally 50",
        0,
        False,
    ),
    _Column(
        "coverage_90",
        "in 90 %",
        "%",
        "share of true values inside the stated 90 % interval; ideally 90",
        0,
        False,
    ),
    _Column(
        "chi2",
        "chi²",
        "",
        "misfit to the measured projections in units of their noise; well above 1 contradicts "
        "them, well below 1 follows their noise",
        2,
        False,
    ),
)


def _score_columns(scores: Mapping[str, Mapping[str, float]]) -> list[_Column]:
    present = {metric for values in scores.values() for metric in values}
    if "psnr" in scores.get("interpolation", {}) and len(scores) > 1:
        present.add("gain")
    return [column for column in _COLUMNS if column.key in present]


def _score_rows(
    scores: Mapping[str, Mapping[str, float]],
    columns: list[_Column],
    inputs: SampleReportInputs,
) -> list[_ScoreRow]:
    baseline = scores.get("interpolation", {}).get("psnr")
    table: dict[str, dict[str, float]] = {}
    for method in inputs.volumes:
        values = dict(scores.get(method, {}))
        if baseline is not None and "psnr" in values:
            values["gain"] = values["psnr"] - baseline
        table[method] = {
            key: 100 * value if key.startswith("coverage") else value
            for key, value in values.items()
        }
    best = {
        column.key: max((v[column.key] for v in table.values() if column.key in v), default=None)
        for column in columns
        if column.higher_is_better
    }
    return [
        _ScoreRow(
            method,
            METHOD_NOTES.get(method, ""),
            method == inputs.final,
            [
                (
                    format_number(values.get(column.key), column.digits),
                    column.key in values and values[column.key] == best.get(column.key),
                )
                for column in columns
            ],
        )
        for method, values in table.items()
    ]


def _seen_and_unseen(slices: pd.DataFrame, final: str) -> str | None:
    """Compare the slices that no projection saw with the others, in words."""
    own = slices[slices["method"] == final]
    if own.empty or own["seen"].all() or not own["seen"].any():
        return None
    psnr = own.groupby(own["seen"].astype(bool))["psnr"].mean()
    return (
        f"Slices that some projection saw: {psnr[True]:.1f} dB on average; slices that none saw, "
        f"where the method can only guess: {psnr[False]:.1f} dB."
    )


def _training_figure(curves: list, what: str, colour_of: str) -> ThemedImage | None:
    if not curves:
        return None
    return themed_figure(partial(draw_training_curve, curves, what, colour_of))


def _read_benchmarks(benchmarks: Mapping[str, Path]) -> list[_Stage]:
    stages = []
    for name, path in benchmarks.items():
        if Path(path).is_file():
            table = pd.read_csv(path, sep="\t").apply(pd.to_numeric, errors="coerce")
            if {"s", "max_rss"} <= set(table.columns) and len(table):
                stages.append(_Stage(name, float(table["s"].mean()), float(table["max_rss"].max())))
    return stages


def _flatten(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Turn nested settings into (dotted key, value) pairs."""
    pairs = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            pairs += _flatten(value, f"{prefix}{key}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            pairs.append((f"{prefix}{key}", text))
    return pairs
