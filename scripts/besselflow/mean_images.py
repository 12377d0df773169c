"""One small mean image for every acquisition of a sample sheet, to see what they have in common."""

from __future__ import annotations

from collections.abc import Iterable
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
from besselflow.findings import Findings
from besselflow.job import logger
from besselflow.sample_sheet import Sample, Sheet, read_sheet
from besselflow.stated import TOLERANCE, voxel_size_of

_LONGEST = 64
_PIXELS_FOR_SATURATION = 64
_MOST_SATURATED = 0.01
_MOST_BELOW_OFFSET = 0.1


@dataclass(frozen=True)
class MeanImages:
    """What the acquisitions of a sheet show on average.

    Attributes
    ----------
    images : numpy.ndarray, shape (N, C, y, x)
        Mean over projections and time points, above the offset, joined to at most 64 pixels along
        an axis; each has the mean 1.
    samples : tuple of str
        Their names.
    size : tuple of int
        (Y, X) of the acquisitions.
    left_out : dict of str to str
        Sample, or ``row N`` of the sheet -> why it is not among them.
    """

    images: np.ndarray
    samples: tuple[str, ...]
    size: tuple[int, int]
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Frame:
    """What acquisitions must share to be compared pixel by pixel."""

    channels: int
    size: tuple[int, int]
    pixel_um: tuple[float, float] | None

    def __str__(self) -> str:
        channels = "1 channel" if self.channels == 1 else f"{self.channels} channels"
        size = f"{self.size[0]} x {self.size[1]} pixels (y, x)"
        if self.pixel_um is not None:
            size += " of {:g} x {:g} um".format(*self.pixel_um)
        return f"{size} and {channels}"


def collect_mean_images(path: Path | str) -> MeanImages:
    """Average every acquisition of a sheet, plane by plane, and leave out what doesn't fit.

    Parameters
    ----------
    path : path
        Sample sheet.

    Returns
    -------
    MeanImages

    Raises
    ------
    ProblemsError
        The sheet can't be read as a table.
    InputError
        No acquisition is left; all reasons are listed.
    """
    sheet = read_sheet(path)
    problems = list(sheet.problems)
    frames = _frames(sheet, problems)
    left_out = _by_sample(problems)
    usual = _usual(frames.values())
    for name, frame in frames.items():
        if not _fits(frame, usual):
            left_out[name] = f"its images have {frame}, and those of most others {usual}"
    fitting = [sample for sample in sheet.tests if sample.name not in left_out]
    images = {}
    for number, sample in enumerate(fitting, start=1):
        logger.info("%d of %d: %s", number, len(fitting), sample.name)
        try:
            images[sample.name] = mean_image(sample)
        except InputError as error:
            left_out[sample.name] = on_one_line(error)
    if not images:
        raise InputError(f"{path}: no acquisition is left\n" + list_left_out(left_out))
    return MeanImages(np.stack([*images.values()]), tuple(images), usual.size, left_out)


def list_left_out(left_out: dict[str, str]) -> str:
    """Return one line per sample that was left out, below their number."""
    lines = [f"{len(left_out)} left out:"] if left_out else []
    return "\n".join([*lines, *(f"  {name}: {why}" for name, why in left_out.items())])


def mean_image(sample: Sample) -> np.ndarray:
    """Average the images of an acquisition, plane by plane.

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
    try:
        offset = resolve_detector(counts, sample.offset, sample.gain, stack.path).offset
        offsets = np.broadcast_to(np.ravel(offset), counts.shape[1])
        means = [_mean_of_channel(counts[:, c], stack.path) for c in range(counts.shape[1])]
    except InputError:
        raise
    # Decoders of images raise whatever they like.
    except Exception as error:
        raise InputError(
            f"{stack.path}: a plane can't be decoded ({error}); copy the file again from the "
            "microscope"
        ) from error
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


def _mean_of_channel(counts: da.Array, path: Path) -> np.ndarray:
    """Return the mean (Y, X) of images (T, P, Y, X), of which one is held at a time."""
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
    hot = find_hot_pixels(counts.reshape(-1, height, width))
    return mean if hot is None else fill_from_neighbours(mean, hot)


def _frames(sheet: Sheet, problems: list[Problem]) -> dict[str, _Frame]:
    """Open the acquisition of every sample; what is wrong is added to the problems."""
    frames: dict[str, _Frame] = {}
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
            frames[sample.name] = _Frame(channels, tuple(size), known)
    return frames


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
            "list every acquisition once",
        )


def _by_sample(problems: list[Problem]) -> dict[str, str]:
    left_out: dict[str, str] = {}
    for problem in problems:
        name = problem.sample or f"row {problem.row}"
        text = str(replace(problem, file=Path(problem.file).name))
        left_out[name] = f"{left_out[name]}; {text}" if name in left_out else text
    return left_out


def _usual(frames: Iterable[_Frame]) -> _Frame:
    """Return the frame that most acquisitions have; at a tie, the first."""
    frames = list(frames)
    if not frames:
        return _Frame(1, (1, 1), None)
    return max(frames, key=lambda own: sum(_fits(each, own) for each in frames))


def _fits(own: _Frame, other: _Frame) -> bool:
    """Return whether two acquisitions show the same field of view, as far as is known."""
    if (own.channels, own.size) != (other.channels, other.size):
        return False
    if own.pixel_um is None or other.pixel_um is None:
        return True
    pairs = zip(own.pixel_um, other.pixel_um, strict=True)
    return all(abs(a - b) <= TOLERANCE * b for a, b in pairs)
