"""The tests of this folder run the workflow on a Slurm cluster that they start and stop."""

import pytest

import cluster as one_node


@pytest.fixture(scope="session")
def cluster():
    """A Slurm cluster of one node, for as long as these tests run."""
    reason = one_node.why_not()
    if reason:
        pytest.skip(reason)
    try:
        one_node.start()
        yield one_node
    finally:
        one_node.stop()
