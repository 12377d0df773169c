"""Runs the scripts that come first: what they make of the raw files of a tiny acquisition."""

import numpy as np
import pytest

from besselflow.beam import box_profile
from besselflow.errors import InputError
from besselflow.projection import AxialGrid
from besselflow.store import open_projections, open_volume
from script_chain import POSITIONS, VOXEL, WHOLE, Chain, Raw, acquire, photons, write_tiff


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return acquire(tmp_path_factory.mktemp("raw"))


@pytest.fixture(scope="module")
def known(raw, tmp_path_factory):
    return Chain(raw, tmp_path_factory.mktemp("known"), WHOLE).preprocess()


def test_projections_are_photons_sorted_by_position(known, raw):
    measured = open_projections(known.projections)
    np.testing.assert_array_equal(measured.positions_um, POSITIONS)
    np.testing.assert_array_equal(np.asarray(measured.data), photons(raw.counts[:, :, ::-1]))
    assert measured.unit == "photons"
    assert measured.grid == AxialGrid(0.0, 1.0, 18)
    assert measured.voxel_size_um == VOXEL
    scale = np.percentile(photons(raw.counts), 99.9)
    assert measured.attributes["scale"] == [[pytest.approx(scale)]]
    assert measured.attributes["sample"] == "mouse"
    assert measured.attributes["saturated_fraction"] == 0


def test_truth_has_the_unit_of_the_projections(known, raw):
    truth = open_volume(known.truth_volume)
    np.testing.assert_array_equal(np.asarray(truth.data), photons(raw.truth_counts))
    assert truth.attributes["unit"] == "photons"
    assert truth.voxel_size_um == VOXEL and truth.origin_um == (0, 0, 0)
    # The projections are windows of this very truth.
    measured = open_projections(known.projections)
    residual = measured.operator.forward(np.asarray(truth.data)) - np.asarray(measured.data)
    assert abs(residual.mean()) < 0.5
    assert residual.var() == pytest.approx(np.asarray(measured.data).mean() + 1, rel=0.25)


def test_counts_stay_counts_without_a_gain(raw, tmp_path):
    chain = Chain(raw, tmp_path, WHOLE).preprocess(offset=None, gain=None)
    measured = open_projections(chain.projections)
    assert measured.unit == "counts"
    np.testing.assert_array_equal(np.asarray(measured.data), raw.counts[:, :, ::-1])
    assert open_volume(chain.truth_volume).attributes["unit"] == "counts"


def test_grid_without_ground_truth_holds_all_that_was_seen(raw, tmp_path):
    chain = Chain(raw, tmp_path, WHOLE, truth=False).preprocess()
    measured = open_projections(chain.projections)
    assert measured.grid == AxialGrid.covering(box_profile(6.0), POSITIONS, 1.0)
    np.testing.assert_allclose(measured.operator.matrix.sum(axis=1), 1, atol=1e-5)


def test_saturated_pixels_are_counted(raw, tmp_path):
    counts = raw.counts[0, 0].copy()
    counts[0, :6, :24] = np.iinfo(np.uint16).max
    write_tiff(tmp_path / "a.tif", counts)
    spoilt = Raw(tmp_path / "a.tif", raw.stage, raw.truth, counts, raw.truth_counts)
    chain = Chain(spoilt, tmp_path, WHOLE).preprocess()
    measured = open_projections(chain.projections)
    assert measured.attributes["saturated_fraction"] == pytest.approx(1 / 12)


@pytest.mark.parametrize("spoil", ["nan", "missing"])
def test_unusable_acquisition_is_refused(raw, tmp_path, spoil):
    counts = raw.counts[0, 0].astype(np.float32)
    if spoil == "nan":
        counts[1, 5, 5] = np.nan
    else:
        counts = counts[:2]
    write_tiff(tmp_path / "a.tif", counts)
    spoilt = Raw(tmp_path / "a.tif", raw.stage, raw.truth, counts, raw.truth_counts)
    with pytest.raises(InputError, match="finite numbers" if spoil == "nan" else "lists 3"):
        Chain(spoilt, tmp_path, WHOLE).preprocess()
    assert not (tmp_path / "projections.zip").exists()
