"""The map reward: how well the cognitive map that a completion draws agrees with the scene's own.

A cognitive map names each category of a scene and the centres of its objects on a grid of 10 by 10, x and y in 0…9.
What a model writes is read leniently and never executed: `ast.literal_eval`, if it is a shallow and plain literal.
"""

from __future__ import annotations

import ast
import math
import re
import string
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from spacer.rewards.extract import map_text

Point = tuple[int, int]

# A map of this many characters holds some 1,300 points, more than 1,024 tokens can write, and is read in about 10 ms.
MAX_MAP_CHARS = 8_192

_SQUARED_DIAGONAL = 200  # (10·√2)², the distance at which a match is worth nothing
_MAX_DEPTH = 6  # a map needs three: the dict, a category's list, a point
_AROUND_KEY = string.punctuation + string.whitespace + "\u2018\u2019\u201c\u201d\u00ab\u00bb\u2026"

_NUMBER = re.compile(r"(?<![A-Za-z_\d])[-+\u2212]?(?:\d++(?:\.\d*+)?|\.\d++)(?:[eE][-+]?\d++)?")
_TOKEN = re.compile(
    r"""\s*+(?:(?P<open>[\[({])|(?P<close>[\])}])|(?P<separator>[,:])"""
    r"""|(?P<value>'[^'\\\n]*+'|"[^"\\\n]*+"|[-+]?(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][-+]?[0-9]++)?|None|True|False))"""
)


def has_map(completion: str) -> bool:
    """Whether the completion has a `<map>…</map>` pair, whatever is in it.

    >>> has_map("<think><map></map></think>"), has_map("<think><map>{'chair': [[1, 2]]}</think>")
    (True, False)
    """
    return map_text(completion) is not None


def parse_map(completion_or_text: str, categories: Iterable[str]) -> dict[str, list[Point]]:
    """Read a map: the first `<map>…</map>` of a text, or the whole text when it has none (published rule, mended).

    A dict literal comes first; when it is damaged, the category names in the text and the numbers between one name and
    the next. Only the given categories are read; a point is two finite numbers, truncated; other things are dropped.
    Of a map of more than `MAX_MAP_CHARS` characters the first are read, as text.

    >>> parse_map("<map>{'Chair': [[1, 2], [3.7, 4]], 'sofa': [5, 6], 'lamp': [[0, 0]]}</map>", ["chair", "sofa"])
    {'chair': [(1, 2), (3, 4)], 'sofa': [(5, 6)]}
    >>> parse_map("{'chair': [[1, 2], [3, 4], 'sofa'", ["chair", "sofa"])
    {'chair': [(1, 2), (3, 4)]}
    """
    inside = map_text(completion_or_text)
    text = completion_or_text if inside is None else inside
    names = {_plain(category): category for category in categories}
    literal = _read_dict(text)
    if literal is None:
        return _read_text(text[:MAX_MAP_CHARS], names.values())
    points: dict[str, list[Point]] = {}
    for key, value in literal.items():
        name = names.get(_plain(key)) if isinstance(key, str) else None
        if name is not None and (found := _read_points(value)):
            points.setdefault(name, []).extend(found)
    return points


def written_map(completion: str, categories: Iterable[str] = ()) -> dict[str, list[Point]]:
    """What a completion's map shows, the given categories and, where it is a whole literal, all that it names.

    For looking at: a score counts the scene's own categories alone (`parse_map`). Empty where there is no map.

    >>> written_map("<map>{'chair': [[1, 2]], 'unicorn': [[3, 4]]}</map>", ["chair"])
    {'chair': [(1, 2)], 'unicorn': [(3, 4)]}
    """
    inside = map_text(completion)
    if inside is None:
        return {}
    named = [key for key in _read_dict(inside) or {} if isinstance(key, str)]
    return parse_map(inside, [*named, *categories])


def map_score(completion: str, true_map: Mapping[str, Sequence[Sequence[float]]]) -> float:
    """Score the map of a completion against the scene's, in [0, 1] (paper's map reward, as released).

    Score = Σ over categories of n_c · acc_c / Σ n_c, where n_c counts the true points, and acc_c = Σ over matched pairs
    of max(0, 1 - distance / (10·√2)) / max(predicted points, n_c). Pairs are matched greedily, the closest first.
    Missing and invented objects both cost. No map, or a scene without points, scores 0.

    >>> truth = {"chair": [[1, 2], [3, 4]], "sofa": [[5, 6]]}
    >>> map_score("<map>{'chair': [[1, 2], [3, 4]], 'sofa': [[5, 6]]}</map>", truth)
    1.0
    >>> round(map_score("<map>{'chair': [[1, 2]], 'sofa': [[5, 6], [0, 0]]}</map>", truth), 6)
    0.5
    """
    inside = map_text(completion)
    true_points = clean_map(true_map)
    if inside is None or not true_points:
        return 0.0
    predicted = parse_map(inside, true_points)
    weighted = 0.0
    for category, truth in true_points.items():
        guesses = predicted.get(category, [])
        weighted += len(truth) * _matched_worth(guesses, truth) / max(len(guesses), len(truth))
    return min(1.0, weighted / sum(map(len, true_points.values())))


def clean_map(true_map: Mapping[str, Sequence[Sequence[float]]] | None) -> dict[str, list[Point]]:
    """The categories of a scene's map that have points, read as a prediction is; empty when there is no map.

    >>> clean_map({"chair": [[1.0, 2]], "sofa": []}), clean_map(None)
    ({'chair': [(1, 2)]}, {})
    """
    read = {category: _read_points(points) for category, points in (true_map or {}).items()}
    return {category: points for category, points in read.items() if points}


def _matched_worth(predicted: Sequence[Point], truth: Sequence[Point]) -> float:
    """Σ over greedily matched pairs of 1 - distance / (10·√2), by squared distances, which are exact integers.

    Pairs of no worth are left out, and equal points are matched together: predictions of worth lie on a few hundred
    cells, so thousands of points cost no more. Ties go by coordinates, so the order of writing does not matter.
    """
    free_predicted, free_true = Counter(predicted), Counter(truth)
    pairs = sorted(
        (squared, t, p)
        for p in free_predicted
        for t in free_true
        if (squared := (p[0] - t[0]) ** 2 + (p[1] - t[1]) ** 2) < _SQUARED_DIAGONAL
    )
    worth = 0.0
    for squared, t, p in pairs:
        count = min(free_predicted[p], free_true[t])
        worth += count * (1.0 - math.sqrt(squared / _SQUARED_DIAGONAL))
        free_predicted[p] -= count
        free_true[t] -= count
    return worth


def _plain(name: str) -> str:
    """A category name without case, surrounding punctuation and runs of white space."""
    return " ".join(name.strip(_AROUND_KEY).casefold().split())


def _read_dict(text: str) -> dict[object, object] | None:
    """The dict literal from the first "{" to the last "}" of the text, or None where it is damaged."""
    literal = text[text.find("{") : text.rfind("}") + 1]
    if not _is_shallow_literal(literal):
        return None
    try:
        value = ast.literal_eval(literal)
    except (ValueError, SyntaxError, TypeError):  # among them integers of too many digits and unhashable keys
        return None
    return value if isinstance(value, dict) else None


def _is_shallow_literal(text: str) -> bool:
    """Whether the text holds only numbers, strings, names of constants and brackets, at most `_MAX_DEPTH` deep.

    Deep syntax trees can exhaust the interpreter's stack, and brackets are not all that makes them: so do `1[0][0]`,
    `(1)(1)`, `1-1-1`. Hence a value or an opening bracket must stand first or after an opening bracket or a separator.
    """
    if not text or len(text) > MAX_MAP_CHARS:
        return False
    depth, position, may_start = 0, 0, True
    while token := _TOKEN.match(text, position):
        kind = token.lastgroup
        if kind in ("open", "value") and not may_start:
            return False
        depth += (kind == "open") - (kind == "close")
        if not 0 <= depth <= _MAX_DEPTH:
            return False
        may_start = kind in ("open", "separator")
        position = token.end()
    return position == len(text)


def _read_text(text: str, categories: Iterable[str]) -> dict[str, list[Point]]:
    """Category names found as whole words, and the numbers from each to the next, two by two."""
    spans = []
    for category in categories:
        if words := category.split():
            name = re.compile(r"(?<!\w)" + r"\s+".join(map(re.escape, words)) + r"(?!\w)", re.IGNORECASE)
            spans += [(found.start(), found.end(), category) for found in name.finditer(text)]
    taken = bytearray(len(text))
    names = []
    for start, end, category in sorted(spans, key=lambda span: (span[0] - span[1], span)):  # the longest wins
        if not any(taken[start:end]):
            taken[start:end] = b"\1" * (end - start)
            names.append((start, end, category))
    names.sort()
    points: dict[str, list[Point]] = {}
    for i, (_, start, category) in enumerate(names):
        numbers = _read_floats(text[start : names[i + 1][0] if i + 1 < len(names) else None])
        pairs = map(_read_point, zip(numbers[::2], numbers[1::2], strict=False))  # an odd last number is dropped
        if found_points := [point for point in pairs if point is not None]:
            points.setdefault(category, []).extend(found_points)
    return points


def _read_points(value: object) -> list[Point]:
    """The points of a category: a list of points, or one un-nested point."""
    if (point := _read_point(value)) is not None:
        return [point]
    if not isinstance(value, list | tuple):
        return []
    return [point for item in value if (point := _read_point(item)) is not None]


def _read_point(value: object) -> Point | None:
    """Two finite numbers, truncated, from a list, a tuple or a text such as "2, 6"; None for anything else."""
    if isinstance(value, str):
        value = _read_floats(value)
    if not isinstance(value, list | tuple) or len(value) != 2:
        return None
    x, y = map(_read_coordinate, value)
    return None if x is None or y is None else (x, y)


def _read_floats(text: str) -> list[float]:
    return [float(number.replace("\u2212", "-")) for number in _NUMBER.findall(text)]


def _read_coordinate(value: object) -> int | None:
    """A finite number without its decimals; a bool is no number, nor is an integer beyond the floats."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return int(value) if math.isfinite(value) else None
    except OverflowError:
        return None
