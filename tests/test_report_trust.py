"""What the pages say without ground truth: ranking, misfit, and what was measured."""

import pandas as pd
import pytest

from besselflow.held_out import COLUMNS, FOLDED, WITHHELD, Prediction
from besselflow.report import SampleStatus, write_cohort_report, write_sample_report
from besselflow.report.trust import describe_ranking, describe_unseen
from besselflow.report.verdict import Suspect, write_verdict
from besselflow.store import open_projections
from report_samples import METHODS, Sizes, write_sample
from test_report import Page, check_page

ERRORS = {"interpolation": 9.0, "spectral": 6.0, "inr": 4.4, "diffusion": 4.4001}


def write_errors(path, sample, question=WITHHELD):
    """Write the errors of predictions: two projections, four blocks, noise of variance 4."""
    rows = []
    for method, error in ERRORS.items():
        for projection in (2, 6):
            for block in range(4):
                # The blocks of diffusion vary in the other direction, which makes it a tie.
                mse = error + (-1) ** (block + (method == "diffusion")) / 20
                z_um = 6.0 * projection
                values = (0, projection, z_um, block, mse, 4.0, 100.0)
                rows.append((sample, method, question, *values))
    pd.DataFrame(rows, columns=COLUMNS).to_csv(path, sep="\t", index=False)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    inputs = write_sample(folder, "ranked", has_truth=False)
    write_errors(inputs.validation.held_out, "ranked")
    write_sample_report(folder / "ranked" / "report.html", inputs)
    folded = write_sample(folder, "folded", has_truth=False)
    write_errors(folded.validation.held_out, "folded", FOLDED)
    write_sample_report(folder / "folded" / "report.html", folded)
    gaps = write_sample(folder, "gaps", sizes=Sizes(slices=30, step=9))
    write_sample_report(folder / "gaps" / "report.html", gaps)
    return folder


def test_the_ranking_is_told_in_plain_words(results):
    page = Page(results / "ranked" / "report.html")
    check_page(page)
    assert "the method that predicted the withheld projections best is" in page.text
    assert "can't be told from it" in page.text
    assert "a hint, not as the figure to choose by" in page.text
    assert "1.3 dB behind" in page.text and "3.1 dB behind" in page.text
    assert "no clear difference" in page.text


def test_where_neighbours_were_folded_the_page_says_what_was_asked(results):
    page = Page(results / "folded" / "report.html")
    check_page(page)
    assert "told best how neighbouring projections differ" in page.text
    assert "places light within the length of a beam" in page.text
    assert "of what was predicted against how neighbouring projections really differ" in page.text
    assert "withheld projections" not in page.text


def test_without_a_ranking_the_page_says_why(results):
    page = Page(results / "gaps" / "report.html")
    check_page(page)
    assert "No projection was withheld: 4 are too few." in page.text
    assert "Prediction (dB)" not in page.text
    assert "What these numbers mean" in page.text


def test_misfit_and_measured_share_are_shown_for_every_method(results):
    page = Page(results / "gaps" / "report.html")
    for words in (
        "Does it explain what was measured?",
        "Measured or inferred?",
        "The projections determine",
        "of the diffusion volume",
        "PSNR, unseen",
    ):
        assert words in page.text
    charts = {image["alt"].split(" for every")[0] for image in page.images}
    assert "Chi-square of every projection along z" in charts
    assert "Lateral maps of chi-square" in charts
    assert "Share of every slice that was measured," in charts


def test_unseen_slices_are_listed(results):
    page = Page(results / "gaps" / "report.html")
    assert "No projection saw 9 of 30 slices (z = 7 to 8, 16 to 17, 25 to 29 µm)" in page.text
    assert "Whatever they show was inferred." in page.text
    seen = open_projections(results / "ranked" / "work" / "projections.zip")
    assert describe_unseen(seen) is None


def prediction(method, psnr, tied=False, chi2=1.5, question=WITHHELD):
    return Prediction(method, question, psnr, chi2, tied)


RANKING = [prediction("inr", 31.0, True), prediction("spectral", 30.9, True)]


@pytest.mark.parametrize(
    ("ranking", "final", "words"),
    [
        ([], "inr", "too few"),
        (RANKING[:1], "inr", "best is inr."),
        ([prediction("inr", 20.0, True, 21.0)], "inr", "wrong by 21 times the noise"),
        (RANKING, "spectral", "best is inr, and spectral can't be told from it."),
        ([*RANKING, prediction("diffusion", 29.5)], "diffusion", "diffusion, was 1.5 dB worse"),
        (RANKING, "diffusion", "diffusion, was not asked"),
        (RANKING, "inr", "that predicted the withheld projections best is inr"),
        (
            [prediction("inr", 31.0, True, question=FOLDED)],
            "inr",
            "told best how neighbouring projections differ, of which it was shown the mean alone,",
        ),
    ],
)
def test_the_final_method_is_compared_with_the_best(ranking, final, words):
    assert words in describe_ranking(ranking, final, "too few")


def test_the_verdict_says_that_another_method_predicts_better():
    ranking = [*RANKING, prediction("diffusion", 29.5)]
    scores = {"diffusion": {"chi2": 0.9, "structure": 0.0}}
    suspect = Suspect(3, "there")
    verdict = write_verdict(scores, "diffusion", False, None, suspect, ranking)
    assert "explains the measured projections" in verdict.sentence
    assert "inr predicts what was kept from it 1.5 dB better" in verdict.sentence
    tied = write_verdict(
        {"spectral": scores["diffusion"]}, "spectral", False, None, suspect, RANKING
    )
    assert "predicts" not in tied.sentence


def test_the_verdict_doubts_a_volume_that_leaves_structure():
    values = {"inr": {"chi2": 0.9, "structure": 0.3}}
    verdict = write_verdict(values, "inr", False, None, Suspect(3, "there"))
    assert "leaves structure of the measured projections unexplained" in verdict.sentence
    assert verdict.tone == "warning"
    values["inr"] |= {"psnr": 30.0, "ssim": 0.9, "dice": 0.8}
    verdict = write_verdict(values, "inr", True, None, Suspect(3, "there"))
    assert "leaves structure" in verdict.how_good and verdict.tone == "warning"


def test_the_cohort_names_the_best_predictors_and_doubtful_fits(results):
    statuses = [SampleStatus(name, "test", "done") for name in ("ranked", "gaps")]
    write_cohort_report(
        results / "report.html", results / "metrics.tsv", results, statuses, METHODS[-1]
    )
    page = Page(results / "report.html")
    check_page(page)
    assert "Best prediction" in page.text
    assert "inr, diffusion" in page.text or "diffusion, inr" in page.text
    assert "underfits" in page.source
