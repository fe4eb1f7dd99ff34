"""Reads which option a text answers with, as a person would; and yes or no.

The last explicit declaration counts, then a conclusion, then the text itself; `spacer.rewards.forms` has the tables.
Text that names several options, or only mentions one, has no answer. Nothing here raises, and all takes linear time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from spacer.rewards import forms
from spacer.rewards.extract import MAX_CHARS
from spacer.rewards.reading import before, content_after, declared_contents, is_hedged, last_matches, plain_text

_WORD = re.compile(r"[-+\u2212]?\d+(?:[.,]\d+)*|[^\W\d_]+")
_ARTICLES = {"the", "a", "an"}

_OPTION = re.compile(
    r"\s*[(\[]?(?P<mark>[A-Za-z1-9])(?:[)\]]?[.:\u3001\uff0e\uff1a]|[)\]]|\s[-\u2013\u2014]|\s*$)(?P<said>.*)",
    re.DOTALL,
)
_OPTION_CHARS = 480  # length limit of an option's text, and of lines compared with it
_MAX_LINES = 64  # lines at the beginning and at the end of a text that are examined
_NOUNS = r"(?:(?i:(?:option|choice|letter|answer|number|sentence|caption|statement)\b\s?[:.]?\s?|选项\s?|the\s))*+"
_ANY, _UPPER = ("|".join(form.pattern for form in table) for table in (forms.ENDINGS_ANY, forms.ENDINGS_UPPER))
_GIVEN = re.compile(
    rf"[{{(\[]{{0,3}}\s?{_NOUNS}(?:[(\[{{]{{1,3}}\s?(?P<wrapped>[A-Za-z1-9])\.?\s?[)\]}}]{{1,3}}"
    rf"|[{{(\[]{{0,3}}(?P<any>[A-Za-z1-9])(?:{_ANY})"
    rf"|[{{(\[]{{0,3}}(?P<upper>[A-Z])(?:{_UPPER}))"
)
_ANOTHER = (
    r"(?:[,;/&+~]|\b(?:or|and|nor|to|vs|versus|through|as well as)\b|或者?|和|与|及|跟)\s?"
    r"(?:(?:maybe|possibly|perhaps|also|either|both|option|choice|answer|even)\s){0,2}\s?[(\[]?"
)
_SEVERAL_AFTER = re.compile(
    rf"[)\]}}.]{{0,2}}(?:\s?\([^()\n]{{1,40}}\))?\s?{_ANOTHER}(?P<other>(?!A\s(?!and\b|or\b|is\b)[a-z])[A-Z1-9]|[a-z](?=[)\]]))(?![A-Za-z0-9])(?![)\]]?\s?\?)"
)
_SEVERAL_BEFORE = re.compile(rf"(?<![A-Za-z0-9])[A-Z1-9][)\]]?(?:\s\([^()\n]{{1,40}}\))?,?\s?{_ANOTHER}$")
_FIRST = re.compile(rf"(?:(?i:both|either|neither)\s)?{_NOUNS}[(\[{{]{{0,3}}\s?([A-Za-z1-9])(?![A-Za-z0-9])")
_AFTER_LETTER = re.compile(r"[A-Za-z1-9]\s?[)\]}]{0,3}[.:,;\-\u2013\u2014]{0,2}\s?")
_NEGATED = re.compile(r"(?i:not|never|neither|cannot|nt|no longer|不是?)\b\s?|不是?")
_WRONG = re.compile(r"\b(?i:wrong|incorrect|false|worst|another|other)\s$")  # before "answer"
_BUT = re.compile(r"\bbut\s(?:rather\s)?|,?\s?而是\s?")
_CLAUSE = (
    r"[.!;?](?=\s|$)|[,;]?\s(?:because|since{})\b|[,;]\s(?:and\s)?(?:not|rather than|instead of)\b"
    r"|\s?\([^()\n]*\)[.,;!]?$|[}}\]]"
    r"|\sis\s(?:correct|the\s(?:\w+\s)?answer)\b"
)
_CLAUSE_ENDS = re.compile(_CLAUSE.format("|as|given|based|which|not"))
# used only without a declaration: "the lamp, which is far, …" is not an answer
_BARE_ENDS = re.compile(_CLAUSE.format(""))
_UNSURE = re.compile(r"\b(?i:if|whether|not|nt|could|may|might|maybe|perhaps|or|either)\b|\([A-Z]\)")
_IS_AT_LAST = re.compile(r"[^.!?\n]*\s(?:is|would be|must be):?\s")
_GLOSSED = re.compile(
    r"(?![A-Z1-9]\s\()[^().!?\n]{1,100}\s[(\[](?:(?i:option)\s)?(?P<letter>[A-Z])[)\]](?=[.!,;]?(?:$|\n|\s))[^()\n]*$"
)
_LISTED = re.compile(r"[(\[]?(?P<letter>[A-Z1-9])(?:[)\].:]|\s[-\u2013\u2014])\s?\S")
_ALONE = re.compile(rf"{_NOUNS}[(\[{{]{{0,2}}(?P<letter>[A-Za-z1-9])[)\]}}]{{0,2}}[.!,;:]?\s?")
_SENTENCE_ENDS = re.compile(r"[.!?]\s|\n")
_LAST_SENTENCE = re.compile(r"(?:[.!?;:]|\s[-\u2013\u2014])\s(?P<said>[^.!?;:]{1,80}[.!]?)$")
_YES_NO = re.compile(r"(?i:(?P<yes>yes\b|是的|是(?=$|[.,\n]))|(?P<no>no\b(?!\s(?:longer|one))|不是|否))")
_OR_THE_OTHER = re.compile(r"\s?(?:/|,(?=\s?\w+\W*$)|,?\s?\b(?:or|and)\b)\s?(?:yes|no)\b", re.IGNORECASE)


def words(text: str) -> tuple[str, ...]:
    """The words and numbers of a text in lower case, without punctuation, for comparisons.

    >>> words("The Chair, (2.5 m).")
    ('the', 'chair', '2.5', 'm')
    """
    return tuple(_WORD.findall(text[:MAX_CHARS].casefold()))


class Options:
    """The options of a question: their letters and texts."""

    def __init__(self, options: Sequence[str]) -> None:
        """`options` have letters, `A. …` or `(a) …`; if empty, every letter is an option."""
        lettered = {match["mark"].upper(): match["said"] for option in options if (match := _OPTION.match(option))}
        self.marks = frozenset(lettered)
        self._by_text: dict[tuple[str, ...], str | None] = {}
        for mark, text in lettered.items():
            said = self._said(text)
            if said and not (len(said) == 1 and len(said[0]) == 1 and said[0].upper() in self.marks):
                self._by_text[said] = mark if said not in self._by_text else None

    def valid(self, letter: str | None) -> str | None:
        """The letter in upper case, if an option has it."""
        letter = (letter or "").upper()
        return letter if letter in self.marks or (not self.marks and letter.isalpha()) else None

    def named(self, text: str) -> str | None:
        """The letter of the only option with this full text, ignoring articles."""
        return self._by_text.get(self._said(text)) if self._by_text else None

    @staticmethod
    def _said(text: str) -> tuple[str, ...]:
        said = words(text[:_OPTION_CHARS])
        return tuple(word for word in said if word not in _ARTICLES) or said


def read_choice(text: str, options: Sequence[str] = ()) -> str | None:
    """The letter of the option that a text answers with, in upper case; None if it gives none, or several.

    The recognized forms are in the tables of `spacer.rewards.forms`. An option's full text counts as its letter.

    Args:
        text: an answer, or a text that contains one, as returned by `final_text`.
        options: the options, each with its letter, `A. …`; if empty, every letter is an option, without a text.

    >>> options = ("A. left", "B. right")
    >>> [read_choice(text, options) for text in ("b.", "So the answer is B.", "Right", "B, because …", "C", "A or B")]
    ['B', 'B', 'B', 'B', None, None]
    """
    plain, known = plain_text(text), Options(options)
    if (whole := known.named(plain)) is not None:
        return whole
    refuted: set[str] = set()
    for said, letter in _declarations(plain, known):
        if said:
            return letter if letter and letter not in refuted else None
        refuted.add(letter)
    for given in (_conclusion(plain, known), _bare(plain, known)):
        if given is not None:
            return given if given and given not in refuted else None
    return None


def _declarations(plain: str, known: Options) -> Iterator[tuple[bool, str]]:
    """Declarations, last first: whether for or against an option, and its letter, or "" for several."""
    for form, match in last_matches(plain, (*forms.DECLARATIONS, *forms.VERDICTS, *forms.REFUTATIONS)):
        if is_hedged(plain, match) or _lists_options(plain, match):
            continue
        if form in forms.DECLARATIONS:
            content = content_after(plain, match)
            if not (negation := _NEGATED.match(content)):
                letter = _given_at_last(content, known)
                wrong = _WRONG.search(before(plain, match))
                if letter is not None and (letter or not wrong):
                    yield not wrong, letter
                continue
            against, *instead = (_given(part, known) for part in _BUT.split(content[negation.end() :], maxsplit=1))
            yield from ((True, letter) for letter in instead if letter is not None)
            if against:
                yield False, against
        elif letter := known.valid(match["letter"]):
            yield form in forms.VERDICTS, "" if _SEVERAL_BEFORE.search(before(plain, match)) else letter


def _lists_options(plain: str, match: re.Match[str]) -> bool:
    """Whether the lines after a form are a copy of the options, at least A and B."""
    if "\n" not in match[0]:
        return False
    lines = plain[match.end() :].split("\n", 2)[:2]
    listed = [found["letter"] for line in lines if (found := _LISTED.match(line[:_OPTION_CHARS]))]
    return listed == ["A", "B"]


def _given(content: str, known: Options, ends_with: re.Pattern[str] = _CLAUSE_ENDS) -> str | None:
    """The letter that a text starts with, or whose option's text it is; "" for several letters, None for neither."""
    found = _GIVEN.match(content)
    letter = known.valid(found["wrapped"] or found["any"] or found["upper"]) if found else None
    if _several(content, known):
        return ""
    if letter is not None:
        return letter
    ends = [match.start() for match in ends_with.finditer(content)]
    for end in (len(content), *ends[:6]):
        if (named := known.named(content[:end])) is not None:
            return named
    if glossed := _GLOSSED.match(content):
        return known.valid(glossed["letter"])
    # "B the sofa": a letter followed by its option's text
    first = _AFTER_LETTER.match(content)
    letter = known.valid(content[:1]) if first else None
    if first and letter and any(known.named(content[first.end() : end]) == letter for end in (len(content), *ends[:6])):
        return letter
    return None


def _given_at_last(content: str, known: Options, ends_with: re.Pattern[str] = _CLAUSE_ENDS) -> str | None:
    """As `_given`, falling back to the text after the last "is" of the sentence: "the option that fits is B"."""
    letter = _given(content, known, ends_with)
    later = _IS_AT_LAST.match(content) if letter is None else None
    return _given(content[later.end() :], known) if later and not _UNSURE.search(later[0]) else letter


def _several(content: str, known: Options) -> bool:
    """Whether a text starts with several letters joined together."""
    start = _FIRST.match(content)
    if not start or known.valid(start[1]) is None:
        return False
    after = _SEVERAL_AFTER.match(content, start.end())
    return bool(after and known.valid(after["other"]) not in (None, start[1].upper()))


def _conclusion(plain: str, known: Options) -> str | None:
    """The option in the last conclusion that contains one."""
    given = (_given_at_last(content_after(plain, match), known) for _, match in last_matches(plain, forms.CONCLUSIONS))
    return next((letter for letter in given if letter is not None), None)


def _bare(plain: str, known: Options) -> str | None:
    """The option that stands alone on a line, at the beginning or the end of the text."""
    lines = plain.split("\n")
    lines = lines if len(lines) <= 2 * _MAX_LINES else lines[:_MAX_LINES] + lines[-_MAX_LINES:]
    alone = {known.valid(match["letter"]) for line in lines if (match := _ALONE.fullmatch(line))} - {None}
    if alone:
        return alone.pop() if len(alone) == 1 else ""
    listed = {known.valid(match["letter"]) for line in lines if (match := _LISTED.match(line))} - {None}
    given = []
    for line in dict.fromkeys((lines[0], lines[-1])):
        if len(listed) > 1 and _LISTED.match(line):
            continue  # the options were copied
        given.append(_given(line[:_OPTION_CHARS], known, _BARE_ENDS))
    if (last := _LAST_SENTENCE.search(lines[-1][-100:])) and _ALONE.fullmatch(last["said"]):
        given.append(_given(last["said"], known))
    if not any(given) and len(listed) < 2:
        given.append(_given_at_last(_SENTENCE_ENDS.split(plain, maxsplit=1)[0][:_OPTION_CHARS], known, _BARE_ENDS))
    letters = {letter for letter in given if letter is not None}
    return None if not letters else letters.pop() if len(letters) == 1 else ""


def read_yes_no(text: str) -> str | None:
    """ "yes" or "no" if a text answers with one of them, None if it gives neither or both.

    >>> [read_yes_no(text) for text in ("Yes, it is.", "So the answer is **no**", "nothing", "it is not", "yes or no")]
    ['yes', 'no', None, None, None]
    """
    plain = plain_text(text)
    declared = [content for _, content in declared_contents(plain)]
    concluded = [content_after(plain, match) for _, match in last_matches(plain, forms.CONCLUSIONS)]
    for content in declared + concluded:
        if (said := _said(content)) is not None:
            return said or None
    last_line = plain.split("\n")[-1]
    sentence = _LAST_SENTENCE.search(last_line[-100:])
    first, line, last = (_said(part) for part in (plain, last_line, sentence["said"] if sentence else ""))
    if first is None:
        return (last if line is None else line) or None
    taken_back = {first, last} == {"yes", "no"} and sentence is not None and len(sentence["said"]) < len("yes .")
    return None if taken_back else first or None


def _said(content: str) -> str | None:
    """The yes or no that a text starts with; "" for both, None for neither."""
    found = _YES_NO.match(content.lstrip(" {[("))
    if not found:
        return None
    return "" if _OR_THE_OTHER.match(found.string, found.end()) else "yes" if found["yes"] else "no"
