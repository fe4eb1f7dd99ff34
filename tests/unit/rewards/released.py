"""How SpaceR's released training code reads maps, numbers and formats, where ours does not, to compare ours with."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

Point = tuple[int, int]
DIAGONAL = 10 * math.sqrt(2)


def well_formed(completion: str) -> float:
    """A thought and an answer with anything in them, tags too; nothing may surround the two, not even a space."""
    return float(bool(re.fullmatch(r"(?s)<think>.*</think>\s*<answer>.*</answer>", completion)))


def regression_number(answer: str) -> float | None:
    """The whole answer, commas aside, is a number, or there is none."""
    try:
        return float(answer.replace(",", ""))
    except ValueError:
        return None


def read_map(text: str, categories: Iterable[str]) -> dict[str, list[Point]]:
    """The text of a map: a dict literal and nothing else around it, or else names and the numbers between them.

    Raises:
        OverflowError: a number is beyond the floats; the completion's answer then counts for nothing.
    """
    names, text = {name.lower(): name for name in categories}, text.strip()
    try:
        literal = ast.literal_eval(text) if text[:1] == "{" and text[-1:] == "}" else None
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        literal = None
    found: dict[str, list[Point]] = {}
    for name, points in _of_literal(literal) if isinstance(literal, dict) else _of_text(text, names):
        if name in names and points:
            found.setdefault(names[name], []).extend(points)
    return found


def _of_literal(literal: dict[Any, Any]) -> Iterable[tuple[str, list[Point]]]:
    for key, value in literal.items():
        label = str(key).lower().strip()
        word = re.fullmatch(r"[^\w\s]*([\w\s]+)[^\w\s]*", label)
        points = map(_point, value if isinstance(value, list) else [value])
        yield (word[1].strip() if word else label), [point for point in points if point]


def _point(value: Any) -> Point | None:
    """A pair, in one bracket more at most, or the first two numbers of a text."""
    if isinstance(value, str):
        value = re.findall(r"-?\d+(?:\.\d+)?", value)[:2]
    elif isinstance(value, list | tuple) and len(value) == 1:
        (value,) = value
    if not isinstance(value, list | tuple) or len(value) != 2:
        return None
    try:
        x, y = (int(float(item.strip().strip("<[(>])")) if isinstance(item, str) else item) for item in value)
    except (ValueError, TypeError):
        return None
    return x, y


def _of_text(text: str, names: Iterable[str]) -> Iterable[tuple[str, list[Point]]]:
    spans = [
        (match.start(), -match.end(), name)
        for name in names
        for match in re.finditer(rf"(?i)(?<![a-z]){re.escape(name)}(?![a-z])", text)
    ]
    kept: list[tuple[int, int, str]] = []
    for start, minus_end, name in sorted(spans):
        if not kept or start >= kept[-1][1]:
            kept.append((start, -minus_end, name))
        elif -minus_end > kept[-1][1]:
            kept[-1] = (start, -minus_end, name)
    for (_, end, name), following in zip(kept, [*(start for start, _, _ in kept[1:]), len(text)], strict=True):
        numbers = re.findall(r"-?\d+(?:\.\d+)?", text[end:following])
        yield name, [point for pair in zip(numbers[::2], numbers[1::2], strict=False) if (point := _point(pair))]


def matched_worth(predicted: Sequence[Point], truth: Sequence[Point]) -> float:
    """What the matched pairs are worth: the closest first, of those as close the one that is written first."""
    free = {(i, j): math.dist(p, t) for i, p in enumerate(predicted) for j, t in enumerate(truth)}
    total = 0.0
    while free:
        i, j = min(free, key=lambda pair: (free[pair], pair))
        total += max(0.0, 1 - free[i, j] / DIAGONAL)
        free = {(p, t): distance for (p, t), distance in free.items() if p != i and t != j}
    return total
