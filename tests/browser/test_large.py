"""5,000 questions of two runs: only what is in sight is in the document."""

from __future__ import annotations

from pathlib import Path

import pytest

from spacer.config.settings import ReportSettings
from spacer.report.html.build import write_report
from tests.browser.conftest import Page
from tests.browser.test_clicking import clean, opened, shown
from tests.run_folders import scored_run

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large")
    runs = [scored_run(folder / name, 5000, 0.4 + 0.1 * seed, seed) for seed, name in enumerate("ab")]
    return write_report(folder / "report.html", runs, ReportSettings(), 100, 0)


def test_five_thousand_questions_of_two_runs(page: Page, large: Path) -> None:
    opened(page, large)
    assert shown(page) == 5000
    milliseconds = page.driver.execute_script("return performance.now()")
    print(f"\n{large.stat().st_size / 1e6:.1f} MB, shown after {milliseconds / 1000:.2f} s at most")
    nodes = "document.querySelectorAll('#app *').length"
    assert len(page.texts(".item")) < 40 and page.driver.execute_script(f"return {nodes}") < 700
    page.driver.execute_script("const list = document.getElementById('list'); list.scrollTop = list.scrollHeight")
    page.wait("[...document.querySelectorAll('.item')].some((node) => node.textContent.includes('q4999'))")
    assert len(page.texts(".item")) < 40
    page.driver.find_elements("css selector", ".item")[-1].click()
    assert page.find(".asks").text.startswith("Question 4999:")
    page.choose("Show", "B right, A not")
    found = shown(page)
    assert 1200 < found < 1800  # 0.6 · 0.5 of them
    page.find("#search").send_keys("question 123")
    page.wait("document.querySelectorAll('.item').length < 12")
    assert all("Question 123" in text for text in page.texts(".item .head"))
    assert page.driver.execute_script(f"return {nodes}") < 700
    clean(page)


def test_texts_are_parsed_when_they_are_looked_at(page: Page, large: Path) -> None:
    """A question costs its own chunk of texts: what is parsed is counted."""
    count = (
        "const parse = JSON.parse; window.parsed = 0;"
        "JSON.parse = (text) => { window.parsed += 1; return parse(text); };"
    )
    added = page.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": count})
    opened(page, large, "overview")
    at_first = page.driver.execute_script("return window.parsed")
    assert at_first <= 2  # the index, and whether there are rollouts
    page.find("#tab-questions").click()
    page.find(".asks")
    assert page.driver.execute_script("return window.parsed") <= at_first + 2
    page.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)
