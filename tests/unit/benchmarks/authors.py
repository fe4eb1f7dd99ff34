"""How the benchmarks' authors read answers where that is not how SpaceR's release reads them, to compare ours with."""

from __future__ import annotations


def first_word(text: str) -> str:
    """VSI-Bench's code judges the first word, without full stops at its end."""
    return text.split(" ")[0].rstrip(".").strip()


def vsi_choice(text: str) -> str | None:
    """VSI-Bench: the first word is compared with the letter, whatever the case."""
    word = first_word(text).upper()
    return word if word in tuple("ABCD") else None


def vsi_number(text: str) -> float | None:
    """VSI-Bench: the first word is a number, or there is none."""
    try:
        return float(first_word(text))
    except ValueError:
        return None


def tempcompass_yes_no(text: str) -> str | None:
    """TempCompass: what the answer begins with."""
    text = text.lower()
    return "yes" if text.startswith("yes") else "no" if text.startswith("no") else None


def tempcompass_line(text: str, lines: tuple[str, ...]) -> str | None:
    """TempCompass: a line, its sentence (also after a bracket), its label or its mark; the last hit."""
    said = text.split(") ")[1] if ") " in text else None
    hit = None
    for line in lines:
        label, _, sentence = line.partition(": ")
        if text in (line, sentence) or said == sentence:
            hit = label
        if {text, text.replace(".", "")} & {label, label.split(" ")[-1]}:
            hit = label
    return hit
