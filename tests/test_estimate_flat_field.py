"""A sheet of acquisitions becomes a flat field that the corrections take, or a clear refusal."""

import numpy as np
import pytest
import tifffile
import yaml
from PIL import Image

import estimate_flat_field
from besselflow.config import Config
from besselflow.corrections.flat_field import fit_to_images, read_flat_field
from besselflow.errors import InputError, ProblemsError
from besselflow.mean_images import collect_mean_images
from many_acquisitions import HOT, LIGHT, OFFSET, SIZE, Facility


@pytest.fixture
def facility(tmp_path):
    return Facility(tmp_path)


def estimate(facility):
    return estimate_flat_field.main(facility.sheet, facility.folder / "flat.tif")


def test_the_field_is_found_and_taken_by_the_configuration(facility):
    """One of two channels has uneven light; the other stays as it is."""
    for _ in range(10):
        facility.add(np.stack([LIGHT, np.ones(SIZE)]))
    text = estimate(facility)
    path = facility.folder / "flat.tif"
    assert tifffile.imread(path).dtype == np.float32
    flat, even = fit_to_images(read_flat_field(path), path, (2, *SIZE))
    assert np.std(flat / LIGHT) < 0.03 < np.std(LIGHT)
    np.testing.assert_array_equal(even, 1)
    assert "10 acquisitions of 50 x 70 pixels (y, x) and 2 channels" in text
    assert "uneven is certain" in text and "have a correlation of 0.9" in text
    assert "uneven is NOT certain" in text and "Channel 2 is left as it is" in text
    # What the message gives for the configuration is valid, and names the file.
    lines = text[text.index("corrections:") :]
    assert Config(**yaml.safe_load(lines)).corrections.flat_field == str(path)
    with Image.open(path.with_suffix(".png")) as picture:
        assert picture.width > 1000


def test_even_light_is_refused_with_a_picture(facility):
    for _ in range(8):
        facility.add(np.ones(SIZE))
    with pytest.raises(InputError, match=r"flat\.tif was not written .* record an even sample"):
        estimate(facility)
    assert not (facility.folder / "flat.tif").exists()
    assert (facility.folder / "flat.png").exists()


def darkened(counts):
    return counts - 60


def with_a_gap(counts):
    counts[0, 1, 3, 3] = np.nan
    return counts


def clipped(counts):
    return np.minimum(counts, np.quantile(counts, 0.95).round())


def test_what_does_not_fit_is_named_and_left_out(facility):
    for _ in range(3):
        facility.add()
    facility.add(np.ones((48, 70)), sample="small")
    facility.add(sample="zoomed", voxel_size_y_um="0.25", voxel_size_x_um="0.25")
    facility.add(np.ones((2, *SIZE)), sample="twofold")
    facility.add(sample="unknown", offset="")
    facility.add(sample="again", acquisition="s0.tif")
    facility.add(spoil=darkened, sample="dark")
    facility.add(spoil=with_a_gap, sample="gap")
    facility.add(spoil=clipped, sample="clipped")
    facility.add(sample="missing", acquisition="nowhere.tif")
    found = collect_mean_images(facility.sheet)
    assert found.samples == ("s0", "s1", "s2") and found.size == SIZE
    reasons = {
        "small": "48 x 70 pixels (y, x) of 0.5 x 0.5 um and 1 channel, and those of most others 50",
        "zoomed": "of 0.25 x 0.25 um and 1 channel, and those of most others 50 x 70",
        "twofold": "and 2 channels, and",
        "unknown": "write the counts of an unlit pixel, or auto",
        "again": 'acquisition of "s0", too',
        "dark": "hardly brighter than the offset",
        "gap": "not finite",
        "clipped": "are saturated",
        "missing": "nowhere.tif",
    }
    assert set(found.left_out) == set(reasons)
    for name, reason in reasons.items():
        assert reason in found.left_out[name] and "\n" not in found.left_out[name]


def test_too_few_are_an_error_that_names_those_left_out(facility):
    for _ in range(7):
        facility.add()
    with pytest.raises(InputError, match=r"7 acquisitions are too few .* an even sample\Z"):
        estimate(facility)
    facility.add(sample="unknown", offset="")
    with pytest.raises(
        InputError, match=r"(?s)7 acquisitions are too few .*1 left out:\n  unknown"
    ):
        estimate(facility)


def test_nothing_is_left_of_a_sheet_without_offsets(facility):
    facility.add(offset="")
    with pytest.raises(InputError, match=r"(?s)no acquisition is left\n1 left out:\n  s0: "):
        estimate(facility)


def test_a_sheet_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(ProblemsError, match="no such sample sheet"):
        estimate_flat_field.main(tmp_path / "no.tsv", tmp_path / "flat.tif")


def test_the_mean_image_is_that_of_all_planes_without_hot_pixels(facility):
    facility.add(planes=6)
    image = collect_mean_images(facility.sheet).images[0, 0]
    counts = np.squeeze(tifffile.imread(facility.folder / "s0.tif")).mean(axis=0) - OFFSET
    counts[HOT] = np.median(counts)
    assert image.shape == (46, 64) and image.mean() == pytest.approx(1)
    # Pixels were joined, and what is in every quarter stays.
    for rows, columns in np.ndindex(2, 2):
        ours, theirs = (
            each[
                rows * each.shape[0] // 2 : (rows + 1) * each.shape[0] // 2,
                columns * each.shape[1] // 2 : (columns + 1) * each.shape[1] // 2,
            ].mean()
            for each in (image, counts / counts.mean())
        )
        assert ours == pytest.approx(theirs, rel=0.01)


def test_the_output_is_a_tiff(tmp_path):
    with pytest.raises(InputError, match=r"flat\.png: the flat field is a TIFF"):
        estimate_flat_field.main(tmp_path / "samples.tsv", tmp_path / "flat.png")
