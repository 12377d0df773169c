"""Bead stacks, written as real TIFFs: the beam that was put in comes out, or the error says why."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from besselflow.beam import BesselBeam, parse_beam_profile
from besselflow.beam.bead import extract_beam, read_bead_scan, read_lateral_image
from besselflow.errors import InputError

SCRIPT = Path(__file__).parents[1] / "scripts" / "extract_beam_profile.py"
SPACING, PIXEL = 1.0, 0.2
SIGMA = 12 / 2.354820045
LATERAL = 0.8 / 2.354820045
SHAPE = (61, 96, 110)
PLACES = ((30.0, 25.3, 24.0), (28.4, 66.0, 30.6), (31.5, 40.0, 70.2), (30.2, 74.0, 88.0))


def gaussian(z):
    return np.exp(-(z**2) / 2 / SIGMA**2)


def skewed(z):
    return np.where(z < 0, np.exp(-(z**2) / 2 / 3**2), np.exp(-(z**2) / 2 / 8**2))


def draw(places=PLACES, axial=gaussian, peak=800.0, background=120.0, tilt=0.0, shape=SHAPE):
    """Draw beads (z, y, x in planes and pixels); the beam leans by `tilt` pixels per plane in x."""
    z, y, x = (np.arange(n, dtype=float) for n in shape)
    stack = np.full(shape, background)
    width = 2 * (LATERAL / PIXEL) ** 2
    for cz, cy, cx in places:
        along = axial((z - cz) * SPACING)[:, None, None]
        leaning = cx + tilt * (z[:, None] - cz)
        lateral_x = np.exp(-((x[None] - leaning) ** 2) / width)[:, None, :]
        stack += peak * along * np.exp(-((y - cy) ** 2) / width)[None, :, None] * lateral_x
    return stack


def noisy(stack, seed=0):
    return np.random.default_rng(seed).poisson(stack).astype(np.uint16)


def write_imagej(path, stack, **metadata):
    tifffile.imwrite(
        path,
        stack,
        imagej=True,
        resolution=(1 / PIXEL, 1 / PIXEL),
        metadata={"axes": "ZYX", "unit": "um", "spacing": SPACING} | metadata,
    )


def write_ome(path, stack):
    tifffile.imwrite(
        path,
        stack,
        metadata={
            "axes": "ZYX",
            "PhysicalSizeZ": 1000 * SPACING,
            "PhysicalSizeZUnit": "nm",
            "PhysicalSizeY": PIXEL,
            "PhysicalSizeX": PIXEL,
        },
    )


def centre_of_mass(profile):
    return np.sum(profile.weights * (profile.edges_um[1:] + profile.edges_um[:-1]) / 2)


def cumulative_error(profile, axial):
    """Return the largest error of the share of light above any depth."""
    z = np.linspace(-40, 40, 8001)
    density = axial(z)
    z = z - np.sum(z * density) / density.sum()
    expected = np.cumsum(density) / density.sum()
    return np.abs(profile.collected(-1e3, z) - expected).max()


@pytest.mark.parametrize(("name", "write"), [("b.tif", write_imagej), ("b.ome.tif", write_ome)])
def test_profile_of_several_noisy_beads(tmp_path, name, write):
    write(tmp_path / name, noisy(draw()))
    scan = read_bead_scan(str(tmp_path / name))
    assert len(scan.centres_px) == 4 and scan.left_out == 0
    found = scan.centres_px[np.argsort(scan.centres_px[:, 2])]
    np.testing.assert_allclose(found, sorted(PLACES, key=lambda place: place[2]), atol=0.6)
    profile = parse_beam_profile(name, tmp_path)
    np.testing.assert_array_equal(profile.weights, scan.profile.weights)
    assert profile.weights.min() >= 0 and profile.weights.sum() == pytest.approx(1)
    assert centre_of_mass(profile) == pytest.approx(0, abs=1e-9)
    assert profile.fwhm_um == pytest.approx(12, abs=1)
    assert cumulative_error(profile, gaussian) < 0.02
    assert scan.image.pixel_size_um == pytest.approx((PIXEL, PIXEL))


def test_skewed_profile_keeps_its_direction(tmp_path):
    scan = extract_beam(noisy(draw(axial=skewed)), SPACING, (PIXEL, PIXEL))
    assert cumulative_error(scan.profile, skewed) < 0.02
    low, high = scan.profile.support_um
    assert high > -low + 3


def test_side_lobes_of_a_bessel_beam_are_kept():
    beam = BesselBeam(0.35, 0.55, 0.94, photons=1)
    scan = extract_beam(noisy(draw(axial=beam.on_axis, peak=4000)), SPACING, (PIXEL, PIXEL))
    whole = beam.on_axis(np.linspace(-25, 25, 5001)).sum()
    lobe = beam.on_axis(np.linspace(-1, 1, 5001) * beam.first_zero_um)
    expected = lobe.sum() * 2 * beam.first_zero_um / 50 / whole
    zero = beam.first_zero_um
    assert scan.profile.collected(-zero, zero) == pytest.approx(expected, abs=0.02)


def test_lateral_image_is_that_of_the_beads():
    scan = extract_beam(noisy(draw()), SPACING, (PIXEL, PIXEL))
    image = scan.image.values
    assert image.shape[0] % 2 == image.shape[1] % 2 == 1
    assert image.sum() == pytest.approx(1) and image.min() >= 0
    np.testing.assert_array_equal(image, image[::-1])
    np.testing.assert_array_equal(image, image[:, ::-1])
    at = (np.arange(len(image)) - len(image) // 2) * PIXEL
    for axis in (0, 1):
        spread = np.sum(image.sum(axis=1 - axis) * at**2)
        # Interpolation and the fit of the centre widen it a little.
        assert np.sqrt(spread) == pytest.approx(LATERAL, rel=0.15)


def test_bead_at_the_edge_and_a_pair_are_left_out():
    extra = ((30.0, 3.0, 50.0), (30.0, 30.0, 92.0), (30.0, 38.0, 96.0))
    everything = extract_beam(noisy(draw((*PLACES[:2], *extra))), SPACING, (PIXEL, PIXEL))
    assert len(everything.centres_px) == 2
    assert everything.left_out == 3


def test_dim_dirt_is_no_bead():
    stack = draw(PLACES[:2]) + draw([(30.0, 50.0, 80.0)], peak=80.0, background=0.0)
    assert len(extract_beam(noisy(stack), SPACING, (PIXEL, PIXEL)).centres_px) == 2


def test_beads_at_different_depths_are_aligned():
    # A tilted coverslip: one bead 6 um above the other.
    places = [(27.0, 30.0, 30.0), (33.0, 60.0, 80.0)]
    scan = extract_beam(noisy(draw(places)), SPACING, (PIXEL, PIXEL))
    assert np.ptp(scan.centres_px[:, 0]) == pytest.approx(6, abs=0.5)
    assert cumulative_error(scan.profile, gaussian) < 0.02


@pytest.mark.parametrize("tilt", [0.15, -0.3])
def test_tilted_beam_is_followed(tilt):
    scan = extract_beam(noisy(draw(tilt=tilt)), SPACING, (PIXEL, PIXEL))
    assert scan.tilt == pytest.approx((0, tilt), abs=0.03)
    assert cumulative_error(scan.profile, gaussian) < 0.03


def test_uneven_background_per_plane_is_subtracted():
    lamp = 30 * np.sin(np.arange(SHAPE[0]))[:, None, None]
    scan = extract_beam(noisy(draw() + lamp), SPACING, (PIXEL, PIXEL))
    assert cumulative_error(scan.profile, gaussian) < 0.02


@given(st.floats(0.1, 5), st.floats(0, 1000), st.floats(0.2, 5))
@settings(max_examples=10, deadline=None)
def test_gain_offset_and_spacing_change_nothing_else(gain, offset, spacing):
    stack = draw(PLACES[:1], shape=(61, 48, 48), background=0.0)
    first = extract_beam(stack, SPACING, (PIXEL, PIXEL))
    other = extract_beam(gain * stack + offset, spacing, (PIXEL, PIXEL))
    np.testing.assert_allclose(other.profile.weights, first.profile.weights, atol=1e-7)
    np.testing.assert_allclose(other.profile.edges_um, spacing * first.profile.edges_um, atol=1e-6)


@pytest.mark.parametrize("options", [":0.5um", ":z=0.5um", ":z=500nm, xy=0.1um", " : z = 0.5 µm"])
def test_options_behind_the_path_overrule_the_metadata(tmp_path, options):
    write_imagej(tmp_path / "b.tif", noisy(draw()))
    scan = read_bead_scan(f"{tmp_path}/b.tif{options}")
    assert scan.profile.fwhm_um == pytest.approx(6, abs=0.5)
    assert scan.image.pixel_size_um[0] == pytest.approx(0.1 if "xy" in options else PIXEL)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (":0.5", "has no unit"),
        (":0.5mm", 'has the unit "mm"'),
        (":z=0um", "is not a positive number"),
        (":dz=0.5um", 'the key "dz" is unknown'),
        (":z=0.5um,z=1um", "there twice"),
    ],
)
def test_wrong_options(tmp_path, options, message):
    write_imagej(tmp_path / "b.tif", noisy(draw()))
    with pytest.raises(InputError, match=message) as caught:
        parse_beam_profile(f"b.tif{options}", tmp_path)
    assert "z=0.5um,xy=0.1um" in str(caught.value)


def test_a_changed_file_is_read_again(tmp_path):
    write_imagej(tmp_path / "b.tif", noisy(draw()))
    spec = f"{tmp_path}/b.tif"
    first = read_bead_scan(spec)
    assert read_bead_scan(spec) is first
    write_imagej(tmp_path / "b.tif", noisy(draw(PLACES[:3])))
    os.utime(tmp_path / "b.tif", ns=(0, 0))
    assert len(read_bead_scan(spec).centres_px) == 3


def test_unknown_spacing_names_the_remedy(tmp_path):
    tifffile.imwrite(tmp_path / "b.tif", noisy(draw()), metadata={"axes": "ZYX"})
    with pytest.raises(InputError, match=r"do not state the distance of the planes; .*z=0.5um"):
        parse_beam_profile("b.tif", tmp_path)
    assert parse_beam_profile("b.tif:1um", tmp_path).fwhm_um == pytest.approx(12, abs=1)


@pytest.mark.parametrize(
    ("stack", "message"),
    [
        (np.full(SHAPE, 100, np.uint16), "no bead stands out"),
        (noisy(np.full(SHAPE, 100.0)), "no bead stands out"),
        (noisy(draw([(30.0, 3.0, 50.0)])), "1 beads were found, but each is nearer than"),
        (noisy(draw(PLACES[:2])[20:36]), "the stack ends inside the beam"),
        (noisy(draw())[:4], "4 planes are too few"),
        (noisy(draw(axial=lambda z: (z == 0.0) * 1.0, places=[(30.0, 40.0, 40.0)])), "shorter"),
    ],
    ids=["constant", "noise", "edge", "cut", "few planes", "one plane"],
)
def test_stacks_without_a_usable_bead(tmp_path, stack, message):
    write_imagej(tmp_path / "b.tif", stack)
    with pytest.raises(InputError, match=message) as caught:
        parse_beam_profile("b.tif", tmp_path)
    assert "; " in str(caught.value) and "b.tif" in str(caught.value)


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        parse_beam_profile("nowhere.tif:0.5um", tmp_path)
    (tmp_path / "b.tif").write_text("text")
    with pytest.raises(InputError, match="not a readable TIFF"):
        parse_beam_profile("b.tif", tmp_path)
    tifffile.imwrite(
        tmp_path / "c.tif", np.stack([draw(), draw()]).astype(np.float32), metadata={"axes": "CZYX"}
    )
    with pytest.raises(InputError, match="1 time points and 2 channels"):
        parse_beam_profile("c.tif", tmp_path)


def test_image_of_a_single_bead(tmp_path):
    plane = draw([(0.0, 20.0, 22.0)], shape=(1, 41, 44))[0]
    write_imagej(tmp_path / "psf.tif", plane.astype(np.float32), axes="YX")
    image = read_lateral_image(f"{tmp_path}/psf.tif")
    assert image.pixel_size_um == pytest.approx((PIXEL, PIXEL))
    assert image.values.shape == (41, 41)
    at = (np.arange(41) - 20) * PIXEL
    expected = np.exp(-(at**2) / 2 / LATERAL**2)
    np.testing.assert_allclose(image.values[20] / image.values.max(), expected, atol=0.01)


def test_plane_without_a_bead(tmp_path):
    write_imagej(tmp_path / "psf.tif", np.full((20, 20), 7, np.uint16), axes="YX")
    with pytest.raises(InputError, match="no bead with dark surroundings"):
        read_lateral_image(f"{tmp_path}/psf.tif")


def test_command_writes_a_csv_and_a_picture(tmp_path):
    write_imagej(tmp_path / "b.tif", noisy(draw(tilt=0.3)))
    command = [sys.executable, SCRIPT, "b.tif:1um", "--out", "beam.csv", "--picture", "beam.png"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "4 beads averaged; 0 left out" in done.stdout
    assert "The beam is tilted" in done.stdout
    written = parse_beam_profile("beam.csv", tmp_path)
    extracted = read_bead_scan(f"{tmp_path}/b.tif").profile
    np.testing.assert_allclose(written.edges_um, extracted.edges_um, atol=1e-6)
    np.testing.assert_allclose(written.weights, extracted.weights, atol=1e-8)
    assert (tmp_path / "beam.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.tif", "beam.csv", "beam.png"]


@pytest.mark.parametrize(("name", "message"), [("x.csv", "is no TIFF"), ("x.tif", "no such file")])
def test_command_explains_a_mistake_in_one_sentence(tmp_path, name, message):
    command = [sys.executable, SCRIPT, name, "--out", "beam.csv"]
    failed = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert failed.returncode == 2
    assert len(failed.stderr.splitlines()) == 1 and message in failed.stderr
    assert list(tmp_path.iterdir()) == []
