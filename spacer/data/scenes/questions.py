"""Generates the eight question types of VSI-Bench from a scene's annotation, without ambiguous cases.

Each `_pose_*` returns a random question of its type among those possible for the scene, or None if there is none. The
margins below define which cases are ambiguous.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from spacer.data.scenes.glances import COUNT
from spacer.data.scenes.lines import LETTERS, Question
from spacer.data.scenes.scene import Scene, SceneObject, bearing, box_distance

T = TypeVar("T")

MIN_STANDING = 0.6  # metres between two points for a viewing direction from one to the other
DISTANCE_MARGIN = 0.25  # metres by which the closest object must be closer than the next
ANGLE_MARGIN = 15.0  # degrees to the border between two directions
TIME_MARGIN = 0.5  # seconds between two first appearances
TURN_MARGIN = 15.0  # degrees to the border between two turns of a route


def pose(scene: Scene, rng: np.random.Generator) -> dict[str, Question]:
    """One unambiguous question of each type, if the scene has one."""
    posed = {kind: ask(scene, rng) for kind, ask in QUESTION_TYPES.items()}
    return {kind: question for kind, question in posed.items() if question is not None}


def _numerical(kind: str, about: tuple[str, ...], text: str, answer: str, reasoning: str) -> Question:
    return Question(kind, "numerical", text, (), answer, reasoning, about)


def _choice(
    kind: str,
    about: tuple[str, ...],
    text: str,
    right: str,
    wrong: Sequence[str],
    reasoning: str,
    rng: np.random.Generator,
) -> Question:
    options = [right, *wrong]
    shuffled = tuple(options[i] for i in rng.permutation(len(options)))
    letter = LETTERS[shuffled.index(right)]
    return Question(kind, "multiple choice", text, shuffled, letter, reasoning, about)


def _pick(items: Sequence[T], rng: np.random.Generator) -> T | None:
    return items[int(rng.integers(len(items)))] if items else None


def _cell(scene: Scene, item: SceneObject) -> str:
    x, y = scene.cell(item.place)
    return f"{item.category} [{x},{y}]"


def _pose_counting(scene: Scene, rng: np.random.Generator) -> Question | None:
    categories = scene.categories()
    several = [c for c in categories if len(scene.of_category(c)) > 1]
    # single objects are asked about too, but rarely, or "1" would be the most common answer
    category = _pick(several if several and rng.random() < 0.8 else categories, rng)
    if category is None:
        return None
    count = len(scene.of_category(category))
    text = COUNT.format(category)
    return _numerical("object_counting", (category,), text, str(count), f"{category}: {count} on the map.")


def _pose_abs_distance(scene: Scene, rng: np.random.Generator) -> Question | None:
    pairs = [
        (a, b) for a, b in itertools.combinations(scene.unique_objects(), 2) if box_distance(a, b) >= DISTANCE_MARGIN
    ]
    pair = _pick(pairs, rng)
    if pair is None:
        return None
    a, b = pair
    metres = f"{box_distance(a, b):.1f}"
    text = f"How many meters lie between the {a.category} and the {b.category}, from closest point to closest point?"
    reasoning = f"{_cell(scene, a)} to {_cell(scene, b)}: {metres} m."
    return _numerical("object_abs_distance", (a.category, b.category), text, metres, reasoning)


def _pose_object_size(scene: Scene, rng: np.random.Generator) -> Question | None:
    item = _pick(scene.unique_objects(), rng)
    if item is None:
        return None
    centimetres = str(round(100 * max(item.size)))
    text = f"How long is the longest side of the {item.category}, in centimeters?"
    return _numerical(
        "object_size_estimation", (item.category,), text, centimetres, f"{item.category}: {centimetres} cm."
    )


def _pose_room_size(scene: Scene, rng: np.random.Generator) -> Question | None:
    area = f"{scene.area:.1f}"
    text = "How large is the floor of the room, in square meters?"
    return _numerical("room_size_estimation", (), text, area, f"The floor: {area} square meters.")


def _pose_rel_distance(scene: Scene, rng: np.random.Generator) -> Question | None:
    unique = scene.unique_objects()
    sharp = []
    for anchor in unique:
        others = sorted((box_distance(anchor, other), other.category) for other in unique if other is not anchor)
        for wanted in (4, 3):
            for group in itertools.combinations(others, wanted):
                if group[1][0] - group[0][0] >= DISTANCE_MARGIN:
                    sharp.append((anchor, group))
            if sharp:
                break
    found = _pick(sharp, rng)
    if found is None:
        return None
    anchor, group = found
    names = [name for _, name in group]
    text = f"Which of these objects is closest to the {anchor.category}?"
    cells = ", ".join(_cell(scene, scene.of_category(name)[0]) for name in sorted(names))
    reasoning = f"From {_cell(scene, anchor)}: {cells}. The {names[0]} is closest."
    return _choice("object_rel_distance", (anchor.category,), text, names[0], names[1:], reasoning, rng)


# difficulty → direction → the bearing of its middle, in degrees to the left of the viewing direction
_DIRECTIONS = {
    "easy": {"left": 90.0, "right": -90.0},
    "medium": {"left": 90.0, "right": -90.0, "back": 180.0},
    "hard": {"front-left": 45.0, "front-right": -45.0, "back-left": 135.0, "back-right": -135.0},
}
# half-width of each direction: "left" spans 0 (straight ahead) to 180 degrees in the easy form, and 45 to 135 degrees
# in the medium one, as in VSI-Bench
_HALF_WIDTH = {"easy": 90.0, "medium": 45.0, "hard": 45.0}


def direction(angle: float, level: str, margin: float = ANGLE_MARGIN) -> str | None:
    """The name of a bearing at a level (easy, medium, hard), or None within `margin` degrees of a border."""
    for name, middle in _DIRECTIONS[level].items():
        if _apart(angle, middle) <= _HALF_WIDTH[level] - margin:
            return name
    return None


def nearest_direction(angle: float, level: str) -> str:
    """The name at a level whose middle is nearest to a bearing; the first of two as near."""
    return min(_DIRECTIONS[level], key=lambda name: _apart(angle, _DIRECTIONS[level][name]))


def nearest_turn(angle: float) -> str:
    """The name of the turn whose middle is nearest to a turn by `angle` degrees; the first of two as near."""
    return min(_TURNS, key=lambda name: _apart(angle, _TURNS[name]))


def _apart(one: float, other: float) -> float:
    """Degrees between two angles, at most 180."""
    return abs((one - other + 180) % 360 - 180)


def _far_enough(*items: SceneObject) -> bool:
    return all(math.dist(a.place, b.place) >= MIN_STANDING for a, b in itertools.combinations(items, 2))


def _direction_poser(level: str) -> Callable[[Scene, np.random.Generator], Question | None]:
    def ask(scene: Scene, rng: np.random.Generator) -> Question | None:
        cases: dict[str, list[tuple[SceneObject, SceneObject, SceneObject]]] = {}
        for trio in itertools.permutations(scene.unique_objects(), 3):
            name = direction(bearing(trio[0].place, trio[1].place, trio[2].place), level)
            if name is not None and _far_enough(*trio):
                cases.setdefault(name, []).append(trio)
        right = _pick(sorted(cases), rng)
        case = _pick(cases[right], rng) if right is not None else None
        if right is None or case is None:
            return None
        a, b, c = case
        text = f"Standing at the {a.category} and facing the {b.category}, where is the {c.category}?"
        reasoning = f"At {_cell(scene, a)} facing {_cell(scene, b)}, {_cell(scene, c)} is {right}."
        wrong = [name for name in _DIRECTIONS[level] if name != right]
        about = a.category, b.category, c.category
        return _choice(f"object_rel_direction_{level}", about, text, right, wrong, reasoning, rng)

    return ask


def _pose_appearance_order(scene: Scene, rng: np.random.Generator) -> Question | None:
    first: dict[str, float] = {}
    for category in scene.categories():
        times = [item.first_seen for item in scene.of_category(category) if item.first_seen is not None]
        if times:
            first[category] = min(times)
    for wanted in (4, 3):
        groups = []
        for group in itertools.combinations(sorted(first, key=lambda name: first[name]), wanted):
            gaps = [first[b] - first[a] for a, b in itertools.pairwise(group)]
            if min(gaps) >= TIME_MARGIN:
                groups.append(group)
        order = _pick(groups, rng)
        if order is None:
            continue
        others = [p for p in itertools.permutations(order) if p != order]
        wrong = [", ".join(others[i]) for i in rng.choice(len(others), size=3, replace=False)]
        names = tuple(str(name) for name in rng.permutation(order))
        text = f"In which order do these first appear in the video: {', '.join(names)}?"
        right = ", ".join(order)
        return _choice("obj_appearance_order", names, text, right, wrong, f"First {', then '.join(order)}.", rng)
    return None


_TURNS = {"turn left": 90.0, "turn right": -90.0, "turn back": 180.0}


def turn(angle: float) -> str | None:
    """The name of a turn by `angle` degrees, or None if it is not clearly left, right or back."""
    for name, middle in _TURNS.items():
        if _apart(angle, middle) <= 45 - TURN_MARGIN:
            return name
    return None


def _pose_route(scene: Scene, rng: np.random.Generator) -> Question | None:
    unique = scene.unique_objects()
    turns: dict[tuple[int, int, int], str] = {}  # on arriving at b from a, towards c
    for a, b, c in itertools.permutations(range(len(unique)), 3):
        way = unique[a], unique[b], unique[c]
        name = turn(_turn_at(*way))
        if name is not None and _far_enough(*way):
            turns[a, b, c] = name
    routes = [
        (unique[a], unique[b], unique[c], unique[d], f"{first}, then {turns[b, c, d]}")
        for (a, b, c), first in turns.items()
        for d in range(len(unique))
        if d != a and (b, c, d) in turns and _far_enough(unique[a], unique[d])
    ]
    found = _pick(routes, rng)
    if found is None:
        return None
    *stops, right = found
    start, first, second, last = (item.category for item in stops)
    text = (
        f"You stand at the {start} facing the {first}. You go to the {first}, turn, go to the {second}, "
        f"turn again and go to the {last}. Which turns do you take?"
    )
    pairs = [f"{one}, then {two}" for one, two in itertools.product(_TURNS, _TURNS)]
    others = [pair for pair in pairs if pair != right]
    wrong = [others[i] for i in rng.choice(len(others), size=3, replace=False)]
    cells = ", ".join(_cell(scene, item) for item in stops)
    about = start, first, second, last
    return _choice("route_planning", about, text, right, wrong, f"{cells}: {right}.", rng)


def _turn_at(before: SceneObject, here: SceneObject, after: SceneObject) -> float:
    """The turn in degrees to the left at `here`, coming from `before`, to face `after`."""
    ahead = (2 * here.place[0] - before.place[0], 2 * here.place[1] - before.place[1])
    return bearing(here.place, ahead, after.place)


QUESTION_TYPES: dict[str, Callable[[Scene, np.random.Generator], Question | None]] = {
    "object_counting": _pose_counting,
    "object_abs_distance": _pose_abs_distance,
    "object_size_estimation": _pose_object_size,
    "room_size_estimation": _pose_room_size,
    "object_rel_distance": _pose_rel_distance,
    "object_rel_direction_easy": _direction_poser("easy"),
    "object_rel_direction_medium": _direction_poser("medium"),
    "object_rel_direction_hard": _direction_poser("hard"),
    "obj_appearance_order": _pose_appearance_order,
    "route_planning": _pose_route,
}
