"""The corpus of answers in `answers.tsv`, and how each kind of it is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from spacer.benchmarks.answers import labelled_line
from spacer.rewards.forms import OPTIONS
from spacer.rewards.options import read_choice, read_yes_no
from spacer.rewards.quantities import read_quantity
from spacer.rewards.reading import final_text

LINES = ("Sentence A: A man runs.", "Sentence B: A man walks.")


class Case(NamedTuple):
    """A text, and what a person reads in it: None for nothing."""

    kind: str
    text: str
    expected: str | None


def corpus(*kinds: str) -> list[Case]:
    """The cases of some kinds, or all."""
    rows = (Path(__file__).parent / "answers.tsv").read_text(encoding="utf-8").split("\n")
    cases = []
    for row in rows:
        if row and not row.startswith("#"):
            kind, expected, text = row.split("\t")
            cases.append(Case(kind, text.replace("⏎", "\n"), None if expected == "-" else expected))
    return [case for case in cases if not kinds or case.kind in kinds]


def _number(text: str, last: bool = False) -> str | None:
    value = read_quantity(text, last)
    return None if value is None else f"{value:g}"


def _label(text: str) -> str | None:
    label = labelled_line(text, LINES)
    return None if label is None else label[-1]


READERS: dict[str, Callable[[str], str | None]] = {
    "choice": lambda text: read_choice(text, OPTIONS),
    "letter": read_choice,
    "number": _number,
    "last": lambda text: _number(text, last=True),
    "yes_no": read_yes_no,
    "label": _label,
    "whole": lambda text: read_choice(final_text(text), OPTIONS),
    "opened": lambda text: read_choice(final_text(text, opened_think=True), OPTIONS),
}
