"""The tables of scores: every known metric, gains, intervals, and how they were taken."""

import json
from pathlib import Path

import pytest

from besselflow.report import SampleReportInputs
from besselflow.report.metric_names import METRICS
from besselflow.report.scores import describe_conditions, read_scores, tabulate
from report_samples import METHODS, write_sample

INPUTS = SampleReportInputs(
    sample="a",
    projections=None,
    volumes=dict.fromkeys(METHODS),
    final="diffusion",
    metrics=None,
    slices=None,
)
SCORES = {
    "interpolation": {"psnr": 30.0, "resolution_z": 4.0, "coverage_90": 0.5},
    "spectral": {"psnr": 33.5, "resolution_z": 2.5, "unheard_of": 1.0},
    "inr": {"psnr": 36.0},
    "diffusion": {"psnr": 35.25, "psnr_lower": 34.5, "psnr_upper": 36.0, "chi2": 0.9},
}


def column(table, key):
    index = [metric.key for metric in table.columns].index(key)
    return {row.method: row.cells[index] for row in table.rows}


def test_gains_are_over_interpolation_and_over_the_inr():
    table = tabulate(SCORES, INPUTS, place="main")
    gains = {method: cell.text for method, cell in column(table, "gain").items()}
    assert gains == {
        "interpolation": "0.00",
        "spectral": "3.50",
        "inr": "6.00",
        "diffusion": "5.25",
    }
    over = {method: cell.text for method, cell in column(table, "gain_inr").items()}
    assert over["diffusion"] == "−0.75" and over["inr"] == "0.00"


def test_the_best_is_marked_be_it_the_highest_or_the_lowest():
    main, further = (tabulate(SCORES, INPUTS, place) for place in ("main", "further"))
    best = [method for method, cell in column(main, "psnr").items() if cell.is_best]
    finest = [method for method, cell in column(further, "resolution_z").items() if cell.is_best]
    assert best == ["inr"] and finest == ["spectral"]
    assert not any(cell.is_best for cell in column(main, "chi2").values()), "none is the best"


def test_intervals_stand_below_their_score_where_there_are_any():
    table = tabulate(SCORES, INPUTS, place="main")
    cells = column(table, "psnr")
    assert cells["diffusion"].interval == "34.50 to 36.00" and cells["inr"].interval == ""
    assert table.has_intervals
    assert (
        column(tabulate(SCORES, INPUTS, place="further"), "coverage_90")["interpolation"].text
        == "50"
    )


def test_every_score_that_evaluate_writes_is_in_the_registry(tmp_path):
    inputs = write_sample(tmp_path, "sample")
    known = {metric.key for metric in METRICS}
    for values in read_scores(inputs.metrics).values():
        names = {name.removesuffix("_lower").removesuffix("_upper") for name in values}
        assert names <= known
    shown = [
        metric.key
        for place in ("main", "further")
        for metric in tabulate(SCORES, inputs, place).columns
    ]
    assert "unheard_of" not in shown


def test_conditions_name_range_threshold_and_region(tmp_path):
    inputs = write_sample(tmp_path, "sample")
    conditions = json.loads(Path(inputs.evaluation.conditions).read_text())
    told = dict(describe_conditions(conditions, "photons"))
    peak = conditions["data_range"][0]
    assert told["Data range"].startswith(f"0 to {peak:.4g} photons")
    assert f"{conditions['threshold'][0]:.4g} photons" in told["Threshold of Dice"]
    assert "19 slices, from z = 3 to 21 µm" in told["Region"]
    assert describe_conditions({}, "photons") == []


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.key)
def test_every_metric_is_explained(metric):
    assert metric.title and len(metric.meaning) > 20 and metric.better in (-1, 0, 1)
