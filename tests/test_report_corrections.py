"""The corrections on the sample page: each has a sentence, and a picture where it was used."""

from dataclasses import replace

import numpy as np
import pytest

from besselflow.report import write_sample_report
from besselflow.report.corrections import describe_corrections
from besselflow.store import open_projections, remove, write_projections
from report_samples import write_sample

PAIR = np.random.default_rng(0).random((2, 40, 60)).astype(np.float32)
LINE = {"offset": 97.4, "gain": 9.94, "offset_error": 0.52, "gain_error": 0.13}
LINE |= {"means": [100.0, 500.0, 900.0], "variances": [30.0, 4010.0, 7980.0]}
FOUND = {
    "photon_transfer": {
        "applied": True,
        "offset": [97.4],
        "offset_given": False,
        "lines": [LINE],
    },
    "saturation": {"applied": True, "level": 4095.0, "share": 0.00123},
    "hot_pixels": {"applied": False, "pixels": 0, "share": 0.0},
    "flat_field": {
        "applied": True,
        "path": "flat.tif",
        "range": [0.64, 1.2],
        "noise_range": [0.81, 1.52],
        "offset_known": False,
    },
    "scan_phase": {"applied": True, "given": False, "pixels": 0.712, "error": 0.004},
    "line_noise": {
        "applied": True,
        "spread": 0.031,
        "gain_error": 0.012,
        "noise_range": [0.92, 1.08],
    },
    "motion": {"applied": True, "pixels": [[0, 0], [1.5, -2.25]]},
    "bleaching": {"applied": False, "why_not": "a single stack can't tell"},
    "depth_attenuation": {
        "applied": True,
        "given": False,
        "length_um": 142.0,
        "error_um": 11.0,
        "left": 0.25,
        "offset_known": True,
        "z_um": [0.0, 100.0, 196.9],
        "before": [[80.0, 39.0, 20.0]],
        "after": [[80.0, 78.9, 80.1]],
    },
    "laser": {"applied": False, "spread": 0.0, "error": 0.01, "gains": [1.0], "evidence": 1.0},
    "drift": {"applied": True, "spread": 0.84, "error": 0.11, "pixels": [], "evidence": 90.0},
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return write_sample(tmp_path_factory.mktemp("results"), "mouse")


def with_corrections(inputs, record, pictures):
    measured = open_projections(inputs.projections)
    attributes = measured.attributes | {"corrections": record}
    path = inputs.projections.with_name("corrected.zip")
    remove(path)
    write_projections(path, replace(measured, attributes=attributes, pictures=pictures))
    return replace(inputs, projections=path)


def test_every_correction_has_its_sentence(inputs):
    changed = with_corrections(inputs, FOUND, {"drift": PAIR})
    views = {
        view.title: view for view in describe_corrections(open_projections(changed.projections))
    }
    assert len(views) == len(FOUND)
    assert views["Saturated pixels"].number == "0.123% of the pixels"
    assert "4095 counts" in views["Saturated pixels"].sentence
    assert views["Scan phase"].number == "0.71 pixels (± 0.004)"
    assert views["Flat field"].number == "0.64 to 1.20 of the mean"
    assert (
        "flat.tif" in views["Flat field"].sentence and "1.52 times" in views["Flat field"].sentence
    )
    assert "offset is not known" in views["Flat field"].sentence
    assert views["Line noise"].number == "3.1% (each line known to 1.2%)"
    assert "0.92 to 1.08 times" in views["Line noise"].sentence
    assert views["Motion"].number == "up to 2.2 pixels"
    assert views["Bleaching"].number == "not applied"
    assert views["Bleaching"].sentence == "A single stack can't tell."
    attenuation = views["Attenuation with depth"]
    assert attenuation.number == "142 µm (± 11)"
    assert "kept 25% of its light" in attenuation.sentence
    assert "4 times the noise variance" in attenuation.sentence
    assert "holds less further down" in attenuation.sentence
    assert attenuation.plot and "Mean brightness" in attenuation.plot_caption
    assert views["Laser"].sentence == "No fluctuation is certain."
    assert views["Drift"].before.startswith("data:image/webp") and views["Motion"].before is None
    assert views["Drift"].before != views["Drift"].after


def test_an_attenuation_that_is_not_certain_is_told_with_its_error(inputs):
    found = {"applied": False, "rate_per_um": 0.0041, "rate_error_per_um": 0.0023}
    changed = with_corrections(inputs, {"depth_attenuation": found}, {})
    (view,) = describe_corrections(open_projections(changed.projections))
    assert "falls by 0.41 ± 0.23, which is not certain" in view.sentence


def test_the_page_shows_them(inputs, tmp_path):
    changed = with_corrections(inputs, FOUND, {"drift": PAIR, "scan_phase": PAIR})
    write_sample_report(tmp_path / "r.html", changed)
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    section = page[page.index('id="corrections"') :].split("</section>")[0]
    assert "Offset and gain: 9.94 ± 0.1 counts per photon" in section
    assert "an offset of 97.4 ± 0.5 counts" in section
    assert "Drift: 0.84 pixels (known to 0.11)" in section and section.count("<img") == 6
    assert "Not applied" in section and "can&#39;t tell" in section


def test_stores_without_a_record_show_nothing(inputs, tmp_path):
    assert describe_corrections(open_projections(inputs.projections)) == []
    write_sample_report(tmp_path / "r.html", inputs)
    assert 'id="corrections"' not in (tmp_path / "r.html").read_text(encoding="utf-8")
