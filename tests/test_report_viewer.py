"""The volumes of the viewer: their coding, their size, and where to look."""

import json
import re

import numpy as np
import pytest

from besselflow.report import write_sample_report
from besselflow.report.atlas import CodeRange, decode, encode, pack, tile, unpack, untile
from besselflow.report.pictures import Preview
from besselflow.report.targets import find_targets
from besselflow.report.viewer import choose_places
from besselflow.store import open_volume
from report_samples import METHODS, Sizes, write_sample


def test_codes_are_finer_than_photon_noise():
    span = CodeRange(2.0, 402.0)
    values = np.linspace(2, 402, 5000)
    error = np.abs(decode(encode(values, span), span) - values)
    # Half a step in the square root, which is sqrt(400) / 255 wide.
    assert (error <= np.sqrt(values - 2) * np.sqrt(400) / 255 + 0.002).all()
    assert encode(np.array([-5.0, 999.0]), span).tolist() == [0, 255]


@pytest.mark.parametrize("shape", [(1, 5, 7), (7, 3, 9), (24, 40, 48), (90, 20, 11)])
def test_a_stack_survives_tiling_and_lossless_compression(shape):
    codes = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    assert np.array_equal(untile(tile(codes), shape), codes)
    assert np.array_equal(unpack(pack(codes, None), shape), codes)
    rows, columns = tile(codes).shape
    assert rows % shape[1] == 0 and columns % shape[2] == 0
    assert max(rows, columns) / min(rows, columns) < max(4, 2 * max(shape) / min(shape))


def test_lossy_compression_costs_little():
    z, y, x = np.mgrid[:16, :64, :64]
    codes = (127 + 120 * np.sin(x / 6) * np.cos(y / 9 + z / 4)).astype(np.uint8)
    error = unpack(pack(codes, 75), codes.shape).astype(float) - codes
    assert np.sqrt(np.mean(error**2)) < 3.5
    assert len(pack(codes, 75)) < 0.5 * codes.size


@pytest.mark.parametrize(
    ("times", "channels", "always", "count"),
    [(1, 1, (0, 0), 1), (2, 2, (1, 1), 4), (100, 1, (37, 0), 6), (50, 2, (13, 1), 6)],
)
def test_embedded_time_points_are_few_and_have_the_one_to_look_at(times, channels, always, count):
    places = choose_places(times, channels, always)
    assert len(places) == len(set(places)) == count
    assert always in places and places == sorted(places)
    assert {c for _, c in places} == set(range(channels))


def test_every_channel_is_embedded_even_where_there_are_many():
    assert choose_places(5, 9, (2, 8)) == [(2, c) for c in range(9)]


def test_targets_are_where_the_error_is_though_a_single_voxel_is_noise():
    shape = (8, 48, 48)
    error = np.zeros(shape, np.float32)
    error[3, 30:36, 10:16] = 1.0
    error[5, 2, 2] = 4.0
    error[0, :, :] = 50.0
    reference = np.zeros(shape, np.float32)
    reference[4, 20:30, 20:30] = 9.0
    preview = Preview(reference, np.arange(8.0), (1.0, 1.0, 1.0))
    found = {
        target.key: target
        for target in find_targets(2, preview, error, None, 5.0, np.array([2.0, 6.0]))
    }
    assert set(found) == {"suspect", "error", "bright"}
    worst = found["error"]
    assert worst.z == 3 and 30 <= worst.y < 36 and 10 <= worst.x < 16 and worst.place == 2
    assert found["suspect"].z == 5 and found["bright"].z == 4


def viewer_data(path):
    source = path.read_text(encoding="utf-8")
    return json.loads(re.search(r'id="viewer-data">(.*?)</script>', source, re.S)[1])


def test_small_volumes_are_embedded_without_loss(tmp_path):
    inputs = write_sample(tmp_path, "vessels")
    write_sample_report(tmp_path / "report.html", inputs)
    data = viewer_data(tmp_path / "report.html")
    assert set(data["layers"]) == {"projection", *METHODS, "truth"}
    assert set(data["overlays"]) == {"error", "uncertainty", "measured"}
    assert set(data["overlays"]["error"]["of"]) == set(METHODS)
    assert data["shape"] == [24, 40, 48] and len(data["projections"]["of"]) == 24
    true = open_volume(inputs.truth).data[0, 0].compute()
    for method in METHODS:
        layer = data["layers"][method]
        span = CodeRange(*layer["spans"][0])
        shown = decode(unpack(layer["images"][0], (24, 40, 48)), span)
        stored = open_volume(inputs.volumes[method]).data[0, 0].compute()
        inside = stored < span.high
        assert np.abs(shown - stored)[inside].max() <= (span.high - span.low) / 250
        error = data["overlays"]["error"]["of"][method]
        high = error["spans"][0][1]
        shown = decode(unpack(error["images"][0], (24, 40, 48)), CodeRange(0, high))
        inside = np.abs(stored - true) < high
        assert np.abs(shown - np.abs(stored - true))[inside].max() <= high / 250
    assert data["psnr"]["diffusion"][0][0] is None
    assert data["psnr"]["diffusion"][0][10] > data["psnr"]["interpolation"][0][10]


def test_series_stay_below_their_share_of_the_page_and_say_what_is_left_out(tmp_path):
    sizes = Sizes(times=4, channels=2, slices=20, rows=90, columns=80)
    inputs = write_sample(tmp_path, "series", sizes=sizes)
    write_sample_report(tmp_path / "report.html", inputs)
    page = tmp_path / "report.html"
    assert page.stat().st_size < 10e6
    data = viewer_data(page)
    assert all(len(layer["images"]) == 6 for layer in data["layers"].values())
    assert "6 of 8 time points and channels" in page.read_text(encoding="utf-8")
    first = data["targets"][0]
    assert 0 <= first["place"] < 6 and first["key"] == "suspect"
