"""The viewer of a sample's page in headless Chromium: one place in all pictures, true pixels."""

import base64
import io
import re

import numpy as np
import pytest
import test_pages
from PIL import Image

from besselflow.report.atlas import CodeRange, decode, unpack
from report_samples import Sizes, write_reported_sample
from test_report_viewer import viewer_data

pytestmark = pytest.mark.browser
browser = test_pages.browser
open_page = test_pages.open_page

SHAPE = (24, 40, 48)
PICTURE = "canvas => canvas.toDataURL('image/png').split(',')[1]"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    write_reported_sample(folder, "vessels")
    write_reported_sample(folder, "no-truth", has_truth=False, has_uncertainty=False)
    write_reported_sample(folder, "series", sizes=Sizes(times=2, channels=2))
    return folder


@pytest.fixture
def viewer(open_page):
    def opened(name, **options):
        page = open_page(f"{name}/report.html", **options)
        page.wait_for_selector("#viewer[data-drawn]")
        return page

    return opened


def settle(page):
    """Wait until what was asked for is drawn, which happens in the next frame."""
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => setTimeout(done, 0)))")


def put(page, **values):
    for name, value in values.items():
        tag = page.locator(f"#{name}").evaluate("e => e.tagName")
        if tag == "SELECT":
            page.locator(f"#{name}").select_option(value)
        else:
            page.locator(f"#{name}").fill(str(value))
    settle(page)


def pixels(page, method, side):
    canvas = page.locator(f'figure[data-panel="{method}"] [data-side="{side}"] canvas')
    return picture(canvas)


def picture(canvas):
    with Image.open(io.BytesIO(base64.b64decode(canvas.evaluate(PICTURE)))) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def place(page):
    return tuple(int(page.locator(f"#{axis}").input_value()) for axis in "zyx")


def expected(results, layer, window):
    """Return the grey levels of a whole volume in a window of intensities."""
    span = CodeRange(*layer["spans"][0])
    values = decode(unpack(layer["images"][0], SHAPE), span)
    return 255 * np.clip((values - window[0]) / (window[1] - window[0]), 0, 1)


@pytest.mark.parametrize("method", ["interpolation", "diffusion", "truth"])
def test_the_pixels_are_those_of_the_volume(viewer, results, method):
    page = viewer("vessels")
    data = viewer_data(results / "vessels" / "report.html")
    put(page, z=13, y=21, x=30, black=0, white=255)
    layer = data["layers"][method]
    grey = expected(results, layer, layer["spans"][0])
    for side, plane in (("xy", grey[13]), ("xz", grey[:, 21]), ("yz", grey[:, :, 30].T)):
        shown = pixels(page, method, side)
        assert np.ptp(shown, axis=-1).max() == 0
        assert np.abs(shown[..., 0] - plane).max() <= 1


def test_maximum_projections_are_those_of_the_volume(viewer, results):
    page = viewer("vessels")
    data = viewer_data(results / "vessels" / "report.html")
    put(page, mode="maxima", black=0, white=255)
    grey = expected(results, data["layers"]["inr"], data["layers"]["inr"]["spans"][0])
    for side, plane in (
        ("xy", grey.max(axis=0)),
        ("xz", grey.max(axis=1)),
        ("yz", grey.max(axis=2).T),
    ):
        assert np.abs(pixels(page, "inr", side)[..., 0] - plane).max() <= 1


def test_an_overlay_shows_the_error_where_there_is_one(viewer, results):
    page = viewer("vessels")
    data = viewer_data(results / "vessels" / "report.html")
    put(page, z=13, overlay="error", opacity=1)
    for method in ("interpolation", "diffusion"):
        layer = data["overlays"]["error"]["of"][method]
        codes = unpack(layer["images"][0], SHAPE)[13].astype(float)
        # Inferno grows brighter throughout.
        shown = pixels(page, method, "xy").sum(axis=-1)
        order = np.argsort(codes.ravel())
        assert (np.diff(shown.ravel()[order]) >= -12).all()
    assert np.ptp(pixels(page, "truth", "xy"), axis=-1).max() == 0, "the truth has no error"
    assert page.locator("#legend").is_visible()
    assert "error" in page.locator('figure[data-panel="inr"] .value').inner_text()
    put(page, overlay="uncertainty")
    assert np.ptp(pixels(page, "diffusion", "xy"), axis=-1).max() > 0
    assert np.ptp(pixels(page, "inr", "xy"), axis=-1).max() == 0, "only the final one states it"
    put(page, overlay="")
    assert np.ptp(pixels(page, "diffusion", "xy"), axis=-1).max() == 0
    assert not page.locator("#legend").is_visible()


def test_without_truth_and_uncertainty_their_overlays_are_not_offered(viewer):
    page = viewer("no-truth")
    options = page.locator("#overlay option").all_inner_texts()
    assert options == ["none", "measured share"]


def crosses(page):
    script = """figures => figures.map(figure => [...figure.querySelectorAll(".cut-x, .cut-y")]
        .map(line => line.style.left + line.style.top).join())"""
    return page.eval_on_selector_all("figure[data-panel]", script)


def test_sliders_move_all_pictures_to_the_same_place(viewer):
    page = viewer("vessels")
    put(page, z=0, y=0, x=0)
    before = {m: pixels(page, m, "xy") for m in ("projection", "inr", "truth")}
    put(page, z=8)
    page.locator("#z").focus()
    page.keyboard.press("ArrowRight")
    settle(page)
    assert page.locator("#z-text").inner_text() == "z = 9 µm"
    assert page.locator("#z").get_attribute("aria-valuetext") == "z = 9 µm"
    assert all(not np.array_equal(pixels(page, m, "xy"), b) for m, b in before.items())
    put(page, y=20, x=12)
    assert len(set(crosses(page))) == 1
    text = page.locator('figure[data-panel="projection"] .score').inner_text()
    assert text.startswith("projection 2 of 4, at 9 µm, 0 µm away")
    caption = page.locator('figure[data-panel="diffusion"] .score').inner_text()
    assert re.fullmatch(r"PSNR \d+\.\d dB in this slice", caption)


def test_the_keyboard_moves_from_within_a_picture(viewer):
    page = viewer("vessels")
    put(page, z=5, y=6, x=7)
    page.locator('figure[data-panel="inr"] .ortho').focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowUp", "PageDown"):
        page.keyboard.press(key)
    settle(page)
    assert place(page) == (6, 5, 9)
    for _ in range(9):
        page.keyboard.press("ArrowUp")
    settle(page)
    assert place(page) == (6, 0, 9), "the edge of the volume is the end"


def test_a_click_into_a_side_sets_its_two_coordinates(viewer):
    page = viewer("vessels")
    put(page, z=5, y=6, x=7)
    for side, key in (("xy", (5, 20, 24)), ("xz", (12, 20, 24))):
        page.locator(f'figure[data-panel="inr"] [data-side="{side}"]').click()
        settle(page)
        assert place(page) == pytest.approx(key, abs=1)


@pytest.mark.parametrize("name", ["error", "least sure"])
def test_links_of_the_verdict_lead_to_what_they_name(viewer, results, name):
    page = viewer("vessels")
    data = viewer_data(results / "vessels" / "report.html")
    put(page, z=0, y=0, x=0, mode="depth")
    page.locator("#verdict").get_by_role("link", name=name).click()
    settle(page)
    wanted = next(t for t in data["targets"] if name in t["name"])
    assert place(page) == (wanted["z"], wanted["y"], wanted["x"])
    assert page.locator("#mode").input_value() == "slices"
    assert page.locator("#overlay").input_value() == wanted["overlay"]


def test_a_link_from_elsewhere_opens_at_the_largest_error(open_page, results):
    path = results / "vessels" / "report.html"
    wanted = next(t for t in viewer_data(path)["targets"] if t["key"] == "error")
    page = open_page("series/report.html")
    page.goto(path.as_uri() + "#look-error")
    page.wait_for_selector("#viewer[data-drawn]")
    settle(page)
    assert place(page) == (wanted["z"], wanted["y"], wanted["x"])
    assert page.locator("#overlay").input_value() == "error"
    assert page.evaluate("scrollY") > 0


def test_contrast_and_colours_change_the_pictures(viewer):
    page = viewer("vessels")
    before = pixels(page, "inr", "xy")
    put(page, white=60)
    assert pixels(page, "inr", "xy").mean() > before.mean()
    page.get_by_role("button", name="Reset contrast").click()
    settle(page)
    assert np.array_equal(pixels(page, "inr", "xy"), before)
    put(page, colormap="grey, inverted")
    assert np.array_equal(pixels(page, "inr", "xy"), 255 - before)
    put(page, colormap="viridis")
    assert np.ptp(pixels(page, "inr", "xy"), axis=-1).max() > 100


def test_depth_is_coloured_and_the_volume_turns(viewer):
    page = viewer("vessels")
    put(page, mode="depth")
    assert np.ptp(pixels(page, "truth", "xy"), axis=-1).max() > 100
    assert not page.locator('figure[data-panel="projection"]').is_visible()
    put(page, mode="turn", angle=0)
    canvas = page.locator('figure[data-panel="truth"] .turning canvas')
    front = picture(canvas)
    assert front.max() > 100
    put(page, angle=90)
    assert not np.array_equal(picture(canvas), front)
    play = page.locator("#play")
    play.click()
    page.wait_for_timeout(600)
    assert play.get_attribute("aria-pressed") == "true"
    play.click()
    assert page.locator("#angle").input_value() != "90"
    assert play.get_attribute("aria-pressed") == "false"


def test_pictures_can_be_put_away(viewer):
    page = viewer("vessels")
    page.get_by_label("spectral", exact=True).uncheck()
    assert not page.locator('figure[data-panel="spectral"]').is_visible()
    assert page.locator('figure[data-panel="inr"]').is_visible()


def test_a_series_can_be_looked_through(viewer):
    page = viewer("series")
    seen = []
    for index in range(4):
        before = int(page.locator("#viewer").get_attribute("data-drawn"))
        page.locator("#place").select_option(str(index))
        page.wait_for_selector(f'#viewer:not([data-drawn="{before}"])')
        settle(page)
        seen.append(pixels(page, "truth", "xy").tobytes())
    assert len(set(seen)) == 4


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1300])
def test_all_controls_have_labels_and_stay_on_the_page(viewer, width, scheme):
    page = viewer("vessels", viewport={"width": width, "height": 800}, color_scheme=scheme)
    unnamed = page.eval_on_selector_all(
        "#viewer input, #viewer select",
        "all => all.filter(e => !e.labels || !e.labels.length).map(e => e.id)",
    )
    assert unnamed == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("#viewer canvas >> visible=true").count() == 18


def test_without_scripts_the_fixed_pictures_show(open_page):
    page = open_page("vessels/report.html", java_script_enabled=False)
    assert page.locator("#viewer noscript").count() == 1
    assert not page.locator("#viewer-live").is_visible()
    assert page.locator("#pictures img").first.is_visible()


def test_paper_has_the_fixed_pictures_and_no_controls(viewer):
    page = viewer("vessels")
    assert not page.locator("#pictures img").first.is_visible()
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert page.locator("#pictures img").first.is_visible()
    assert not page.locator("#viewer").is_visible()
