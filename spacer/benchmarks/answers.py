"""What a completion answers: the option it means, the number, yes or no. The official scores are of these.

The authors of the benchmarks ask for bare answers and each read them in a way of their own. Here all are read with the
functions that training reads with (`spacer.rewards.extract`), so that the same words always mean the same answer.
Nothing here raises, whatever the text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from spacer.rewards.extract import MAX_CHARS, between, read_choice

_WORD = re.compile(r"[-+\u2212]?\d+(?:[.,]\d+)*|[^\W\d_]+")
_OPTION = re.compile(r"\s*\(?([A-Z])[.):]\s*(.*)", re.DOTALL)
_YES_NO = re.compile(r"[\W_]*+(?:(?:the\s)?answer(?:\sis)?[\W_]++)?(yes|no)\b", re.IGNORECASE)


def final(completion: str) -> str:
    """The answer in a completion: what is in `<answer>…</answer>`, or else what follows the reasoning.

    A completion that was cut off before it came to an answer has none: its reasoning is not searched for one.

    >>> [final(text) for text in ("<think>A?</think><answer> B </answer>", "B", "<think>A?</think> B", "<think>A or")]
    ['B', 'B', 'B', '']
    """
    if "<answer>" in completion:
        return between(completion, "answer") or ""
    _, closed, rest = completion.rpartition("</think>")
    if not closed and "<think>" in rest:
        return ""
    return rest.strip()


def words(text: str) -> tuple[str, ...]:
    """The words and numbers of a text, without case and punctuation, to compare it by.

    >>> words("The Chair, (2.5 m).")
    ('the', 'chair', '2.5', 'm')
    """
    return tuple(_WORD.findall(text[:MAX_CHARS].casefold()))


def letter_of(index: int) -> str:
    """The letter of an option: A for 0."""
    return chr(ord("A") + index)


def lettered(texts: Sequence[str]) -> tuple[str, ...]:
    """Options with their letters in front, `A. …`, whether they have them already or not.

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


def option_letter(answer: str, options: Sequence[str]) -> str | None:
    """The letter of the option that an answer names, by its letter or by its text alone; None where that is not one.

    Without options, which some files have in the question, any letter is one.

    >>> options = ("A. left", "B. right")
    >>> [option_letter(text, options) for text in ("b.", "B. right", "Right", "(A)", "C", "left or right", "")]
    ['B', 'B', 'B', 'A', None, None, None]
    """
    letter = read_choice(answer)
    if letter is not None and (not options or letter in letters(options)):
        return letter
    given = words(answer)
    named = [option[:1] for option in options if given and given == words(option[2:])]
    return named[0] if len(named) == 1 else None


def yes_or_no(answer: str) -> str | None:
    """ "yes" or "no" where that is the answer's first word.

    The authors of TempCompass take any answer that begins with these letters, so that "nothing" is a no.

    >>> [yes_or_no(text) for text in ("Yes, it is.", "**No**", "The answer is yes", "nothing", "it is not")]
    ['yes', 'no', 'yes', None, None]
    """
    found = _YES_NO.match(" ".join(answer[:MAX_CHARS].split()))
    return found[1].lower() if found else None


def labelled_line(answer: str, lines: Sequence[str]) -> str | None:
    """The label of the line that an answer, or its first line, gives: whole, or as label, the label's mark, or text.

    >>> lines = ("Sentence A: A man runs.", "Sentence B: A man walks.")
    >>> [labelled_line(text, lines) for text in ("Sentence B", "B.", "A man runs", "B) A man walks.", "a man")]
    ['Sentence B', 'Sentence B', 'Sentence A', 'Sentence B', None]
    """
    given = {words(answer), words(answer.strip().partition("\n")[0])} - {()}
    named = []
    for line in lines:
        label, _, said = line.partition(":")
        mark, spoken = words(label)[-1:], words(said)
        if given & {words(label) + spoken, words(label), mark, mark + spoken, spoken}:
            named.append(label.strip())
    return named[0] if len(named) == 1 else None


def shown(number: float | None) -> str | None:
    """A number as text, for the records: 3 rather than 3.0."""
    return None if number is None else f"{number:.12g}"
