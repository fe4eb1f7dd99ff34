"""How the authors' own code, or the harness that they point to, reads an option's letter from a completion.

Faults included: these are for comparison with published tables, beside `official`, which reads as a person would. Each
takes the whole completion and gives a letter, or None where the code finds none. Nothing here raises.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_QUOTED = tuple(re.compile(pattern) for pattern in (r"``([^`]*)``", r"`([^`]*)`", r"\{([^}]*)\}"))
_ALONE = re.compile(r"\b[A-D]\b(?!\s[a-zA-Z])")
_ANY_CASE = re.compile(r"\b([A-D])\b", re.IGNORECASE)
_STATED = re.compile(r"Answer\s*:\s*([A-D])\b", re.IGNORECASE)

_SECTION = re.compile(r"<Answer>(.*?)(?:<|$)", re.DOTALL)
_IN_SECTION = tuple(map(re.compile, (r"[Mm]y answer is ([A-E])", r"[Tt]he answer is ([A-E])", r"\b([A-E])\b")))
# without a letter and a full stop anywhere, these are what is left of the authors' patterns
_ANYWHERE = tuple(
    map(
        re.compile,
        (
            r"([A-E])(?:$|\s)",
            r"[*\"]([A-E])[*\"]",
            r"\bAnswer:?\s*([A-E])\b",
            r"[Mm]y answer is ([A-E])",
            r"answer is ([A-E])",
        ),
    )
)
_SAID = ('"answer":', "answer is", "answer:", '"Answer":', "Answer is", "Answer:", "The answer is", "the answer is")


def mmsi(text: str) -> str | None:
    """MMSI-Bench: within backticks and braces, else anywhere, the first capital A to D that no word follows."""
    for pattern in _QUOTED:
        if found := pattern.search(text):
            text = found[1]
    letter = _ALONE.search(text)
    return letter[0] if letter else None


def mindcube(text: str) -> str | None:
    """MindCube: the last capital A to E before a full stop, wherever; else by the `<Answer>` tag and phrases, else the
    first lone letter of the last line that has one."""
    if stops := re.findall(r"([A-E])\.", text):
        return str(stops[-1])
    if section := _SECTION.search(text):
        for pattern in _IN_SECTION:
            if found := pattern.findall(section[1]):
                return str(found[-1])
    for pattern in _ANYWHERE:
        if found := pattern.findall(text):
            return str(found[-1])
    lines = (re.search(r"\b([A-E])\b", line) for line in reversed(text.split("\n")))
    return next((found[1] for found in lines if found), None)


def viewspatial(text: str) -> str | None:
    """ViewSpatial-Bench: the first lone A to D of the last line, in any case; after a line's end that line is empty."""
    found = _ANY_CASE.search(text.split("\n")[-1])
    return found[1].upper() if found else None


def site(text: str, letters: Sequence[str]) -> str | None:
    """SITE-Bench: "(A)", else " A ", else "A.", else "A:"; of several the one whose " A " is last.

    Where there is none, the authors draw a letter at random; here that is none."""
    text = f" {text} "
    for form in ("({})", " {} ", "{}.", "{}:", ":{}", ": {}"):
        forms = (form,) if form in ("({})", " {} ", "{}.") else ("{}:", ":{}", ": {}")
        if found := [letter for letter in letters if any(one.format(letter) in text for one in forms)]:
            return max(found, key=lambda letter: text.rfind(f" {letter} "))
    return None


def blink(text: str, letters: Sequence[str]) -> str | None:
    """BLINK: a letter alone, with brackets or without; else the only option that is a word, "(B)", of the last
    paragraph, or else of all. The authors have a model map all others to one."""
    alone = re.fullmatch(r"[A-E]|\([A-E]\)", text.strip())
    if alone:
        return alone[0].strip("()")
    forms = {f"({letter})" for letter in letters}
    for part in (text.split("\n\n")[-1], text):
        found = forms.intersection(part.split())
        if len(found) == 1:
            return found.pop()[1]
    return None


def omnispatial(text: str) -> str:
    """OmniSpatial: the last "Answer: X"; A where there is none."""
    found = _STATED.findall(text)
    return str(found[-1]).upper() if found else "A"


def mmsi_video(text: str) -> str | None:
    """MMSI-Video-Bench: `boxed{A}`, else what follows the last of a few phrases up to a comma or a full stop, else what
    stands before the first full stop; A to F."""
    text = text.replace("<answer>", "").replace("</answer>", "")
    tried = [text.split("boxed{")[1].split("}")[0]] if "boxed{" in text else []
    tried += [re.split("[,.]", text.split(said)[-1])[0] for said in _SAID if said in text]
    for said in (*tried, text.split(".")[0]):
        bare = re.sub("[ \"'\n:]", "", said)
        if bare in tuple("ABCDEF"):
            return bare
    return None


def first_word(text: str) -> str:
    """VSI-Bench and ReVSI judge the first word, without full stops at its end."""
    return text.strip().split(" ")[0].rstrip(".").strip()
