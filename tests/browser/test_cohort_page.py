"""The page of a large cohort in headless Chromium: speed, filters, drawings, keyboard, paper."""

import re

import pytest
import test_pages

from besselflow.report import write_cohort_report
from cohort_samples import GROUPS, METHODS, write_cohort

pytestmark = pytest.mark.browser
browser = test_pages.browser
open_page = test_pages.open_page

COUNT = 500
_CONTRAST = """
(element) => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (text) => {
    const [r, g, b] = parse(text).slice(0, 3).map((value) => value / 255)
      .map((value) => value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = getComputedStyle(element.closest("section") ?? document.body).backgroundColor;
  const [a, b] = [light(getComputedStyle(element).color), light(ground)].sort((x, y) => y - x);
  return (a + 0.05) / (b + 0.05);
}
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    statuses = write_cohort(folder, COUNT)
    write_cohort_report(
        folder / "report.html", folder / "metrics.tsv", folder, statuses, "diffusion"
    )
    return folder


def shown(page):
    return page.eval_on_selector_all(
        "#cohort tbody tr", "rows => rows.filter(r => !r.hidden).map(r => r.cells[1].dataset.sort)"
    )


def seconds_of_thread(session):
    """Time that the page's own thread has computed, whatever else the machine does."""
    metrics = session.send("Performance.getMetrics")["metrics"]
    return next(each["value"] for each in metrics if each["name"] == "TaskDuration")


@pytest.fixture
def timed_page(browser, results):
    """Open the page and give what measures it."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    page.goto((results / "report.html").as_uri())
    yield page, session
    page.close()


def test_five_hundred_samples_open_within_two_seconds(timed_page):
    page, session = timed_page
    assert page.locator("#drawing circle").count() > 4 * 300
    assert 0 < seconds_of_thread(session) < 2
    assert len(shown(page)) == COUNT + 1


def test_sorting_and_filtering_five_hundred_samples_is_quick(timed_page):
    page, session = timed_page
    before = seconds_of_thread(session)
    page.get_by_role("button", name="PSNR (dB)").click()
    page.locator("#filter").fill("mouse-1")
    page.wait_for_function("document.getElementById('count').textContent.startsWith('100 of')")
    assert seconds_of_thread(session) - before < 2
    assert len(shown(page)) == 100


def test_light_status_and_group_narrow_the_table_together(open_page):
    page = open_page("report.html")
    page.get_by_label("Light", exact=True).select_option("check")
    doubtful = shown(page)
    assert 0 < len(doubtful) < COUNT / 4
    page.get_by_label("group", exact=True).select_option(GROUPS[1])
    found = shown(page)
    assert found == [name for name in doubtful if int(name[-3:]) % 3 == 1]
    page.get_by_label("Status", exact=True).select_option("failed")
    assert shown(page) == [] and page.locator("#count").inner_text().startswith("0 of")


def test_every_score_is_drawn_by_method_and_by_group(open_page):
    page = open_page("report.html")
    assert page.locator("#drawing rect").count() == len(METHODS)
    label = page.locator("#drawing svg").get_attribute("aria-label")
    assert label.startswith("PSNR (dB) of every sample by method")
    page.get_by_label("Group by").select_option("group")
    assert page.locator("#drawing rect").count() == len(METHODS) * len(GROUPS)
    assert page.locator("#legend span").all_inner_texts() == sorted(GROUPS)
    for option in page.locator("#metric option").all():
        page.get_by_label("Score", exact=True).select_option(option.get_attribute("value"))
        assert page.locator("#chart-title").inner_text().startswith(option.inner_text())
        assert page.locator("#drawing circle").count() > 0


def test_the_numbers_and_comparisons_follow_the_score(open_page):
    page = open_page("report.html")
    page.locator("summary", has_text="The numbers of the drawing").click()
    rows = page.locator("#numbers tbody tr").all_inner_texts()
    assert [row.split("\t")[0] for row in rows] == list(METHODS)
    compared = "#comparisons tbody tr:not([hidden])"
    assert page.locator(compared).count() == len(METHODS) - 1
    assert "diffusion is better than interpolation" in page.locator(compared).first.inner_text()
    page.get_by_label("Score", exact=True).select_option("chi2")
    assert page.locator("#comparisons").is_hidden() and page.locator("#no-comparison").is_visible()


def test_the_table_can_be_sorted_by_keyboard(open_page):
    page = open_page("report.html")
    header = page.get_by_role("button", name="Sample")
    header.focus()
    page.keyboard.press("Enter")
    assert shown(page)[:3] == ["mislabelled", "mouse-000", "mouse-001"]
    assert page.evaluate("document.activeElement.textContent") == "Sample"


def test_every_control_has_a_name(open_page):
    page = open_page("report.html")
    names = page.eval_on_selector_all(
        "input, select", "all => all.map(e => e.labels.length ? e.labels[0].textContent : '')"
    )
    assert names and all(names)
    assert page.locator("img:not([alt])").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_lights_and_small_print_can_be_read(open_page, scheme):
    page = open_page("report.html", color_scheme=scheme)
    for selector in (".light.stop", ".light.check", ".light.good", ".light.unverified", ".soft"):
        element = page.locator(f"#cohort {selector}").first
        assert element.evaluate(_CONTRAST) >= 4.5


@pytest.mark.parametrize("width", [400, 1280])
def test_the_page_is_not_wider_than_the_screen(open_page, width):
    page = open_page("report.html", viewport={"width": width, "height": 850})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_without_scripts_the_numbers_are_still_there(browser, results):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((results / "report.html").as_uri())
    assert page.locator("#cohort tbody tr").count() == COUNT + 1
    assert page.locator("#distribution").is_hidden()
    page.locator("summary", has_text="Median of every score").click()
    cells = page.locator(".medians tbody tr").first.inner_text().split("\t")
    assert cells[0] == "PSNR (dB)" and all(re.fullmatch(r"\d+\.\d\d", cell) for cell in cells[1:])
    context.close()


def test_on_paper_everything_is_open_and_nothing_is_a_control(open_page):
    page = open_page("report.html")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert page.evaluate("[...document.querySelectorAll('details')].every(d => d.open)")
    assert page.locator("#filter").is_hidden() and page.locator("#metric").is_hidden()
