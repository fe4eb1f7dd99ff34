"""What a reader does: looks at scores, filters, opens a question, plays its video, compares."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from spacer.config.settings import ReportSettings
from spacer.report.html.build import write_report
from tests.browser.conftest import Page
from tests.run_folders import training_run

pytestmark = pytest.mark.long

COUNT = re.compile(r"([\d,]+) of ([\d,]+) questions")


def shown(page: Page) -> int:
    """How many questions pass the filters."""
    found = COUNT.match(page.find("#count").text)
    assert found is not None
    return int(found[1].replace(",", ""))


def opened(page: Page, report: Path, tab: str = "questions") -> None:
    page.driver.get(f"{report.as_uri()}#{tab}")
    page.find("header.top")


def clean(page: Page) -> None:
    """Nothing in the console, no request to any server."""
    assert page.complaints() == []
    assert page.requests() == []
    assert page.driver.execute_script("return performance.getEntriesByType('resource').length") == 0


def test_scores_stand_with_intervals_and_what_changed_leads_to_the_questions(page: Page, trained: Path) -> None:
    opened(page, trained, "overview")
    rows = dict(
        zip(page.texts(".scores tbody th[scope=row]"), page.texts(".scores tbody tr:not(.section)"), strict=True)
    )
    assert "37.5" in rows["answer"] and "50.0" in rows["answer"] and "+12.5" in rows["answer"]
    assert len(page.texts(".scores .bars rect")) == 2 * len(rows)
    changed = {
        text: page.find(f".fails > div:nth-child(2) li:nth-child({n})") for n, text in enumerate(("gained", "lost"), 1)
    }
    assert [entry.text.split("\n")[-1] for entry in changed.values()] == ["10", "5"]
    changed["lost"].click()
    assert shown(page) == 5
    assert page.driver.execute_script("return location.hash").startswith("#questions/0/")
    clean(page)


def test_filters_say_how_many_and_the_list_shows_them(page: Page, trained: Path) -> None:
    opened(page, trained)
    assert shown(page) == 40
    for words, count in {
        "right": 20,
        "not right": 20,
        "no answer could be read": 1,
        "could not be asked": 1,
        "after right, before not": 10,
        "before right, after not": 5,
        "neither right": 15,
        "both right": 10,
    }.items():
        page.choose("Show", words)
        assert shown(page) == count, words
    assert "Question 0:" in page.texts(".item .head")[0]
    page.choose("Show", "all")
    page.choose("Task", "room size")
    assert shown(page) == 10
    assert {text.split(" · ")[0] for text in page.texts(".item .quiet")} == {"room size"}
    page.choose("Task", "all tasks")
    page.find("#search").send_keys("thought 17.")  # stands in a completion alone
    page.wait("document.getElementById('count').textContent.startsWith('1 of')")
    assert page.texts(".item .head") == ["Question 17: what is asked here?"]
    assert page.driver.execute_script("return document.activeElement.id") == "search"
    page.find("#search").send_keys(" and nothing else")
    page.wait("document.getElementById('count').textContent.startsWith('0 of')")
    assert "No question is like this" in page.find("#detail").text
    clean(page)


def test_a_question_shows_all_there_is(page: Page, trained: Path) -> None:
    opened(page, trained)
    page.choose("Show", "after right, before not")
    page.find(".item:nth-child(4)").click()  # question 13
    detail = page.find("#detail").text
    for words in ("Question 13: what is asked here?", "B. the lamp", "Thought 13.", "scene0006", "score 1", "q00013"):
        assert words in detail
    assert page.texts(".options .true > span:first-child") == ["B. the lamp"]
    assert page.texts(".answer h3 .verdict") == ["wrong", "right"]
    assert page.texts(".answer .read strong") == ["C", "B"]
    # true: sofa and lamp; drawn: sofa and a unicorn; the two sofas are joined
    for css, count in {".answer .map g:nth-of-type(1) line": 1, ".answer .map g:nth-of-type(2) > *": 2}.items():
        assert len(page.texts(css)) == 2 * count, css
    assert len(page.texts(".answer .map g:nth-of-type(3) > *")) == 2 * 2
    assert page.texts(".answer:last-child .legend li") == ["lamp", "sofa", "unicorn"]
    assert page.texts(".answer:last-child .completion .tag") == [
        "<think>",
        "<map>",
        "</map>",
        "</think>",
        "<answer>",
        "</answer>",
    ]
    assert page.driver.execute_script("return document.querySelector('.strip img').naturalWidth") > 500
    page.choose("Show", "could not be asked")
    assert "the file ends early" in page.find("#detail").text
    clean(page)


def test_arrows_turn_the_pages_and_a_sent_address_opens_the_same_question(page: Page, trained: Path) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    opened(page, trained)
    for key, words in ((Keys.ARROW_RIGHT, "Question 1:"), ("j", "Question 2:"), (Keys.ARROW_LEFT, "Question 1:")):
        ActionChains(page.driver).send_keys(key).perform()
        assert page.find(".asks").text.startswith(words)
    page.choose("Show", "not right")
    assert page.find(".asks").text.startswith("Question 20:")  # 1 is right and left the list
    address = page.driver.current_url
    assert address.endswith("#questions/0/20")
    page.driver.get("about:blank")
    page.driver.get(address)
    assert page.find(".asks").text.startswith("Question 20:")
    ActionChains(page.driver).send_keys("/").perform()
    assert page.driver.execute_script("return document.activeElement.id") == "search"
    clean(page)


def test_the_video_plays(page: Page, trained: Path) -> None:
    opened(page, trained)
    assert not page.texts("video")
    page.find(".play").click()
    page.wait("document.querySelector('video').currentTime > 0.3")
    assert page.driver.execute_script("const v = document.querySelector('video'); return [v.videoWidth, v.paused]") == [
        112,
        False,
    ]
    clean(page)


def test_a_video_beside_the_page_plays_from_disk_and_from_where_it_is_moved(
    page: Page, films: list[Path], tmp_path: Path
) -> None:
    odd = tmp_path / "a #folder? with 100% odd name"
    odd.mkdir()
    (odd / "room one.mp4").write_bytes(films[0].read_bytes())
    training_run(tmp_path / "run", [True], [True], [odd / "room one.mp4"])
    report = write_report(tmp_path / "report.html", [tmp_path / "run"], ReportSettings(video_megabytes=0), 50, 0)
    assert "data:video" not in report.read_text()
    opened(page, report)
    assert page.find(".play").text.endswith("from disk")
    page.find(".play").click()
    page.wait("document.querySelector('video').currentTime > 0.3")
    assert page.complaints() == []

    moved = odd.rename(tmp_path / "moved")
    page.driver.refresh()
    page.find(".play").click()
    page.wait("document.querySelector('.media .notes') !== null")
    page.complaints()
    page.find("#tab-settings").click()
    page.find("#root").clear()
    page.find("#root").send_keys(str(moved))
    page.find("#tab-questions").click()
    page.find(".play").click()
    page.wait("document.querySelector('video').currentTime > 0.3")
    assert page.complaints() == []


def test_runs_are_switched_and_told_apart(page: Page, films: list[Path], tmp_path: Path) -> None:
    """A: nothing right before, the first ten after; B: the first five after."""
    nothing = [False] * 20
    training_run(tmp_path / "a", nothing, [n < 10 for n in range(20)], films)
    training_run(
        tmp_path / "b", nothing, [n < 5 for n in range(20)], films, {0: {"completion": "B says <answer>3</answer>"}}
    )
    report = write_report(tmp_path / "report.html", [tmp_path / "a", tmp_path / "b"], ReportSettings(), 50, 0)
    opened(page, report)
    assert page.texts(".answer h3 > span:nth-child(2)") == ["A after", "B after"]
    assert "B says" in page.find("#detail").text
    assert page.texts(".others .chip") == ["✕A before", "✕B before"]
    page.choose("Show", "A after right, B after not")
    assert shown(page) == 5
    assert page.texts(".answer h3 > span:nth-child(2)") == ["A after", "B after"]
    page.choose("with", "A after")  # one run alone: what compares two is gone
    assert shown(page) == 20
    assert page.texts(".answer h3 > span:nth-child(2)") == ["A after"]
    page.find("#tab-training").click()
    assert len(page.texts(".panel .soft")) == 2 * len(page.texts(".panel"))
    clean(page)


def test_marks_say_what_they_stand_for(page: Page, trained: Path) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    opened(page, trained, "training")
    ActionChains(page.driver).move_to_element(page.find(".curve")).perform()
    assert re.match(r"step \d+", page.find("#tip").text)
    page.find("#tab-overview").click()
    ActionChains(page.driver).move_to_element(page.find(".scores .bars")).perform()
    assert "95 % interval" in page.find("#tip").text
    clean(page)
