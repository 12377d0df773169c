"""What both reports share: rendering a template, embedding images, and names for methods."""

from __future__ import annotations

import base64
import importlib.metadata
import io
import math
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from besselflow import __version__
from besselflow.report.figures import DARK, LIGHT, Theme
from besselflow.store import atomic_path

METHOD_NOTES = {
    "interpolation": "straight lines in z between neighbouring projections; the yardstick",
    "spectral": "Gaussian process: smooth in 3D, as smooth as the projections themselves suggest",
    "richardson_lucy": "classical deconvolution along z, for photons, stopped early",
    "variational": "nonnegative least squares with a penalty on curvature",
    "inr": "small neural network fitted to this sample alone",
    "microdiffusion": "the published refinement by diffusion, as a baseline",
    "diffusion": "learned prior that refines the network's volume, kept consistent with the data",
}
"""One line per method, for readers who do not know it."""

_REM_PER_INCH = 6.35
_SOFTWARE = ("torch", "monai", "numpy", "zarr", "dask", "scikit-image", "snakemake")


@dataclass(frozen=True)
class ThemedImage:
    """One drawing in two versions, as data URIs.

    Attributes
    ----------
    light, dark : str
        Shown on a light and on a dark page.
    width_rem : float
        Width on the page, at which the letters of all drawings are equally large.
    """

    light: str
    dark: str
    width_rem: float


def software_versions() -> dict[str, str]:
    """Return name -> version of Python and of the libraries that shape the result."""
    versions = {"BesselFlow": __version__, "Python": platform.python_version()}
    for name in _SOFTWARE:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def write_page(path: Path | str, template: str, **context: Any) -> None:
    """Render a template into an HTML file that appears only when complete.

    Parameters
    ----------
    path : path
        File to write.
    template : str
        Name of the template in this package.
    **context
        Values for the template; all text is escaped, so that no name can inject HTML.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("besselflow.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = format_number
    text = environment.get_template(template).render(version=__version__, **context)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def format_number(value: float | None, digits: int = 2) -> str:
    """Format with a fixed number of decimals, and what is missing as a dash."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.{digits}f}".replace("-", "−")


def themed_figure(draw: Callable[[Theme], Figure]) -> ThemedImage:
    """Draw a figure once for light and once for dark pages; only their colours may differ."""
    light, dark = (draw(theme) for theme in (LIGHT, DARK))
    width_rem = round(_REM_PER_INCH * light.get_figwidth(), 2)
    light_uri = _figure_uri(light)
    _take_layout(light, dark)
    return ThemedImage(light_uri, _figure_uri(dark), width_rem)


def _take_layout(drawn: Figure, other: Figure) -> None:
    """Put the axes of a figure where those of its drawn twin are: to find out takes a third."""
    other.set_layout_engine("none")
    for axes, twin in zip(other.axes, drawn.axes, strict=True):
        axes.set_position(twin.get_position(original=True), which="original")
        axes.set_position(twin.get_position(original=False), which="active")


def _figure_uri(figure: Figure) -> str:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return _encode(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"), quality=88)


def image_uri(pixels: np.ndarray, quality: int = 80) -> str:
    """Compress an image and return it as a data URI.

    Parameters
    ----------
    pixels : numpy.ndarray of uint8, shape (Y, X) or (Y, X, 3)
        Grey or RGB.
    quality : int
        WebP quality, 0 to 100.
    """
    return _encode(Image.fromarray(np.ascontiguousarray(pixels)), quality)


def _encode(image: Image.Image, quality: int) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality, method=3)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def to_grey(values: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """Map intensities linearly to uint8 grey, black at and below the window's lower end."""
    low, high = window
    return (np.clip((values - low) / (high - low), 0, 1) * 255).round().astype(np.uint8)
