"""Ends work at one of its steps, as the kill of its job would."""

import pytest

from besselflow import optimisation


class Interrupted(Exception):
    """Stands for the kill of a job."""


def interrupt(done_at, work, module=optimisation):
    """Do some work until its progress reaches a step, of which no checkpoint is left.

    The module is that of the loop whose progress is meant.
    """

    class Bomb(module.Progress):
        def update(self, done, detail=""):
            if done >= done_at:
                raise Interrupted

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "Progress", Bomb)
        with pytest.raises(Interrupted):
            work()
