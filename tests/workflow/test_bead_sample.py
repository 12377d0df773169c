"""A sample whose beam is known from a stack of beads, with slices and blur left to the workflow."""

import os

import pytest
import tifffile

from besselflow.store import open_projections
from test_bead import draw, noisy
from tiny_runs import TinyFacility, job_counts

pytestmark = pytest.mark.workflow


def test_bead_stack_and_default_slices(tmp_path):
    facility = TinyFacility(tmp_path, methods=["interpolation"], final="interpolation")
    facility.add_test("a", known=False)
    beads = tmp_path / "beads.tif"
    tifffile.imwrite(
        beads,
        noisy(draw()),
        imagej=True,
        resolution=(5, 5),
        metadata={"axes": "ZYX", "unit": "um", "spacing": 1.0},
    )
    facility.rows["a"] |= {
        "beam_profile": "beads.tif:z=0.5um",
        "lateral_psf": "beam",
        "voxel_size_z_um": "",
    }
    facility.write_sheet()
    target = "results/a/projections.zip"
    done = facility.run(target)
    assert done.returncode == 0, done.stdout
    stored = open_projections(facility.results / "a" / "projections.zip")
    assert stored.voxel_size_um == (1.0, 1.0, 1.0)
    assert stored.profile.fwhm_um == pytest.approx(6, abs=0.5)
    assert stored.lateral_kernel.shape == (3, 3)
    # The stack is an input like any other: when it changes, the sample is done again.
    os.utime(beads)
    assert job_counts(facility.run("--dry-run", target).stdout)["preprocess"] == 1
