"""Reports opened in headless Chromium, as a user would read them."""

import os
import shutil

import pytest

from besselflow.report import SampleStatus, write_cohort_report
from report_samples import write_reported_sample

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.browser

_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


def find_chromium():
    named = os.environ.get("CHROMIUM")
    return named or next(filter(None, map(shutil.which, _CHROMIUM)), None)


@pytest.fixture(scope="module")
def browser():
    path = find_chromium()
    if path is None:
        pytest.skip("no Chromium found; install it, or set CHROMIUM to its path")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=_ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    write_reported_sample(folder, "vessels")
    write_reported_sample(folder, "no-truth", has_truth=False)
    statuses = [
        SampleStatus("vessels", "test", "done"),
        SampleStatus("no-truth", "test", "done"),
        SampleStatus("broken", "test", "failed", "fit_inr", "out of memory", "logs/a.log"),
        SampleStatus("a-wrong-one", "test", "excluded", "the check of the input", "no such file"),
    ]
    write_cohort_report(
        folder / "report.html", folder / "metrics.tsv", folder, statuses, "diffusion"
    )
    return folder


PAGES = ("vessels/report.html", "no-truth/report.html", "report.html")
SCHEMES = ("light", "dark")


@pytest.fixture
def open_page(browser, results):
    """Open a page by its name; complain about errors and requests when the test ends."""
    troubles, pages = [], []

    def open_one(name, **options):
        page = browser.new_page(**options)
        pages.append(page)
        page.on("console", lambda message: troubles.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("requestfailed", lambda request: troubles.append(f"failed: {request.url[:100]}"))
        page.on(
            "request",
            lambda request: (
                request.url.startswith(("file:", "data:")) or troubles.append(request.url)
            ),
        )
        page.goto((results / name).as_uri())
        return page

    yield open_one
    for page in pages:
        page.close()
    assert not troubles


@pytest.mark.parametrize("name", PAGES)
def test_all_pictures_are_there(open_page, name):
    page = open_page(name)
    widths = page.eval_on_selector_all(
        "img", "images => Promise.all(images.map(i => i.decode().then(() => i.naturalWidth)))"
    )
    assert len(widths) >= 1 and min(widths) > 0


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width", [390, 768, 1400])
def test_no_page_is_wider_than_the_screen(open_page, name, width):
    page = open_page(name, viewport={"width": width, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("name", PAGES)
def test_dark_pages_are_dark(open_page, name):
    script = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
    light = open_page(name, color_scheme="light")
    dark = open_page(name, color_scheme="dark")
    assert min(light.evaluate(script)) > 200
    assert max(dark.evaluate(script)) < 60


@pytest.mark.parametrize("name", PAGES[:2])
def test_dark_pages_have_dark_charts(open_page, name):
    chart = "document.querySelector('.chart img').currentSrc"
    light, dark = (open_page(name, color_scheme=scheme).evaluate(chart) for scheme in SCHEMES)
    assert light != dark


def names(page):
    return page.eval_on_selector_all(
        "#cohort tbody tr",
        "rows => rows.filter(r => !r.hidden).map(r => r.cells[1].dataset.sort)",
    )


def test_the_cohort_can_be_sorted(open_page):
    page = open_page("report.html")
    assert names(page)[:2] == ["broken", "a-wrong-one"]
    page.get_by_role("button", name="Sample").click()
    assert names(page) == ["a-wrong-one", "broken", "no-truth", "vessels"]
    page.get_by_role("button", name="Sample").click()
    assert names(page) == ["vessels", "no-truth", "broken", "a-wrong-one"]
    for direction in ("ascending", "descending"):
        page.get_by_role("button", name="PSNR").click()
        assert names(page)[0] == "vessels"
        header = page.locator("th", has=page.get_by_role("button", name="PSNR"))
        assert header.get_attribute("aria-sort") == direction


def test_the_cohort_can_be_filtered(open_page):
    page = open_page("report.html")
    page.locator("#filter").fill("MEMORY")
    assert names(page) == ["broken"]
    assert page.locator("#count").inner_text() == "1 of 4 shown"
    page.locator("#filter").fill("")
    page.locator("#status").select_option("done")
    assert sorted(names(page)) == ["no-truth", "vessels"]


def test_a_sample_is_one_click_from_the_cohort(open_page):
    page = open_page("report.html")
    page.get_by_role("link", name="vessels", exact=True).click()
    assert page.locator("h1").inner_text() == "vessels"


def test_details_are_open_on_paper(open_page):
    page = open_page("vessels/report.html")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("[...document.querySelectorAll('details')].every(d => d.open)")
