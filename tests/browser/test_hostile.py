"""What a model or a data file says is shown, and never run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from spacer.config.settings import ReportSettings
from spacer.report.html.build import write_report
from tests.browser.conftest import Page
from tests.browser.test_clicking import clean, opened
from tests.run_folders import heldout_row, lines, recorded, training_run

pytestmark = pytest.mark.long

SCRIPT = "window.ran = 1"
HOSTILE = (
    f"<script>{SCRIPT}</script>",
    f"</script><script>{SCRIPT}</script>",
    f"<!--<script>{SCRIPT}</script>",
    f"<img src=x onerror='{SCRIPT}'>",
    f"<svg/onload={SCRIPT}>",
    f"javascript:{SCRIPT}",
    f"'\"><iframe srcdoc='<script>{SCRIPT}</script>'>",
    f"data:text/html,<script>{SCRIPT}</script>",
    "]]></style><style>body{display:none}</style>",
    "{{constructor.constructor('window.ran = 1')()}} ${window.ran = 1} `${window.ran = 1}`",
    "\u2028\u2029 line separators \u0000 \u202e turned around",
    "&lt;b&gt; stays &amp; as it is",
    "__proto__",
)


def hostile_run(folder: Path, evil: str) -> Path:
    """A run in which every text says the same."""
    texts: dict[str, Any] = dict.fromkeys(("id", "scene", "question_type", "question"), evil)
    texts |= {"options": [evil, f"B. {evil}"], "solution": evil, "video": f"/nowhere/{evil}".replace("\0", "")}
    texts |= {"true_map": {evil: [[1, 2]]}, "completion": f"<think><map>{{{evil!r}: [[2, 3]]}}</map>{evil}</think>"}
    texts["completion"] += f"<answer>{evil}</answer>"
    training_run(folder, [False], [True], changes={0: texts})
    lines(folder / "predictions/before.jsonl", [heldout_row(0, False, **texts)])
    rows = [json.loads(line) for line in (folder / "predictions/after.jsonl").read_text().splitlines()]
    failed = {"id": f"{evil} 2", "error": f"{evil}: {evil}", "completion": "", "extracted": False}
    lines(folder / "predictions/after.jsonl", [*rows, rows[0] | failed])
    lines(folder / "faults.jsonl", [{"where": evil, "kind": evil, "detail": evil}])
    lines(folder / "history.jsonl", [{"step": step, f"reward/{evil}": step / 2, evil: 1.0} for step in range(3)])
    rollout = {"step": 0, "split": "heldout", "n": 0, "id": evil, "question": evil, "options": [evil], "solution": evil}
    rollout |= {"completion": evil, "predicted_map": {evil: [[1, 1]]}, "true_map": None, "frames": f"../{evil}.jpg"}
    lines(folder / "rollouts.jsonl", [rollout | {"reward": {evil: 1.0, "total": 1.0}, "advantage": None}])
    recorded(folder, {evil: evil, "stage": {"name": evil}, "benchmark": {"name": evil}}, [f"++seed={evil}"])
    return folder


@pytest.mark.parametrize("evil", HOSTILE)
def test_texts_are_shown_and_not_run(evil: str, page: Page, tmp_path: Path) -> None:
    report = write_report(tmp_path / "report.html", [hostile_run(tmp_path / "run", evil)], ReportSettings(), 20, 0)
    opened(page, report)
    for css in (".asks", ".completion", ".options li > span", ".options .true, .truth strong", ".mapbox .legend"):
        assert any(evil in text for text in page.texts(css)), css
    for css in (".detail .chip", ".item .head"):  # where what is long is cut, and spaces are one
        assert any(" ".join(evil.split()) in " ".join(text.split()) for text in page.texts(css)), css
    page.choose("Show", "could not be asked")
    assert evil in page.texts(".answer .notes")[0]
    # the titles of curves and YAML have spellings of their own
    places = {"overview": ".plain li", "training": "figcaption", "rollouts": ".asks", "settings": "pre"}
    for tab, css in places.items():
        page.find(f"#tab-{tab}").click()
        assert page.texts(css), tab
        assert tab in ("training", "settings") or any(evil in text for text in page.texts(css)), tab
    assert page.driver.execute_script("return window.ran") is None
    # what is not the page's own script cannot be in it: only data elements and the one at its end
    kinds = page.driver.execute_script("return [...document.scripts].map((s) => s.type)")
    assert kinds[-1] == "" and set(kinds[:-1]) == {"application/json"}
    assert not page.texts("iframe, object, embed, link, base, form, a")
    clean(page)


def test_half_a_character_is_shown(page: Page, tmp_path: Path) -> None:
    """JSON can spell a lone surrogate, which no text file holds; in a path it is what a file system had."""
    row = heldout_row(0, True, question="broken \ud83d here", video="/nowhere/\udcff.mp4", scene="\udcff")
    training_run(tmp_path / "run", [True], [True])
    for name in ("before", "after"):
        lines(tmp_path / f"run/predictions/{name}.jsonl", [row])
    report = write_report(tmp_path / "report.html", [tmp_path / "run"], ReportSettings(strips=0), 20, 0)
    opened(page, report)
    assert "broken" in page.texts(".asks")[0] and "here" in page.texts(".asks")[0]
    page.find(".play").click()
    page.wait("document.querySelector('.media .notes') !== null")
    assert all("ERR_FILE_NOT_FOUND" in complaint for complaint in page.complaints())


def test_the_policy_stops_what_would_get_in(page: Page, trained: Path) -> None:
    opened(page, trained)
    page.driver.execute_script(
        "const node = document.createElement('div'); document.body.append(node);"
        f"node.innerHTML = \"<img src='https://example.com/x.png' onerror='{SCRIPT}'>\";"
        f"const script = document.createElement('script'); script.textContent = '{SCRIPT}';"
        "document.body.append(script);"
        "fetch('https://example.com/').catch(() => { window.refused = true; });"
    )
    page.wait("window.refused")
    assert page.driver.execute_script("return window.ran") is None
    assert any("Content Security Policy" in complaint for complaint in page.complaints())
    page.requests()
