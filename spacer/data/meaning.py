"""Faults in the meaning of well-formed lines: questions for which no answer could be rewarded."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

# `A. 3.2m`, `(A) left`, `a: yes`, and `A` alone, where the options are pictures; `A chair` and `i.e.` have no letter
_LETTER = re.compile(r"\s*[(\[]?(?P<letter>[A-Za-z])(?:[)\]、．：]|[.:](?![A-Za-z])|\s[-–—]\s|\s*$)")
_WORD = re.compile(r"[a-z0-9]", re.IGNORECASE | re.ASCII)  # ROUGE compares words of these characters


def meaning_faults(row: Mapping[str, Any], solution: str) -> Iterator[tuple[str, str]]:
    """Kind and detail of each fault of a well-formed line, whose solution without tags is `solution`."""
    kind = row["problem_type"]
    if not solution:
        yield "empty solution", "the text in <answer></answer> is empty, so no answer could be right"
    elif kind == "multiple choice":
        yield from _choice_faults(row["options"], solution)
    elif kind in ("numerical", "regression") and not _holds_number(solution):
        yield "no number", f"the solution of a {kind} question must be a number, and {solution!r} has none"
    elif kind == "free-form" and not _WORD.search(solution):
        yield (
            "nothing to compare",
            f"a free-form answer is compared by words of ASCII letters and digits, and the solution {solution!r} has "
            "none: use the problem_type OCR",
        )


def _choice_faults(options: list[str], solution: str) -> Iterator[tuple[str, str]]:
    letters = [_letter(option) for option in options]
    if None in letters:
        bare = options[letters.index(None)]
        yield "options without letters", f"the answer must be a letter, and {bare!r} has none: write 'A. {bare}'"
        return
    if len(set(letters)) < len(letters):
        yield (
            "options of one letter",
            f"the options' letters are {', '.join(map(str, letters))}: give each a different one",
        )
    right = _letter(solution)
    if right is None:
        yield "solution is no letter", f"the answer must be a letter, and the solution is {solution!r}"
    elif right not in letters:
        yield "solution is no option", f"the solution is {right}, and the options are {', '.join(map(str, letters))}"


def _letter(text: str) -> str | None:
    found = _LETTER.match(text)
    return None if found is None else found["letter"].upper()


def _holds_number(text: str) -> bool:
    # imported here: rewards import numpy, which validating a configuration should not need
    from spacer.rewards.extract import read_number

    return read_number(text) is not None
