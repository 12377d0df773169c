"""Checks how a run takes up its samples, and that its jobs leave out the same ones."""

import numpy as np
import pytest
import tifffile

import estimate_shading
from besselflow import copies, runs
from besselflow.beam import box_profile
from besselflow.diffusion.geometry import Geometry
from besselflow.errors import InputError, ProblemsError
from besselflow.failures import Failure
from besselflow.landmarks import encode
from besselflow.placeholders import placeholder_in
from besselflow.runs import SHIPPED_PRIOR, Run
from simulate_training import TrainingStack, training_volumes
from tiny_priors import write_tiny_prior

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

    def write_tiff(self, name, planes, seed, **options):
        counts = np.random.default_rng(seed).integers(90, 900, (planes, 32, 32)).astype(np.uint16)
        options |= {"photometric": "minisblack", "metadata": {"axes": "ZYX"}}
        tifffile.imwrite(self.folder / name, counts, **options)

    def write_sheet(self, train=True, truth=""):
        common = ["box:6um", "1", "0.5", "0.5"]
        rows = [
            COLUMNS,
            ["a", "a.tif", "stage.csv", *common, truth, "test"],
            ["b", "b.tif", "steps.csv", *common, "", "test"],
        ]
        if train:
            rows.append(["t", "", "", "", "1", "0.5", "0.5", "t.tif", "train"])
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

    def with_prior(self, **prior):
        values = {"methods": ["spectral", "inr", "diffusion"], "final": "diffusion"}
        return Run.prepare(self.values() | values | {"prior": prior})


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


def test_training_volumes_are_searched_once(facility, monkeypatch):
    facility.write_tiff("truth.tif", 18, 8)
    facility.write_sheet(truth="truth.tif")
    read, sliced = [], copies._learnt_slices
    monkeypatch.setattr(copies, "_learnt_slices", lambda path: [read.append(path)] and sliced(path))
    first = facility.prepare()
    assert set(first.trains) == {"t"} and len(read) == 1
    first.remember_exclusions()
    assert set(facility.prepare().trains) == {"t"} and len(read) == 1
    # Another ground truth, and it is searched again: this one was cut out of it.
    part = tifffile.imread(facility.folder / "t.tif")[:12]
    tifffile.imwrite(facility.folder / "truth.tif", part, photometric="minisblack")
    (facility.folder / "stage.csv").write_text("projection,z_um\n0,2.5\n1,6.5\n2,9.5\n")
    found = facility.prepare()
    assert len(read) == 2 and not found.trains
    (text,) = found.rejected["t"]
    assert 'shares voxels with the ground truth of the test sample "a"' in text


def test_equal_beams_are_called_alike(facility):
    assert facility.prepare().beams == {"a": "6 µm", "b": "6 µm"}
    for name in "ab":
        rows = [f"{z - 2.5},1" for z in range(6)]
        (facility.folder / f"{name}.csv").write_text("\n".join(["dz_um,weight", *rows]) + "\n")
    sheet = facility.folder / "samples.tsv"
    text = sheet.read_text()
    sheet.write_text(text.replace("box:6um", "a.csv", 1).replace("box:6um", "b.csv", 1))
    assert facility.prepare().beams == {"a": "6 µm", "b": "6 µm"}
    sheet.write_text(text.replace("box:6um", "gaussian:6um", 1))
    named = {"a": "6 µm (gaussian:6um)", "b": "6 µm (box:6um)"}
    assert facility.prepare().beams == named
    sheet.write_text(text.replace("box:6um", "box:9um", 1))
    assert facility.prepare().beams == {"a": "9 µm", "b": "6 µm"}


def test_samples_of_one_setup_share_a_prior(facility):
    run = facility.prepare()
    geometry = run.geometry_of("a")
    assert geometry == Geometry.of(box_profile(6), np.array([2.5, 8.5, 14.5]), (1.0, 0.5, 0.5))
    assert run.geometry_of("b").step_um == 5.0
    trained = facility.with_prior(weights="train")
    assert trained.geometry_of_prior(run.geometry_of("b").key) == run.geometry_of("b")
    assert trained.geometry_of_prior(geometry.key) == geometry


@pytest.mark.parametrize(
    ("weights", "train", "trained"),
    [
        ("auto", True, True),
        ("auto", False, False),
        ("train", True, True),
        ("train", False, True),
        ("shipped", True, False),
        ("shipped", False, False),
    ],
)
def test_prior_is_trained_or_the_one_that_is_shipped(facility, weights, train, trained):
    facility.write_sheet(train)
    run = facility.with_prior(weights=weights)
    for sample in ("a", "b"):
        trained_path = facility.folder / f"results/priors/{run.geometry_of(sample).key}.safetensors"
        assert run.prior_of(sample) == (trained_path if trained else SHIPPED_PRIOR)
    keys = {run.geometry_of(sample).key for sample in ("a", "b")}
    assert len(keys) == 2
    assert set(run.trained_priors) == (keys if trained else set())


def test_shipped_prior_lies_in_the_repository():
    assert SHIPPED_PRIOR.parent.parent.name == "workflow"
    assert (SHIPPED_PRIOR.parents[1] / "Snakefile").is_file()


@pytest.mark.parametrize("damage", ["truncated", "flipped bit"])
def test_damaged_shipped_prior_is_named_before_anything_runs(facility, monkeypatch, damage):
    damaged = facility.folder / "phantoms.safetensors"
    content = bytearray(SHIPPED_PRIOR.read_bytes())
    if damage == "truncated":
        del content[-100:]
    else:
        content[-100] ^= 1
    damaged.write_bytes(content)
    monkeypatch.setattr(runs, "SHIPPED_PRIOR", damaged)
    with pytest.raises(InputError, match=r"phantoms\.safetensors: the prior that comes .*restore"):
        facility.with_prior(weights="shipped")


def test_prior_of_another_run_is_used_as_it_is(facility):
    path = write_tiny_prior(facility.folder / "earlier" / "abc.safetensors")
    run = facility.with_prior(weights=str(path))
    assert run.prior_of("a") == run.prior_of("b") == path
    assert list(run.trained_priors) == []


def test_file_that_is_no_prior_is_named_before_anything_runs(facility):
    with pytest.raises(InputError, match=r"t\.tif\" is not a prior"):
        facility.with_prior(weights=str(facility.folder / "t.tif"))


LEARNT = ["its file", "other byte order", "other voxels", "a part of it", "more than it"]


@pytest.mark.parametrize("learnt", LEARNT)
def test_prior_that_has_learnt_from_a_ground_truth_is_refused(facility, learnt):
    seed, order = (7 if learnt == "other voxels" else 8), (">" if "order" in learnt else "<")
    facility.write_tiff("truth.tif", 18, 8)
    facility.write_tiff("elsewhere.tif", 18, seed, byteorder=order)
    counts = tifffile.imread(facility.folder / "truth.tif")
    if learnt == "a part of it":
        # Saved anew, of another type, and without the offset.
        tifffile.imwrite(facility.folder / "elsewhere.tif", counts[9:, 7:, :25].astype("f4") - 90)
    elif learnt == "more than it":
        wider = np.random.default_rng(1).integers(90, 900, (24, 64, 48)).astype(np.uint16)
        wider[3:21, 30:62, 9:41] = counts
        tifffile.imwrite(facility.folder / "elsewhere.tif", wider, photometric="minisblack")
    facility.write_sheet(truth="truth.tif")
    voxel = (1.0, 0.5, 0.5)
    stack = TrainingStack("some mouse", facility.folder / "elsewhere.tif", voxel, None)
    geometry = facility.prepare().geometry_of("a")
    ((_, origin),) = training_volumes(stack, geometry, 0).values()
    known = {"some mouse": encode(origin.landmarks)}
    prior = write_tiny_prior(
        facility.folder / "abc.safetensors",
        digests={"some mouse": origin.digest},
        landmarks={} if "order" in learnt else known,
    )
    if learnt == "other voxels":
        assert facility.with_prior(weights=str(prior)).prior_of("a") == prior
        return
    with pytest.raises(InputError) as refused:
        facility.with_prior(weights=str(prior))
    text = str(refused.value)
    assert all(part in text for part in ("abc.safetensors", '"some mouse"', '"a"', "truth.tif"))
    # Where it isn't used, it does no harm.
    assert Run.prepare(facility.values() | {"prior": {"weights": str(prior)}})


@pytest.mark.parametrize("weights", ["earlier/abc.safetensors", "shiped", "."])
def test_prior_that_is_not_there_is_named_before_anything_runs(facility, weights):
    with pytest.raises(InputError) as refused:
        facility.with_prior(weights=weights)
    text = str(refused.value)
    assert f'prior.weights in the configuration: "{weights}" is no file' in text
    assert all(word in text for word in ("auto", "shipped", "train", ".safetensors"))


def test_prior_that_nothing_needs_may_be_missing(facility):
    run = Run.prepare(facility.values() | {"prior": {"weights": "earlier/abc.safetensors"}})
    assert run.config.prior.weights == "earlier/abc.safetensors"


@pytest.mark.parametrize(
    ("train", "phantoms", "expected"), [(True, 0, 0), (True, 5, 5), (False, 0, 12), (False, 20, 20)]
)
def test_prior_is_trained_on_samples_and_phantoms(facility, train, phantoms, expected):
    facility.write_sheet(train)
    items = facility.with_prior(phantoms=phantoms).training_items("any")
    samples = ["train-t"] if train else []
    assert items == samples + [f"phantom-{number}" for number in range(expected)]


def test_every_training_sample_is_imaged_as_often_as_is_wished(facility):
    facility.write_sheet(True)
    run = facility.with_prior(acquisitions=3, phantoms=1)
    assert run.training_items("any") == ["train-t", "train2-t", "train3-t", "phantom-0"]


@pytest.mark.parametrize("train", [True, False])
def test_own_prior_is_one_per_sample_and_learns_from_no_other(facility, train):
    facility.write_sheet(train)
    run = facility.with_prior(weights="own", phantoms=2)
    assert run.trained_priors == ["own-a", "own-b"]
    for sample in ("a", "b"):
        key = f"own-{sample}"
        assert run.prior_of(sample) == facility.folder / f"results/priors/{key}.safetensors"
        assert run.geometry_of_prior(key) == run.geometry_of(sample)
        assert run.training_items(key) == [f"{key}-y", f"{key}-x", "phantom-0", "phantom-1"]


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


def test_a_flat_field_that_is_not_there_stops_the_run(facility):
    values = facility.values() | {"corrections": {"flat_field": str(facility.folder / "flat.tif")}}
    with pytest.raises(InputError, match=r"corrections\.flat_field in the configuration: .*flat"):
        Run.prepare(values)


def test_a_flat_field_of_another_size_leaves_out_its_samples(facility):
    path = facility.folder / "flat.tif"
    tifffile.imwrite(path, np.ones((32, 32), np.float32))
    values = facility.values() | {"corrections": {"flat_field": str(path)}}
    assert set(Run.prepare(values).tests) == {"a", "b"}
    tifffile.imwrite(path, np.ones((30, 32), np.float32))
    with pytest.raises(InputError, match="the flat field has 30 x 32 pixels"):
        Run.prepare(values)


def test_a_flat_field_that_is_kept_though_the_sheet_has_changed_is_told(facility):
    values = facility.values() | {"corrections": {"flat_field": "auto"}}
    run = Run.prepare(values)
    assert run.flat_fields == facility.folder / "results" / "flat_field"
    assert run.describe_kept_flat_fields() is None
    estimate_shading.main(values["samples"], run.flat_fields)
    assert Run.prepare(values).describe_kept_flat_fields() is None
    sheet = facility.folder / "samples.tsv"
    sheet.write_text(sheet.read_text().replace("\nb\t", "\nc\t"))
    told = Run.prepare(values).describe_kept_flat_fields()
    assert "(new: c; gone: b), and is kept" in told and "--forcerun estimate_shading" in told
    assert facility.prepare().describe_kept_flat_fields() is None


@pytest.mark.parametrize("name", ["of {sample}", "of <results>"])
def test_a_path_that_snakemake_would_fill_in_is_refused(facility, name):
    with pytest.raises(InputError, match=r"results in the configuration: [{<]\w+[}>] in .*rename"):
        Run.prepare({"samples": str(facility.folder / "samples.tsv"), "results": name})


@pytest.mark.parametrize("name", ["{open", "shut}", "a < b >", "<B>", "100 %"])
def test_what_snakemake_takes_as_it_stands_is_no_placeholder(name):
    assert placeholder_in(name) is None
