"""How many optimiser steps a fit of the network takes."""

from __future__ import annotations

# Optimiser steps per measured column, and their bounds.
_STEPS_PER_COLUMN = 0.15
_FEWEST_STEPS, _MOST_STEPS = 600, 6000

WARM_STEPS = 0.4
"""Share of the steps that a fit needs which starts from the one before."""


def automatic_steps(n_columns: int) -> int:
    """Return the number of optimiser steps for a unit of some pixel columns."""
    return int(min(max(_STEPS_PER_COLUMN * n_columns, _FEWEST_STEPS), _MOST_STEPS))
