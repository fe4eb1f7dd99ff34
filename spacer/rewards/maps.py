"""The map reward: the agreement of the cognitive map in a completion with the scene's map.

A cognitive map lists each category of a scene with the centres of its objects on a 10 x 10 grid, x and y in 0…9.
A model's map is parsed leniently and never executed: with `ast.literal_eval`, if it is a shallow plain literal.
"""

from __future__ import annotations

import ast
import math
import re
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence

from spacer.rewards.extract import map_text
from spacer.rewards.matching import SEARCH, Point, matched_worth

# A map of this length has some 1,300 points, more than fit in 1,024 tokens, and is parsed in about 10 ms.
MAX_MAP_CHARS = 8_192

_MAX_DEPTH = 6  # a valid map needs three levels: dict, list of a category, point
_AROUND_KEY = string.punctuation + string.whitespace + "\u2018\u2019\u201c\u201d\u00ab\u00bb\u2026"

_GROUP = re.compile(r"[\[({]([^\[\](){}]*+)[\])}]")  # innermost brackets
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
    """Parse a map: the first `<map>…</map>` of a text, or the whole text if it has none (published rule, corrected).

    It is parsed as a dict literal; if that is malformed, as category names followed by numbers. Only the given
    categories are read, also if the map is nested under another key or is a list of objects with names. A point is two
    finite numbers, truncated: a list, a tuple, `{"x": 1, "y": 2}` or text. One text may contain several points, a bare
    pair is one point, and extra brackets are ignored; anything else is dropped. If a map is longer than `MAX_MAP_CHARS`
    characters, the beginning is parsed as text.

    >>> parse_map("<map>{'Chair': [[1, 2], [3.7, 4]], 'sofa': [5, 6], 'lamp': [[0, 0]]}</map>", ["chair", "sofa"])
    {'chair': [(1, 2), (3, 4)], 'sofa': [(5, 6)]}
    >>> parse_map("{'map': {'chair': '[1, 2], [3, 4]', 'sofa': [[['5', '6']]]}}", ["chair", "sofa"])
    {'chair': [(1, 2), (3, 4)], 'sofa': [(5, 6)]}
    >>> parse_map("{'chair': [[1, 2], [3, 4], 'sofa'", ["chair", "sofa"])
    {'chair': [(1, 2), (3, 4)]}
    """
    inside = map_text(completion_or_text)
    text = completion_or_text if inside is None else inside
    names = {_normalized(category): category for category in categories}
    literal = _read_dict(text)
    if literal is None:
        return _read_text(text[:MAX_MAP_CHARS], names.values())
    points: dict[str, list[Point]] = {}
    for name, value in _named(literal, names):
        if found := _read_points(value):
            points.setdefault(name, []).extend(found)
    return points


def written_map(completion: str, categories: Iterable[str] = ()) -> dict[str, list[Point]]:
    """The map in a completion, with the given categories and, if it is a valid literal, all others that it names.

    For display: scores only count the scene's own categories (`parse_map`). Empty if there is no map.

    >>> written_map("<map>{'chair': [[1, 2]], 'unicorn': [[3, 4]]}</map>", ["chair"])
    {'chair': [(1, 2)], 'unicorn': [(3, 4)]}
    """
    inside = map_text(completion)
    if inside is None:
        return {}
    literal = _read_dict(inside) or {}
    while len(literal) == 1 and isinstance(only := next(iter(literal.values())), dict) and _xy(only) is None:
        literal = only  # a map nested under another key
    named = [key for key in literal if isinstance(key, str)]
    return parse_map(inside, [*named, *categories])


def map_score(completion: str, true_map: Mapping[str, Sequence[Sequence[float]]]) -> float:
    """Score the map of a completion against the scene's, in [0, 1] (paper's map reward, as released).

    Score = Σ over categories of n_c · acc_c / Σ n_c, where n_c counts the true points, and acc_c = Σ over matched pairs
    of max(0, 1 - distance / (10·√2)) / max(predicted points, n_c). Pairs are matched greedily, closest first, with ties
    broken in favour of the best total (`spacer.rewards.matching`). Missing and extra objects both lower the score.
    Without a map, or for a scene without points, the score is 0.

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
    total = sum(map(len, true_points.values()))
    weighted = 0.0
    for category, truth in true_points.items():
        guesses = predicted.get(category, [])
        worth = matched_worth(guesses, truth, SEARCH * len(truth) // total)
        weighted += len(truth) * worth / max(len(guesses), len(truth))
    return min(1.0, weighted / total)


def clean_map(true_map: Mapping[str, Sequence[Sequence[float]]] | None) -> dict[str, list[Point]]:
    """The categories of a scene's map that have points, parsed like a prediction; empty if there is no map.

    >>> clean_map({"chair": [[1.0, 2]], "sofa": []}), clean_map(None)
    ({'chair': [(1, 2)]}, {})
    """
    read = {category: _read_points(points) for category, points in (true_map or {}).items()}
    return {category: points for category, points in read.items() if points}


def _normalized(name: str) -> str:
    """A category name in lower case, without surrounding punctuation, and with white space collapsed."""
    return " ".join(name.strip(_AROUND_KEY).casefold().split())


def _read_dict(text: str) -> dict[object, object] | None:
    """The dict literal from the first "{" to the last "}" of the text, or None if it is malformed."""
    literal = text[text.find("{") : text.rfind("}") + 1]
    if not _is_shallow_literal(literal):
        return None
    try:
        value = ast.literal_eval(literal)
    except (ValueError, SyntaxError, TypeError):  # including integers with too many digits and unhashable keys
        return None
    return value if isinstance(value, dict) else None


def _is_shallow_literal(text: str) -> bool:
    """Whether the text has only numbers, strings, names of constants and brackets, at most `_MAX_DEPTH` deep.

    Deep syntax trees can exhaust the interpreter's stack, and not only through brackets, but also through `1[0][0]`,
    `(1)(1)`, `1-1-1`. Hence a value or an opening bracket must come first, or after an opening bracket or a separator.
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
    """Parses category names, as whole words, and the numbers between each and the next, in pairs."""
    spans = []
    for category in categories:
        if words := category.split():
            name = re.compile(r"(?<!\w)" + r"\s+".join(map(re.escape, words)) + r"(?!\w)", re.IGNORECASE)
            spans += [(found.start(), found.end(), category) for found in name.finditer(text)]
    taken = bytearray(len(text))
    names = []
    for start, end, category in sorted(spans, key=lambda span: (span[0] - span[1], span)):  # the longest match wins
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


def _named(value: object, names: Mapping[str, str]) -> Iterator[tuple[str, object]]:
    """The categories in a literal, each with its value."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from _named(item, names)
    if not isinstance(value, dict):
        return
    keyed = [(name, value[key]) for key in value if isinstance(key, str) and (name := names.get(_normalized(key)))]
    labels = [key for key, item in value.items() if isinstance(item, str) and _normalized(item) in names]
    if keyed:
        yield from keyed
    elif len(labels) == 1:  # {"name": "chair", "position": [1, 2]}
        yield names[_normalized(value[labels[0]])], {key: item for key, item in value.items() if key != labels[0]}
    else:  # {"map": {"chair": [[1, 2]]}}
        yield from _named(list(value.values()), names)


def _read_points(value: object) -> list[Point]:
    """The points of a category: those that `_nested_points` finds, or a flat list of numbers in pairs."""
    if isinstance(value, list | tuple) and len(value) % 2 == 0:
        numbers = [_read_coordinate(item) for item in value]
        whole = [number for number in numbers if number is not None]
        if len(whole) == len(numbers):
            return list(zip(whole[::2], whole[1::2], strict=True))
    return _nested_points(value)


def _nested_points(value: object) -> list[Point]:
    """A point, or those in a list, a text or a dict, at any depth."""
    if (point := _read_point(value)) is not None:
        return [point]
    if isinstance(value, str):
        return _points_of_text(value)
    items = list(value.values()) if isinstance(value, dict) else value
    return [point for item in items for point in _nested_points(item)] if isinstance(items, list | tuple) else []


def _read_point(value: object) -> Point | None:
    """Two finite numbers, truncated, from a list, a tuple, the keys x and y, or a text such as "2, 6"; else None."""
    if isinstance(value, dict):
        value = _xy(value)
    elif isinstance(value, str):
        value = _read_floats(value)
    if not isinstance(value, list | tuple) or len(value) != 2:
        return None
    x, y = map(_read_coordinate, value)
    return None if x is None or y is None else (x, y)


def _xy(value: Mapping[object, object]) -> tuple[object, object] | None:
    """The values of the keys x and y."""
    plain = {_normalized(key): item for key, item in value.items() if isinstance(key, str)}
    return (plain["x"], plain["y"]) if {"x", "y"} <= plain.keys() else None


def _points_of_text(text: str) -> list[Point]:
    """The points in brackets, each of two numbers; without brackets, the numbers in pairs."""
    groups = [_read_floats(group) for group in _GROUP.findall(text)]
    if not groups:
        numbers = _read_floats(text)
        if len(numbers) % 2:
            return []
        groups = [numbers[i : i + 2] for i in range(0, len(numbers), 2)]
    return [point for group in groups if (point := _read_point(group)) is not None]


def _read_floats(text: str) -> list[float]:
    return [float(number.replace("\u2212", "-")) for number in _NUMBER.findall(text)]


def _read_coordinate(value: object) -> int | None:
    """A finite number without its decimals, also one that is written as text; a bool is no number, nor is an integer
    beyond the floats."""
    if isinstance(value, str):
        numbers = _read_floats(value)
        value = numbers[0] if len(numbers) == 1 else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return int(value) if math.isfinite(value) else None
    except OverflowError:
        return None
