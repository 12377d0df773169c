"""Checks how a run takes up its samples, and that its jobs leave out the same ones."""

import numpy as np
import pytest
import tifffile

from besselflow.beam import box_profile
from besselflow.diffusion.geometry import Geometry
from besselflow.errors import InputError, ProblemsError
from besselflow.failures import Failure
from besselflow.runs import Run

COLUMNS = [
    "sample",
    "acquisition",
    "stage_positions",
    "beam_profile",
    "voxel_size_z_um",
    "voxel_size_y_um",
    "voxel_size_x_um",
    "ground_truth",
    "role",
]


class Facility:
    """A folder with acquisitions `a` and `b`, a training volume `t`, and their sheet."""

    def __init__(self, folder):
        self.folder = folder
        for seed, name in enumerate(["a", "b"]):
            self.write_tiff(f"{name}.tif", 3, seed)
        self.write_tiff("t.tif", 18, 7)
        (folder / "stage.csv").write_text("projection,z_um\n0,2.5\n1,8.5\n2,14.5\n")
        (folder / "steps.csv").write_text("projection,z_um\n0,2.5\n1,7.5\n2,12.5\n")
        self.write_sheet()

    def write_tiff(self, name, planes, seed):
        counts = np.random.default_rng(seed).integers(90, 900, (planes, 32, 32)).astype(np.uint16)
        metadata = {"axes": "ZYX"}
        tifffile.imwrite(self.folder / name, counts, photometric="minisblack", metadata=metadata)

    def write_sheet(self):
        common = ["box:6um", "1", "0.5", "0.5"]
        rows = [
            COLUMNS,
            ["a", "a.tif", "stage.csv", *common, "", "test"],
            ["b", "b.tif", "steps.csv", *common, "", "test"],
            ["t", "", "", "", "1", "0.5", "0.5", "t.tif", "train"],
        ]
        (self.folder / "samples.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))

    def values(self):
        return {
            "samples": str(self.folder / "samples.tsv"),
            "results": str(self.folder / "results"),
            "methods": ["interpolation"],
            "final": "interpolation",
        }

    def prepare(self, **options):
        return Run.prepare(self.values(), **options)


@pytest.fixture
def facility(tmp_path):
    return Facility(tmp_path)


def test_good_samples_are_taken_up(facility):
    run = facility.prepare()
    assert list(run.tests) == ["a", "b"] and list(run.trains) == ["t"]
    assert run.rejected == {} and run.describe_rejections() == ""
    assert run.config.final == "interpolation"


def test_jobs_leave_out_the_samples_that_the_run_left_out(facility):
    (facility.folder / "a.tif").write_bytes(b"not an image")
    run = facility.prepare()
    assert list(run.tests) == ["b"]
    assert list(run.rejected) == ["a"]
    assert "a.tif" in run.reasons()["a"]
    assert "a.tif" in run.describe_rejections()
    run.remember_exclusions()
    # A file that is mended or spoilt while the run goes on does not change what its jobs do.
    facility.write_tiff("a.tif", 3, 0)
    (facility.folder / "b.tif").write_bytes(b"not an image")
    job = facility.prepare(check_files=False)
    assert list(job.tests) == ["b"] and list(job.trains) == ["t"]
    assert job.rejected == run.rejected


def test_excluded_training_sample_is_left_out_too(facility):
    (facility.folder / "t.tif").write_bytes(b"not an image")
    run = facility.prepare()
    run.remember_exclusions()
    assert list(run.tests) == ["a", "b"] and run.trains == {}
    assert facility.prepare(check_files=False).trains == {}


def test_next_run_forgets_mended_samples(facility):
    (facility.folder / "a.tif").write_bytes(b"not an image")
    facility.prepare().remember_exclusions()
    facility.write_tiff("a.tif", 3, 0)
    facility.prepare().remember_exclusions()
    assert list(facility.prepare(check_files=False).tests) == ["a", "b"]


def test_run_without_a_good_sample_is_refused_with_all_reasons(facility):
    for name in ("a.tif", "b.tif"):
        (facility.folder / name).write_bytes(b"not an image")
    with pytest.raises(InputError) as refused:
        facility.prepare()
    assert "a.tif" in str(refused.value) and "b.tif" in str(refused.value)


def test_wrong_configuration_is_refused(facility):
    with pytest.raises(ProblemsError, match='did you mean "results"'):
        Run.prepare({**facility.values(), "resutls": "x"})


def test_distance_of_the_slices_by_default(facility):
    sheet = facility.folder / "samples.tsv"
    sheet.write_text(sheet.read_text().replace("box:6um\t1\t", "box:6um\t\t"))
    run = facility.prepare()
    # Steps of 6 and 5 um support slices of 0.75 and 0.625 um.
    assert run.geometry_of("a").voxel_size_um == (0.75, 0.5, 0.5)
    assert run.geometry_of("b").voxel_size_um == (0.625, 0.5, 0.5)
    assert run.row_of("a")["voxel size (z, y, x) in um"] == "0.75, 0.5, 0.5 (z by default)"
    assert run.trains["t"].voxel_size_um == (1.0, 0.5, 0.5)


def test_samples_of_one_setup_share_a_prior(facility):
    run = facility.prepare()
    geometry = run.geometry_of("a")
    assert geometry == Geometry.of(box_profile(6), np.array([2.5, 8.5, 14.5]), (1.0, 0.5, 0.5))
    assert run.geometry_of("b").step_um == 5.0
    assert run.geometry_of_key(run.geometry_of("b").key) == run.geometry_of("b")
    assert run.geometry_of_key(geometry.key) == geometry


def test_row_of_a_sample_is_told_to_its_report(facility):
    row = facility.prepare().row_of("a")
    assert row["beam_profile"] == "box:6um"
    assert row["voxel size (z, y, x) in um"] == "1, 0.5, 0.5"
    assert "ground_truth" not in row


def test_cohort_page_of_a_failed_run_names_every_sample(facility):
    run = facility.prepare()
    run.write_cohort_report([Failure("a", "fit_inr", "the fit diverged <at step 3>", None)])
    page = (facility.folder / "results" / "report.html").read_text(encoding="utf-8")
    assert "the fit diverged &lt;at step 3&gt;" in page
    assert "the run stopped before it was done" in page
