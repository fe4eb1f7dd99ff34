"""The options of questions, and which of them an answer selects.

The authors of the benchmarks ask for bare answers, and each team parses them in its own way. Here all are parsed with
the functions used in training (`spacer.rewards.options`), so that the same words always mean the same answer.
Nothing here raises, whatever the text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from spacer.rewards.extract import MAX_CHARS
from spacer.rewards.options import read_choice

_OPTION = re.compile(r"\s*\(?([A-Z])[.):]\s*(.*)", re.DOTALL)
_MARKED = re.compile(r"(?:(?<=\s)|(?<=\A))\(?([A-Z])[.):]\s*(?=\S)")


def letter_of(index: int) -> str:
    """The letter of an option: A for 0."""
    return chr(ord("A") + index)


def lettered(texts: Sequence[str]) -> tuple[str, ...]:
    """Options with leading letters, `A. …`, whether or not they already have them.

    >>> lettered(["A) left", "B)right"]), lettered(["left", "right"])
    (('A. left', 'B. right'), ('A. left', 'B. right'))
    """
    found = [_OPTION.match(text) for text in texts]
    if all(match and match[1] == letter_of(index) for index, match in enumerate(found)):
        return tuple(f"{match[1]}. {match[2].strip()}" for match in found if match)
    return tuple(f"{letter_of(index)}. {text.strip()}" for index, text in enumerate(texts))


def letters(options: Sequence[str]) -> tuple[str, ...]:
    """The letters of lettered options."""
    return tuple(option[:1] for option in options)


def options_in(text: str) -> tuple[str, ...]:
    """The lettered options in a question's text, on separate lines or inline; () if it has none.

    >>> options_in("Which one is nearer? A. the lamp B. the sofa"), options_in("Is it A?\\n(A) left\\n(B) right")
    (('A. the lamp', 'B. the sofa'), ('A. left', 'B. right'))
    """
    found = list(_MARKED.finditer(text[:MAX_CHARS]))
    starts = [i for i, mark in enumerate(found) if mark[1] == "A"]
    if not starts:
        return ()
    run = [found[starts[-1]]]
    for mark in found[starts[-1] + 1 :]:
        if mark[1] == letter_of(len(run)):
            run.append(mark)
    ends = [*(mark.start() for mark in run[1:]), len(text)]
    said = [
        text[mark.end() : end].strip().partition("\n")[0].rstrip(" ,;") for mark, end in zip(run, ends, strict=True)
    ]
    return lettered(said) if len(run) > 1 and all(said) else ()


def labelled_line(answer: str, lines: Sequence[str]) -> str | None:
    """The label of the line that an answer gives: by line, label, the label's mark, or text; None if ambiguous.

    >>> lines = ("Sentence A: A man runs.", "Sentence B: A man walks.")
    >>> [labelled_line(text, lines) for text in ("Sentence B", "B.", "A man runs", "It is sentence B.", "a man")]
    ['Sentence B', 'Sentence B', 'Sentence A', 'Sentence B', None]
    """
    parts = [line.partition(":") for line in lines]
    labels = {label.strip()[-1:]: label.strip() for label, _, _ in parts}
    mark = read_choice(answer, [f"{label.strip()[-1:]}. {said.strip()}" for label, _, said in parts])
    return None if mark is None else labels[mark]


def shown(number: float | None) -> str | None:
    """A number as text for the records: 3 rather than 3.0."""
    return None if number is None else f"{number:.12g}"
