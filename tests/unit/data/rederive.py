"""Every answer of a curated line derived a second time, from the annotation file and the line's own words alone.

Nothing of the package is used. Distances are those of points sampled on one oriented box and clamped into the other in
three dimensions, directions are signs of cross and dot products, routes are walked with vectors.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

CLEARLY_CLOSER = 0.25  # metres
CLEARLY_LATER = 0.5  # seconds
APART = 0.6  # metres
TO_BORDER = 15.0  # degrees
UPRIGHT = 10.0  # degrees
SLACK = 1e-6  # of rounding

Entry = dict[str, Any]
Line = dict[str, Any]
GRID = np.array(
    [point for point in itertools.product(np.linspace(-0.5, 0.5, 5), repeat=3) if max(map(abs, point)) == 0.5]
)


def sine(degrees: float) -> float:
    return math.sin(math.radians(degrees)) - SLACK


def trusted(entry: Entry, category: str) -> list[dict[str, Any]]:
    """The boxes of a category that may be asked about at all."""
    boxes = entry["object_bbox"][category]
    assert len(boxes) == entry["object_counts"][category] > 0, f"miscounted: {category}"
    assert all(box.get("first_seen", 0) is not None for box in boxes), f"never seen: {category}"
    return boxes


def only(entry: Entry, category: str) -> dict[str, Any]:
    (box,) = trusted(entry, category)
    return box


def of_extent(entry: Entry, category: str) -> dict[str, Any]:
    """The one box of a category, which must stand upright for its extent to be known."""
    box = only(entry, category)
    heights = [abs(value) for value in box["normalizedAxes"][2::3]]
    assert max(heights) >= math.cos(math.radians(UPRIGHT)), f"tilted: {category}"
    return box


def axes(box: dict[str, Any]) -> np.ndarray:
    return np.array([box["normalizedAxes"][start : start + 3] for start in (0, 3, 6)])


def distance(a: dict[str, Any], b: dict[str, Any]) -> float:
    """Exact for boxes that stand side by side on a floor: then a corner's upright edge of one is closest."""
    gaps = []
    for one, other in ((a, b), (b, a)):
        points = (GRID * np.array(one["axesLengths"])) @ axes(one) + np.array(one["centroid"])
        local = (points - np.array(other["centroid"])) @ axes(other).T
        beyond = np.maximum(np.abs(local) - np.array(other["axesLengths"]) / 2, 0)
        gaps.append(float(np.sqrt((beyond**2).sum(1)).min()))
    return min(gaps)


def vector(a: dict[str, Any], b: dict[str, Any]) -> np.ndarray:
    return np.array(b["centroid"][:2]) - np.array(a["centroid"][:2])


def parts(look: np.ndarray, aim: np.ndarray) -> tuple[float, float]:
    """How far `aim` points ahead and how far to the left, each in -1…1."""
    length = float(np.hypot(*look) * np.hypot(*aim))
    return float(look @ aim) / length, float(look[0] * aim[1] - look[1] * aim[0]) / length


def words(pattern: str, line: Line) -> list[str]:
    match = re.fullmatch(pattern, line["problem"])
    assert match is not None, line["problem"]
    return list(match.groups())


def solution(line: Line) -> str:
    match = re.fullmatch(r"<answer>(.+)</answer>", line["solution"])
    assert match is not None
    return match.group(1)


def options(line: Line) -> dict[str, str]:
    """Letter → option, all different."""
    found = dict(option.split(". ", 1) for option in line["options"])
    assert list(found) == list("ABCD"[: len(found)]) and len(set(found.values())) == len(found)
    return found


def chosen(line: Line) -> str:
    return options(line)[solution(line)]


def content(line: Line) -> str:
    """The right answer by content."""
    return chosen(line) if line["options"] else solution(line)


# ---- one check a type


def check_counting(entry: Entry, line: Line) -> None:
    (category,) = words(r"How many objects of the category (.+) are in the room\?", line)
    assert int(solution(line)) == len(trusted(entry, category))


def check_abs_distance(entry: Entry, line: Line) -> None:
    names = words(r"How many meters lie between the (.+) and the (.+), from closest point to closest point\?", line)
    a, b = (of_extent(entry, name) for name in names)
    away = distance(a, b)
    assert abs(float(solution(line)) - away) <= 0.05 + SLACK
    assert away >= CLEARLY_CLOSER - SLACK


def check_size(entry: Entry, line: Line) -> None:
    (name,) = words(r"How long is the longest side of the (.+), in centimeters\?", line)
    assert abs(int(solution(line)) / 100 - sorted(of_extent(entry, name)["axesLengths"])[-1]) <= 0.005 + SLACK


def check_room(entry: Entry, line: Line) -> None:
    words(r"How large is the floor of the room, in square meters\?", line)
    assert abs(float(solution(line)) - entry["room_size"]) <= 0.05 + SLACK


def check_rel_distance(entry: Entry, line: Line) -> None:
    (name,) = words(r"Which of these objects is closest to the (.+)\?", line)
    anchor = of_extent(entry, name)
    away = {option: distance(anchor, of_extent(entry, option)) for option in options(line).values() if option != name}
    assert len(away) == len(line["options"])
    right = away.pop(chosen(line))
    assert min(away.values()) - right >= CLEARLY_CLOSER - SLACK


def standing(entry: Entry, line: Line) -> tuple[float, float]:
    names = words(r"Standing at the (.+) and facing the (.+), where is the (.+)\?", line)
    stops = [only(entry, name) for name in names]
    far_apart(stops)
    return parts(vector(stops[0], stops[1]), vector(stops[0], stops[2]))


def far_apart(stops: list[dict[str, Any]]) -> None:
    for one, other in itertools.combinations(stops, 2):
        assert np.hypot(*vector(one, other)) >= APART - SLACK


def check_easy(entry: Entry, line: Line) -> None:
    _, left = standing(entry, line)
    assert set(options(line).values()) == {"left", "right"}
    assert chosen(line) == ("left" if left > 0 else "right")
    assert abs(left) >= sine(TO_BORDER)


def check_medium(entry: Entry, line: Line) -> None:
    ahead, left = standing(entry, line)
    assert set(options(line).values()) == {"left", "right", "back"}
    if abs(left) >= sine(90 - 45 + TO_BORDER):
        assert chosen(line) == ("left" if left > 0 else "right")
    else:
        assert -ahead >= sine(90 - 45 + TO_BORDER)
        assert chosen(line) == "back"


def check_hard(entry: Entry, line: Line) -> None:
    ahead, left = standing(entry, line)
    assert set(options(line).values()) == {f"{a}-{b}" for a in ("front", "back") for b in ("left", "right")}
    assert min(abs(ahead), abs(left)) >= sine(TO_BORDER)
    assert chosen(line) == f"{'front' if ahead > 0 else 'back'}-{'left' if left > 0 else 'right'}"


def check_order(entry: Entry, line: Line) -> None:
    assert all("first_seen" in box for boxes in entry["object_bbox"].values() for box in boxes)
    (listed,) = words(r"In which order do these first appear in the video: (.+)\?", line)
    names = listed.split(", ")
    first = {name: min(box["first_seen"] for box in trusted(entry, name)) for name in names}
    assert len(first) == len(names) >= 3
    for option in options(line).values():
        assert sorted(option.split(", ")) == sorted(names)
    assert chosen(line) == ", ".join(sorted(names, key=lambda name: first[name]))
    for earlier, later in itertools.pairwise(sorted(first.values())):
        assert later - earlier >= CLEARLY_LATER - SLACK


def check_route(entry: Entry, line: Line) -> None:
    names = words(
        r"You stand at the (.+) facing the (.+)\. You go to the (.+), turn, go to the (.+), turn again and go to "
        r"the (.+)\. Which turns do you take\?",
        line,
    )
    assert names.pop(2) == names[1]
    stops = [only(entry, name) for name in names]
    far_apart(stops)
    look, said = vector(stops[0], stops[1]), []
    for here, goal in itertools.pairwise(stops[1:]):
        way = vector(here, goal)
        ahead, left = parts(look, way)
        if abs(left) >= sine(90 - 45 + TO_BORDER):
            said.append("turn left" if left > 0 else "turn right")
        else:
            assert -ahead >= sine(90 - 45 + TO_BORDER)
            said.append("turn back")
        look = way
    assert chosen(line) == ", then ".join(said)


# type → its check, and how many options it may have
CHECKS: dict[str, tuple[Callable[[Entry, Line], None], set[int]]] = {
    "object_counting": (check_counting, {0}),
    "object_abs_distance": (check_abs_distance, {0}),
    "object_size_estimation": (check_size, {0}),
    "room_size_estimation": (check_room, {0}),
    "object_rel_distance": (check_rel_distance, {3, 4}),
    "object_rel_direction_easy": (check_easy, {2}),
    "object_rel_direction_medium": (check_medium, {3}),
    "object_rel_direction_hard": (check_hard, {4}),
    "obj_appearance_order": (check_order, {4}),
    "route_planning": (check_route, {4}),
}


def check(entry: Entry, line: Line) -> None:
    """Asserts that the line's answer follows from the entry, without ambiguity, and that it is the only right one."""
    derive, counts = CHECKS[line["question_type"]]
    assert len(line["options"]) in counts
    assert line["problem_type"] == ("multiple choice" if line["options"] else "numerical")
    derive(entry, line)


def cells(entry: Entry) -> dict[str, list[list[int]]]:
    """The scene's map: boxes' centres on a grid of 10x10 over the extent of all boxes."""
    every = [box for boxes in entry["object_bbox"].values() for box in boxes]
    low = np.min([box["min"][:2] for box in every], axis=0)
    high = np.max([box["max"][:2] for box in every], axis=0)
    return {
        category: sorted(
            np.clip((np.array(box["centroid"][:2]) - low) / (high - low) * 10, 0, 9).astype(int).tolist()
            for box in boxes
        )
        for category, boxes in sorted(entry["object_bbox"].items())
    }
