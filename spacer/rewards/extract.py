"""Extracts answers from completions: the text between tags, and numbers.

Training rewards and evaluation both use these functions, so they agree on what the answer is. None of them raises, for
any text, and all take linear time.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

# Only this much of a text is read: sixteen characters for each of the 1,024 tokens of a published completion, which is
# more than natural language needs. This bounds the time for a degenerate completion.
MAX_CHARS = 16_384

_ONES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_TEENS = ["thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_SMALL = {word: value for value, word in enumerate(_ONES + _TEENS)} | {
    word: 10 * i for i, word in enumerate(_TENS, start=2)
}
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9}
_WORDS = "|".join([*_SMALL, "hundred", *_SCALES])

# A numeral does not follow a Latin letter ("chair3" and "v1.2" have none); it may have thousands groups, decimals and
# an exponent. `\d` is any script's decimal digit, as in float(). U+2212 is the minus sign of typeset text.
_NUMBER = re.compile(
    r"(?:\b(?P<minus>minus|negative)\s)?"
    r"(?:(?P<numeral>(?<![A-Za-z_\d])(?<!\d[.,])[-+\u2212]?(?:(?:\d{1,3}(?:,\d{3})++(?!\d)|\d++)(?:\.\d++)?|\.\d++)(?:e[-+]?\d++)?)"
    rf"|\b(?P<word>(?a:{_WORDS}))\b)",
    re.IGNORECASE,
)
_NEXT = re.compile(rf"[\s-]*+(?P<word>,|(?a:(?:{_WORDS}|and|point)\b))", re.IGNORECASE)


def between(text: str, tag: str) -> str | None:
    """The stripped text of the first `<tag>…</tag>` pair, or None when there is no such pair.

    >>> between("<map> {} </map> <map>1</map>", "map")
    '{}'
    """
    start = text.find(f"<{tag}>")
    if start < 0:
        return None
    start += len(tag) + 2
    end = text.find(f"</{tag}>", start)
    return None if end < 0 else text[start:end].strip()


def answer_text(completion: str) -> str:
    """The text of the first `<answer>…</answer>` pair, stripped; empty if there is no pair (published rule).

    >>> answer_text("<think>It is B or C.</think><answer> B </answer>")
    'B'
    """
    return between(completion, "answer") or ""


def thinking_text(completion: str) -> str:
    """The reasoning of a completion before its answer, without the map; to the end where it is truncated.

    >>> thinking_text("<think>A bed <map>{}</map> and a chair.</think><answer>2</answer>")
    'A bed  and a chair.'
    >>> thinking_text("<answer>2</answer>")
    ''
    """
    _, opened, rest = completion.partition("<think>")
    text = (rest if opened else completion).partition("</think>")
    if not opened and not text[1]:
        return ""
    before, drawn, after = text[0].partition("<map>")
    return (before + after.partition("</map>")[2] if drawn else before).strip()


def map_text(completion: str) -> str | None:
    """The text of the first `<map>…</map>` pair, stripped, or None if there is none (published rule).

    >>> map_text("<think><map>{'chair': [[1, 2]]}</map></think>")
    "{'chair': [[1, 2]]}"
    """
    return between(completion, "map")


def read_number(text: str) -> float | None:
    """The first number in a text, in digits or in English words; None if there is none.

    The release reads the article "a" as 1, "twenty-one" as 1, "1,200" as 1 and "-3" as 3. This function does not.
    Fractions ("1/2", "half") are not supported. Numbers too large for a float are ignored: never NaN or infinite.

    >>> [read_number(text) for text in ("1,200", "twenty-one", "a distance of 3.2 meters", "-3", "far away")]
    [1200.0, 21.0, 3.2, -3.0, None]
    """
    return next((number.value for number in numbers(text[:MAX_CHARS])), None)


def read_last_number(text: str) -> float | None:
    """The last number in a text, read like the first in `read_number`; exponents (`m^2`) do not count.

    >>> [read_last_number(text) for text in ("from 2 to thirty-one m", "3.2 m^2", "far away")]
    [31.0, 3.2, None]
    """
    found = list(numbers(text[:MAX_CHARS].replace("^", "_")))  # digits after an underscore are not a number
    return found[-1].value if found else None


class Number(NamedTuple):
    """A number in a text: its value (None if too large for a float) and its span."""

    value: float | None
    start: int
    end: int


def numbers(text: str) -> Iterator[Number]:
    """Yields the numbers in a text, in order."""
    end = 0
    while found := _NUMBER.search(text, end):
        if numeral := found["numeral"]:
            scale, end = _scale_after(text, found.end())
            value = float(numeral.replace(",", "").replace("\u2212", "-")) * scale
        else:
            value, end = _read_words(text, found.start("word"))
        if found["minus"]:
            value = -value
        yield Number(value if math.isfinite(value) else None, found.start(), end)


def _scale_after(text: str, start: int) -> tuple[int, int]:
    """The factor of a scale word after a numeral (1000 in "3 thousand", else 1), and where the number ends."""
    following = _NEXT.match(text, start)
    word = following["word"].lower() if following else ""
    scale = 100 if word == "hundred" else _SCALES.get(word, 1)
    return scale, following.end() if following and scale > 1 else start


def _read_words(text: str, start: int) -> tuple[float, int]:
    """The value and end of the number words at `start`, as far as they form one number ("two, three" is 2)."""
    total = 0  # closed thousands and millions
    group: int | None = None  # below a thousand, still open
    room = 1000  # bound on the next addend in the group: after "twenty" below 10, after "hundred" below 100
    top = 10**12  # scales come in falling order
    joins: tuple[str, ...] = ()  # words that may connect parts: "one hundred and two", "one thousand, two hundred"
    while found := _NEXT.match(text, start):
        word = found["word"].lower()
        if word in _SMALL and (group is None or _SMALL[word] < room):
            group = (group or 0) + _SMALL[word]
            room, joins = 10 if word in _TENS else 0, ()
        elif word == "hundred" and (total == 0 if group is None else 0 < group < 100):
            group = (group or 1) * 100
            room, joins = 100, ("and",)
        elif word in _SCALES and _SCALES[word] < top and (total == 0 if group is None else group > 0):
            total += (group or 1) * _SCALES[word]
            group, room, top, joins = None, 1000, _SCALES[word], ("and", ",")
        elif word == "point" and group is not None:
            fraction, end = _read_decimals(text, found.end())
            return total + group + fraction, end
        elif word not in joins:
            break
        start = found.end()
    return float(total + (group or 0)), start


def _read_decimals(text: str, start: int) -> tuple[float, int]:
    """The fraction after the word "point" ("two five" is 0.25, no digits are 0), and where it ends."""
    digits = ""
    while len(digits) < 17 and (found := _NEXT.match(text, start)):  # overflows a float
        digit = _SMALL.get(found["word"].lower(), 10)
        if digit > 9:
            break
        digits += str(digit)
        start = found.end()
    return (float(f"0.{digits}") if digits else 0.0), start
