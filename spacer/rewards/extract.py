"""What a completion says: the text between its tags, the number or the option letter in an answer.

Training rewards and evaluation read answers with these functions, so that both mean the same by "the answer".
Nothing here raises, whatever the text, and every function takes linear time.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

# Readers look at this much of a text: sixteen characters for each of the 1,024 tokens of a published completion, which
# is more than language needs. It bounds the time that a degenerate completion can cost.
MAX_CHARS = 16_384

_ONES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_TEENS = ["thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_SMALL = {word: value for value, word in enumerate(_ONES + _TEENS)} | {
    word: 10 * i for i, word in enumerate(_TENS, start=2)
}
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9}
_WORDS = "|".join([*_SMALL, "hundred", *_SCALES])

# A numeral does not hang on a Latin letter ("chair3" and "v1.2" hold none) and may have thousands groups, decimals and
# an exponent. `\d` is any script's decimal digit, as in float(). U+2212 is the minus sign of typeset text.
_NUMBER = re.compile(
    r"(?:\b(?P<minus>minus|negative)\s)?"
    r"(?:(?P<numeral>(?<![A-Za-z_\d])(?<!\d[.,])[-+\u2212]?(?:(?:\d{1,3}(?:,\d{3})++(?!\d)|\d++)(?:\.\d++)?|\.\d++)(?:e[-+]?\d++)?)"
    rf"|\b(?P<word>(?a:{_WORDS}))\b)",
    re.IGNORECASE,
)
_NEXT = re.compile(rf"[\s-]*+(?P<word>,|(?a:(?:{_WORDS}|and|point)\b))", re.IGNORECASE)

_MARKUP = str.maketrans("", "", "*_`\"'$")
_CHOICE = re.compile(
    r"(?:(?:(?:the|my|correct|final|best|right)\s)*+(?:answer|option|choice)\b(?:\sis\b)?\s?[:=-]?\s?)*+"
    r"(?:\((?P<round>[a-z])\)|\[(?P<square>[a-z])\]|(?P<bare>[a-z])(?=$|\n|\)|[.:](?:\s|$)))",
    re.IGNORECASE | re.ASCII,
)


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
    """The text of the first `<answer>…</answer>` pair, stripped; no pair means an empty answer (published rule).

    >>> answer_text("<think>It is B or C.</think><answer> B </answer>")
    'B'
    """
    return between(completion, "answer") or ""


def map_text(completion: str) -> str | None:
    """The text of the first `<map>…</map>` pair, stripped, or None when the completion has none (published rule).

    >>> map_text("<think><map>{'chair': [[1, 2]]}</map></think>")
    "{'chair': [[1, 2]]}"
    """
    return between(completion, "map")


def read_number(text: str) -> float | None:
    """The first number that is written in a text, in digits or in English words; None when there is none.

    The release takes the article "a" as 1, "twenty-one" as 1, "1,200" as 1 and "-3" as 3; this reads what is written.
    Fractions ("1/2", "half") are not read as such. A number too large for a float is no number: never NaN or infinite.

    >>> [read_number(text) for text in ("1,200", "twenty-one", "a distance of 3.2 meters", "-3", "far away")]
    [1200.0, 21.0, 3.2, -3.0, None]
    """
    return next(_numbers(text[:MAX_CHARS]), None)


def read_last_number(text: str) -> float | None:
    """The last number that is written in a text, as `read_number` reads the first; exponents (`m^2`) are none.

    >>> [read_last_number(text) for text in ("from 2 to thirty-one m", "3.2 m^2", "far away")]
    [31.0, 3.2, None]
    """
    numbers = list(_numbers(text[:MAX_CHARS].replace("^", "_")))  # what follows an underscore is no number
    return numbers[-1] if numbers else None


def _numbers(text: str) -> Iterator[float | None]:
    """The numbers of a text one after the other, None for one that is too large for a float."""
    end = 0
    while found := _NUMBER.search(text, end):
        if numeral := found["numeral"]:
            scale, end = _scale_after(text, found.end())
            value = float(numeral.replace(",", "").replace("\u2212", "-")) * scale
        else:
            value, end = _read_words(text, found.start("word"))
        if found["minus"]:
            value = -value
        yield value if math.isfinite(value) else None


def _scale_after(text: str, start: int) -> tuple[int, int]:
    """The factor that a scale word puts on a numeral, 1000 in "3 thousand" and else 1, and where the number ends."""
    following = _NEXT.match(text, start)
    word = following["word"].lower() if following else ""
    scale = 100 if word == "hundred" else _SCALES.get(word, 1)
    return scale, following.end() if following and scale > 1 else start


def _read_words(text: str, start: int) -> tuple[float, int]:
    """The value of the number words at `start`, read as far as they make up one number ("two, three" is 2); its end."""
    total = 0  # closed thousands and millions
    group: int | None = None  # below a thousand, still open
    room = 1000  # what may be added to the group is smaller: after "twenty" below 10, after "hundred" below 100
    top = 10**12  # scales come in falling order
    joins: tuple[str, ...] = ()  # what may join on the next words: "one hundred and two", "one thousand, two hundred"
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
    """The fraction after the word "point", "two five" is 0.25 and nothing is 0, and where it ends."""
    digits = ""
    while len(digits) < 17 and (found := _NEXT.match(text, start)):  # a float holds no more
        digit = _SMALL.get(found["word"].lower(), 10)
        if digit > 9:
            break
        digits += str(digit)
        start = found.end()
    return (float(f"0.{digits}") if digits else 0.0), start


def read_choice(text: str) -> str | None:
    """The option letter that an answer gives, in upper case, or None.

    `B`, `b`, `B.`, `(B)`, `[B]`, `B) text`, `B. text`, `B: text`, `**B**`, `Answer: B` and `The correct answer is B`
    all mean B; a sentence that merely holds a capital letter ("A chair", "B or C") means nothing.

    >>> [read_choice(text) for text in ("B", "(B)", "B. a chair", "**B**", "Answer: B", "A chair is left of B")]
    ['B', 'B', 'B', 'B', 'B', None]
    """
    lines = text[:MAX_CHARS].translate(_MARKUP).split("\n")
    plain = "\n".join(line for line in (" ".join(line.split()) for line in lines) if line)
    found = _CHOICE.match(plain)
    return (found["round"] or found["square"] or found["bare"]).upper() if found else None
