"""The pages of a real run of the workflow, opened in headless Chromium from their folder."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import test_pages

from tiny_runs import TinyFacility

pytestmark = pytest.mark.browser
browser = test_pages.browser
open_page = test_pages.open_page

PAGES = ("report.html", "known/report.html", "unknown/report.html")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Two samples after the whole chain, and one that the check excluded."""
    facility = TinyFacility(tmp_path_factory.mktemp("run"))
    facility.add_test("known", seed=5)
    facility.add_test("unknown", seed=6, known=False)
    facility.add_train("other")
    facility.add_test("broken", seed=7).write_bytes(b"not an image")
    done = facility.run()
    assert (facility.results / "report.html").exists(), done.stdout
    return facility.results


def decoded_widths(page):
    return page.eval_on_selector_all(
        "img", "images => Promise.all(images.map(i => i.decode().then(() => i.naturalWidth)))"
    )


@pytest.mark.parametrize("name", PAGES)
def test_pages_open_without_errors_and_with_all_pictures(open_page, name):
    widths = decoded_widths(open_page(name))
    assert widths and min(widths) > 0


def test_sample_pages_show_every_method_beside_the_truth(open_page):
    panels = "panels => panels.map(p => p.dataset.panel)"
    methods = {"interpolation", "spectral", "inr", "diffusion"}
    known = open_page("known/report.html").eval_on_selector_all("[data-panel]", panels)
    unknown = open_page("unknown/report.html").eval_on_selector_all("[data-panel]", panels)
    assert methods | {"truth"} <= set(known)
    assert methods <= set(unknown) and "truth" not in unknown


@pytest.mark.parametrize("sample", ["known", "unknown"])
def test_links_lead_from_the_cohort_to_the_samples(open_page, sample):
    page = open_page("report.html")
    page.get_by_role("link", name=sample, exact=True).click()
    assert page.locator("h1").inner_text() == sample
    assert min(decoded_widths(page)) > 0


@pytest.mark.parametrize("name", PAGES)
def test_every_link_to_a_file_has_its_file(open_page, name):
    links = open_page(name).eval_on_selector_all("a[href]", "links => links.map(a => a.href)")
    files = {unquote(urlsplit(link).path) for link in links if link.startswith("file:")}
    assert files and all(Path(file).exists() for file in files)


def test_the_excluded_sample_is_named_with_its_reason(open_page):
    page = open_page("report.html")
    assert page.locator("#cohort tbody tr", has_text="broken").count() == 1
    reasons = page.locator(".reason")
    assert reasons.count() == 1 and reasons.is_visible()
    assert "broken.ome.tif" in reasons.inner_text()
