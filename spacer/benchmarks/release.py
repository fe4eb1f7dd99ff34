"""How SpaceR's evaluation code (github.com/OuyangKun10/SpaceR, SpaceR-Eval) reads answers, bugs included.

Its metrics are reported beside the official ones, as `spacer_eval`, for comparison with published tables. What it
accepts as an answer differs between benchmarks. Nothing here raises, whatever the text.
"""

from __future__ import annotations

import re

from spacer.rewards.extract import between

# in its search order; the first that occurs anywhere in the text is the answer, before any digits
_ONES = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen")
_TEENS = ("fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty")
_TENS = ("thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_NUMBER_WORDS = {word: value for value, word in enumerate(_ONES + _TEENS, start=1)}
_NUMBER_WORDS |= {word: 10 * tens for tens, word in enumerate(_TENS, start=3)} | {"zero": 0, "a": 1, "an": 1}
_NUMBER_PATTERNS = [(re.compile(rf"\b{word}\b"), float(value)) for word, value in _NUMBER_WORDS.items()]

# phrases removed before the first capital letter is taken
_PHRASES = (
    r"The (?:best|correct) (?:answer|option) is|The answer is|The answer|(?:Best answer|Best option|Answer|Option):"
)
_PHRASES_ALSO = re.compile(_PHRASES + r"|The correct (?:answer|option)")
_PHRASES_ONLY = re.compile(_PHRASES)

# the patterns of STI-Bench's and the release's code, in order
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
    """The text that the release grades: that in the tags, the word "None" if they are not closed, else everything."""
    if "<answer>" not in completion:
        return completion
    found = between(completion, "answer")
    return "None" if found is None else found


def as_float(text: str) -> float | None:
    """The value of a text that is only a number."""
    try:
        return float(text)
    except ValueError:
        return None


def vsi_number(given: str) -> float | None:
    """VSI-Bench: a number word anywhere, with "a" and "an" as 1, else the first digits, without a sign."""
    given = given.strip().lower()
    for pattern, value in _NUMBER_PATTERNS:
        if pattern.search(given):
            return value
    found = re.search(r"\d+(?:\.\d+)?", given)
    return as_float(found[0]) if found else None


def vsi_choice(given: str) -> str:
    """VSI-Bench: the first word if that is a letter, with or without a full stop; else the whole text."""
    given = given.replace("Answer:", "")
    found = re.search(r"^([A-D])\.?$", given.split(" ")[0].strip())
    return found[1] if found else given.strip()


def sti_choice(given: str) -> str:
    """STI-Bench: the first letter in one of a few forms; else the whole text."""
    for pattern in _STI_LETTER:
        if found := pattern.search(given):
            return found[1].upper()
    return given.strip()


def first_capital(given: str, valid: str, *, also_correct: bool = False) -> str:
    """Video-MME (also_correct) and LongVideoBench: the first of the letters `valid` anywhere, outside a few phrases."""
    phrases = _PHRASES_ALSO if also_correct else _PHRASES_ONLY
    found = re.search(f"[{valid}]", phrases.sub("", given.strip()))
    return found[0] if found else ""


def spar_choice(given: str, truth: str) -> bool:
    """SPAR-Bench: equal to the truth, a part of it (as an empty answer is), or starting with it, ignoring case."""
    given, truth = given.lower(), truth.lower()
    return given in truth or given[0] == truth


def spar_number(given: str, last: bool) -> float | None:
    """SPAR-Bench: the first or the last digits, without a sign and not after `^`; -1 for the last if there are none."""
    found = re.findall(r"(?<!\^)(?:\d+\.\d+|\d+)", given)
    if not found:
        return -1.0 if last else None
    return as_float(found[-1 if last else 0])


def tempcompass_choice(given: str, truth: str) -> bool:
    """TempCompass, all formats: exactly the truth, or its first letter (A to D), bare or before `.` or `)`."""
    if given == truth:
        return True
    lettered = given in ("A", "B", "C", "D") or (given[:1] in ("A", "B", "C", "D") and given[1:2] in (".", ")"))
    return lettered and given[0] == truth[0]
