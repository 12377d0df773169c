"""The pages of reports, made from small synthetic results and read back as HTML."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import dask.array as da
import numpy as np
import pandas as pd
import pytest

from besselflow.report import SampleStatus, write_cohort_report, write_sample_report
from besselflow.report.facts import methods_paragraph
from besselflow.report.pictures import load_preview, scale_bar_um
from besselflow.report.verdict import Suspect, find_suspect, write_verdict
from besselflow.store import open_projections, write_projections, write_volume
from report_cohort import list_statuses
from report_cohort import main as report_cohort
from report_sample import main as report_sample
from report_samples import METHODS, Sizes, write_reported_sample, write_sample

NASTY = '<script>alert("x")</script><b>&amp;'


class Page(HTMLParser):
    """Text, images, links and tags of a page."""

    def __init__(self, path):
        super().__init__()
        self.size = path.stat().st_size
        self.source = path.read_text(encoding="utf-8")
        self.images, self.links, self.loaded, self.tags, self.generator = [], [], [], [], None
        self._text, self._inside = [], []
        self.feed(self.source)
        self.text = " ".join(" ".join(self._text).split())

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append(tag)
        self._inside.append(tag)
        if tag == "img":
            self.images.append(values)
        if tag == "a":
            self.links.append(values["href"])
        self.loaded += [values[key] for key in ("src", "srcset") if key in values]
        if tag == "link":
            self.loaded.append(values["href"])
        if values.get("name") == "generator":
            self.generator = values["content"]

    def handle_endtag(self, tag):
        self._inside.append("/" + tag)

    def handle_data(self, data):
        if not self._inside or self._inside[-1] not in ("script", "style"):
            self._text.append(data)


def check_page(page):
    assert page.size < 10e6
    assert re.fullmatch(r"BesselFlow \d+\.\d+.*", page.generator)
    assert all(source.startswith("data:") for source in page.loaded), "loads from elsewhere"
    assert "url(" not in page.source and "@import" not in page.source
    assert all(image.get("alt") for image in page.images), "an image without alternative text"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    write_reported_sample(folder, "vessels", row={"sample": "vessels", "note": NASTY, NASTY: "1"})
    write_reported_sample(folder, "no-truth", has_truth=False)
    return folder


@pytest.fixture(scope="module")
def measured(results):
    return open_projections(results / "vessels" / "work" / "projections.zip")


def test_a_sample_page_is_self_contained_and_complete(results):
    page = Page(results / "vessels" / "report.html")
    check_page(page)
    for method in METHODS:
        assert any(method in image["alt"] for image in page.images)
    for words in (
        "95 % interval",
        "Data range",
        "Gain (dB)",
        "Gain over inr (dB)",
        "Further scores",
        "How fine is the detail that is right?",
        "Is the stated uncertainty right?",
        "Which detail is too strong, and which is lost?",
        "all 24 slices at full resolution",
        "dB better than interpolating the projections",
        "look first at z =",
        "The acquisition",
        "Speed-up",
        "Maximum projections",
        "Trained on: vessels-train, 6 phantoms",
        "61.5",
        "Hui et al., CVPR 2024, arXiv:2403.10815",
        "napari",
        "Settings (seed 0)",
    ):
        assert words in page.text
    assert 'class="num best"' in page.source


def test_names_from_the_sheet_can_not_inject_html(results):
    page = Page(results / "vessels" / "report.html")
    assert NASTY in page.text
    assert page.tags.count("script") == 2
    assert "<script>alert" not in page.source


def test_without_ground_truth_the_page_says_that_accuracy_is_unknown(results):
    page = Page(results / "no-truth" / "report.html")
    check_page(page)
    assert "No ground truth exists for this sample, so the accuracy" in page.text
    assert "reduced chi-square" in page.text
    assert "where the stated uncertainty is largest" in page.text
    assert "PSNR of" not in page.text and "error of" not in page.text
    assert not any("ground truth" in image["alt"] for image in page.images)
    scores = page.source.partition('id="scores"')[2].partition("<section")[0]
    assert "Which method to believe" in scores and "Structure left" in scores
    assert "overlay" in page.source and '"error"' not in page.source.partition("viewer-data")[2]


def test_a_spectral_page_says_what_its_uncertainty_is(tmp_path):
    write_reported_sample(tmp_path, "fast", methods=("interpolation", "spectral"))
    page = Page(tmp_path / "fast" / "report.html")
    check_page(page)
    assert "the standard deviation that the Gaussian process states" in page.text
    assert "Its posterior standard deviation is the stated uncertainty." in page.text
    assert "an isotropic stationary 3D prior" in page.text
    for quantity in ("correlation length", "noise variance"):
        assert quantity in page.text


def test_the_paragraph_names_what_the_model_of_the_beam_and_the_sample_is(measured):
    blurred = replace(measured, lateral_kernel=np.full((3, 3), 1 / 9))
    records = {"spectral": [{"anisotropy": 1.5}, {"anisotropy": 1.7}]}
    text = methods_paragraph(blurred, records, "spectral", None, has_truth=False)
    assert "side lobes of the beam were modelled as a lateral blur" in text
    assert "(correlation length along z 1.6 times lateral)" in text
    assert "side lobes" not in methods_paragraph(measured, {}, "spectral", None, has_truth=False)


@pytest.mark.parametrize(("rounds", "named"), [(4, True), (1, False)])
def test_the_paragraph_tells_of_bregman_rounds_where_there_were_several(measured, rounds, named):
    records = {"variational": [{"rounds": rounds}]}
    text = methods_paragraph(measured, records, "variational", None, has_truth=False)
    assert "alternating direction method of multipliers" in text
    assert (f"{rounds} Bregman rounds" in text) == named


def test_the_paragraph_says_how_the_published_scheme_was_run(measured):
    record = {
        "inr_weight": 0.9,
        "guidance": 1.8,
        "evaluations": 100,
        "trained_on": 21,
        "image_embedding": True,
        "position_embedding": True,
        "neighbour_average": True,
    }

    def paragraph(**changes):
        records = {"microdiffusion": [record | changes]}
        return methods_paragraph(measured, records, "microdiffusion", None, has_truth=False)

    text = paragraph()
    assert "trained on 21 projections of this sample alone" in text
    assert "on the nearest projection and on its depth" in text
    assert "guidance of weight 1.8, in 100 network evaluations" in text
    assert "averaged with its neighbours, at a weight of 0.9" in text
    assert "noise levels" not in paragraph(levels=50, levels_visited=50)
    assert "12 network evaluations at the last 6 of 1000 noise levels" in paragraph(
        evaluations=12, levels=1000, levels_visited=6
    )
    assert "did not take part" in paragraph(inr_weight=0)
    assert "fitted anew" not in text
    assert "was fitted anew in the steps that trained the model" in paragraph(inr_training="joint")
    without = paragraph(image_embedding=False, position_embedding=False)
    assert "conditioned" not in without and "guidance" not in without


def test_a_page_can_be_made_with_the_least_that_a_run_gives(tmp_path):
    inputs = write_sample(
        tmp_path, "least", has_truth=False, has_uncertainty=False, methods=("interpolation",)
    )
    least = type(inputs)(
        inputs.sample,
        inputs.projections,
        inputs.volumes,
        inputs.final,
        inputs.metrics,
        inputs.slices,
    )
    report_sample(least, tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    check_page(page)
    assert "No score can be given" in page.text
    assert "midway between the two neighbouring projections" in page.text


def test_the_script_reads_the_record_of_the_prior(tmp_path):
    inputs = write_sample(tmp_path, "sample")
    info = tmp_path / "prior.json"
    info.write_text(json.dumps({"trained_on": ["elsewhere"], "curve": [[0, 1.0]], "steps": 1}))
    report_sample(inputs, tmp_path / "report.html", info)
    assert "Trained on: elsewhere; 1 steps" in Page(tmp_path / "report.html").text


def test_time_series_with_gaps_say_what_is_shown_and_never_seen(tmp_path):
    sizes = Sizes(times=2, channels=2, slices=30, step=9)
    inputs = write_sample(tmp_path, "series", sizes=sizes)
    write_sample_report(tmp_path / "report.html", inputs)
    page = Page(tmp_path / "report.html")
    assert re.search(r"look first at z = \d+ µm, time point \d, channel \d, where", page.text)
    assert re.search(r"Slices of time point \d, channel \d at x =", page.text)
    assert "2 time points, 2 channels" in page.text
    assert "4 of 19 slices" in page.text
    assert "slices that none saw" in page.text


def test_large_noisy_volumes_stay_below_ten_megabytes_and_say_that_they_are_reduced(tmp_path):
    sizes = Sizes(slices=60, rows=260, columns=220)
    inputs = write_sample(tmp_path, "large", sizes=sizes, picture_pixels=200)
    write_sample_report(tmp_path / "report.html", inputs)
    page = Page(tmp_path / "report.html")
    check_page(page)
    assert re.search(r"averaged from 60 × 260 × 220 voxels of 1 × 0.5 × 0.5 µm", page.text)
    assert "compressed with a small loss" in page.text


def test_a_preview_keeps_the_mean_and_the_extent(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.random((1, 1, 6, 200, 150)).astype("float32")
    write_volume(
        tmp_path / "v.ome.zarr", da.from_array(values), (2.0, 0.5, 0.5), (1.0, 0, 0), "v", {}
    )
    preview = load_preview(tmp_path / "v.ome.zarr", 80)
    assert preview.values.shape == (6, 80, 60)
    assert preview.voxel_um == pytest.approx((2.0, 1.25, 1.25))
    assert preview.z_um == pytest.approx(1 + 2 * np.arange(6))
    assert preview.values.mean() == pytest.approx(values.mean(), rel=0.01)


def test_a_preview_joins_neighbouring_slices_where_there_are_too_many(tmp_path):
    values = np.arange(10.0, dtype="float32")[:, None, None] * np.ones((10, 16, 16), "float32")
    series = np.stack([values, 100 + values])[:, None]
    write_volume(
        tmp_path / "v.ome.zarr", da.from_array(series), (2.0, 0.5, 0.5), (1.0, 0, 0), "v", {}
    )
    preview = load_preview(tmp_path / "v.ome.zarr", 80, (1, 0), most_slices=5)
    assert preview.values[:, 0, 0] == pytest.approx(100.5 + 2 * np.arange(5))
    assert preview.z_um == pytest.approx(2 + 4 * np.arange(5))
    assert preview.voxel_um == pytest.approx((4.0, 0.5, 0.5))


@pytest.mark.parametrize(("extent", "bar"), [(100, 20), (40, 10), (8, 2), (3.2, 0.5), (900, 200)])
def test_scale_bars_are_round_numbers(extent, bar):
    assert scale_bar_um(extent) == pytest.approx(bar)


def scores(**psnr):
    return {name: {"psnr": value, "ssim": 0.9, "dice": 0.8} for name, value in psnr.items()}


def test_a_verdict_admits_that_another_method_is_better():
    values = scores(interpolation=30.0, spectral=34.0, diffusion=33.0)
    verdict = write_verdict(values, "diffusion", True, None, Suspect(3, "where it is bad"))
    assert "3.0 dB better than interpolating" in verdict.sentence
    assert "but 1.0 dB below spectral" in verdict.sentence
    assert "no uncertainty is stated" in verdict.sentence
    assert verdict.tone == "warning"


@pytest.mark.parametrize(
    ("coverage", "word"), [(0.6, "too small"), (0.9, "trustworthy"), (0.99, "cautious")]
)
def test_a_verdict_judges_the_uncertainty(coverage, word):
    values = scores(diffusion=33.0)
    values["diffusion"]["coverage_90"] = coverage
    verdict = write_verdict(values, "diffusion", True, 0.1, Suspect(3, "where it is bad"))
    assert f"its stated uncertainty is {word}" in verdict.sentence


@pytest.mark.parametrize(
    ("chi2", "word"),
    [(0.4, "follows the noise"), (0.8, "explains"), (1.5, "nearly"), (3, "contradicts")],
)
def test_a_verdict_without_truth_judges_the_agreement_with_the_data(chi2, word):
    verdict = write_verdict({"inr": {"chi2": chi2}}, "inr", False, None, Suspect(3, "there"))
    assert word in verdict.sentence


def test_the_suspect_is_the_worst_slice_else_the_least_certain_else_the_widest_gap():
    z, positions = np.arange(10.0), np.array([2.0, 4.0, 8.0])
    spread = np.ones((2, 1, 10))
    spread[:, :, 0] = 9.0
    spread[1, 0, 5] = 2.0
    slices = pd.DataFrame(
        {
            "method": ["inr"] * 3,
            "t": [0, 4, 0],
            "c": [0, 1, 0],
            "z_um": [2.0, 3.0, 4.0],
            "psnr": [30, 20, 25],
        }
    )
    worst = find_suspect(slices, "inr", spread, z, positions)
    assert (worst.t, worst.c, worst.z_um) == (4, 1, 3)
    unsure = find_suspect(slices[:0], "inr", spread, z, positions)
    assert (unsure.t, unsure.c, unsure.z_um) == (1, 0, 5)
    assert find_suspect(slices[:0], "inr", None, z, positions).z_um == 6
    assert find_suspect(slices[:0], "inr", None, z, positions[:1]).z_um == 2


STATUSES = [
    SampleStatus("vessels", "test", "done"),
    SampleStatus("no-truth", "test", "done"),
    SampleStatus("broken", "test", "failed", "fit_inr", f"out of memory {NASTY}", "logs/inr.log"),
    SampleStatus("wrong", "test", "excluded", "the check of the input", "no such file"),
    SampleStatus("trainer", "train", "done"),
]


def test_the_cohort_page_lists_failures_first_and_links_the_others(results):
    report_cohort(results / "report.html", results / "metrics.tsv", results, STATUSES, "diffusion")
    page = Page(results / "report.html")
    check_page(page)
    assert "2 of 4 samples finished, 1 failed and 1 excluded" in page.text
    assert NASTY in page.text and "<script>alert" not in page.source
    rows = re.findall(r'<tr data-status="(\w+)"', page.source)
    assert rows == ["failed", "excluded", "done", "done"]
    assert {"vessels/report.html", "no-truth/report.html", "metrics.tsv"} <= set(page.links)
    assert "trainer/report.html" not in page.links
    assert sum(image.get("class") == "thumbnail" for image in page.images) == 2
    assert "too few to tell: 1 sample can't give p below 1" in page.text


def test_the_cohort_table_holds_all_scores_of_all_done_samples(results):
    write_cohort_report(
        results / "report.html", results / "metrics.tsv", results, STATUSES, "diffusion"
    )
    table = pd.read_csv(results / "metrics.tsv", sep="\t")
    assert list(table.columns) == ["sample", "method", "metric", "value"]
    assert set(table["sample"]) == {"vessels", "no-truth"}
    own = pd.read_csv(results / "vessels" / "metrics.tsv", sep="\t")
    assert {"psnr", "psnr_3d", "ssim", "dice", "chi2", "coverage_90"} <= set(own["metric"])
    assert len(table[table["sample"] == "vessels"]) == len(own)


def test_a_log_that_exists_is_linked(tmp_path):
    log = tmp_path / "logs" / "a.log"
    log.parent.mkdir()
    log.write_text("Traceback")
    status = SampleStatus("a", "test", "failed", "refine", "it broke", str(log))
    out = tmp_path / "results"
    write_cohort_report(out / "report.html", out / "metrics.tsv", out, [status], "inr")
    page = Page(out / "report.html")
    assert "../logs/a.log" in page.links
    assert "0 of 1 sample finished, 1 failed." in page.text
    assert pd.read_csv(out / "metrics.tsv", sep="\t").empty


def test_a_cohort_without_ground_truth_says_so(results, tmp_path):
    status = [SampleStatus("no-truth", "test", "done")]
    write_cohort_report(
        tmp_path / "report.html", tmp_path / "metrics.tsv", results, status, "diffusion"
    )
    page = Page(tmp_path / "report.html")
    check_page(page)
    assert "None has a ground truth" in page.text and "PSNR (dB)" not in page.text


def test_statuses_name_the_excluded_and_the_training_samples():
    statuses = list_statuses(["a"], {"b": "no such file"}, ["c"])
    assert [(s.sample, s.role, s.status) for s in statuses] == [
        ("a", "test", "done"),
        ("b", "test", "excluded"),
        ("c", "train", "done"),
    ]


def test_texts_from_vendors_files_can_not_inject_html(tmp_path):
    inputs = write_sample(tmp_path, "vessels", has_truth=False)
    known = {"format": f"OME-TIFF {NASTY}", "software": NASTY, "date": NASTY, "notes": [NASTY]}
    known |= {"read from": {"pixel size": NASTY}}
    measured = open_projections(inputs.projections)
    told = tmp_path / "told.zarr"
    write_projections(told, replace(measured, attributes={"acquisition": known}))
    inputs = replace(inputs, projections=told)
    write_sample_report(tmp_path / "report.html", inputs)
    page = Page(tmp_path / "report.html")
    assert page.text.count(NASTY) >= 5 and "<script>alert" not in page.source
