"""What a reader sees on a phone, a small and a large screen, by day and by night; and what a screen reader is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spacer.config.settings import ReportSettings
from spacer.report.html.build import write_report
from spacer.report.html.sweep import read_sweep
from tests.browser.conftest import Page
from tests.browser.test_clicking import clean, opened
from tests.run_folders import sampled_run, scored_run, sweep_folder, training_run, with_controls

pytestmark = pytest.mark.long
WIDTHS = (390, 1024, 1440)
REPORTS = ("trained", "two", "benchmark", "own", "sweep", "sampled")
TABS = ("overview", "questions", "training", "settings")


@pytest.fixture(scope="session")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of two runs over the same questions."""
    folder = tmp_path_factory.mktemp("two")
    first = training_run(folder / "baseline", [n < 10 for n in range(40)], [n < 20 for n in range(40)])
    second = training_run(folder / "maps rewarded", [n < 10 for n in range(40)], [n < 30 for n in range(40)])
    return write_report(folder / "report.html", [first, second], ReportSettings(), 100, 0)


@pytest.fixture(scope="session")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a benchmark: no maps, no training."""
    folder = tmp_path_factory.mktemp("benchmark")
    return write_report(folder / "report.html", [scored_run(folder / "run", 60, 0.5, 0)], ReportSettings(), 100, 0)


@pytest.fixture(scope="session")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run on data of the user's own, without maps and types, under controls."""
    folder = tmp_path_factory.mktemp("own")
    bare = {
        "true_map": None,
        "drawn": False,
        "completion": "<think>So.</think><answer>3</answer>",
        "question_type": "ours",
    }
    run = training_run(folder / "run", [False] * 40, [n < 20 for n in range(40)], changes={n: bare for n in range(40)})
    before = run / "predictions/before.jsonl"
    before.write_text((run / "predictions/after.jsonl").read_text())
    with_controls(run, {"none": 0.3, "other_video": -0.02})
    return write_report(folder / "report.html", [run], ReportSettings(), 100, 0)


@pytest.fixture(scope="session")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a sweep: two rewards with two seeds each, and a job that failed."""
    folder = sweep_folder(tmp_path_factory.mktemp("sweep"))
    found = read_sweep(folder)
    assert found is not None
    return write_report(folder / "report.html", found.done, ReportSettings(), 100, 0, found)


@pytest.fixture(scope="session")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run that sampled completions: no answers to held-out questions."""
    folder = tmp_path_factory.mktemp("sampled")
    run = sampled_run(folder / "run", [0.0, 0.5, 1.0, 0.5] * 10)
    return write_report(folder / "report.html", [run], ReportSettings(), 100, 0)


@pytest.fixture
def screen(page: Page) -> Iterator[Any]:
    """Sets the width, and whether it is day or night."""

    def use(width: int, theme: str) -> None:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", scheme)

    yield use
    page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def tabs(page: Page) -> list[str]:
    return [name for name in TABS if page.driver.find_elements("id", f"tab-{name}")]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("report", REPORTS)
def test_nothing_scrolls_sideways_and_every_number_is_on_the_screen(
    report: str, width: int, page: Page, screen: Any, request: pytest.FixtureRequest
) -> None:
    screen(width, "light")
    opened(page, request.getfixturevalue(report), "overview")
    outside = """return [...document.querySelectorAll('.scores td.number, .card')].filter((node) => {
      const box = node.getBoundingClientRect();
      return box.width === 0 || box.left < 0 || box.right > innerWidth;
    }).map((node) => node.textContent)"""
    assert page.driver.execute_script(outside) == []
    for tab in tabs(page):
        page.find(f"#tab-{tab}").click()
        assert page.driver.execute_script("return document.documentElement.scrollWidth - innerWidth") <= 0, tab
    clean(page)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("report", REPORTS)
def test_a_screen_reader_and_weak_eyes_are_served(
    report: str, theme: str, page: Page, screen: Any, request: pytest.FixtureRequest
) -> None:
    """By the rules of axe-core, as far as it calls what it finds serious."""
    axe = pytest.importorskip("axe_core_python.selenium", reason="pip install -e '.[test]'").Axe()
    for width in (390, 1440):
        screen(width, theme)
        opened(page, request.getfixturevalue(report), "overview")
        for tab in tabs(page):
            page.find(f"#tab-{tab}").click()
            found = axe.run(page.driver)["violations"]
            told = [
                (tab, width, entry["id"], entry["nodes"][0]["html"][:200], entry["nodes"][0].get("failureSummary"))
                for entry in found
                if entry["impact"] in ("serious", "critical")
            ]
            assert told == []


def test_the_night_is_dark(page: Page, trained: Path, screen: Any) -> None:
    brightness = {}
    for theme in ("light", "dark"):
        screen(1024, theme)
        opened(page, trained, "overview")
        colour = page.driver.execute_script("return getComputedStyle(document.body).backgroundColor")
        brightness[theme] = sum(int(part) for part in colour.removeprefix("rgb(").rstrip(")").split(","))
    assert brightness["dark"] < 150 < 700 < brightness["light"]


def test_two_runs_are_compared_by_what_each_ended_with(page: Page, two: Path) -> None:
    opened(page, two, "overview")
    columns = ["A before", "A after", "B before", "B after", "B after − A after"]
    assert page.texts(".scores thead th.number") == [*columns, "N"]
    (card,) = [text for text in page.texts(".card") if text.startswith("Answer accuracy")]
    assert card == "Answer accuracyA after50.0 %B after75.0 %"  # a number of each run, and no change across runs
    assert page.texts(".card .arrow") == []
    row = next(text for text in page.texts(".scores tbody tr") if text.startswith("answer"))
    assert "+25.0 *" in row
    clean(page)


def test_longer_is_not_better(page: Page, tmp_path: Path) -> None:
    changes = {n: {"completion_tokens": 90} for n in range(40)}
    run = training_run(tmp_path / "run", [False] * 40, [n < 30 for n in range(40)], changes=changes)
    opened(page, write_report(tmp_path / "report.html", [run], ReportSettings(), 100, 0), "overview")
    judged = page.driver.execute_script("""return Object.fromEntries([...document.querySelectorAll('.scores tbody tr')]
      .filter((row) => row.querySelector('.change'))
      .map((row) => [row.querySelector('th').textContent, row.querySelector('.change').className]))""")
    assert "better" in judged["answer"]
    assert "better" not in judged["tokens a completion"] and "worse" not in judged["tokens a completion"]


def test_what_the_video_adds_comes_first_and_nothing_is_told_of_maps_that_are_not_there(page: Page, own: Path) -> None:
    opened(page, own, "overview")
    assert page.texts(".page h2")[0] == "What the video adds"
    cards = page.texts(".card")
    assert cards[0] == "to another scene's video−2.0points52.0 → 50.0 % [−12.0, +8.0]"
    assert cards[1] == "to the text alone+30.0points20.0 → 50.0 % [+20.0, +40.0]"
    assert page.texts(".card .better") == ["[+20.0, +40.0]"]
    assert [card[:12] for card in cards[2:]] == ["Answer accur", "Total reward"]
    assert not [text for text in page.texts(".scores tbody th") if "map" in text]
    page.find("#adds summary").click()
    assert page.texts("#adds tbody tr") == [
        "answer accuracy−2.0[−12.0, +8.0]+30.0 *[+20.0, +40.0]",
        "object count−2.0[−12.0, +8.0]+30.0 *[+20.0, +40.0]",
    ]
    clean(page)


def test_pass_rates_by_question_type_are_told_of_sampled_completions(page: Page, sampled: Path) -> None:
    opened(page, sampled, "overview")
    assert page.texts("nav button") == ["Overview", "Settings"]
    assert page.texts(".card h3") == ["Right completions", "Groups that teach", "Never right", "Always right"]
    assert [card.split("%")[0] for card in page.texts(".card .big")] == ["50.0", "50.0", "25.0", "25.0"]
    every, counting, direction = page.texts(".scores tbody tr")
    assert every.startswith("all questions50.0") and every.endswith("10201050.0 %40")
    assert counting.startswith("object count50.0") and counting.endswith("100100.0 %20")
    assert direction == "rel. direction, easy50.0no spread0200100.0 %20"
    clean(page)


def test_pass_rates_stand_beside_the_answers_of_other_runs(page: Page, tmp_path: Path) -> None:
    runs = [training_run(tmp_path / "trained", [False] * 40, [True] * 40), sampled_run(tmp_path / "made", [0.0, 0.5])]
    opened(page, write_report(tmp_path / "report.html", runs, ReportSettings(), 100, 0), "overview")
    assert "B How often its completions are right made" in page.texts(".page h2")
    clean(page)


def test_what_the_video_adds_to_each_of_several_runs(page: Page, tmp_path: Path) -> None:
    runs = [training_run(tmp_path / name, [False] * 40, [True] * 40) for name in "ab"]
    with_controls(runs[1], {"grey": 0.2})
    opened(page, write_report(tmp_path / "report.html", runs, ReportSettings(), 100, 0), "overview")
    assert page.texts(".card")[0] == "to grey framesB after+20.0[+10.0, +30.0]"


def test_curves_that_never_change_are_folded_away_and_named(page: Page, own: Path) -> None:
    opened(page, own, "training")
    assert page.texts(".still summary") == ["Never changed: KL to the reference, nats a token (optimisation) 0.01"]
    assert page.texts(".page > section .panel figcaption") == ["total", "answer"]
    page.find(".still summary").click()
    assert page.find(".still .panel svg").is_displayed()
    clean(page)


def test_a_sweep_is_one_page(page: Page, sweep: Path) -> None:
    opened(page, sweep, "overview")
    assert page.texts(".page h2") == ["What the video adds", "Jobs", "Scores by setting", "Where it fails A"]
    assert page.texts("#adds .each li") == [
        "reward=grpo+25.0+20.0 to +30.0 over 2 seeds",
        "reward=accuracy+5.0+0.0 to +10.0 over 2 seeds",
    ]
    heads = ["job", "reward", "seed", "Answer accuracy", "Total reward", "Map score", "Completions with a map"]
    assert page.texts("#jobs thead th") == [*heads, "adds to another scene's video", "time"]
    first, *_, failed = page.texts("#jobs tbody tr")
    assert first.startswith(" Agrpo175.0 %") and first.endswith("+30.0[+20.0, +40.0]100 s")
    assert failed == "failedout of memorygrpo2––––––"
    means = dict(
        zip(page.texts("#settings tbody th[scope=row]"), page.texts("#settings tr:not(.section) td"), strict=False)
    )
    assert means["total"] == "1.7001.650 – 1.750"
    assert page.texts(".top strong") == ["reward_ablation: 5 jobs"]
    page.find("#tab-training").click()
    assert page.texts(".legend.wide li") == ["reward=grpo 2 seeds", "reward=accuracy 2 seeds"]
    seeds = page.driver.execute_script("""return [...document.querySelectorAll('.page > section .panel')].map((panel) =>
      [panel.querySelectorAll('.raw').length, panel.querySelectorAll('.soft').length])""")
    assert seeds == [[4, 2]] * 3
    clean(page)
