"""Lateral kernels: closed forms, symmetry and light, and the messages for wrong ones."""

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import dblquad
from scipy.special import j0
from scipy.stats import norm

from besselflow.beam import parse_bessel, read_lateral_psf
from besselflow.errors import InputError

BESSEL = "bessel:NA=0.40-0.43,wavelength=0.94um"
SIGMA = 0.8 / 2.354820045


@st.composite
def kernels(draw):
    pixel = draw(st.floats(0.05, 2)), draw(st.floats(0.05, 2))
    if draw(st.booleans()):
        spec = f"gaussian:{draw(st.floats(0.1, 5)):.3g}um"
    else:
        outer = draw(st.floats(0.1, 1.2))
        inner = outer * draw(st.floats(0, 0.95))
        photons = draw(st.sampled_from([1, 2, 3]))
        spec = f"bessel:NA={inner:.4f}-{outer:.4f},wavelength=0.9um,photons={photons}"
    return read_lateral_psf(spec, None, pixel, draw(st.integers(1, 16)))


@given(kernels())
@settings(max_examples=60, deadline=None)
def test_every_kernel_is_symmetric_and_normalised(psf):
    kernel = psf.kernel
    assert kernel.dtype == np.float64
    assert kernel.shape[0] % 2 == kernel.shape[1] % 2 == 1
    assert max(kernel.shape) <= 33
    assert kernel.min() >= 0 and kernel.sum() == pytest.approx(1)
    np.testing.assert_array_equal(kernel, kernel[::-1])
    np.testing.assert_array_equal(kernel, kernel[:, ::-1])
    assert kernel.argmax() == kernel.size // 2
    assert 0 <= psf.outside < 1


def test_gaussian_is_the_normal_distribution_over_each_pixel():
    pixel = (0.3, 0.2)
    psf = read_lateral_psf("gaussian:0.8um", None, pixel, 24)
    lines = []
    for size, n in zip(pixel, psf.kernel.shape, strict=True):
        edges = (np.arange(n + 1) - n / 2) * size
        lines.append(np.diff(norm.cdf(edges / SIGMA)))
    expected = np.outer(*lines)
    np.testing.assert_allclose(psf.kernel, expected / expected.sum(), atol=1e-12)
    assert psf.outside == pytest.approx(1 - expected.sum(), abs=1e-12)
    assert psf.outside <= 0.01


def test_narrow_gaussian_in_large_pixels_blurs_nothing():
    np.testing.assert_array_equal(
        read_lateral_psf("gaussian:10nm", None, (0.5, 0.5), 24).kernel, [[1.0]]
    )


@pytest.mark.parametrize("photons", [1, 2, 3])
def test_bessel_kernel_is_the_integral_over_each_pixel(photons):
    spec, pixel = f"{BESSEL},photons={photons}", (0.35, 0.5)
    beam = parse_bessel(spec)
    psf = read_lateral_psf(spec, None, pixel, 6)
    middle = np.array(psf.kernel.shape) // 2
    for y, x in ((0, 0), (1, 0), (0, 2), (2, 1)):
        exact = dblquad(
            lambda b, a: float(beam.radial(np.hypot(a, b))),
            *((y - 0.5) * pixel[0], (y + 0.5) * pixel[0]),
            *((x - 0.5) * pixel[1], (x + 0.5) * pixel[1]),
            epsabs=1e-6,
        )[0]
        share = exact / beam.radial_total_um2
        found = psf.kernel[middle[0] + y, middle[1] + x] * (1 - psf.outside)
        assert found == pytest.approx(share, rel=0.03, abs=1e-4)


def test_dark_ring_of_a_thin_annulus_lies_at_the_zero_of_j0():
    spec, pixel = "bessel:NA=0.400-0.402,wavelength=0.94um,photons=1", 0.05
    psf = read_lateral_psf(spec, None, (pixel, pixel), 40)
    line = psf.kernel[40, 40:]
    wavenumber = 2 * np.pi / 0.94 * 0.401
    assert (np.argmin(line[:25]) * pixel) == pytest.approx(2.404826 / wavenumber, abs=pixel / 2)
    r = np.arange(41) * pixel
    np.testing.assert_allclose(line / line[0], j0(wavenumber * r) ** 2, atol=0.01)


def test_kernel_ends_where_99_percent_are_inside_or_at_the_reach():
    free = read_lateral_psf(BESSEL, None, (0.5, 0.5), 200)
    assert free.outside <= 0.01
    smaller = free.kernel[1:-1, 1:-1].sum() * (1 - free.outside)
    assert smaller < 0.99
    cut = read_lateral_psf(BESSEL, None, (0.5, 0.5), 8)
    assert cut.kernel.shape == (17, 17)
    # In a square of 8.5 um, the two-photon rings of such an annulus lack about a tenth.
    assert 0.05 < cut.outside < 0.15


def test_oblong_pixels_give_a_square_in_micrometres():
    shape = read_lateral_psf(BESSEL, None, (0.25, 0.5), 200).kernel.shape
    assert shape[0] * 0.25 == pytest.approx(shape[1] * 0.5, abs=1.0)


def write_image(path, pixel=0.1, n=61, **options):
    at = (np.arange(n) - n // 2) * pixel
    image = np.exp(-(at[:, None] ** 2 + at[None] ** 2) / 2 / SIGMA**2)
    sizes = {"PhysicalSizeY": pixel, "PhysicalSizeX": pixel} if pixel else {}
    tifffile.imwrite(path, (1000 * image).astype(np.float32), metadata={"axes": "YX"} | sizes)


@pytest.mark.parametrize("pixel", [(0.1, 0.1), (0.3, 0.2), (0.04, 0.05)])
def test_measured_image_is_resampled(tmp_path, pixel):
    write_image(tmp_path / "psf.ome.tif")
    psf = read_lateral_psf(f"{tmp_path}/psf.ome.tif", None, pixel, 30)
    same = read_lateral_psf("gaussian:0.8um", None, pixel, 30)
    for axis, size in ((0, pixel[0]), (1, pixel[1])):
        spread = []
        for kernel in (psf.kernel, same.kernel):
            at = (np.arange(kernel.shape[axis]) - kernel.shape[axis] // 2) * size
            spread.append(np.sum(kernel.sum(axis=1 - axis) * at**2))
        assert np.sqrt(spread[0]) == pytest.approx(np.sqrt(spread[1]), rel=0.06)


def test_pixel_size_behind_the_path(tmp_path):
    write_image(tmp_path / "psf.tif")
    tifffile.imwrite(tmp_path / "psf.tif", tifffile.imread(tmp_path / "psf.tif"))
    with pytest.raises(InputError, match=r"do not state the pixel size.*; state it behind"):
        read_lateral_psf(f"{tmp_path}/psf.tif", None, (0.1, 0.1), 9)
    psf = read_lateral_psf(f"{tmp_path}/psf.tif:xy=0.1um", None, (0.1, 0.1), 20)
    other = read_lateral_psf(f"{tmp_path}/psf.tif:xy=0.2um", None, (0.2, 0.2), 20)
    np.testing.assert_allclose(psf.kernel, other.kernel, atol=1e-12)


def test_beam_stands_for_the_beam_profile(tmp_path):
    direct = read_lateral_psf(BESSEL, None, (0.5, 0.5), 9)
    named = read_lateral_psf(" Beam ", BESSEL, (0.5, 0.5), 9)
    np.testing.assert_array_equal(direct.kernel, named.kernel)
    assert named.source == BESSEL


@pytest.mark.parametrize(
    ("spec", "beam", "message"),
    [
        ("beam", "box:6um", 'the beam profile "box:6um" has no lateral part'),
        ("beam", "/data/beam.csv", "has no lateral part"),
        ("beam", None, "has no lateral part"),
        ("gaussian:0.6", None, "has no unit"),
        ("gaussian:0.6mm", None, 'has the unit "mm"'),
        ("gaussian:-1um", None, "is not a positive number"),
        ("gauss:1um", None, "is neither a model nor a TIFF"),
        ("psf.csv", None, "is neither a model nor a TIFF"),
        ("bessel:NA=0.43-0.40,wavelength=0.94um", None, "inner NA 0.43 is not below"),
    ],
)
def test_wrong_kernels_name_value_and_remedy(spec, beam, message):
    with pytest.raises(InputError) as caught:
        read_lateral_psf(spec, beam, (0.5, 0.5), 9)
    text = str(caught.value)
    assert text.startswith(f'lateral PSF "{spec}"') and message in text
    assert text.rpartition("; ")[2]
