"""How SpaceR's evaluation code (github.com/OuyangKun10/SpaceR, SpaceR-Eval) reads answers, faults included.

Its figures are reported beside the official ones, as `spacer_eval`, so that published tables can be compared. What it
takes for an answer differs from benchmark to benchmark. Nothing here raises, whatever the text.
"""

from __future__ import annotations

import re

from spacer.rewards.extract import between

# 1 - θ for the ten θ of the mean relative accuracy, in the floats of the release: there an error of exactly 0.2 or 0.45
# misses the threshold that it meets in numbers
_STEP = (0.95 - 0.5) / 9
_TOLERATED = (*(1 - (0.5 + _STEP * i) for i in range(9)), 1 - 0.95)

# in the order in which it looks for them; the first that the text has anywhere is the answer, before any digits
_ONES = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen")
_TEENS = ("fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty")
_TENS = ("thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_NUMBER_WORDS = {word: value for value, word in enumerate(_ONES + _TEENS, start=1)}
_NUMBER_WORDS |= {word: 10 * tens for tens, word in enumerate(_TENS, start=3)} | {"zero": 0, "a": 1, "an": 1}
_NUMBER_PATTERNS = [(re.compile(rf"\b{word}\b"), float(value)) for word, value in _NUMBER_WORDS.items()]

# phrases that are struck out before the first capital letter is taken
_PHRASES = (
    r"The (?:best|correct) (?:answer|option) is|The answer is|The answer|(?:Best answer|Best option|Answer|Option):"
)
_PHRASES_ALSO = re.compile(_PHRASES + r"|The correct (?:answer|option)")
_PHRASES_ONLY = re.compile(_PHRASES)

# what STI-Bench's and the release's code look for, in this order
_STI_LETTER = [
    re.compile(pattern, re.IGNORECASE | re.MULTILINE)
    for pattern in (
        r"\(([A-E])\)",
        r"Ans\s*+=\s*+['\"]?([A-E])",
        r"Answer\s*+[:=]\s*+([A-E])",
        r"Option\s++([A-E])",
        r"\b([A-E])\s*+(?:is|was)\s*+correct",
        r"\b([A-E])[.)]\s*$",
    )
]


def answer(completion: str) -> str:
    """What the release judges: the text in the tags, the word "None" where they are not closed, else all of it."""
    if "<answer>" not in completion:
        return completion
    found = between(completion, "answer")
    return "None" if found is None else found


def mean_relative_accuracy(error: float) -> float:
    """The share of the ten thresholds that a relative error meets, with the rounding of the release's floats."""
    return sum(error <= tolerated for tolerated in _TOLERATED) / 10


def as_float(text: str) -> float | None:
    """A text that is a number and nothing else."""
    try:
        return float(text)
    except ValueError:
        return None


def vsi_number(given: str) -> float | None:
    """VSI-Bench: a number word anywhere, "a" and "an" as 1 among them, else the first digits, without a sign."""
    given = given.strip().lower()
    for pattern, value in _NUMBER_PATTERNS:
        if pattern.search(given):
            return value
    found = re.search(r"\d+(?:\.\d+)?", given)
    return as_float(found[0]) if found else None


def vsi_choice(given: str) -> str:
    """VSI-Bench: the first word where that is a letter, with or without a full stop; else all of the text."""
    given = given.replace("Answer:", "")
    found = re.search(r"^([A-D])\.?$", given.split(" ")[0].strip())
    return found[1] if found else given.strip()


def sti_choice(given: str) -> str:
    """STI-Bench: the first letter that stands in one of a few forms; else all of the text."""
    for pattern in _STI_LETTER:
        if found := pattern.search(given):
            return found[1].upper()
    return given.strip()


def first_capital(given: str, valid: str, *, also_correct: bool = False) -> str:
    """Video-MME (also_correct) and LongVideoBench: the first of the letters `valid` anywhere, but in a few phrases."""
    phrases = _PHRASES_ALSO if also_correct else _PHRASES_ONLY
    found = re.search(f"[{valid}]", phrases.sub("", given.strip()))
    return found[0] if found else ""


def spar_choice(given: str, truth: str) -> bool:
    """SPAR-Bench: equal, or a part of the truth (as an empty answer is), or beginning with it, whatever the case."""
    given, truth = given.lower(), truth.lower()
    return given in truth or given[0] == truth


def spar_number(given: str, last: bool) -> float | None:
    """SPAR-Bench: the first or the last digits, without a sign and not of a power; the last of none is -1."""
    found = re.findall(r"(?<!\^)(?:\d+\.\d+|\d+)", given)
    if not found:
        return -1.0 if last else None
    return as_float(found[-1 if last else 0])


def tempcompass_choice(given: str, truth: str) -> bool:
    """TempCompass, all formats: the very truth, or the letter A to D that it begins with, bare or before `.` or `)`."""
    if given == truth:
        return True
    lettered = given in ("A", "B", "C", "D") or (given[:1] in ("A", "B", "C", "D") and given[1:2] in (".", ")"))
    return lettered and given[0] == truth[0]
