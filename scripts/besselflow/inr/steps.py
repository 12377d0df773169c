"""How long a fit of the INR is, known without PyTorch so that its time can be estimated."""

from __future__ import annotations

# Optimiser steps per measured column, and their bounds.
_STEPS_PER_COLUMN = 0.15
_FEWEST_STEPS, _MOST_STEPS = 600, 6000


def automatic_steps(n_columns: int) -> int:
    """Return the number of optimiser steps for a unit of some pixel columns."""
    return int(min(max(_STEPS_PER_COLUMN * n_columns, _FEWEST_STEPS), _MOST_STEPS))
