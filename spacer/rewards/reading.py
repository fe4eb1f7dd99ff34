"""Finds the final answer of a completion: the text after its thinking, without markup, and the statements in it.

Official scores and all rewards that are not strict use these functions, `read_choice` and `read_quantity`; the
published strict rule is in `spacer.rewards.extract`. Nothing here raises, for any text, and all takes linear time.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence

from spacer.rewards import forms

_TAGS = [
    (f"<{end}{tag}>", f"<{end}{tag.lower()}>") for end in ("", "/") for tag in ("Think", "THINK", "Answer", "ANSWER")
]
_OTHER_TAGS = re.compile(r"</?[A-Za-z|][^<>\s]{0,30}>")  # HTML tags, and special tokens that were not removed
_WRAPPED = re.compile(r"\\(?:text|math|mbox|bf|rm|it)[a-z]{0,6}\s?(?=\{)|\\[()\[\],;!]|\\\s")
_STRUCK = re.compile(r"~~[^~\n]{1,80}~~")
# emoji, check marks, control characters and surrogates carry no meaning; a cross may mean that something is wrong
_ORNAMENTS = re.compile(
    "[\x00-\x08\x0e-\x1f\ufe0f\ud800-\udfff\u2600-\u2714\u2719-\u274b\u2753-\u27bf\U0001f000-\U0001faff]+"
)
_BULLET = re.compile(r"^(?:>|#{1,6}|[-•+]\s)\s?")
# quotes and markup are removed; full-width forms become the common ones, and circled letters plain letters
_CHARS: dict[int, str | None] = {
    **{ord(c): None for c in "*_`\"'$\u2018\u2019\u201c\u201d\u300c\u300d\u300e\u300f\u00ab\u00bb"},
    **{ord(c): None for c in "\u00ad\u200b\u200c\u200d\u2060\ufeff"},  # invisible characters
    **{0xFF01 + i: chr(0x21 + i) for i in range(94)},
    **{0x24B6 + i: chr(ord("A") + i) for i in range(26)},
    **{ord("。"): ". ", ord("、"): ", ", ord("【"): "[", ord("】"): "]", 0x2192: " \u2192 ", 0x21D2: " \u21d2 "},
}
_END_CHARS = 2_048  # characters at the beginning and at the end of a text that are read
_CONTENT_CHARS = 240  # characters after a declaration
_MAX_MATCHES = 64  # declarations that are examined
_HEDGED = re.compile(
    r"(?:\b(?i:if|whether|unless|suppose|supposing|assuming|not|why|isnt)\s(?:that\s)?|\b(?i:each|every|any|remaining|possible|given)\s"
    r"|(?:^|[.!?\n]\s?)(?i:is|was|could|would|can)\s)"
    r"(?i:the\s|my\s|an?\s|our\s)?(?i:(?:correct|right|best|final|true|most likely)\s){0,2}$"
)


def final_text(completion: str, opened_think: bool = False) -> str:
    """The final part of a completion: the text after the last `</think>`, or the tagged answer in it.

    Truncated thinking has no answer, and neither has a truncated `<answer>`; a complete answer at the end of the
    completion counts even if the thinking was never closed.

    Args:
        completion: the model's full output.
        opened_think: whether the prompt ends with an open `<think>`, so that the completion begins inside it.

    >>> [final_text(text) for text in ("<think>A?</think><answer> B </answer>", "<think>A?</think> B", "<think>A or")]
    ['B', 'B', '']
    >>> final_text("The lamp is 3 m", opened_think=True), final_text("<answer>A</answer>?</think><answer>B</answer>")
    ('', 'B')
    """
    for written, tag in _TAGS if "<" in completion else ():
        completion = completion.replace(written, tag)
    thought, closed, rest = completion.rpartition("</think>")
    if "<think>" in rest or (opened_think and not closed):
        thought, rest = completion, ""  # truncated during thinking
    if rest.strip():
        return _answer_in(rest)
    ends_with_it = thought.rstrip().endswith("</answer>") and "<answer>" in thought
    return _answer_in(thought) if ends_with_it else ""


def _answer_in(text: str) -> str:
    """The last tagged answer; the whole text if it has no tags; "" if the last answer is truncated."""
    before, closed, after = text.rpartition("</answer>")
    if "<answer>" in after:
        return ""
    inside = before.rpartition("<answer>")[2] if closed else after
    return inside.partition("</answer>")[0].strip()


def both_ends(text: str) -> str:
    """The text, or, if it is longer than an answer can be, its beginning and end."""
    return text if len(text) <= 2 * _END_CHARS else f"{text[:_END_CHARS]}…{text[-_END_CHARS:]}"


def plain_text(text: str) -> str:
    """A text without markup, bullets and blank lines; of a long text, only the beginning and end.

    >>> plain_text(r"### **Answer:**  $\\boxed{\\text{B}}$")
    'Answer: \\\\boxed{{B}}'
    """
    text = both_ends(text)
    for markup in (_OTHER_TAGS, _WRAPPED, _STRUCK, _ORNAMENTS):
        text = markup.sub(" ", text)
    text = text.translate(_CHARS)
    lines = (_BULLET.sub("", " ".join(line.split())) for line in text.split("\n"))
    return re.sub(r"\{ +\{", "{{", "\n".join(line for line in lines if line))


def last_matches(plain: str, table: Sequence[forms.Form]) -> list[tuple[forms.Form, re.Match[str]]]:
    """The matches of a table's forms in a text, last first, up to a bound."""
    found = [(form, match) for form in table for match in deque(form.regex.finditer(plain), maxlen=_MAX_MATCHES)]
    return sorted(found, key=lambda pair: pair[1].end(), reverse=True)[:_MAX_MATCHES]


def declared_contents(plain: str) -> Iterator[tuple[int, str]]:
    """The text after each declaration, on its line, and its position, last first; conditional ones do not count."""
    for _, match in last_matches(plain, forms.DECLARATIONS):
        if not is_hedged(plain, match):
            yield match.end(), content_after(plain, match)


def is_hedged(plain: str, match: re.Match[str]) -> bool:
    """Whether the text before a form makes it no statement: an "if", a "not", a question."""
    return bool(_HEDGED.search(before(plain, match)))


def before(plain: str, match: re.Match[str]) -> str:
    """The end of the text before a form."""
    return plain[max(0, match.start() - 60) : match.start()]


def content_after(plain: str, match: re.Match[str]) -> str:
    """The text after a form, on its line."""
    return plain[match.end() : match.end() + _CONTENT_CHARS].partition("\n")[0]
