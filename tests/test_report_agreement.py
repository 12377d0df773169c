"""Calibration, spectra and warnings of the reports, against closed forms."""

import dask.array as da
import numpy as np
import pytest

from besselflow.beam import box_profile
from besselflow.diffusion.geometry import Geometry
from besselflow.projection import AxialGrid
from besselflow.report.agreement import describe_calibration, describe_resolution
from besselflow.report.calibration import LEVELS, observe_coverage
from besselflow.report.cautions import collect_cautions, crowding
from besselflow.report.pictures import Preview
from besselflow.report.spectra import axial_spectrum, central_part, lateral_spectrum
from besselflow.store import Projections

SHAPE = (1, 2, 20, 60, 60)


@pytest.mark.parametrize(("stated", "word"), [(1, "about as many"), (2, "wider"), (0.5, "narrow")])
def test_coverage_is_what_was_stated_where_the_errors_are_as_large_as_stated(stated, word):
    rng = np.random.default_rng(1)
    truth = rng.gamma(2, 10, SHAPE)
    std = rng.uniform(0.5, 3, SHAPE)
    estimate = truth + std * rng.normal(size=SHAPE)
    scored = np.arange(20) % 5 > 0
    observed = observe_coverage(
        da.from_array(estimate), da.from_array(stated * std), da.from_array(truth), scored
    )
    if stated == 1:
        assert observed == pytest.approx(LEVELS, abs=0.6)
    assert (np.diff(observed) > 0).all()
    assert word in describe_calibration(observed)


def test_the_spectrum_of_white_noise_is_its_variance():
    noise = np.random.default_rng(2).normal(5, 3, (32, 96, 80)).astype("float32")
    for frequency, power in (lateral_spectrum(noise, (0.5, 0.4)), axial_spectrum(noise, 2.0)):
        assert len(frequency) == len(power)
        assert power[2:].mean() == pytest.approx(9, rel=0.03)
    assert lateral_spectrum(noise, (0.5, 0.4))[0].max() <= 1.0
    assert axial_spectrum(noise, 2.0)[0].max() == pytest.approx(0.25)


def test_a_wave_stands_at_its_frequency():
    z, _, x = np.mgrid[:40, :64, :64]
    across = np.cos(2 * np.pi * 8 * x / 64).astype("float32")
    frequency, power = lateral_spectrum(across, (0.5, 0.5))
    assert frequency[power.argmax()] == pytest.approx(8 / 32)
    along = np.cos(2 * np.pi * 5 * z / 40).astype("float32")
    frequency, power = axial_spectrum(along, 2.0)
    assert frequency[power.argmax()] == pytest.approx(5 / 80)


def test_spectra_are_of_the_middle_of_a_large_field():
    volume = da.zeros((2, 1, 30, 3000, 100), dtype="float32", chunks=(1, 1, 30, 500, 100))
    values = central_part(volume, (1, 0), np.arange(30) >= 10)
    assert values.shape == (20, 256, 100)


def test_resolution_is_told_along_each_axis():
    own = {"resolution_x": 1.0, "resolution_y": 1.3, "resolution_z": 4.2}
    text = describe_resolution(own, "inr", (1.0, 0.5, 0.5))
    assert "1 µm along x (the finest that the voxels can show)" in text
    assert "1.3 µm along y, 4.2 µm along z" in text
    assert describe_resolution({}, "inr", (1.0, 0.5, 0.5)) is None


def columns(*depths):
    values = np.zeros((30, 20, 20), np.float32)
    for z in depths:
        values[z] = 10.0
    return values


@pytest.mark.parametrize(
    ("depths", "share"), [((5,), 0.0), ((5, 20), 0.0), ((5, 9), 1.0), ((5, 6, 7), 0.0)]
)
def test_a_sample_is_crowded_where_a_beam_length_holds_two_structures(depths, share):
    assert crowding(columns(*depths), 1.0, 6.0) == share
    assert crowding(columns(), 1.0, 6.0) is None


def measure(step, saturated=0.0):
    positions = np.arange(3.0, 28, step)
    return Projections(
        data=da.zeros((1, 1, len(positions), 20, 20), dtype="float32"),
        positions_um=positions,
        profile=box_profile(6.0),
        grid=AxialGrid(0.0, 1.0, 30),
        pixel_size_um=(0.5, 0.5),
        unit="photons",
        attributes={"saturated_fraction": saturated},
    )


def titles(measured, values, records=None, method="diffusion", **known):
    preview = Preview(values, np.arange(30.0), (1.0, 0.5, 0.5))
    info = {"trained_on": ["elsewhere"], **known}
    found = collect_cautions(measured, preview, records or {}, info, method)
    assert all(len(caution.text) > 40 for caution in found)
    return [caution.title for caution in found]


def test_a_good_sample_has_no_warnings():
    weights = {"diffusion": [{"weights": {"prior": 0.9, "inr": 0.1}}]}
    assert titles(measure(6.0), columns(5), weights) == []


def test_a_prior_that_was_trained_for_other_acquisitions_is_told():
    """Whatever it gave: here it was followed, and nothing was found to be wrong."""
    weights = {"diffusion": [{"weights": {"prior": 0.9, "inr": 0.1}}]}
    sample, other = measure(6.0), "The prior was trained for other acquisitions"
    nominal, longer = (
        Geometry.of(box_profile(beam), sample.positions_um, sample.voxel_size_um).as_dict()
        for beam in (6.0, 9.0)
    )
    assert titles(sample, columns(5), weights, geometry=nominal) == []
    assert titles(sample, columns(5), weights, geometry=longer) == [other]
    assert titles(sample, columns(5), weights, geometry="any") == [other], "half as wide as deep"
    assert titles(sample, columns(5), weights, method="inr", geometry=longer) == []


def test_every_trouble_has_its_warning():
    doubted = {"diffusion": [{"weights": {"prior": 0.9, "inr": 0.1}, "doubted": True}]}
    ignored = {"diffusion": [{"weights": {"prior": 0.1, "inr": 0.9}}]}
    unknown = "Outside of what the prior knows"
    assert titles(measure(6.0), columns(5), doubted) == [unknown]
    assert titles(measure(6.0), columns(5), ignored) == [unknown]
    nothing = {"diffusion": [{"weights": {"prior": 0.0, "inr": 1.0}}]}
    assert titles(measure(6.0), columns(5), nothing) == ["The prior was not followed"]
    ignored["diffusion"][0]["checked"] = False
    assert titles(measure(6.0), columns(5), ignored) == [], "nobody knows why it was ignored"
    assert titles(measure(6.0), columns(5), ignored, method="spectral") == []
    assert titles(measure(9.0), columns(5)) == ["Gaps in depth"]
    assert titles(measure(6.0), columns(5, 9)) == ["Dense sample"]
    assert titles(measure(6.0, saturated=0.01), columns(5)) == ["Saturation"]
