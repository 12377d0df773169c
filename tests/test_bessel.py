"""The Bessel beam of an annulus: closed forms of its axis and its focal plane, and its messages."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import j0, j1

from besselflow.beam import BesselBeam, parse_beam_profile, parse_bessel
from besselflow.beam.bessel import KEPT_SHARE
from besselflow.errors import InputError

THIN = {"na_inner": 0.400, "na_outer": 0.402, "wavelength_um": 0.94}


@st.composite
def beams(draw):
    outer = draw(st.floats(0.1, 1.1))
    inner = outer * draw(st.floats(0.0, 0.95))
    return BesselBeam(
        inner,
        outer,
        draw(st.floats(0.3, 1.7)),
        draw(st.floats(1.33, 1.52)),
        draw(st.sampled_from([1, 2, 3])),
    )


@pytest.mark.parametrize("photons", [1, 2, 3])
def test_thin_annulus_has_a_sinc_along_the_axis(photons):
    beam = BesselBeam(**THIN, photons=photons)
    zero = beam.first_zero_um
    z = np.linspace(-3, 3, 301) * zero
    # numpy's sinc has its zeros at whole numbers.
    expected = np.sinc(z / zero) ** (2 * photons)
    np.testing.assert_allclose(beam.on_axis(z), expected, atol=1e-6)


def test_first_zero_of_a_thin_annulus_is_that_of_the_optics():
    sines = np.array([0.402, 0.400]) / 1.33
    expected = 0.94 / 1.33 / np.ptp(np.sqrt(1 - sines**2))
    assert BesselBeam(**THIN).first_zero_um == pytest.approx(expected)
    # For small angles it is 2 n wavelength / (outer NA^2 - inner NA^2).
    small = BesselBeam(0.040, 0.043, 0.94)
    assert small.first_zero_um == pytest.approx(2 * 1.33 * 0.94 / (0.043**2 - 0.040**2), rel=1e-3)


@pytest.mark.parametrize(
    ("photons", "half_maximum"),
    # Solutions x of sinc(x)^(2 p) = 1/2; the first zero is at 1.
    [(1, 0.442946), (2, 0.318917), (3, 0.261938)],
)
def test_length_of_the_beam_at_half_maximum(photons, half_maximum):
    beam = BesselBeam(**THIN, photons=photons)
    assert np.sinc(half_maximum) ** (2 * photons) == pytest.approx(0.5, abs=1e-5)
    assert beam.on_axis(half_maximum * beam.first_zero_um) == pytest.approx(0.5, abs=1e-3)
    profile = beam.axial_profile("x")
    assert profile.fwhm_um == pytest.approx(2 * half_maximum * beam.first_zero_um, rel=0.02)


@pytest.mark.parametrize("photons", [1, 2, 3])
def test_whole_aperture_of_small_angle(photons):
    # Born & Wolf 8.8.2: sinc^2 along the axis, and the Airy pattern in the focal plane.
    beam = BesselBeam(0.0, 0.05, 0.5, 1.0, photons)
    v = np.linspace(0.01, 20, 200)
    airy = (2 * j1(v) / v) ** (2 * photons)
    np.testing.assert_allclose(beam.radial(v / (beam.wavenumber * 0.05)), airy, atol=2e-3)
    z = np.linspace(-2, 2, 101) * 2 * 0.5 / 0.05**2
    expected = np.sinc(z * 0.05**2 / (2 * 0.5)) ** (2 * photons)
    np.testing.assert_allclose(beam.on_axis(z), expected, atol=2e-3)


@pytest.mark.parametrize("photons", [1, 2, 3])
def test_thin_annulus_has_a_bessel_function_in_the_focal_plane(photons):
    beam = BesselBeam(**THIN, photons=photons)
    sine = 0.401 / 1.33
    r = np.linspace(0, 5, 300)
    expected = j0(beam.wavenumber * sine * r) ** (2 * photons)
    np.testing.assert_allclose(beam.radial(r), expected, atol=2e-4)
    assert beam.radial(2.404826 / (beam.wavenumber * sine)) == pytest.approx(0, abs=1e-6)


def test_quadrature_agrees_with_an_adaptive_one():
    beam = BesselBeam(0.3, 0.9, 0.8, photons=1)
    low, high = beam.cosines
    peak = quad(np.sqrt, low, high)[0]
    for z, r in ((7.3, 0.0), (0.0, 11.7)):

        def field(u, turn, z=z, r=r):
            along = turn(beam.wavenumber * z * u)
            return np.sqrt(u) * j0(beam.wavenumber * r * np.sqrt(1 - u * u)) * along

        real, imaginary = (
            quad(field, low, high, args=(turn,), limit=500)[0] for turn in (np.cos, np.sin)
        )
        expected = (real**2 + imaginary**2) / peak**2
        found = beam.on_axis(z) if z else beam.radial(r)
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_parseval_and_numerical_total_agree_for_one_photon():
    beam = BesselBeam(0.3, 0.5, 0.9, photons=1)
    r = (np.arange(10_000) + 0.5) * 0.1
    total = np.cumsum(2 * np.pi * beam.radial(r) * r) * 0.1
    # Rings reach far: beyond r a share of about 1 / r is missing.
    extrapolated = 2 * total[-1] - total[len(r) // 2 - 1]
    assert extrapolated == pytest.approx(beam.radial_total_um2, rel=2e-3)


def test_side_lobes_carry_about_half_of_the_two_photon_signal():
    beam = BesselBeam(0.40, 0.43, 0.94)
    first = 2.404826 / (beam.wavenumber * 0.415 / 1.33)
    central = quad(lambda r: 2 * np.pi * r * float(beam.radial(r)), 0, first)[0]
    assert central / beam.radial_total_um2 == pytest.approx(0.56, abs=0.01)


@given(beams())
@settings(max_examples=40, deadline=None)
def test_profile_is_symmetric_and_normalised_and_peaks_in_focus(beam):
    profile = beam.axial_profile("drawn")
    np.testing.assert_allclose(profile.edges_um, -profile.edges_um[::-1], atol=1e-9)
    np.testing.assert_allclose(profile.weights, profile.weights[::-1], atol=1e-12)
    assert profile.weights.min() >= 0
    assert profile.weights.sum() == pytest.approx(1)
    assert profile.weights.max() == pytest.approx(profile.weights[len(profile.weights) // 2])
    assert 0.4 * beam.first_zero_um < profile.fwhm_um < 1.0 * beam.first_zero_um


@given(beams(), st.floats(0.5, 3))
@settings(max_examples=20, deadline=None)
def test_lengths_scale_with_the_wavelength(beam, factor):
    longer = BesselBeam(
        beam.na_inner,
        beam.na_outer,
        beam.wavelength_um * factor,
        beam.refractive_index,
        beam.photons,
    )
    z = np.linspace(0, 2, 20) * beam.first_zero_um
    np.testing.assert_allclose(longer.on_axis(z * factor), beam.on_axis(z), atol=1e-9)
    assert longer.radial_total_um2 == pytest.approx(beam.radial_total_um2 * factor**2, rel=1e-3)


@pytest.mark.parametrize("photons", [1, 2, 3])
def test_cut_ends_hold_the_documented_share(photons):
    beam = BesselBeam(0.40, 0.43, 0.94, photons=photons)
    profile = beam.axial_profile("x")
    z = np.arange(-60_000, 60_001) / 100 * (30 if photons == 1 else 1)
    excited = beam.on_axis(z)
    kept = excited[np.abs(z) <= profile.support_um[1]].sum() / excited.sum()
    assert kept == pytest.approx(KEPT_SHARE[photons], abs=2e-3)


@pytest.mark.parametrize(
    "spec",
    [
        "bessel:NA=0.40-0.43,wavelength=0.94um,n=1.33,photons=2",
        "bessel:NA=0.40-0.43,wavelength=0.94um",
        " Bessel: wavelength = 940 nm , na = 0.40 – 0.43 ",
        "bessel:NA=0.4-0.43,wavelength=0.94µm,N=1.33",
    ],
)
def test_spellings_of_one_beam(spec):
    assert parse_bessel(spec) == BesselBeam(0.40, 0.43, 0.94, 1.33, 2)
    assert parse_beam_profile(spec).fwhm_um == pytest.approx(61, abs=0.5)


@given(beams())
def test_what_is_written_in_full_is_read_back(beam):
    spec = (
        f"bessel:NA={beam.na_inner!r}-{beam.na_outer!r},wavelength={beam.wavelength_um!r}um,"
        f"n={beam.refractive_index!r},photons={beam.photons}"
    )
    # An exponent would hold a dash, which stands between the apertures.
    assume("e-" not in spec)
    assert parse_bessel(spec) == beam


@given(st.text(alphabet="NAwavelengthphotons=,-.:0123456789um", max_size=40))
def test_any_text_is_a_beam_or_a_message(text):
    try:
        parse_bessel(f"bessel:{text}")
    except InputError as error:
        assert str(error).startswith(f'beam profile "bessel:{text}": ')


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("", '"" is not of the form key=value'),
        ("NA=0.40-0.43", "the wavelength is missing"),
        ("wavelength=0.94um", "inner and outer NA of the annulus is missing"),
        ("NA=0.43-0.40,wavelength=0.94um", "inner NA 0.43 is not below the outer NA 0.4"),
        ("NA=0.4-0.4,wavelength=0.94um", "inner NA 0.4 is not below"),
        ("NA=0.43,wavelength=0.94um", 'NA "0.43" is one number'),
        ("NA=0.40-x,wavelength=0.94um", '"x" in NA is not a number'),
        ("NA=1.2-1.4,wavelength=0.94um", "1.4 is not below the refractive index 1.33"),
        ("NA=0.40-0.43,wavelength=0.94", "has no unit"),
        ("NA=0.40-0.43,wavelength=0.94mm", 'has the unit "mm"'),
        ("NA=0.40-0.43,wavelength=-1um", "is not a positive number"),
        ("NA=0.40-0.43,wavelength=940um", "a wavelength of 940 um is not light"),
        ("NA=0.40-0.43,wavelength=0.94um,photons=4", "photons is 4"),
        ("NA=0.40-0.43,wavelength=0.94um,photons=two", '"two" in photons is not a number'),
        ("NA=0.40-0.43,wavelength=0.94um,index=1.33", 'the key "index" is unknown'),
        ("NA=0.40-0.43,wavelength=0.94um,na=0.1-0.2", 'the key "NA" is there twice'),
        ("NA=0.40-0.43;wavelength=0.94um", "the wavelength is missing"),
    ],
)
def test_wrong_beams_name_value_and_remedy(options, message):
    spec = f"bessel:{options}"
    with pytest.raises(InputError) as caught:
        parse_beam_profile(spec)
    text = str(caught.value)
    assert text.startswith(f'beam profile "{spec}": ') and message in text
    # One sentence, whose remedy stands behind the last semicolon.
    assert text.rpartition("; ")[2]
    assert "\n" not in text
