"""Axial profiles: closed forms, invariants, and the messages for wrong files."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from besselflow.beam import box_profile, gaussian_profile, parse_beam_profile, read_beam_csv
from besselflow.errors import InputError

lengths = st.floats(0.1, 100)
depths = st.lists(st.floats(-200, 200), min_size=3, max_size=3).map(sorted)


@pytest.fixture
def write(tmp_path):
    def write_csv(text, encoding="utf-8"):
        path = tmp_path / "beam.csv"
        path.write_text(text, encoding=encoding)
        return path

    return write_csv


def test_box_collects_in_proportion_to_the_overlap():
    box = box_profile(6)
    assert box.collected(-3, 3) == pytest.approx(1)
    assert box.collected(0, 1) == pytest.approx(1 / 6)
    assert box.collected(2.5, 9) == pytest.approx(0.5 / 6)
    assert box.collected(3, 9) == pytest.approx(0)
    assert (box.extent_um, box.fwhm_um) == (6, 6)


def test_gaussian_matches_the_normal_distribution():
    gaussian = gaussian_profile(12)
    sigma = 12 / 2.354820045
    low, high = np.array([-20.0, -3, 0, 1.5]), np.array([-4.0, 3, 6, 20])
    whole = norm.cdf(3) - norm.cdf(-3)
    reach = np.clip([low, high], -3 * sigma, 3 * sigma)
    expected = (norm.cdf(reach[1] / sigma) - norm.cdf(reach[0] / sigma)) / whole
    assert gaussian.collected(low, high) == pytest.approx(expected, abs=1e-4)
    assert gaussian.fwhm_um == pytest.approx(12, rel=0.02)


@given(lengths, st.sampled_from([box_profile, gaussian_profile]))
def test_profiles_sum_to_one(length, make):
    profile = make(length)
    assert profile.weights.sum() == pytest.approx(1)
    assert profile.collected(*profile.support_um) == pytest.approx(1)


@given(lengths, st.sampled_from([box_profile, gaussian_profile]), depths)
def test_collected_light_is_additive_and_a_share(length, make, cuts):
    low, middle, high = cuts
    profile = make(length)
    whole = profile.collected(low, high)
    parts = profile.collected(low, middle) + profile.collected(middle, high)
    assert parts == pytest.approx(whole, abs=1e-9)
    assert -1e-12 <= whole <= 1 + 1e-12


@pytest.mark.parametrize(
    ("spec", "extent"),
    [
        ("box:6um", 6),
        (" box:6 um ", 6),
        ("Box:6um", 6),
        ("box:6.5µm", 6.5),
        ("box:6μm", 6),
        ("box:1e1um", 10),
    ],
)
def test_models_are_understood(spec, extent):
    assert parse_beam_profile(spec).extent_um == pytest.approx(extent)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("boks:6um", 'model "boks" is unknown'),
        ("box:6", "unit must be micrometres"),
        ("box:6mm", "unit must be micrometres"),
        ("box:6,5um", "positive number"),
        ("box:0um", "positive number"),
        ("box:-3um", "positive number"),
        ("box:infum", "unit must be micrometres"),
        ("box:um", "positive number"),
        ("nowhere.csv", "neither a model"),
    ],
)
def test_wrong_models(spec, message, tmp_path):
    with pytest.raises(InputError, match=message):
        parse_beam_profile(spec, tmp_path)


def test_csv_rows_are_bins_as_wide_as_the_spacing(write):
    path = write("dz_um,weight\n-2,1\n0,2\n2,1\n")
    profile = parse_beam_profile("beam.csv", path.parent)
    assert profile.edges_um.tolist() == [-3, -1, 1, 3]
    assert profile.weights.tolist() == [0.25, 0.5, 0.25]
    assert profile.collected(-1, 0) == pytest.approx(0.25)
    assert profile.fwhm_um == pytest.approx(6)


def test_support_leaves_out_dark_bins(write):
    profile = read_beam_csv(write("dz_um,weight\n-2,0\n-1,0\n0,1\n1,1\n2,0\n"))
    assert profile.support_um == (-0.5, 1.5)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_rounded_positions_blank_lines_and_marks_are_accepted(write, encoding):
    text = "# bead scan\r\nweight, dz_um,note\r\n\r\n1,0.33,a\r\n1,0.67,b\r\n1,1.00,c\r\n"
    profile = read_beam_csv(write(text, encoding))
    assert profile.weights.sum() == pytest.approx(1)
    assert profile.edges_um[[0, -1]] == pytest.approx([0.1625, 1.1675])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("dz_um,weight\n", "no rows"),
        ("dz_um;weight\n0;1\n", ':1: the column "dz_um" is missing'),
        ("dz_um,wieght\n0,1\n", 'the column "weight" is missing'),
        ("dz_um,dz_um,weight\n0,0,1\n", "there 2 times"),
        ("dz_um,weight\n0,1\n", "at least two rows"),
        ("dz_um,weight\n0,1\n\n1,x\n", ':4, column "weight", value "x": not a finite'),
        ("dz_um,weight\n0,1\n1,\n", ':3, column "weight", value "": not a finite'),
        ("dz_um,weight\n0,1\n1um,2\n", ':3, column "dz_um", value "1um"'),
        ("dz_um,weight\n0,1\n1,nan\n", ':3, column "weight", value "nan"'),
        ("dz_um,weight\n0,1\n1,1_0\n", 'value "1_0"'),
        ("dz_um,weight\n0,0,5\n1,0,5\n", ":2: the row has 3 cells, but the header has 2"),
        ("dz_um,weight\n0,1\n1,1\n3,1\n4,1\n", ':4, column "dz_um", value "3"'),
        ("dz_um,weight\n1,1\n0,1\n", ':3, column "dz_um", value "0"'),
        ("dz_um,weight\n0,1\n# dark\n1,-1\n", ':4, column "weight", value "-1": a weight is neg'),
        ("dz_um,weight\n0,0\n1,0\n", "all weights are zero"),
    ],
)
def test_wrong_csv(write, text, message):
    with pytest.raises(InputError) as caught:
        read_beam_csv(write(text))
    assert message in str(caught.value)
    assert ";" in str(caught.value)


def test_text_of_another_encoding(write):
    with pytest.raises(InputError, match="UTF-8"):
        read_beam_csv(write("dz_um,weight\n0,1\n1,1\n", "utf-16"))


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_beam_csv(tmp_path / "beam.csv")
    with pytest.raises(InputError, match="folder"):
        read_beam_csv(tmp_path)
