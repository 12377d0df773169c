"""Thinned acquisitions: some projections are taken out, and some neighbours are made one.

Two questions are put to a method that reconstructs from what is left. What did the projection show
that was *withheld*: can the method bridge a gap? And how was the light divided between two
neighbours that were *folded* into their mean: can it place light within the length of a beam? The
folded projection is that of a longer beam, and what was lost of it is the difference of both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Thinning:
    """What is taken from an acquisition, by the order of the projections in depth.

    Attributes
    ----------
    count : int
        Number of projections.
    withheld : list of int
        Projections that are taken out.
    folded : list of tuple of int
        Neighbours that are replaced by their mean.
    """

    count: int
    withheld: list[int]
    folded: list[tuple[int, int]]

    @classmethod
    def of(cls, count: int, every: int, first: int | None = None) -> Thinning:
        """Withhold every so many projections, and fold two of those midway between them.

        The first and the last are never withheld, since beyond them nothing could be predicted.

        Parameters
        ----------
        count : int
            Number of projections.
        every : int
            One of so many is withheld. From 5 on, two others are folded: with fewer, they would lie
            next to a gap.
        first : int or None
            The first to withhold; the middle of the first `every` by default.
        """
        first = min(every, count) // 2 if first is None else first
        withheld = [p for p in range(first, count - 1, every) if p > 0]
        folded = []
        if every >= 5:
            starts = range(first - every + every // 2, count - 1, every)
            folded = [(p, p + 1) for p in starts if p > 0 and not {p, p + 1} & set(withheld)]
        return cls(count, withheld, folded)

    @property
    def groups(self) -> list[list[int]]:
        """Return which projections each of those that are left is the mean of."""
        partner = {a: [a, b] for a, b in self.folded}
        gone = {*self.withheld, *(b for _, b in self.folded)}
        return [partner.get(p, [p]) for p in range(self.count) if p not in gone]

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Thin an array along its first axis, whose entries are the projections in order."""
        return np.stack([values[group].mean(axis=0) for group in self.groups]).astype(values.dtype)
