"""What the page of a sample tells its reader to do."""

import numpy as np
import pytest

from besselflow.held_out import FOLDED, Prediction
from besselflow.report.advice import advise
from besselflow.report.verdict import Suspect

POSITIONS = np.array([3.0, 9.0, 15.0])
NEAR, BETWEEN = Suspect(9.5, ""), Suspect(6.0, "")
GOOD = {"inr": {"psnr": 30.0, "chi2": 1.0}, "spectral": {"psnr": 28.0, "chi2": 0.8}}


def test_nothing_to_do_is_said_in_so_many_words():
    assert advise(GOOD, "inr", True, NEAR, POSITIONS) == [
        "Use the volume; how to open it stands below."
    ]


def test_a_better_method_is_recommended_with_its_file():
    found = advise(GOOD, "spectral", True, NEAR, POSITIONS)
    assert len(found) == 1 and "methods/inr.ozx" in found[0] and "2.0 dB better" in found[0]


@pytest.mark.parametrize(
    ("chi2", "words"),
    [(2.0, "Check beam profile"), (0.3, "Check offset")],
)
def test_a_misfit_comes_first(chi2, words):
    found = advise({"inr": {"chi2": chi2}}, "inr", False, BETWEEN, POSITIONS)
    assert found[0].startswith(words) and len(found) == 3


def test_a_slice_between_projections_is_not_to_be_measured():
    found = advise(GOOD, "inr", True, BETWEEN, POSITIONS)
    assert len(found) == 1 and "3 µm from the nearest projection" in found[0]
    assert advise(GOOD, "inr", True, BETWEEN, POSITIONS[:1])[0].startswith("Use the volume")


def test_without_ground_truth_the_better_predictor_and_a_point_scan_are_recommended():
    ranking = [
        Prediction("spectral", FOLDED, psnr=22.0, chi2=1.0, tied=True),
        Prediction("inr", FOLDED, psnr=20.0, chi2=2.0, tied=False),
    ]
    scores = {"inr": {"chi2": 1.0}}
    found = advise(scores, "inr", False, NEAR, POSITIONS, ranking)
    assert "Compare with spectral" in found[0] and "ground_truth" in found[-1]
    assert len(advise(scores, "spectral", False, NEAR, POSITIONS, ranking)) == 1
