"""One small mean image for every acquisition of a sample sheet, to see what they have in common."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import dask.array as da
import numpy as np
from skimage.transform import resize_local_mean

from besselflow.acquisition import open_acquisition
from besselflow.checks import check_images
from besselflow.corrections import resolve_detector
from besselflow.corrections.fill import fill_from_neighbours
from besselflow.corrections.hot_pixels import find_hot_pixels
from besselflow.corrections.saturation import saturation_level
from besselflow.errors import InputError, Problem, on_one_line
from besselflow.field_of_view import FieldOfView
from besselflow.findings import Findings
from besselflow.job import logger
from besselflow.sample_sheet import Sample, Sheet, read_sheet
from besselflow.stated import voxel_size_of

_LONGEST = 64
_MOST_IMAGES = 256
_IMAGES_FOR_HOT = 12
_PIXELS_FOR_SATURATION = 64
_MOST_SATURATED = 0.01
_MOST_BELOW_OFFSET = 0.1


@dataclass(frozen=True)
class MeanImages:
    """What the acquisitions of one field of view show on average.

    Attributes
    ----------
    images : numpy.ndarray, shape (N, C, y, x), or None
        Mean over projections and time points, above the offset, joined to at most 64 pixels along
        an axis; each has the mean 1. None where there are too few acquisitions to read them.
    samples : tuple of str
        Their names.
    view : FieldOfView
    left_out : dict of str to str
        Sample, or ``row N`` of the sheet -> why it is not among them.
    """

    images: np.ndarray | None
    samples: tuple[str, ...]
    view: FieldOfView
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        """(Y, X) of the acquisitions."""
        return self.view.size


@dataclass(frozen=True)
class Survey:
    """What all acquisitions of a sheet show on average.

    Attributes
    ----------
    groups : tuple of MeanImages
        One per field of view, that of most samples first.
    left_out : dict of str to str
        Sample, or ``row N`` of the sheet -> why it is in none of them.
    samples : tuple of Sample
        Rows of the sheet that were looked at.
    """

    groups: tuple[MeanImages, ...]
    left_out: dict[str, str]
    samples: tuple[Sample, ...]


def collect_mean_images(path: Path | str) -> MeanImages:
    """Average every acquisition of a sheet, plane by plane, and leave out what doesn't fit.

    Parameters
    ----------
    path : path
        Sample sheet.

    Returns
    -------
    MeanImages
        Of the field of view that most acquisitions have.

    Raises
    ------
    ProblemsError
        The sheet can't be read as a table.
    InputError
        No acquisition is left; all reasons are listed.
    """
    samples, views, left_out = _look_at(path)
    usual, fitting = next(iter(_by_view(views)), (None, ()))
    for name, view in views.items():
        if name not in fitting:
            left_out[name] = f"its images have {view}, and those of most others {usual}"
    images = _average(samples, fitting, left_out)
    if not images:
        raise InputError(f"{path}: no acquisition is left\n" + list_left_out(left_out))
    return MeanImages(np.stack([*images.values()]), tuple(images), usual, left_out)


def survey_mean_images(path: Path | str, fewest: int) -> Survey:
    """Average every acquisition of a sheet, plane by plane, by field of view.

    Parameters
    ----------
    path : path
        Sample sheet.
    fewest : int
        Acquisitions of a field of view that has fewer are not read.

    Raises
    ------
    ProblemsError
        The sheet can't be read as a table.
    """
    samples, views, left_out = _look_at(path)
    groups = []
    for view, names in _by_view(views):
        images = None
        if len(names) >= fewest:
            read = _average(samples, names, left_out)
            names = tuple(read)
            images = np.stack([*read.values()]) if read else None
        groups.append(MeanImages(images, names, view))
    return Survey(tuple(groups), left_out, samples)


def _look_at(
    path: Path | str,
) -> tuple[tuple[Sample, ...], dict[str, FieldOfView], dict[str, str]]:
    """Return the samples of a sheet, the fields of view of those to read, and why not others."""
    sheet = read_sheet(path)
    problems = list(sheet.problems)
    views = _views(sheet, problems)
    return sheet.tests, views, _by_sample(problems)


def _average(
    samples: Iterable[Sample], names: Collection[str], left_out: dict[str, str]
) -> dict[str, np.ndarray]:
    """Return the mean images of some samples; what can't be averaged is added to the left out."""
    images = {}
    chosen = [sample for sample in samples if sample.name in names]
    for number, sample in enumerate(chosen, start=1):
        logger.info("%d of %d: %s", number, len(chosen), sample.name)
        try:
            images[sample.name] = mean_image(sample)
        except InputError as error:
            left_out[sample.name] = on_one_line(error)
    return images


def list_left_out(left_out: dict[str, str]) -> str:
    """Return one line per sample that was left out, below their number."""
    lines = [f"{len(left_out)} left out:"] if left_out else []
    return "\n".join([*lines, *(f"  {name}: {why}" for name, why in left_out.items())])


def mean_image(sample: Sample) -> np.ndarray:
    """Average the images of an acquisition, plane by plane; of a long series, some time points.

    Parameters
    ----------
    sample : Sample
        Its offset is stated, or to be estimated.

    Returns
    -------
    numpy.ndarray, shape (C, y, x)
        Each channel has the mean 1; hot pixels are filled from their neighbours.

    Raises
    ------
    InputError
        A plane can't be read, the image is dark, or too much of it is saturated.
    """
    stack = open_acquisition(sample.acquisition, sample.frames)
    counts = stack.data
    offset = resolve_detector(counts, sample.offset, sample.gain, stack.path).offset
    offsets = np.broadcast_to(np.ravel(offset), counts.shape[1])
    means = [_mean_of_channel(counts[:, c], stack.path) for c in range(counts.shape[1])]
    light = np.stack(means) - offsets[:, None, None]
    longest = max(_LONGEST, *light.shape[1:])
    shape = tuple(max(1, round(n * _LONGEST / longest)) for n in light.shape[1:])
    small = np.stack([resize_local_mean(each, shape, preserve_range=True) for each in light])
    for own in small:
        above, below = own[own > 0].sum(), -own[own < 0].sum()
        if below >= _MOST_BELOW_OFFSET * above:
            raise InputError(
                f"{stack.path}: on average, its images are hardly brighter than the offset, or "
                "darker; correct the offset in the sheet, or leave out what was recorded without "
                "light"
            )
    return small / small.mean(axis=(1, 2), keepdims=True)


def times_read(times: int, projections: int) -> int:
    """Return how many time points of a series are averaged."""
    return min(times, max(1, _MOST_IMAGES // projections))


def _mean_of_channel(counts: da.Array, path: Path) -> np.ndarray:
    """Return the mean (Y, X) of images (T, P, Y, X), of which one is held at a time.

    All projections of some time points, where there are many: what a series shows of the light
    hardly grows with its length.
    """
    chosen = np.linspace(0, len(counts) - 1, times_read(*counts.shape[:2])).round().astype(int)
    counts = counts[chosen]
    times, projections, height, width = counts.shape
    every = max(1, min(height, width) // _PIXELS_FOR_SATURATION)
    total, some = np.zeros((height, width)), []
    for t, p in np.ndindex(times, projections):
        image = np.asarray(counts[t, p])
        if not np.isfinite(image).all():
            raise InputError(
                f"{path} holds pixels that are not finite numbers; export it again as integers, or "
                "replace them"
            )
        total += image
        some.append(image[::every, ::every])
    some = np.stack(some)
    level = saturation_level(da.from_array(some))
    share = 0.0 if level is None else float((some >= level).mean())
    if share > _MOST_SATURATED:
        raise InputError(
            f"{path}: {share:.1%} of the pixels are saturated, and hide how bright the light is; "
            "use acquisitions with less laser power"
        )
    mean = total / (times * projections)
    images = counts.reshape(-1, height, width)
    # To find them takes most of the time, and what is missed hardly matters among joined pixels.
    few = np.linspace(0, len(images) - 1, min(len(images), _IMAGES_FOR_HOT)).round().astype(int)
    hot = find_hot_pixels(images[few])
    return mean if hot is None else fill_from_neighbours(mean, hot)


def _views(sheet: Sheet, problems: list[Problem]) -> dict[str, FieldOfView]:
    """Open the acquisition of every sample; what is wrong is added to the problems."""
    views: dict[str, FieldOfView] = {}
    seen: dict[Path, str] = {}
    for sample in sheet.tests:
        findings, before = Findings(sheet.path, sample, problems), len(problems)
        _check_once(findings, seen)
        stack = findings.attempt(
            "acquisition",
            sample.acquisition,
            lambda sample=sample: open_acquisition(sample.acquisition, sample.frames),
        )
        if stack is None:
            continue
        check_images(findings, stack)
        if len(problems) == before:
            _, channels, _, *size = stack.data.shape
            pixel_um = voxel_size_of(sample, stack, None)[1:]
            known = None if None in pixel_um else tuple(pixel_um)
            views[sample.name] = FieldOfView(channels, tuple(size), known)
    return views


def _check_once(findings: Findings, seen: dict[Path, str]) -> None:
    """Check that the offset is known, and that the file does not count twice."""
    sample = findings.sample
    if sample.offset is None:
        findings.report(
            "offset",
            "",
            "the detector's offset is not known, and would be taken for light that is even",
            "write the counts of an unlit pixel, or auto into offset and gain",
        )
    other = seen.setdefault(sample.acquisition.resolve(), sample.name)
    if other != sample.name:
        findings.report(
            "acquisition",
            sample.acquisition,
            f'it is the acquisition of "{other}", too',
            "it counts once, under that name",
        )


def _by_sample(problems: list[Problem]) -> dict[str, str]:
    left_out: dict[str, str] = {}
    for problem in problems:
        name = problem.sample or f"row {problem.row}"
        text = str(replace(problem, file=Path(problem.file).name))
        left_out[name] = f"{left_out[name]}; {text}" if name in left_out else text
    return left_out


def _by_view(views: Mapping[str, FieldOfView]) -> list[tuple[FieldOfView, tuple[str, ...]]]:
    """Group samples by their field of view, the largest group first; at a tie, the first."""
    left, groups = dict(views), []
    while left:
        usual = max(left.values(), key=lambda own: sum(map(own.fits, left.values())))
        names = tuple(name for name, view in left.items() if view.fits(usual))
        groups.append((usual, names))
        left = {name: view for name, view in left.items() if name not in names}
    return groups
