"""The script that scores all methods of a sample: its tables, and how they were taken."""

import json

import numpy as np
import pandas as pd
import pytest

from besselflow.metrics import METRIC_COLUMNS
from besselflow.metrics.methods import alike_slices
from besselflow.store import open_projections, open_volume
from evaluate import Details
from evaluate import main as evaluate
from report_samples import METHODS, Sizes, validation_outputs, write_sample


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    return write_sample(folder, "vessels", sizes=Sizes(slices=36)), folder / "vessels"


def run(sample, folder, truth=True, **options):
    inputs, results = sample
    details = Details(folder / "sweep.tsv", folder / "shells.tsv", folder / "conditions.json")
    evaluate(
        inputs.volumes,
        inputs.truth if truth else None,
        inputs.projections,
        {"diffusion": inputs.uncertainty} if truth else {},
        7,
        "vessels",
        folder / "metrics.tsv",
        folder / "slices.tsv",
        validation_outputs(results).metrics,
        details=details,
        **options,
    )
    tables = [folder / "metrics.tsv", folder / "slices.tsv", details.sweep, details.shells]
    tables = [pd.read_csv(path, sep="\t") for path in tables]
    return *tables, json.loads(details.conditions.read_text(encoding="utf-8"))


def test_every_method_has_every_score_and_says_how_they_were_taken(sample, tmp_path):
    metrics, slices, sweep, shells, conditions = run(sample, tmp_path, centreline=True)
    assert list(metrics.columns) == METRIC_COLUMNS
    expected = {"psnr", "psnr_3d", "ssim", "dice", "psnr_affine", "scale", "offset", "micro_ssim"}
    expected |= {"dice_best", "centreline_dice", "published_psnr", "published_dice"}
    expected |= {"resolution_z", "resolution_y", "resolution_x", "psnr_lower", "dice_upper"}
    for method in METHODS:
        assert expected <= set(metrics[metrics["method"] == method]["metric"])
    assert not metrics.duplicated(["sample", "method", "metric"]).any()
    assert set(sweep["method"]) == set(shells["method"]) == set(METHODS)
    truth = np.asarray(open_volume(sample[0].truth).data)
    assert conditions["data_range"] == pytest.approx([truth.max()])
    assert (conditions["first_um"], conditions["last_um"]) == (3, 33)
    assert conditions["n_slices"] == 31 == len(slices) / len(METHODS)
    assert conditions["alike_slices"] == 6 and conditions["centreline"] is True
    best = metrics.pivot(index="method", columns="metric", values="value")
    assert best["resolution_z"].idxmin() == best["centreline_dice"].idxmax() == "diffusion"


def test_centre_lines_can_be_left_out(sample, tmp_path):
    metrics, *_, conditions = run(sample, tmp_path, centreline=False)
    assert "centreline_dice" not in set(metrics["metric"])
    assert conditions["centreline"] is False


def test_without_ground_truth_the_tables_are_empty_but_there(sample, tmp_path):
    metrics, slices, sweep, shells, conditions = run(sample, tmp_path, truth=False)
    assert set(metrics["metric"]) == {"chi2", "structure", "determined"}
    assert slices.empty and sweep.empty and shells.empty and conditions == {}


def test_slices_are_alike_within_the_beam_or_the_step(sample):
    measured = open_projections(sample[0].projections)
    assert alike_slices(measured) == 6
