"""Reads the number that a text answers with, among several: "the answer is 3.2 meters, since 5 − 1.8"."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import deque
from collections.abc import Sequence

from spacer.rewards.extract import Number, numbers
from spacer.rewards.forms import Form
from spacer.rewards.numerals import as_decimals, unlabelled
from spacer.rewards.reading import both_ends, declared_contents, last_matches, plain_text

_LATEX = re.compile(r"\\(?:approx|sim)(?![a-z])")
_TIMES = re.compile(r"(?<=\d)\s?\*\s?(?=\d)")
_APPROX = (
    r"(?:(?:about|around|approximately|approx\.?|roughly|nearly|almost|exactly|only|just|some|estimated at|at|a|an|of"
    r"|it is|its|there are|there is|i count|i see|the)\s|[\u2248~\u2243:=({]\s?){0,4}"
)
_UNIT = (
    r"(?:\s?(?!(?:or|and|to|by|from|in|on|of|x|minus|plus|times|is|are)\b)"
    r"[^\W\d_]{1,24}[.\u00b2\u00b3]?(?:[\^_]?[23])?){0,2}"
)
_STARTS = re.compile(_APPROX, re.IGNORECASE)
_ENDS = re.compile(
    rf"\s?%?{_UNIT}\s?(?:$|[.!;)}}\]\n](?!\d)|\(|,?\s?(?:because|since|as|given|based|which)\b)", re.IGNORECASE
)
_LIST_MARK = re.compile(r"[.)]\s*[^\W\d_]")
_SINCE = re.compile(r"\b(?:because|since|given|based on)\b", re.IGNORECASE)
_SENTENCE_ENDS = re.compile(r"[.!?;]\s")
_REASONS = re.compile(
    r"[.!;?](?=\s|$)|\b(?:because|since|as|given|based|assuming|considering|where|with)\b|\(", re.IGNORECASE
)
_RESULT = re.compile(r"(?:[=\u2248]|\b(?:equals|comes to|which is|makes|gives|yields))\s?$", re.IGNORECASE)
_OPERATION = re.compile(r"\d\s?[^\W\d_]{0,12}[\u00b2\u00b3)]?\s?[-+\u2212\u2013\u00d7*/\u00f7x]\s?\(?[\d.]")
_NEGATED = re.compile(r"(?:not|never|no longer|nt|unclear|unknown)\b", re.IGNORECASE)
_CONTENT_CHARS = 240

# What precedes the result in a text without a declaration. The last one in a text counts.
RESULTS = (
    Form(
        "an equation",
        r"[-+\u2212\u2013\u00d7*/\u00f7x]\s?\(?[\d.,]++\s?[^\W\d_]{0,12}+[_\d)]{0,3}\s?[=\u2248]\s?",
        (("5 m - 1.8 m = 3.2 m", "3.2"), ("With 1.5 + 0.5 = 2 we are there, by frame 7", "2")),
    ),
    Form(
        "a conclusion",
        r"(?i:\b(?:so|therefore|thus|hence|in total|altogether|total(?:ing)?(?: of)?|overall|in conclusion|finally"
        r"|which gives|giving|i estimate)\b)",
        (
            ("Two chairs left, one right, so there are 3 chairs.", "3"),
            ("The bed is 2 m long. Therefore the distance is about 3.2 m.", "3.2"),
            ("There is 1 at the door and 2 in front, in total 3.", "3"),
        ),
    ),
)


def read_quantity(text: str, last: bool = False) -> float | None:
    """The number that a text answers with; None if there is none.

    In order of precedence: the number in the last declaration ("the answer is …", a box); a text or last line that is
    only a number with its unit; the number in the last conclusion or equation; the first number in the text.

    Args:
        text: an answer, or a text that contains one, as returned by `spacer.rewards.reading.final_text`.
        last: fall back to the last number in the text, not the first.

    >>> texts = ("3.2", "The answer is 3.2 meters, since 5 − 1.8", r"2 − 0.5 is \\boxed{1.5}", "a lamp and 4 chairs")
    >>> [read_quantity(text) for text in texts]
    [3.2, 3.2, 1.5, 4.0]
    """
    text = _TIMES.sub("\u00d7", as_decimals(_LATEX.sub("\u2248", both_ends(text))))
    plain = plain_text(text).replace("^", "_")  # digits after an underscore are not a number: the 2 in `m^2`
    found = unlabelled(plain, list(numbers(plain)))
    if not found:
        return None
    for at, content in declared_contents(plain):
        if (number := _declared(content, at, found)) is not None:
            return number.value
    chosen = _alone(plain, 0, found) or _alone(plain, plain.rfind("\n") + 1, found) or _concluded(plain, found)
    return (chosen or (_last(plain, found) if last else found[0])).value


def _declared(content: str, at: int, found: Sequence[Number]) -> Number | None:
    """The number declared after `at`: the first one, or the result of an equation."""
    if _NEGATED.match(content):
        return None
    reason = next((match for match in _REASONS.finditer(content) if match.start() > 1), None)
    end = at + (reason.start() if reason else len(content))
    inside = found[bisect_left(found, at, key=_start) : bisect_left(found, end, key=_start)]
    results = [
        number
        for number in inside[1:]
        if _RESULT.search(content[: number.start - at]) and _OPERATION.search(content[: number.start - at])
    ]
    return results[-1] if results else inside[0] if inside else None


def _alone(plain: str, at: int, found: Sequence[Number]) -> Number | None:
    """The number at the beginning of a line that has nothing else but a unit."""
    start = at + _STARTS.match(plain[at : at + 60]).end()  # type: ignore[union-attr]  # matches the empty string too
    index = bisect_left(found, start, key=_start)
    if index == len(found) or found[index].start != start:
        return None
    end = found[index].end
    return found[index] if _ENDS.match(plain, end) and not _LIST_MARK.match(plain, end) else None


def _concluded(plain: str, found: Sequence[Number]) -> Number | None:
    """The number in the last conclusion whose sentence has one."""
    for _, match in last_matches(plain, RESULTS):
        content = plain[match.end() : match.end() + _CONTENT_CHARS].partition("\n")[0]
        if (number := _declared(content, match.end(), found)) is not None:
            return number
    return None


def _last(plain: str, found: Sequence[Number]) -> Number:
    """The last number, ignoring those in the reasons that its sentence gives."""
    for match in deque(_SINCE.finditer(plain), maxlen=1):
        before = found[: bisect_left(found, match.start(), key=_start)]
        after = plain[match.end() :]
        if before and not _SENTENCE_ENDS.search(plain[before[-1].end : match.start()] + "|" + after):
            return before[-1]
    return found[-1]


def _start(number: Number) -> int:
    return number.start
