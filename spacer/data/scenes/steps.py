"""Reasoning from a cognitive map to an answer in steps that a model of a few million parameters can learn (pure).

A map to reason from ends with the objects in question, in the order of their roles (`Question.drawn_last`). Each step
looks up what is already written, at a fixed distance where possible: the difference of two cells, its heading, a letter
from a (along x) to x, 15 degrees counter-clockwise each, or its length in cells. Headings are subtracted (`=g` is a
quarter turn to the left), lengths compared:

    {"bed":[[1,1]],"sofa":[[3,7]],"lamp":[[0,2]]}   +2+6e -1+1j=f left.
    {"bed":[[1,1]],"sofa":[[3,7]],"lamp":[[0,2]]}   A+2+6 6.3 B-1+1 1.4.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np

from spacer.data.scenes.lines import LETTERS, Question
from spacer.data.scenes.questions import nearest_direction, nearest_turn
from spacer.data.scenes.scene import Scene

HEADINGS = "abcdefghijklmnopqrstuvwx"  # 15 degrees each
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
        return Steps("", f"{_leg(start, end, cells)} {_length(start, end, cells)}: {right} m.", right)
    if kind == "object_rel_distance":
        return _closest(about, cells)
    if kind.startswith("object_rel_direction"):
        return _direction(about, cells, kind.rsplit("_", 1)[1], right)
    if kind == "route_planning":
        return _route(about, cells, right)
    if kind == "obj_appearance_order":
        seen = " ".join(f"{name}{_frame(scene, name)}" for name in about)
        return Steps(f"{seen}.", f"First {right}.", right)
    return Steps(question.reasoning, "", None)


def ways(scene: Scene, rng: np.random.Generator) -> Question:
    """Practice for all steps but the last: headings and lengths of the ways from an object to up to four others, and
    the turns from each way to the next."""
    names = [item.category for item in scene.unique_objects()]
    cells = {name: scene.cell(scene.of_category(name)[0].place) for name in names}
    start, *ends = [names[i] for i in rng.permutation(len(names))[:5]]
    headings = [_heading(start, end, cells) for end in ends]
    turned = ["", *(f"={HEADINGS[turn]}" for turn in _turns(headings))]
    written = " ".join(
        f"{_leg(start, end, cells)}{HEADINGS[heading]}{turn} {_length(start, end, cells)}"
        for end, heading, turn in zip(ends, headings, turned, strict=True)
    )
    text = f"From the {start}: {', '.join(ends)}."
    return Question("ways", "free-form", text, (), "done", written, (start, *ends))


def turns(rng: np.random.Generator) -> Question:
    """Practice for the turns of two or three ways in a row, anywhere."""
    legs = rng.integers(-9, 10, (rng.integers(2, 4), 2)).tolist()
    written = _turned([_towards(dx, dy) for dx, dy in legs], [f"{dx:+d}{dy:+d}" for dx, dy in legs])
    return Question("turns", "free-form", "Turns.", (), "done", written)


def in_steps(question: Question, scene: Scene) -> Question:
    """The question with its reasoning in steps."""
    return replace(question, reasoning=steps(question, scene).whole())


def _leg(start: str, end: str, cells: dict[str, Cell]) -> str:
    dx, dy = _difference(start, end, cells)
    return f"{dx:+d}{dy:+d}"


def _difference(start: str, end: str, cells: dict[str, Cell]) -> Cell:
    return cells[end][0] - cells[start][0], cells[end][1] - cells[start][1]


def _length(start: str, end: str, cells: dict[str, Cell]) -> str:
    return f"{math.hypot(*_difference(start, end, cells)):.1f}"


def _heading(start: str, end: str, cells: dict[str, Cell]) -> int:
    return _towards(*_difference(start, end, cells))


def _towards(dx: int, dy: int) -> int:
    """The heading in steps of 15 degrees, counter-clockwise from the x axis; 0 for two objects in one cell."""
    return round(math.degrees(math.atan2(dy, dx)) / 15) % len(HEADINGS)


def _closest(about: tuple[str, ...], cells: dict[str, Cell]) -> Steps:
    anchor, *others = about
    legs = " ".join(
        f"{letter}{_leg(anchor, other, cells)} {_length(anchor, other, cells)}"
        for letter, other in zip(LETTERS, others, strict=False)
    )
    first, second = sorted(others, key=lambda other: float(_length(anchor, other, cells)))[:2]
    tied = _length(anchor, first, cells) == _length(anchor, second, cells)
    return Steps("", f"{legs}.", None if tied else first)


def _direction(about: tuple[str, ...], cells: dict[str, Cell], level: str, right: str) -> Steps:
    here, facing, target = about
    legs = [(here, facing), (here, target)]
    headings = [_heading(start, end, cells) for start, end in legs]
    (turned,) = _turns(headings)
    text = f"{_turned(headings, [_leg(*leg, cells) for leg in legs])} {right}."
    return Steps("", text, nearest_direction(15.0 * turned, level))


def _route(about: tuple[str, ...], cells: dict[str, Cell], right: str) -> Steps:
    legs = list(itertools.pairwise(about))
    headings = [_heading(start, end, cells) for start, end in legs]
    conclusion = ", then ".join(nearest_turn(15.0 * turn) for turn in _turns(headings))
    return Steps("", f"{_turned(headings, [_leg(*leg, cells) for leg in legs])} {right}.", conclusion)


def _turns(headings: list[int]) -> list[int]:
    return [(after - before) % len(HEADINGS) for before, after in itertools.pairwise(headings)]


def _turned(headings: list[int], legs: list[str]) -> str:
    """Ways with their headings, and the turn from each to the next.

    >>> _turned([4, 9], ["+2+6", "-1+1"])
    '+2+6e -1+1j=f'
    """
    ways = " ".join(f"{leg}{HEADINGS[heading]}" for leg, heading in zip(legs, headings, strict=True))
    return ways + "".join(f"={HEADINGS[turn]}" for turn in _turns(headings))


def _frame(scene: Scene, category: str) -> int:
    """The first frame, at two a second, in which an object of the category is seen."""
    seen = [item.first_seen for item in scene.of_category(category) if item.first_seen is not None]
    return math.ceil(min(seen) * FRAMES)
