"""A given flat field is taken back exactly, and one that can't be right is refused at once."""

import dask.array as da
import numpy as np
import pytest
import tifffile

from besselflow.config import Corrections
from besselflow.corrections.flat_field import fit_to_images, noise_factors, read_flat_field
from besselflow.corrections.pixels import correct_pixels
from besselflow.disturbance import Disturbance, uneven_light
from besselflow.errors import InputError
from lab import Lab, volume, write_tiff

SHAPE = (40, 52)


def write(path, images):
    tifffile.imwrite(path, np.asarray(images, np.float32), photometric="minisblack")
    return str(path)


def correct(counts, path, offset=100.0):
    return correct_pixels(da.from_array(counts), offset, 10.0, Corrections(flat_field=path))


def test_a_known_flat_field_is_taken_back_exactly(tmp_path):
    flat = uneven_light(SHAPE, 0.5)
    # Whatever the unit of the file, the mean brightness stays.
    path = write(tmp_path / "flat.tif", 730 * flat)
    photons = np.random.default_rng(0).gamma(1, 30, (2, 1, 7, *SHAPE))
    found = correct((10 * photons * flat + 100).astype(np.float64), path)
    np.testing.assert_allclose(np.asarray(found.intensity), photons, rtol=1e-4, atol=1e-4)
    record = found.record["flat_field"]
    assert record["applied"] and record["offset_known"]
    np.testing.assert_allclose(record["range"], [flat.min(), flat.max()], rtol=1e-5)
    before, after = found.pictures["flat_field"]
    np.testing.assert_allclose(before, after * flat, rtol=1e-4, atol=1e-4)


def test_channels_may_have_their_own(tmp_path):
    flats = np.stack([uneven_light(SHAPE, 0.5), np.flip(uneven_light(SHAPE, 0.3))])
    path = write(tmp_path / "flat.tif", flats * np.array([3.0, 8.0])[:, None, None])
    photons = np.random.default_rng(0).gamma(1, 30, (1, 2, 7, *SHAPE))
    found = correct(10 * photons * flats[:, None] + 100, path)
    np.testing.assert_allclose(np.asarray(found.intensity), photons, rtol=1e-4, atol=1e-4)


def test_large_images_are_divided_one_by_one(tmp_path):
    path = write(tmp_path / "flat.tif", uneven_light((600, 520), 0.4))
    counts = da.full((1, 1, 8, 600, 520), 200, dtype=np.uint16)
    found = correct_pixels(counts, 100.0, 10.0, Corrections(flat_field=path))
    assert found.intensity.chunks[:3] == ((1,), (1,), (1,) * 8)
    assert found.intensity.dtype == np.float32
    # Squares of 3 x 3 pixels.
    assert found.pictures["flat_field"].shape == (2, 200, 173)


def test_the_noise_is_what_the_record_says():
    flat = uneven_light(SHAPE, 0.6)
    photons = np.random.default_rng(0).poisson(200 * flat, (4000, *SHAPE)) / flat
    variance = photons.var(axis=0)
    factors = noise_factors(flat[None])[0]
    np.testing.assert_allclose(variance / variance.mean(), factors, rtol=0.12)
    # Far more than the error of a variance of 4000 values, 2 %.
    assert factors.max() > 1.5 and factors.min() < 0.85


def test_without_an_offset_there_is_a_warning(tmp_path, caplog):
    path = write(tmp_path / "flat.tif", uneven_light(SHAPE, 0.5))
    counts = np.random.default_rng(0).poisson(50, (1, 1, 7, *SHAPE)) + 100.0
    assert not correct(counts, path, None).record["flat_field"]["offset_known"]
    assert "offset is not known" in caplog.text


def test_none_divides_by_nothing():
    counts = np.random.default_rng(0).poisson(50, (1, 1, 7, *SHAPE)) + 100.0
    found = correct(counts, "none")
    assert found.record["flat_field"] == {"applied": False, "why_not": "none is given"}
    np.testing.assert_array_equal(np.asarray(found.intensity), np.float32((counts - 100) / 10))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, r"1 pixels of the flat field are not finite .*row 3, column 7\); export it again"),
        (0.0, r"1 pixels of the flat field are not above 0 .*row 3, column 7\); record an even"),
        (-2.0, r"first is -2 at row 3, column 7"),
    ],
)
def test_pixels_that_can_not_be_are_refused(tmp_path, value, message):
    flat = uneven_light(SHAPE, 0.5)
    flat[3, 7] = value
    path = write(tmp_path / "flat.tif", flat)
    with pytest.raises(InputError, match=message) as error:
        read_flat_field(path)
    assert str(error.value).startswith(path) and "\n" not in str(error.value)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "flat.tif"
    with pytest.raises(InputError, match=r"flat\.tif"):
        read_flat_field(path)
    path.write_text("even")
    with pytest.raises(InputError, match="not a readable TIFF"):
        read_flat_field(path)


def test_the_number_of_images_is_checked(tmp_path):
    with pytest.raises(InputError, match=r"f\.tif: .* 3 images, .* 2 channels; give one image"):
        fit_to_images(np.ones((3, 4, 5)), "f.tif", (2, 4, 5))


def test_the_size_is_checked_for_every_sample_before_anything_runs(tmp_path):
    lab = Lab(tmp_path)
    lab.flat_field = write(tmp_path / "flat.tif", uneven_light((32, 36), 0.2))
    assert lab.check(lab.test, lab.train).rejected == {}
    write_tiff(tmp_path / "a.tif", volume(0, (3, 36, 32)))
    unpaired = lab.test | {"ground_truth": ""}
    (problem,) = lab.check(unpaired, lab.train).rejected["a"]
    assert problem.column == "acquisition" and "has 32 x 36 pixels (y, x)" in problem.message
    assert "flat.tif" in problem.message and "36 x 32" in problem.message
    assert "corrections.flat_field" in problem.remedy


@pytest.mark.parametrize("share", [-0.1, 1.0, 2.0])
def test_vignetting_without_a_meaning_is_refused(share):
    with pytest.raises(ValueError, match="vignetting must be"):
        Disturbance(vignetting=share)


def test_uneven_light_has_the_mean_one_and_the_stated_fall():
    light = uneven_light(SHAPE, 0.4)
    assert light.mean() == pytest.approx(1) and light.min() / light.max() == pytest.approx(0.6)
    np.testing.assert_array_equal(uneven_light(SHAPE, 0.0), 1.0)
