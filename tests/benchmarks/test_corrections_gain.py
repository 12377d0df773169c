"""The benchmark of the corrections on one phantom, held to what the project asks for."""

import corrections_gain as bench
import numpy as np
import pytest

from besselflow.phantoms import draw_phantom

STEP_UM = 3.0
CASES = {case.name: case for case in bench.CASES}


@pytest.fixture(scope="module")
def volume():
    return draw_phantom("vessels", bench.SHAPE, 11, bench.VOXEL_UM)


@pytest.fixture(scope="module")
def undisturbed(volume):
    plain = bench.acquire(volume, STEP_UM, CASES["nothing"])
    found = bench.reconstruct(bench.as_projections(plain, None))
    return bench.psnr(found, volume, plain.positions_um)


def test_undisturbed_data_stay_as_they_are(volume, undisturbed):
    scores = bench.measure(volume, STEP_UM, CASES["nothing"], undisturbed)
    assert scores["corrected"] == pytest.approx(undisturbed, abs=0.1)
    assert scores["found"] == "-" and scores["bent"] is None
    asked = bench.measure(volume, STEP_UM, CASES["no attenuation, auto"], undisturbed)
    assert asked["corrected"] == scores["corrected"]


@pytest.mark.parametrize(
    "name",
    [
        "hot pixels, 0.3 %",
        "11 bits instead of 16",
        "scan phase, 0.7 pixels",
        "flat field, 40 % less light in a corner",
        "bleaching, 40 %, given",
        "attenuation, 150 um, given",
    ],
)
def test_what_is_corrected_is_as_good_as_undisturbed(volume, undisturbed, name):
    scores = bench.measure(volume, STEP_UM, CASES[name], undisturbed)
    assert scores["corrected"] > scores["uncorrected"]
    assert scores["corrected"] > undisturbed - 0.5


@pytest.mark.parametrize("name", ["jitter, 1 um", "drift, 0.3 um a step"])
def test_displacements_are_taken_back_but_for_what_is_smooth(volume, undisturbed, name):
    scores = bench.measure(volume, STEP_UM, CASES[name], undisturbed)
    assert scores["corrected"] > scores["uncorrected"]
    assert scores["bent"] > undisturbed - 0.5


def test_bending_a_volume_displaces_its_slices():
    volume = np.zeros((5, 12, 12))
    volume[:, 6, 6] = 1
    bent = bench.bend(volume, np.array([0.0, 4.0]), np.array([[0.0, 0.0], [4.0, -2.0]]))
    np.testing.assert_allclose(bent[2, 8, 5], 1, atol=1e-6)
    np.testing.assert_allclose(bent[0], volume[0], atol=1e-6)
