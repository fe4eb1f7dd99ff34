"""Text of files reaches a terminal, a log or a page without control characters and markup."""

from __future__ import annotations

import io
import logging
import re
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from spacer.report.card import Origin, Score, model_card
from spacer.report.dashboard import MetricValue, metric_table
from spacer.terminal.masking import Masking
from spacer.terminal.printable import code, code_block, markdown, one_line, printable
from spacer.terminal.progress import progress_bar
from spacer.terminal.screen import screen

HOSTILE = "\x1b[2J\x1b]0;owned\x07[bold]x[/bold] [link=http://e] :smile: \x9b31m \u202egpj.exe\u2066\r\udcff"


def harmless(text: str) -> bool:
    """Whether a terminal shows the text as it is."""
    return (
        re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]", text)
        is None
    )


@given(st.text(st.characters(codec=None)))
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    for shown in (printable(text), one_line(text), markdown(text), code(text), code_block(text)):
        assert harmless(shown)
        shown.encode()


def test_what_is_harmless_stays() -> None:
    text = "Größe 3 m², 客厅 🛋\u200d🪑\n\t[bold] \\x1b"
    assert printable(text) == text
    assert printable("\x1b[2J\u202e\x9b\udcff") == "\\x1b[2J\\u202e\\x9b\\udcff"


def test_the_screen_shows_text_as_it_is() -> None:
    file = io.StringIO()
    console = screen(file=file, width=200, force_terminal=True)
    table = Table(title=HOSTILE, caption=HOSTILE)
    table.add_column(HOSTILE)
    table.add_row(HOSTILE)
    console.print(table)
    console.print(f"  {HOSTILE}", soft_wrap=True)
    console.print("heading", style="bold")
    said = re.sub(r"\x1b\[[\d;]*m", "", file.getvalue())  # Rich's own colours
    assert "\x1b[1mheading\x1b[0m" in file.getvalue()
    assert harmless(said) and "\x1b[31m" not in file.getvalue()
    assert said.count("[bold]x[/bold]") == 5 and said.count(":smile:") == 5 and said.count("\\x1b[2J") == 5


def test_the_log_shows_text_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    caplog.handler.addFilter(masking := Masking())
    try:
        logging.getLogger("a").warning("read %s\nand more", HOSTILE)
        try:
            raise ValueError(HOSTILE)
        except ValueError:
            logging.getLogger("a").exception("failed")
    finally:
        caplog.handler.removeFilter(masking)
    assert harmless(caplog.text) and caplog.text.count("\\x1b[2J") == 2 and "\nand more" in caplog.text


@pytest.mark.parametrize("terminal", [True, False])
def test_a_bar_shows_text_as_it_is(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setattr(file, "isatty", lambda: terminal)
    monkeypatch.setattr(sys, "stderr", file)
    list(progress_bar([1, 2], desc=f"reading \x1b[2J\n{HOSTILE}"))
    said = file.getvalue()
    assert "reading \\x1b[2J \\x1b[2J" in said and "\x1b[2J" not in said and "\x07" not in said


def test_markdown_of_hostile_text_is_text() -> None:
    text = "a|b\n# x <script>alert(1)</script> [l](javascript:x) `c` **d** ![i](http://e)"
    assert markdown(text) == (
        "a\\|b # x &lt;script&gt;alert(1)&lt;/script&gt; \\[l\\](javascript:x) \\`c\\` \\*\\*d\\*\\* !\\[i\\](http://e)"
    )
    assert metric_table([MetricValue("a|<b>\n", "eval/\x1bx/y", 1.0, None, None)]).splitlines()[2:] == [
        "| a\\|&lt;b&gt; | eval/\\\\x1bx/y | 1.000 | none |"
    ]


def test_a_model_card_holds_no_markup_of_what_it_tells() -> None:
    nasty = "x` <img src=x onerror=alert(1)>\n## Owned\n| a |\x1b[2J\u202e"
    fences = "````\n<script>\n````"
    recorded = {"model": {"name_or_path": f"/models/{nasty}"}, "reward": {"note": fences, "other": nasty}}
    card = model_card(
        Origin("m", Path(f"/runs/{nasty}.ckpt"), 3, recorded), [Score(f"bench|{nasty}", f"task/{nasty}", 0.5)]
    )
    assert harmless(card)
    headings = [line for line in card.splitlines() if line.startswith("#")]
    assert len(headings) == 4 and "Owned" in headings[0]  # title, scores, licence, settings
    row = next(line for line in card.splitlines() if "bench" in line and "0.5" in line)
    assert "<img" not in row and re.findall(r"(?<!\\)\|", row) == ["|"] * 5
    fence = card.splitlines()[-1]
    assert fence == "`````" and card.splitlines().count(fence) == 1  # longer than any within
    title, base = headings[0], next(line for line in card.splitlines() if line.startswith("- Base model"))
    assert "<img" not in title and base.startswith("- Base model: `` ") and base.endswith(" ``")
