"""Reasoning from a cognitive map to an answer in steps that a model of a few million parameters can learn (pure).

A map to reason from ends with the objects in question, in the order of their roles (`Question.drawn_last`). Each step
looks up what is already written: the difference of two cells, its heading, a letter from a (along x) to x, 15 degrees
counter-clockwise each, or its length in cells. From each heading the one before is subtracted, in whole eighths of a
turn to the left (`=0` and `=1` together are a quarter). Then the options are gone through as far as what has been
concluded; lengths are marked wherever one is the shortest so far, and an order is left where its frames go back:

    {"bed":[[1,1]],"sofa":[[3,7]],"lamp":[[0,2]]}   +2+6f -1+1j=1 left. A right, B left!
    {"bed":[[1,1]],"sofa":[[3,7]],"lamp":[[0,2]]}   A+2+6 6.3! B-1+1 1.4!
    {"bed":[[1,1]],"sofa":[[3,7]],"lamp":[[0,2]]}   bed4 sofa7 lamp2. A bed4 sofa7 lamp2, B lamp2 bed4 sofa7!
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from spacer.data.scenes.lines import LETTERS, Question
from spacer.data.scenes.questions import nearest_direction, nearest_turn
from spacer.data.scenes.scene import Scene

HEADINGS = "abcdefghijklmnopqrstuvwx"  # 15 degrees each
EIGHTH = len(HEADINGS) // 8  # of a turn: the borders of all directions that questions name are multiples of it
PRACTISED = 4  # ways in an exercise
HEADINGS_PRACTISED = 24
THROUGH_OPTIONS = "object_rel_distance", "obj_appearance_order"  # their steps are about one option after another
FRAMES = 2.0  # a second: the unit in which first appearances are written

Cell = tuple[int, int]


@dataclass(frozen=True)
class Steps:
    """Reasoning in steps.

    `seen` is the part that no map shows, only the video; it comes before `text`. `conclusion` is the content of the
    answer that the text leads to; None if it leads to none, since distances are equal, or if only the video tells.
    """

    seen: str
    text: str
    conclusion: str | None

    def whole(self) -> str:
        """What is seen, and the reasoning."""
        return " ".join(part for part in (self.seen, self.text) if part)


def steps(question: Question, scene: Scene) -> Steps:
    """The steps to the right answer of a question about a scene.

    The text names the right answer even where the coarse map suggests another, which `conclusion` then is.
    """
    kind, about, right = question.question_type, question.drawn_last(), question.content()
    cells = {name: scene.cell(scene.of_category(name)[0].place) for name in about}
    if kind == "object_counting":
        return Steps("", f"{right} on the map.", right)
    if kind == "object_abs_distance":
        start, end = about
        way = _difference(start, end, cells)
        return Steps("", f"{_leg(way)} {_length(way)}: {right} m.", right)
    if kind == "object_rel_distance":
        return _closest(about, cells)
    if kind.startswith("object_rel_direction"):
        return _direction(about, cells, kind.rsplit("_", 1)[1], right)
    if kind == "route_planning":
        return _route(about, cells, right)
    if kind == "obj_appearance_order":
        frames = {name: _frame(scene, name) for name in about}
        return Steps(f"{_at(about, frames)}.", _orders(question, frames), right)
    return Steps(question.reasoning, "", None)


def ways(scene: Scene, rng: np.random.Generator) -> Question:
    """Practice for all steps but the last: lengths of the ways from an object to others, or headings and turns of many
    ways, which all start at one object or each where the one before ends."""
    names = [item.category for item in scene.unique_objects()]
    cells = {name: scene.cell(scene.of_category(name)[0].place) for name in names}
    form = rng.integers(4)
    if form == 0:
        start, *ends = [names[i] for i in rng.permutation(len(names))[:5]]
        text, written = "How far", _lengths(start, ends, cells)
    else:
        start, *ends = _walk(names, fan=form == 1, rng=rng)
        starts = [start] * len(ends) if form == 1 else [start, *ends]
        legs = [_difference(*way, cells) for way in zip(starts, ends, strict=False)]
        text, written = "Which way" if form == 1 else "Which way in turn", _turned(legs)
    named = f"{text}? From the {start}: {', '.join(ends)}."
    return Question("ways", "free-form", named, (), "done", written, tuple(dict.fromkeys((start, *ends))))


def turns(rng: np.random.Generator) -> Question:
    """Practice for the turns from each heading to the next alone, of headings that nothing leads to."""
    headings = rng.integers(len(HEADINGS), size=HEADINGS_PRACTISED).tolist()
    written = " ".join(map("".join, zip((HEADINGS[n] for n in headings), _eighths_told(headings), strict=True)))
    return Question("turns", "free-form", "Turns?", (), "done", written)


def _walk(names: Sequence[str], fan: bool, rng: np.random.Generator) -> list[str]:
    """Random names of which neighbours differ, or with `fan` all others from the first."""
    walk = [names[int(rng.integers(len(names)))]]
    while len(walk) <= PRACTISED:
        away = [name for name in names if name != walk[0 if fan else -1]]
        walk.append(away[int(rng.integers(len(away)))])
    return walk


def in_steps(question: Question, scene: Scene) -> Question:
    """The question with its reasoning in steps, through its options."""
    return through_options(replace(question, reasoning=steps(question, scene).whole()))


def through_options(question: Question) -> Question:
    """The question with its options after its reasoning, up to the right one, which is marked; distances and orders,
    whose steps go through them already, are left as they are.

    >>> question = Question("object_rel_direction_easy", "multiple choice", "", ("right", "left"), "B", "+2+6f left.")
    >>> through_options(question).reasoning
    '+2+6f left. A right, B left!'
    """
    if not question.options or question.question_type in THROUGH_OPTIONS:
        return question
    passed = [f"{option}," for option in question.options[: LETTERS.index(question.answer)]]
    found = zip(LETTERS, [*passed, f"{question.content()}!"], strict=False)
    return replace(question, reasoning=" ".join([question.reasoning, *(" ".join(option) for option in found)]))


def contradicted(question: Question, scene: Scene) -> bool:
    """Whether the right option is not the one that the steps lead to, since the map is coarse."""
    return bool(question.options) and steps(question, scene).conclusion != question.content()


def _leg(difference: Cell) -> str:
    return "{:+d}{:+d}".format(*difference)


def _difference(start: str, end: str, cells: dict[str, Cell]) -> Cell:
    return cells[end][0] - cells[start][0], cells[end][1] - cells[start][1]


def _length(difference: Cell) -> str:
    return f"{math.hypot(*difference):.1f}"


def _towards(dx: int, dy: int) -> int:
    """The heading in steps of 15 degrees, counter-clockwise from the x axis; 0 for two objects in one cell."""
    return round(math.degrees(math.atan2(dy, dx)) / 15) % len(HEADINGS)


def _closest(about: tuple[str, ...], cells: dict[str, Cell]) -> Steps:
    anchor, *others = about
    lengths = {other: float(_length(_difference(anchor, other, cells))) for other in others}
    first, second = sorted(others, key=lambda other: lengths[other])[:2]
    return Steps("", _lengths(anchor, others, cells), None if lengths[first] == lengths[second] else first)


def _lengths(start: str, ends: Sequence[str], cells: dict[str, Cell]) -> str:
    """The ways to lettered ends with their lengths, marked where one is the shortest so far."""
    written, shortest = [], math.inf
    for letter, end in zip(LETTERS, ends, strict=False):
        way = _difference(start, end, cells)
        length = _length(way)
        written.append(f"{letter}{_leg(way)} {length}{'!' if float(length) < shortest else ','}")
        shortest = min(shortest, float(length))
    return " ".join(written)


def _direction(about: tuple[str, ...], cells: dict[str, Cell], level: str, right: str) -> Steps:
    here, facing, target = about
    legs = [_difference(here, facing, cells), _difference(here, target, cells)]
    (turned,) = _turns(legs)
    return Steps("", f"{_turned(legs)} {right}.", nearest_direction(turned, level))


def _route(about: tuple[str, ...], cells: dict[str, Cell], right: str) -> Steps:
    legs = [_difference(start, end, cells) for start, end in itertools.pairwise(about)]
    conclusion = ", then ".join(nearest_turn(turn) for turn in _turns(legs))
    return Steps("", f"{_turned(legs)} {right}.", conclusion)


def _turns(legs: Sequence[Cell]) -> list[float]:
    """The turn from each way to the next in degrees, at the middle of its eighth."""
    return [45.0 * eighths + 22.5 for eighths in _eighths([_towards(*leg) for leg in legs])]


def _eighths(headings: Sequence[int]) -> list[int]:
    return [(after - before) % len(HEADINGS) // EIGHTH for before, after in itertools.pairwise(headings)]


def _eighths_told(headings: Sequence[int]) -> list[str]:
    """What is written behind each heading: the turn to it, but for the first."""
    return ["", *(f"={eighths}" for eighths in _eighths(headings))]


def _turned(legs: Sequence[Cell]) -> str:
    """Ways with their headings, and the turn to each from the one before.

    >>> _turned([(2, 6), (-1, 1), (-3, 0)])
    '+2+6f -1+1j=1 -3+0m=1'
    """
    headings = [_towards(*leg) for leg in legs]
    written = (f"{_leg(leg)}{HEADINGS[heading]}" for leg, heading in zip(legs, headings, strict=True))
    return " ".join(map("".join, zip(written, _eighths_told(headings), strict=True)))


def _orders(question: Question, frames: dict[str, int]) -> str:
    """The options up to the right one, each as far as its frames go forward."""
    written = []
    for letter, option in zip(LETTERS, question.options[: LETTERS.index(question.answer) + 1], strict=False):
        names = option.split(", ")
        back = next((n for n in range(1, len(names)) if frames[names[n]] < frames[names[n - 1]]), None)
        told = _at(names if back is None else names[: back + 1], frames)
        written.append(f"{letter} {told}{',' if back else '!'}")
    return " ".join(written)


def _at(names: Sequence[str], frames: dict[str, int]) -> str:
    return " ".join(f"{name}{frames[name]}" for name in names)


def _frame(scene: Scene, category: str) -> int:
    """The first frame, at two a second, in which an object of the category is seen."""
    seen = [item.first_seen for item in scene.of_category(category) if item.first_seen is not None]
    return math.ceil(min(seen) * FRAMES)
