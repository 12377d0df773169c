"""A run finds the light of its own acquisitions, and divides by it where it is certain."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

import estimate_shading
import preprocess
from besselflow import mean_images
from besselflow.config import Corrections
from besselflow.corrections.estimated_fields import Estimates, read_estimates
from besselflow.errors import InputError
from besselflow.field_of_view import FieldOfView
from besselflow.mean_images import mean_image, times_read
from besselflow.report import SampleStatus, write_cohort_report
from besselflow.report.corrections import describe_corrections
from besselflow.sample_sheet import read_sheet
from besselflow.store import open_projections
from many_acquisitions import LIGHT, OFFSET, SIZE, Facility
from test_report import Page, check_page

PIXELS = (1.0, 0.5, 0.5)


class Workplace(Facility):
    """A facility that runs the scripts as the workflow does."""

    def estimate(self):
        estimate_shading.main(self.sheet, self.folder / "flat_field")
        return read_estimates(self.folder / "flat_field")

    def preprocess(self, sample, flat_field="auto", offset=OFFSET, pixels=PIXELS):
        """Return the projections of a sample that is corrected under its own name."""
        stage = self.folder / "stage.csv"
        stage.write_text("projection,z_um\n0,2.5\n1,8.5\n")
        out = self.folder / f"{sample}-{Path(flat_field).stem}.zip"
        preprocess.main(
            *(self.folder / f"{sample}.tif", stage, None, "box:6um", pixels, offset, None),
            *(sample, out),
            corrections=Corrections(flat_field=flat_field),
            flat_fields=self.folder / "flat_field" if flat_field == "auto" else None,
        )
        return open_projections(out)


def record(measured):
    return measured.attributes["corrections"]["flat_field"]


def assert_same_data(found, expected):
    np.testing.assert_array_equal(np.asarray(found.data), np.asarray(expected.data))


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """Ten acquisitions with uneven light in one of two channels, and three that can't join."""
    place = Workplace(tmp_path_factory.mktemp("uneven"))
    for _ in range(10):
        place.add(np.stack([LIGHT, np.ones(SIZE)]))
    place.add(np.ones((2, 48, 70)), sample="small")
    place.add(np.stack([LIGHT, LIGHT]), sample="unknown", offset="")
    place.add(sample="broken")
    (place.folder / "broken.tif").write_bytes(b"not an image")
    place.estimates = place.estimate()
    return place


def test_known_light_is_found_and_projections_are_divided_by_it(uneven):
    measured = uneven.preprocess("s0")
    path = uneven.folder / "flat_field" / "field-1.tif"
    assert np.std(tifffile.imread(path)[0] / LIGHT) < 0.03 < np.std(LIGHT)
    found = record(measured)
    assert found["applied"] and found["path"] == str(path) and found["takes_part"]
    assert found["acquisitions"] == 10
    assert [each["applied"] for each in found["channels"]] == [True, False]
    assert found["channels"][0]["error"] < 0.05 < found["channels"][0]["variation"]
    # It is the same as to give that image; and what is even is left as it is, bit by bit.
    assert_same_data(measured, uneven.preprocess("s0", str(path)))
    plain = uneven.preprocess("s0", "none")
    np.testing.assert_array_equal(measured.data[:, 1].compute(), plain.data[:, 1].compute())
    assert not np.allclose(measured.data[:, 0].compute(), plain.data[:, 0].compute(), rtol=0.1)


def test_what_can_not_join_is_named_and_stops_nobody(uneven):
    kept = uneven.estimates
    assert [len(field.samples) for field in kept.fields] == [10, 1]
    assert set(kept.left_out) == {"unknown", "broken"}
    assert "broken.tif" in kept.left_out["broken"]
    assert "offset is not known" in kept.left_out["unknown"]


def test_another_size_is_left_as_it_is_with_a_reason(uneven):
    measured = uneven.preprocess("small")
    assert_same_data(measured, uneven.preprocess("small", "none"))
    why_not = record(measured)["why_not"]
    assert why_not.startswith("1 acquisition of 48 x 70 pixels (y, x) of 0.5 x 0.5 um and 2 chan")
    assert why_not.endswith("can't tell the light from the samples, which takes at least 8")


def test_another_zoom_is_left_as_it_is_with_a_reason(uneven):
    measured = uneven.preprocess("s1", pixels=(1.0, 0.25, 0.25))
    assert "0.25 x 0.25 um and 2 channels was not estimated" in record(measured)["why_not"]


def test_without_an_offset_nothing_is_divided(uneven):
    measured = uneven.preprocess("unknown", offset=None)
    assert_same_data(measured, uneven.preprocess("unknown", "none", offset=None))
    assert "offset is not known" in record(measured)["why_not"]


def test_a_sample_that_could_not_join_is_divided_and_the_page_says_so(uneven):
    measured = uneven.preprocess("unknown")
    assert record(measured)["applied"] and not record(measured)["takes_part"]
    view = next(each for each in describe_corrections(measured) if each.title == "Flat field")
    assert "10 acquisitions" in view.sentence and "this sample is none" in view.sentence
    assert "not certain in channel 2 (standard error " in view.sentence
    assert view.number.startswith("varies by ") and "(channel 1), " in view.number
    assert view.before.startswith("data:image") and view.before != view.after


def test_the_page_of_all_samples_tells_of_it(uneven, tmp_path):
    names = [*(f"s{n}" for n in range(10)), "small", "unknown", "broken", "later"]
    statuses = [SampleStatus(name, "test", "failed", reason="not run") for name in names]
    write_cohort_report(
        *(tmp_path / "report.html", tmp_path / "metrics.tsv", tmp_path, statuses, "spectral"),
        uneven.folder / "flat_field",
    )
    page = Page(tmp_path / "report.html")
    check_page(page)
    text = page.text[page.text.index("How even the light is") :]
    assert "10 acquisitions of 50 x 70 pixels (y, x) of 0.5 x 0.5 um and 2 channels: the" in text
    assert "of channel 1 varies by" in text and "of channel 2 is left as it is" in text
    assert "Nothing is divided by a flat field: 1 acquisition of 48 x 70 pixels" in text
    assert "2 samples were not compared" in text and "images fit: later." in text
    drawings = [image for image in page.images if image["alt"].startswith("Flat field, its")]
    assert len(drawings) == 1


def test_even_light_divides_nothing_bit_by_bit(tmp_path):
    place = Workplace(tmp_path)
    for _ in range(8):
        place.add(np.ones(SIZE))
    (field,) = place.estimate().fields
    assert not (tmp_path / "flat_field" / "field-1.tif").exists()
    measured = place.preprocess("s0")
    assert_same_data(measured, place.preprocess("s0", "none"))
    found = record(measured)
    assert found == {"applied": False, "why_not": field.why_not}
    assert "not certain that the light is uneven: 8 acquisitions" in found["why_not"]
    assert f"standard error of {field.shadings[0].error:.1%}" in found["why_not"]


def test_every_zoom_has_a_field_of_its_own(tmp_path):
    place, other = Workplace(tmp_path), np.flip(LIGHT)
    for _ in range(9):
        place.add()
    for _ in range(8):
        place.add(other, voxel_size_y_um="0.25", voxel_size_x_um="0.25")
    fields = place.estimate().fields
    assert [len(field.samples) for field in fields] == [9, 8]
    for field, light in zip(fields, (LIGHT, other), strict=True):
        assert np.std(tifffile.imread(field.path) / light) < 0.04 < np.std(light)
    first, second = (
        record(place.preprocess(name, pixels=(1.0, pixel, pixel)))
        for name, pixel in (("s0", 0.5), ("s12", 0.25))
    )
    assert (first["path"], second["path"]) == tuple(str(field.path) for field in fields)


def test_nothing_that_can_be_compared_is_no_error(tmp_path):
    place = Workplace(tmp_path)
    place.add(offset="")
    assert place.estimate().fields == ()
    assert "was not estimated" in record(place.preprocess("s0"))["why_not"]


def test_changes_of_the_sheet_are_told(tmp_path):
    place = Workplace(tmp_path)
    for name in ("same", "mended", "gone", "refused"):
        place.add(sample=name)
    kept = place.estimate()
    assert kept.changes_since(read_sheet(place.sheet).tests) is None
    place.rows[1]["offset"] = "90"
    del place.rows[2:]
    place.add(sample="later")
    samples = read_sheet(place.sheet).tests
    expected = "new: later; changed: mended; gone: gone"
    assert kept.changes_since(samples, ["refused"]) == expected


def test_a_damaged_record_names_the_folder_and_the_remedy(tmp_path):
    (tmp_path / "estimate.json").write_text('{"fields": [{}]}')
    with pytest.raises(InputError, match=r"can't be read .*; delete the folder, and run with"):
        read_estimates(tmp_path)


def test_an_unknown_zoom_takes_the_field_of_its_size():
    known, unknown = (FieldOfView(1, SIZE, pixel) for pixel in ((0.5, 0.5), None))
    assert known.fits(unknown) and unknown.fits(known)
    assert not known.fits(FieldOfView(2, SIZE, None))
    assert Estimates(()).choose("s0", known, True).path is None


def test_of_a_long_series_all_projections_count_alike(tmp_path, monkeypatch):
    assert times_read(90, 3) == 85 and times_read(2, 3) == 2 and times_read(9, 999) == 1
    monkeypatch.setattr(mean_images, "_MOST_IMAGES", 6)
    place = Workplace(tmp_path)
    place.add()
    levels = np.array([300, 700, 500]).repeat(32 * 32).reshape(1, 3, 32, 32)
    ramp = np.linspace(0, 100, 32).round()
    series = (levels + ramp).repeat(5, axis=0).astype(np.uint16)
    metadata = {"axes": "TZYX"}
    tifffile.imwrite(tmp_path / "s0.tif", series, photometric="minisblack", metadata=metadata)
    (sample,) = read_sheet(place.sheet).tests
    found = mean_image(sample)[0]
    expected = np.broadcast_to(400 + ramp, found.shape) / (400 + ramp.mean())
    # The edges of a ramp without noise stand out, and are filled.
    np.testing.assert_allclose(found[:, 1:-1], expected[:, 1:-1], rtol=1e-4)
