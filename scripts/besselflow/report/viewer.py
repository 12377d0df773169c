"""The volumes behind the viewer of a sample's page: what is embedded, and how small."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps

from besselflow.report.atlas import CodeRange, encode, pack
from besselflow.report.inputs import SampleReportInputs
from besselflow.report.page import METHOD_NOTES
from besselflow.report.pictures import (
    display_window,
    load_preview,
    maximum_window,
    nearest_projection,
    scale_bar_um,
    shrink_stack,
)
from besselflow.report.targets import Target, find_targets
from besselflow.report.verdict import Suspect
from besselflow.store import Projections, Volume, open_volume

COLORMAPS = {
    "grey": "gray",
    "grey, inverted": "gray_r",
    "viridis": "viridis",
    "magma": "magma",
    "cividis": "cividis",
    "green": "green",
}
"""Name on the page -> matplotlib colour map; green is not matplotlib's."""

_OVERLAY_MAPS = {"error": "inferno", "uncertainty": "viridis", "measured": "cividis"}
_DEPTH_MAP = "turbo"
_CHARACTERS = 5_500_000
_VOXELS = 2**22
_MOST_SLICES = 128
_MOST_PLACES = 6
_FEWEST_PIXELS = 32
# Of WebP. Decoded, volumes differ by about 1 % of white, and maps of the error, which are mostly
# noise and need twice the space, by 1 to 2 % of their brightest colour.
_LOSSY_QUALITY, _ERROR_QUALITY = 75, 50
# A lossless image of noisy codes takes more than this; a larger stack isn't even tried.
_LOSSLESS_CHARACTERS_PER_VOXEL = 0.4
_SAFETY = 1.08


@dataclass(frozen=True)
class Layer:
    """One volume of the viewer.

    Attributes
    ----------
    images : list of str
        Data URI of the tiled slices, one per place.
    spans : list of (low, high)
        Intensities of the first and the last code, one per place.
    """

    images: list[str] = field(default_factory=list)
    spans: list[tuple[float, float]] = field(default_factory=list)

    def add(self, values: np.ndarray, span: CodeRange, quality: int | None) -> None:
        """Compress a volume at the next place."""
        self.images.append(pack(encode(values, span), quality))
        self.spans.append((span.low, span.high))


@dataclass(frozen=True)
class Pane:
    """What the page says of one of the volumes that stand side by side."""

    key: str
    title: str
    note: str


@dataclass(frozen=True)
class Viewer:
    """Everything that the template needs of the viewer.

    Attributes
    ----------
    data : dict
        For the script: volumes, positions, windows, colour maps, targets.
    panes : list of Pane
        In the order of the page.
    overlays : dict
        Key -> what it is called.
    places : list of str
        Names of the embedded time points and channels.
    targets : list of Target
        Where to look.
    extent_um : tuple of float
        (z, y, x) size of the volume.
    bar_um : float
        Length of the scale bar.
    shown : str
        What is embedded, against what was computed.
    """

    data: dict[str, Any]
    panes: list[Pane]
    overlays: dict[str, str]
    places: list[str]
    targets: list[Target]
    extent_um: tuple[float, float, float]
    bar_um: float
    shown: str


@dataclass(frozen=True)
class _Embedded:
    """All volumes that were compressed, where to look in them, and how to show them.

    Attributes
    ----------
    layers : dict
        Key of a picture -> volume.
    overlays : dict
        Key of an overlay -> method -> volume.
    targets : list of Target
        Where to look.
    windows : list of dict
        By place: darkest and brightest intensity of slices, maxima and projections.
    """

    layers: dict[str, Layer]
    overlays: dict[str, dict[str, Layer]]
    targets: list[Target]
    windows: list[dict[str, tuple[float, float]]]

    @property
    def characters(self) -> int:
        """What they take in the page."""
        overlays = [layer for each in self.overlays.values() for layer in each.values()]
        return sum(len(uri) for one in [*self.layers.values(), *overlays] for uri in one.images)


@dataclass(frozen=True)
class _Size:
    """How the volumes are embedded: longest lateral edge, and quality of the compression."""

    pixels: int
    quality: int | None


def choose_places(
    times: int, channels: int, always: tuple[int, int] = (0, 0), most: int = _MOST_PLACES
) -> list[tuple[int, int]]:
    """Choose the time points and channels to embed: all, or evenly spread ones.

    Parameters
    ----------
    times, channels : int
        What there is.
    always : tuple of int
        Time point and channel that must be among them.
    most : int
        As many at most, but every channel at one time point at least.

    Returns
    -------
    list of (time point, channel)
        In order.
    """
    count = max(1, min(times, most // channels))
    chosen = set(np.linspace(0, times - 1, count).round().astype(int).tolist())
    if always[0] not in chosen:
        chosen.remove(min(chosen, key=lambda t: abs(t - always[0])))
        chosen.add(always[0])
    return [(t, c) for t in sorted(chosen) for c in range(channels)]


def build_viewer(
    inputs: SampleReportInputs, measured: Projections, slices: pd.DataFrame, suspect: Suspect
) -> Viewer:
    """Embed the volumes of a sample, as large as the page affords.

    Parameters
    ----------
    inputs : SampleReportInputs
        What to show.
    measured : Projections
        Opened projection store.
    slices : pandas.DataFrame
        Scores per slice, empty without ground truth.
    suspect : Suspect
        The slice to look at.
    """
    places = choose_places(*measured.data.shape[:2], (suspect.t, suspect.c))
    size = _affordable(inputs, measured, len(places))
    found = _embed(inputs, measured, places, size, suspect)
    while found.characters > _CHARACTERS and size.pixels > _FEWEST_PIXELS:
        size = _shrunk(size, found.characters)
        found = _embed(inputs, measured, places, size, suspect)
    shown = load_preview(inputs.volumes[inputs.final], size.pixels, places[0], _MOST_SLICES)
    shape, voxel = shown.values.shape, shown.voxel_um
    extent = tuple(n * step for n, step in zip(shape, voxel, strict=True))
    full = open_volume(inputs.volumes[inputs.final])
    data = {
        "shape": shape,
        "z": [round(float(z), 4) for z in shown.z_um],
        "voxel": voxel,
        "bar": scale_bar_um(extent[2]),
        "unit": measured.unit,
        "reference": inputs.final,
        "layers": {key: vars(layer) for key, layer in found.layers.items()},
        "overlays": {
            key: {
                "colormap": _bytes_of(_OVERLAY_MAPS[key]),
                "unit": "" if key == "measured" else measured.unit,
                "of": {method: vars(layer) for method, layer in each.items()},
            }
            for key, each in found.overlays.items()
        },
        "windows": found.windows,
        "colormaps": {name: _bytes_of(colormap) for name, colormap in COLORMAPS.items()},
        "depth": _bytes_of(_DEPTH_MAP),
        "projections": _projections_of(measured, shown.z_um),
        "psnr": _scores_of(slices, list(inputs.volumes), places, shown.z_um, measured),
        "targets": [vars(target) for target in found.targets],
    }
    titles = {"error": "error", "uncertainty": "uncertainty", "measured": "measured share"}
    return Viewer(
        data=data,
        panes=_panes(inputs),
        overlays={key: titles[key] for key in found.overlays},
        places=[place_name(place, measured) for place in places],
        targets=found.targets,
        extent_um=extent,
        bar_um=scale_bar_um(extent[2]),
        shown=_describe(shape, voxel, full, places, size),
    )


def _affordable(inputs: SampleReportInputs, measured: Projections, n_places: int) -> _Size:
    """Find a size by compressing the final volume alone, which all others resemble."""
    n_volumes = len(inputs.volumes) * (1 if inputs.truth is None else 2)
    n_volumes += sum(
        each is not None for each in (inputs.truth, inputs.uncertainty, inputs.validation)
    )
    n_slices = min(measured.grid.n_slices, _MOST_SLICES)
    pixels = min(inputs.picture_pixels, math.isqrt(_VOXELS // n_slices))
    probe = load_preview(inputs.volumes[inputs.final], pixels, most_slices=_MOST_SLICES).values
    budget = _CHARACTERS / (n_volumes * n_places * _SAFETY)
    codes = encode(probe, CodeRange.of(probe))
    worth_a_try = probe.size * _LOSSLESS_CHARACTERS_PER_VOXEL <= budget
    if worth_a_try and len(pack(codes, None)) <= budget:
        return _Size(max(probe.shape[1:]), None)
    size = _Size(max(probe.shape[1:]), _LOSSY_QUALITY)
    characters = len(pack(codes, _LOSSY_QUALITY))
    if characters <= budget:
        return size
    return _shrunk(size, characters, budget)


def _shrunk(size: _Size, characters: float, budget: float = _CHARACTERS) -> _Size:
    """Give up losslessness first, and pixels then."""
    if size.quality is None:
        return replace(size, quality=_LOSSY_QUALITY)
    smaller = int(size.pixels * 0.97 * math.sqrt(budget / characters))
    return replace(size, pixels=max(_FEWEST_PIXELS, min(smaller, size.pixels - 1)))


def _embed(
    inputs: SampleReportInputs,
    measured: Projections,
    places: list[tuple[int, int]],
    size: _Size,
    suspect: Suspect,
) -> _Embedded:
    """Compress all volumes; only a few of one place are in memory at a time."""
    final = inputs.final
    layers = {"projection": Layer()} | {method: Layer() for method in inputs.volumes}
    overlays: dict[str, dict[str, Layer]] = {}
    if inputs.truth is not None:
        layers["truth"] = Layer()
        overlays["error"] = {method: Layer() for method in inputs.volumes}
    if inputs.uncertainty is not None:
        overlays["uncertainty"] = {final: Layer()}
    if inputs.validation is not None:
        overlays["measured"] = {final: Layer()}
    windows: list[dict[str, tuple[float, float]]] = []
    targets: list[Target] = []
    for index, place in enumerate(places):

        def load(path: Path, place: tuple[int, int] = place) -> np.ndarray:
            return load_preview(path, size.pixels, place, _MOST_SLICES).values

        preview = load_preview(inputs.volumes[final], size.pixels, place, _MOST_SLICES)
        own = preview.values
        true = None if inputs.truth is None else load(inputs.truth)
        span = CodeRange.of(own) if true is None else CodeRange.of(own, true)
        images = shrink_stack(measured.data, own.shape[1:], place)
        layers["projection"].add(images, CodeRange.of(images), size.quality)
        if true is not None:
            layers["truth"].add(true, span, size.quality)
        errors = []
        for method, path in inputs.volumes.items():
            values = own if method == final else load(path)
            layers[method].add(values, span, size.quality)
            if true is not None:
                errors.append((method, np.abs(values - true)))
        _add_errors(overlays.get("error", {}), errors, size.quality)
        spread = None
        if inputs.uncertainty is not None:
            spread = load(inputs.uncertainty)
            high = float(np.percentile(spread, 99.9))
            overlays["uncertainty"][final].add(spread, _from_zero(high), size.quality)
        if inputs.validation is not None:
            share = load(inputs.validation.determined)
            overlays["measured"][final].add(share, _from_zero(1.0), size.quality)
        reference = own if true is None else true
        windows.append(
            {
                "slices": display_window(reference),
                "maxima": maximum_window(reference),
                "projections": display_window(images),
            }
        )
        if place == (suspect.t, suspect.c):
            shown = replace(preview, values=reference)
            error = dict(errors).get(final)
            targets = list(
                find_targets(index, shown, error, spread, suspect.z_um, measured.positions_um)
            )
    return _Embedded(layers, overlays, targets, windows)


def _add_errors(
    layers: dict[str, Layer], errors: list[tuple[str, np.ndarray]], quality: int | None
) -> None:
    """Put the errors of all methods on one scale, so that their colours can be compared."""
    if not errors:
        return
    span = _from_zero(max(float(np.percentile(error, 99.9)) for _, error in errors))
    for method, error in errors:
        layers[method].add(error, span, None if quality is None else _ERROR_QUALITY)


def _from_zero(high: float) -> CodeRange:
    return CodeRange(0.0, max(high, 1e-6))


def _panes(inputs: SampleReportInputs) -> list[Pane]:
    panes = [Pane("projection", "nearest projection", "what was measured")]
    for method in inputs.volumes:
        title = f"{method} (final)" if method == inputs.final else method
        panes.append(Pane(method, title, METHOD_NOTES.get(method, "")))
    if inputs.truth is not None:
        panes.append(Pane("truth", "ground truth", "the point-scanned stack"))
    return panes


def place_name(place: tuple[int, int], measured: Projections) -> str:
    """Name a time point and channel, as far as there are several."""
    times, channels = measured.data.shape[:2]
    parts = [f"time point {place[0]}"] if times > 1 else []
    parts += [f"channel {place[1]}"] if channels > 1 else []
    return ", ".join(parts)


def _describe(
    shape: tuple[int, ...],
    voxel: tuple[float, ...],
    full: Volume,
    places: list[tuple[int, int]],
    size: _Size,
) -> str:
    """Say what is embedded, and what was left out of it."""
    stored = full.data.shape
    numbers = " × ".join(f"{step:.3g}" for step in voxel)
    if shape == stored[2:]:
        text = f"all {shape[0]} slices at full resolution, {shape[1]} × {shape[2]} pixels"
        text += f", voxel {numbers} µm (z, y, x)"
    else:
        own = " × ".join(f"{step:.3g}" for step in full.voxel_size_um)
        text = (
            f"{' × '.join(map(str, shape))} voxels of {numbers} µm (z, y, x), averaged from "
            f"{' × '.join(map(str, stored[2:]))} voxels of {own} µm"
        )
    text += "; 8 bits per voxel, "
    text += "without further loss" if size.quality is None else "compressed with a small loss"
    several = stored[0] * stored[1]
    if several > len(places):
        text += f"; {len(places)} of {several} time points and channels"
    return text


def _projections_of(measured: Projections, z_um: np.ndarray) -> dict[str, list]:
    nearest = nearest_projection(measured.positions_um, z_um)
    positions, count = measured.positions_um, len(measured.positions_um)
    return {
        "of": nearest.tolist(),
        "texts": [
            f"projection {p + 1} of {count}, at {positions[p]:g} µm, "
            f"{abs(positions[p] - z):.3g} µm away"
            for p, z in zip(nearest, z_um, strict=True)
        ],
    }


def _scores_of(
    slices: pd.DataFrame,
    methods: list[str],
    places: list[tuple[int, int]],
    z_um: np.ndarray,
    measured: Projections,
) -> dict[str, list[list[float | None]]]:
    """Return method -> place -> slice -> PSNR of the nearest scored slice, where there is one."""
    near = max(measured.grid.spacing_um, np.diff(z_um).min(initial=np.inf)) / 2 + 1e-6
    scores: dict[str, list[list[float | None]]] = {method: [] for method in methods}
    for method in methods:
        own = slices[slices["method"] == method]
        for t, c in places:
            here = own[(own["t"] == t) & (own["c"] == c)]
            row: list[float | None] = [None] * len(z_um)
            if len(here):
                distance = np.abs(here["z_um"].to_numpy() - z_um[:, None])
                psnr = here["psnr"].to_numpy()[distance.argmin(axis=1)]
                row = [
                    round(float(value), 1) if close else None
                    for value, close in zip(psnr, distance.min(axis=1) <= near, strict=True)
                ]
            scores[method].append(row)
    return scores


def _bytes_of(colormap: str) -> str:
    """Return the 256 RGB colours of a colour map in base64."""
    ramp = np.arange(256.0)
    if colormap == _DEPTH_MAP:
        # Its ends are so dark that they'd look like missing intensity.
        ramp = 20 + ramp * 215 / 255
    if colormap == "green":
        colours = np.stack([0.35 * ramp, ramp, 0.35 * ramp], axis=1)
    else:
        colours = 255 * colormaps[colormap](ramp / 255)[:, :3]
    return base64.b64encode(np.rint(colours).astype(np.uint8).tobytes()).decode("ascii")
