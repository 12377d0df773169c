"""Landmarks of a volume, by which a part of it is recognised wherever it lies in another.

A landmark is a local maximum of a slice with the pixels around it. Which ones there are does not
depend on where a stack was cut, so that two stacks that share voxels share landmarks, whichever of
both is the larger; and noise makes every landmark one of its own. What was resampled, turned, or
imaged again has others.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping

import numpy as np
from scipy.ndimage import maximum_filter

FEWEST_SHARED = 3
"""So many landmarks in common are no coincidence."""

_EDGE = 5
# Patches of fewer values are found again in other volumes, such as those of single photons.
_FEWEST_VALUES = 8


def landmarks(image: np.ndarray) -> np.ndarray:
    """Return the digests of all landmarks of a slice.

    Parameters
    ----------
    image : numpy.ndarray, shape (Y, X)
        Any unit; a constant that is added changes nothing where the sums are exact.

    Returns
    -------
    numpy.ndarray of uint64, shape (n,)
        Increasing.
    """
    image = np.asarray(image, np.float64)
    reach = _EDGE // 2
    inside = tuple(slice(reach, length - reach) for length in image.shape)
    if min(image.shape) < _EDGE:
        return np.zeros(0, np.uint64)
    rows, columns = np.nonzero((image == maximum_filter(image, _EDGE))[inside])
    windows = np.lib.stride_tricks.sliding_window_view(image, (_EDGE, _EDGE))
    patches = windows[rows, columns].reshape(-1, _EDGE**2)
    ordered = np.sort(patches, axis=1)
    values = 1 + np.count_nonzero(np.diff(ordered, axis=1), axis=1)
    distinct = (values >= _FEWEST_VALUES) & (ordered[:, -1] > ordered[:, -2])
    relative = (patches - ordered[:, :1])[distinct].astype(np.float32)
    return np.unique(_digests(relative.view(np.uint32).astype(np.uint64)))


def _digests(words: np.ndarray) -> np.ndarray:
    """Mix each row of words into one, as splitmix64 does (Steele et al., OOPSLA 2014)."""
    digest = np.zeros(len(words), np.uint64)
    for word in words.T:
        digest = (digest ^ word) + np.uint64(0x9E3779B97F4A7C15)
        digest = (digest ^ (digest >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        digest = (digest ^ (digest >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        digest ^= digest >> np.uint64(31)
    return digest


def some_of(digests: Iterable[np.ndarray], most: int) -> np.ndarray:
    """Return the smallest digests of all slices, which are spread over the volume at random.

    Where another volume holds a share of these voxels, it holds about that share of them.

    Parameters
    ----------
    digests : iterable of numpy.ndarray
        As from `landmarks`.
    most : int
        How many to keep.
    """
    kept = np.zeros(0, np.uint64)
    for each in digests:
        kept = np.union1d(kept, each)[:most]
    return kept


def encode(digests: np.ndarray) -> str:
    """Write digests as text."""
    return base64.b64encode(digests.astype("<u8").tobytes()).decode()


def decode(text: str) -> np.ndarray:
    """Inverse of `encode`."""
    return np.frombuffer(base64.b64decode(text), "<u8").astype(np.uint64)


class Landmarks:
    """The landmarks of several volumes, to look for in another one.

    Parameters
    ----------
    digests : mapping
        Name of a volume -> all or some of its landmarks.
    """

    def __init__(self, digests: Mapping[str, np.ndarray]):
        self._names = list(digests)
        owners = np.repeat(np.arange(len(digests)), [len(each) for each in digests.values()])
        joined = np.concatenate([np.zeros(0, np.uint64), *digests.values()])
        order = np.argsort(joined, kind="stable")
        self._digests, self._owners = joined[order], owners[order]

    def found_in(self, images: Iterable[np.ndarray]) -> str | None:
        """Return the name of a volume that shares voxels with slices (Y, X), or None.

        Slices are asked for one by one, and no more of them than it takes to know.
        """
        counts = np.zeros(len(self._names), int)
        for image in images:
            own = landmarks(image)
            first, last = (np.searchsorted(self._digests, own, side) for side in ("left", "right"))
            for start, end in zip(first[last > first], last[last > first], strict=True):
                np.add.at(counts, np.unique(self._owners[start:end]), 1)
            if (counts >= FEWEST_SHARED).any():
                return self._names[int(counts.argmax())]
        return None
