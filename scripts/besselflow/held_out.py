r"""Projections that are left out, predicted, and compared: a ranking without ground truth.

Every k-th projection is withheld, and from every 5th on, pairs of neighbours between them are
folded into their mean (`besselflow.thinning`). All methods reconstruct from what is left, and the
beam's operator predicts from each volume what the *withheld* projections should show, and how the
*folded* neighbours should differ. The mean squared error is the noise plus the error of the
prediction, the same noise for all methods, so that the order of the errors is the order of the
predictions.

A withheld projection asks how well a method bridges the depth that was left between its neighbours,
in an acquisition that is coarser than the real one. On sparse samples nobody can know, and who
predicts least errs least. The difference of folded neighbours asks how light is placed *within* the
length of a beam, which is what a reconstruction is for: where there are such pairs, they decide.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np

from besselflow.store import Projections
from besselflow.thinning import Thinning
from besselflow.validation import Noise

if TYPE_CHECKING:
    import pandas as pd

FEWEST_PROJECTIONS = 8
"""With fewer, too little is left to reconstruct from once some are withheld."""

WITHHELD, FOLDED = "withheld", "folded"
COLUMNS = [
    *("sample", "method", "question", "c", "projection", "z_um", "block"),
    *("mse", "noise_variance", "peak"),
]
_BLOCKS_PER_EDGE = 4
_TIED_BELOW_ERRORS = 2.0


def left_out_projections(count: int, every: int) -> list[int]:
    """Choose the projections to withhold, by their order in depth.

    The first and the last always stay, since beyond them nothing could be predicted.

    Parameters
    ----------
    count : int
        Number of projections.
    every : int
        One of so many is withheld; 0 for none.

    Returns
    -------
    list of int
        Indices; empty where there are fewer than `FEWEST_PROJECTIONS`.
    """
    if not every or count < FEWEST_PROJECTIONS:
        return []
    return Thinning.of(count, every).withheld


def choose_region(images: np.ndarray, size: int) -> tuple[slice, slice]:
    """Find the square window with the most signal energy.

    Parameters
    ----------
    images : numpy.ndarray, shape (Y, X)
        Mean squared intensity.
    size : int
        Edge length in pixels; less where the image is smaller.

    Returns
    -------
    tuple of slice
        (y, x).
    """
    height, width = (min(size, length) for length in images.shape)
    total = np.pad(images.astype(np.float64).cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    inside = total[height:, width:] - total[:-height, width:] - total[height:, :-width]
    inside += total[:-height, :-width]
    y, x = (int(v) for v in np.unravel_index(np.argmax(inside), inside.shape))
    return slice(y, y + height), slice(x, x + width)


def take(
    projections: Projections, chosen: list[int], t: int, region: tuple[slice, slice]
) -> Projections:
    """Return some projections of one time point and a lateral region, on the same depth grid."""
    scale = projections.attributes.get("scale")
    members, window = projections.members_um, (slice(t, t + 1), slice(None), chosen, *region)
    masked, saturated = projections.masked, projections.saturated
    factors = projections.noise_factors
    return replace(
        projections,
        data=projections.data[window],
        masked=None if masked is None else masked[window],
        saturated=None if saturated is None else saturated[window],
        positions_um=projections.positions_um[chosen],
        attributes=projections.attributes | ({"scale": [scale[t]]} if scale else {}),
        members_um=members and [members[p] for p in chosen],
        noise_factors=None if factors is None else factors[chosen],
    )


def thin(projections: Projections, every: int, size: int) -> Projections:
    """Withhold every so many projections, and fold some others (`besselflow.thinning`).

    Parameters
    ----------
    projections : Projections
        All projections.
    every : int
        As in `left_out_projections`.
    size : int
        Edge length of the lateral region to keep, in pixels. It is the brightest one of the middle
        time point, and bounds the work, whatever the size of the acquisition.

    Returns
    -------
    Projections
        Those that stay, of that region and time point. The attribute ``held_out`` says what was
        taken: ``projections``, ``folded``, ``t``, ``y`` and ``x`` (first and end).

    Raises
    ------
    ValueError
        No projection would be withheld.
    """
    count = len(projections.positions_um)
    if not left_out_projections(count, every):
        raise ValueError(f"{count} projections are too few to withhold one of {every}")
    t = projections.data.shape[0] // 2
    images = projections.data[t].astype(np.float64)
    # Channels count alike, whatever their brightness.
    energy = np.square(images).mean(axis=1)
    energy = np.asarray(
        (energy / np.maximum(energy.mean(axis=(1, 2)), 1e-30)[:, None, None]).sum(0)
    )
    region = choose_region(energy, size)
    thinning = Thinning.of(count, every)
    whole = take(projections, list(range(count)), t, region)
    images = [whole.data[:, :, group].mean(axis=2) for group in thinning.groups]
    masked, saturated = whole.masked, whole.saturated
    if masked is not None:
        # A mean is no measurement where one of its members isn't.
        masked = _of_any(masked, thinning)
    if saturated is not None:
        # It is a lower bound where the others of them are measurements or bounds, too.
        saturated = _of_any(saturated, thinning) & ~_of_any(whole.masked & ~saturated, thinning)
    members = [[float(whole.positions_um[p]) for p in group] for group in thinning.groups]
    factors = whole.noise_factors
    y, x = ([window.start, window.stop] for window in region)
    taken = {"projections": thinning.withheld, "folded": [list(pair) for pair in thinning.folded]}
    taken |= {"t": t, "y": y, "x": x}
    return replace(
        whole,
        data=da.stack(images, axis=2).astype(np.float32),
        positions_um=thinning.apply(whole.positions_um),
        attributes=whole.attributes | {"held_out": taken},
        members_um=members if thinning.folded else None,
        masked=masked,
        saturated=saturated,
        noise_factors=None if factors is None else thinning.apply(factors),
        pictures={},
    )


def _of_any(mask: da.Array, thinning: Thinning) -> da.Array:
    return da.stack([mask[:, :, group].any(axis=2) for group in thinning.groups], axis=2)


def questions_of(taken: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the combinations of projections that the methods did not see.

    Parameters
    ----------
    taken : mapping
        Attribute ``held_out`` of what `thin` returned.

    Returns
    -------
    dict
        `WITHHELD` -> projections, `FOLDED` -> differences of neighbours, as far as there are any:
        rows of weights of the projections, shape (n, P) up to the last that is asked for.
    """
    withheld, folded = taken["projections"], taken["folded"]
    identity = np.eye(1 + max([*withheld, *(p for pair in folded for p in pair)]))
    questions = {WITHHELD: identity[withheld]}
    questions[FOLDED] = np.array([identity[a] - identity[b] for a, b in folded])
    return {name: rows for name, rows in questions.items() if len(rows)}


def deciding(questions: Collection[str]) -> str:
    """Return which of the questions that were asked decides."""
    return FOLDED if FOLDED in questions else WITHHELD


def ask(question: np.ndarray, projections: np.ndarray) -> np.ndarray:
    """Combine projections (P, y, x) as the rows of a question (n, P) do, P or fewer."""
    return np.tensordot(question, projections[: question.shape[1]], axes=1)


def prediction_errors(
    volumes: Mapping[str, da.Array],
    thinned: Projections,
    projections: Projections,
    noise: Noise | None,
    sample: str,
) -> pd.DataFrame:
    """Compare what the methods did not see with what their volumes predict of it.

    Parameters
    ----------
    volumes : mapping
        Method -> volume reconstructed from `thinned`, shape (1, C, Z, y, x).
    thinned : Projections
        What `thin` made.
    projections : Projections
        All projections.
    noise : Noise or None
        Noise of all projections.
    sample : str
        Name of the sample.

    Returns
    -------
    pandas.DataFrame
        Columns `COLUMNS`: for every method, question, channel, withheld projection or first of a
        folded pair, and block of a lateral grid of 4 x 4, the mean squared error and the mean noise
        variance (intensity squared; NaN where unknown), and the brightest pixel of the channel's
        withheld projections.
    """
    # Most of those who use this module make no table, and need not wait for pandas.
    import pandas as pd

    taken = thinned.attributes["held_out"]
    region, t = (slice(*taken["y"]), slice(*taken["x"])), taken["t"]
    whole = take(projections, list(range(len(projections.positions_um))), t, region)
    operator, questions = whole.operator, questions_of(taken)
    rows = []
    for c in range(whole.data.shape[1]):
        measured = np.asarray(whole.data[0, c], dtype=np.float64)
        variance = np.full(measured.shape, np.nan)
        if noise is not None:
            variance = noise.variance_of(t, c, operator, *region)
        masked = whole.masked_at(0, c, slice(None), slice(None))
        masked = np.zeros(measured.shape, bool) if masked is None else masked
        peak = float(measured[taken["projections"]].max())
        for method, volume in volumes.items():
            predicted = operator.forward(np.asarray(volume[0, c]))
            for name, question in questions.items():
                kept = ask(np.square(question), masked) == 0
                squares = _block_means(np.square(ask(question, predicted - measured)), kept)
                variances = _block_means(ask(np.square(question), variance), kept)
                for weights, *values in zip(question, squares, variances, strict=True):
                    index = int(np.argmax(weights))
                    z_um = np.average(whole.positions_um[: len(weights)], weights=np.abs(weights))
                    rows += [
                        (sample, method, name, c, index, z_um, block, *pair, peak)
                        for block, pair in enumerate(zip(*values, strict=True))
                    ]
    return pd.DataFrame(rows, columns=COLUMNS)


@dataclass(frozen=True)
class Prediction:
    """How well a method predicted what it did not see.

    Attributes
    ----------
    method : str
        Its name.
    question : str
        What it was asked, `WITHHELD` or `FOLDED`.
    psnr : float
        Peak signal-to-noise ratio in dB over the brightest withheld pixel, mean over channels.
    chi2 : float or None
        Mean squared error over the mean noise variance: 1 is a perfect prediction, and what is
        above is its error. None where the noise is not known.
    tied : bool
        Whether the data can't tell it from the best one: its mean squared error is above that of
        the best by less than two standard errors of the difference over blocks.
    """

    method: str
    question: str
    psnr: float
    chi2: float | None
    tied: bool


def rank_predictions(table: pd.DataFrame, question: str | None = None) -> list[Prediction]:
    """Order methods by how well they predicted what they did not see, the best first.

    Parameters
    ----------
    table : pandas.DataFrame
        What `prediction_errors` returned; may be empty.
    question : str or None
        `WITHHELD` or `FOLDED`; None for the one that decides.
    """
    question = question or deciding(set(table["question"]))
    table = table[table["question"] == question]
    if table.empty:
        return []
    relative = table.assign(error=table["mse"] / table["peak"] ** 2)
    errors = relative.pivot(index=["c", "projection", "block"], columns="method", values="error")
    by_channel = errors.groupby(level="c").mean().clip(lower=1e-10)
    psnr = (-10 * np.log10(by_channel)).mean().sort_values(ascending=False, kind="stable")
    best = psnr.index[0]
    ranking = []
    for method, value in psnr.items():
        own = table[table["method"] == method]
        known = own["noise_variance"].notna().all()
        chi2 = float(own["mse"].mean() / own["noise_variance"].mean()) if known else None
        behind = errors[method] - errors[best]
        error = behind.std() / np.sqrt(len(behind))
        tied = bool(behind.mean() <= _TIED_BELOW_ERRORS * error)
        ranking.append(Prediction(str(method), question, float(value), chi2, tied))
    return ranking


def _block_means(stack: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Average the kept pixels of each image over a grid of blocks, shape (P, blocks).

    A block of which nothing is kept counts as 0, in the errors of all methods alike.
    """
    stack = np.where(kept, stack, 0.0)
    rows = np.array_split(np.arange(stack.shape[1]), min(_BLOCKS_PER_EDGE, stack.shape[1]))
    columns = np.array_split(np.arange(stack.shape[2]), min(_BLOCKS_PER_EDGE, stack.shape[2]))
    return np.stack(
        [
            stack[:, r[0] : r[-1] + 1, k[0] : k[-1] + 1].sum(axis=(1, 2))
            / np.maximum(kept[:, r[0] : r[-1] + 1, k[0] : k[-1] + 1].sum(axis=(1, 2)), 1)
            for r in rows
            for k in columns
        ],
        axis=1,
    )
