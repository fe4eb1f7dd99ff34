"""Normalizes numbers in other notations to decimals, and filters out numbers that are only labels.

Used for reading answers as a person would (`spacer.rewards.quantities`): fractions, powers of ten, thousands and
decimal separators of other languages, Chinese numerals. Nothing here raises, and all takes linear time.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

from spacer.rewards.extract import Number, read_number

_VULGAR = "\u00bc-\u00be\u2150-\u215e"
_FRACTION = re.compile(
    r"(?<![\d.,/])(?:(?P<whole>\d{1,4})\s?(?=[\\\u00bc-\u00be\u2150-\u215e])|(?P<before>\d{1,4})\s(?=\d))?"
    rf"(?:\\[dt]?frac\s?\{{\s?(?P<top>\d{{1,6}})\s?\}}\s?\{{\s?(?P<bottom>\d{{1,6}})\s?\}}|(?P<sign>[{_VULGAR}])"
    r"|(?<![\d.,/])(?P<above>\d{1,4})/(?P<below>\d{1,4})(?![\d/]|[.,]\d))"
)
_POWER = re.compile(r"(\d)\s?(?:\u00d7|x|\*|\\times|\\cdot)\s?10\s?\^\s?\{?\s?([-+\u2212]?\d{1,3})\s?\}?")
_UNIT = r"(?:[cmk]?m[\u00b2\u00b3]?|square|sq|met(?:er|re)s?|centimet(?:er|re)s?)\b"
# thousands separated by a narrow or non-breaking space or an apostrophe
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:[\u00a0\u202f\u2009\u2007'\u2019]\d{3}){1,4}(?!\d)")
_SPACED = re.compile(rf"(?<![\d.,])(?<!\d )\d{{1,3}}(?: \d{{3}}){{1,4}}(?=\s?{_UNIT}|\s*$)")
_GROUPING = re.compile(r"[ \u00a0\u202f\u2009\u2007'\u2019]")
_FEET = re.compile(r"(?<=\d)['\u2019\u2032](?=\d{1,2}(?!\d))")
_COMMA = re.compile(rf"(?<![\d.,(\[])(\d{{1,4}}),(\d{{1,2}})(?=\s?{_UNIT})")
_SMALL = r"one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve"
_AND_A_HALF = re.compile(rf"\b(\d{{1,6}}|{_SMALL})\s(?:and|&)\s(?:a|one)[\s-]half\b", re.IGNORECASE)
_HALF_A = re.compile(r"\bhalf an?\s(?=\w)", re.IGNORECASE)

_DIGITS = {digit: value for value, digit in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
_UNITS = {"十": 10, "百": 100, "千": 1000}
# "一" before a measure word is an article; after 第 it is an ordinal, and in 之一 or 唯一 it is not a number
_CHINESE = re.compile(
    r"(?<![第之其唯统同零〇一二两三四五六七八九十百千])(?!(?<![是为约共:：\s])一[个把张件台只条])"
    r"(?P<number>[零〇一二两三四五六七八九十百千]{1,9})(?:点(?P<decimals>[零〇一二三四五六七八九]{1,9}))?"
    r"(?=\s?(?:[个把张件台只条盏扇块间米]|厘米|毫米|平方|$|[。.，,！!；;\n]))"
)

_LABEL = (
    r"(?<!the )(?<!this )(?<!each )\b(?:frame|image|picture|photo|view|step|scene|figure|video|clip)"
    r"(?:\s(?:no\.?\s?|number\s)?#?\d{1,6}|s\s\d{1,6}(?:(?:,\s?\d{1,6}){0,8},?\s?(?:and|to|through|[-\u2013])\s?\d{1,6})?)(?![.,]?\d)"
)
_LABELS = re.compile(
    rf"{_LABEL}|\b\d{{1,6}}(?:st|nd|rd|th)\b|\b\d{{1,2}}:\d\d(?::\d\d)?\b"
    r"|\b\d{1,3}\s?%\s(?:sure|certain|confident|confidence)\b",
    re.IGNORECASE,
)
_MARKS = re.compile(r"(?:^|(?<=\n))(?P<mark>\d{1,2})[.)]\s(?=\D)")


def as_decimals(text: str) -> str:
    """A text with its numbers as decimals, including "one and a half".

    >>> [as_decimals(text) for text in ("1 1/2 m", "2½", "1.5×10^2", "half a meter", "三把椅子", "1,5 m", "5/10/2024")]
    ['1.5 m', '2.5', '1.5e2', '0.5 meter', '3把椅子', '1.5 m', '5/10/2024']
    """
    text = _POWER.sub(lambda match: f"{match[1]}e{match[2]}".replace("\u2212", "-"), text)
    text = _FRACTION.sub(_fraction, text)
    for thousands in (_THOUSANDS, _SPACED):
        text = thousands.sub(lambda match: _GROUPING.sub("", match[0]), text)
    text = _FEET.sub(" feet ", text)
    text = _HALF_A.sub("0.5 ", _AND_A_HALF.sub(_and_a_half, _COMMA.sub(r"\1.\2", text)))
    return _CHINESE.sub(_chinese, text)


def unlabelled(plain: str, found: Sequence[Number]) -> list[Number]:
    """The numbers of a text that are not labels ("frame 3"), ordinals, times (0:15), confidences or list marks.

    >>> from spacer.rewards.extract import numbers
    >>> text = "1. Frames 3 and 5: 4 m.\\n2. At 0:15, 6 m."
    >>> [number.value for number in unlabelled(text, list(numbers(text)))]
    [4.0, 6.0]
    """
    spans = [match.span() for match in _LABELS.finditer(plain)]
    marks = [match.span("mark") for match in _MARKS.finditer(plain)]
    if len(marks) > 1 and plain[slice(*marks[0])] == "1":
        spans = sorted(spans + marks)
    return list(_outside(spans, found))


def _outside(spans: Sequence[tuple[int, int]], found: Sequence[Number]) -> Iterator[Number]:
    """The numbers that do not begin inside a span; both are in order."""
    place = 0
    for number in found:
        while place < len(spans) and spans[place][1] <= number.start:
            place += 1
        if place == len(spans) or number.start < spans[place][0]:
            yield number


def _fraction(match: re.Match[str]) -> str:
    whole = match["whole"] or match["before"]
    if match["sign"]:
        part = unicodedata.numeric(match["sign"])
    else:
        top, bottom = int(match["top"] or match["above"]), int(match["bottom"] or match["below"])
        if not bottom:
            return match[0]
        part = top / bottom
    if whole is None:
        return f"{part:.12g}"
    return f"{int(whole) + part:.12g}" if part < 1 else f"{whole} {part:.12g}"


def _and_a_half(match: re.Match[str]) -> str:
    return f"{(read_number(match[1]) or 0) + 0.5:.12g}"


def _chinese(match: re.Match[str]) -> str:
    """The number in digits; unchanged if it is ambiguous: 三四个 is three or four."""
    total, last = 0, None
    for character in match["number"]:
        if character in _UNITS:
            total += (1 if last is None else last) * _UNITS[character]
            last = None
        elif last:
            return match[0]
        else:
            last = _DIGITS[character]
    decimals = "".join(str(_DIGITS[digit]) for digit in match["decimals"] or "")
    return f"{total + (last or 0)}{decimals and '.' + decimals}"
