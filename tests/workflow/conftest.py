"""The tests of this folder run Snakemake on tiny sheets, each in a folder of its own."""

import pytest

from tiny_runs import TinyFacility


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Two test samples, of which one has a ground truth, and one training volume; not run."""
    facility = TinyFacility(tmp_path_factory.mktemp("small"))
    facility.add_test("known", seed=5)
    facility.add_test("unknown", seed=6, known=False)
    facility.add_train("other")
    return facility
