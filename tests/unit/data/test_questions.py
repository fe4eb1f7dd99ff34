"""Every answer derived a second time, from the annotation and the question's own words, by other geometry.

Nothing is taken from `spacer.data.scenes.scene` but the annotation itself. Distances are of sampled points clamped into
the other box's own frame, directions are signs of cross and dot products, routes are walked with vectors.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from spacer.config.settings import RoomsSettings
from spacer.data.scenes import rooms
from spacer.data.scenes.questions import QUESTION_TYPES, Question, pose
from spacer.data.scenes.scene import Scene, SceneObject

SCENES = 150
ROUNDS = 3  # questions of each type asked of a scene
CLEARLY_CLOSER = 0.25  # metres
CLEARLY_LATER = 0.5  # seconds
APART = 0.6  # metres
SLACK = 1e-6  # of rounding
TO_BORDER = 15.0  # degrees

SETTINGS = RoomsSettings(root="nowhere", seed=11)


@functools.cache
def scenes() -> tuple[Scene, ...]:
    """Rooms, and for every third also the room with its objects turned by any angle, as scans have them."""
    made = [rooms.make_scene(SETTINGS, "train", index, None) for index in range(SCENES)]
    return (*made, *(turned(scene, index) for index, scene in enumerate(made[::3])))


def turned(scene: Scene, index: int) -> Scene:
    rng = np.random.default_rng(index)
    objects = tuple(
        SceneObject(item.category, item.centre, item.size, float(rng.uniform(-4, 4)), item.first_seen)
        for item in scene.objects
    )
    return Scene(scene.name, scene.bounds, scene.area, objects)


@functools.cache
def asked() -> dict[str, list[tuple[Scene, Question]]]:
    """Question type → all questions of it."""
    found: dict[str, list[tuple[Scene, Question]]] = {kind: [] for kind in QUESTION_TYPES}
    for index, scene in enumerate(scenes()):
        for number in range(ROUNDS):
            for kind, question in pose(scene, np.random.default_rng([index, number])).items():
                found[kind].append((scene, question))
    return found


# ---- the checker's own measures


def only(scene: Scene, category: str) -> SceneObject:
    """The object that a bare category name means: there must be one, and one alone."""
    (item,) = [item for item in scene.objects if item.category == category]
    return item


def into_frame(points: np.ndarray, item: SceneObject) -> np.ndarray:
    turn_back = np.array([[math.cos(item.yaw), math.sin(item.yaw)], [-math.sin(item.yaw), math.cos(item.yaw)]])
    return (points - np.array(item.centre[:2])) @ turn_back.T


def sampled_outline(item: SceneObject, count: int = 9) -> np.ndarray:
    """Points along the four sides, the corners among them."""
    share = np.linspace(-0.5, 0.5, count)
    ends = np.full(count, 0.5)
    local = np.concatenate(
        [np.stack(pair, 1) for pair in ((share, ends), (share, -ends), (ends, share), (-ends, share))]
    )
    forward = np.array([[math.cos(item.yaw), -math.sin(item.yaw)], [math.sin(item.yaw), math.cos(item.yaw)]])
    return (local * np.array(item.size[:2])) @ forward.T + np.array(item.centre[:2])


def distance(a: SceneObject, b: SceneObject) -> float:
    """Between boxes that stand on the floor and do not reach into each other: a corner of one is closest."""
    gaps = []
    for one, other in ((a, b), (b, a)):
        assert one.centre[2] == pytest.approx(one.size[2] / 2, abs=1e-3)  # on the floor
        local = into_frame(sampled_outline(one), other)
        beyond = np.maximum(np.abs(local) - np.array(other.size[:2]) / 2, 0)
        gaps.append(float(np.hypot(beyond[:, 0], beyond[:, 1]).min()))
    return min(gaps)


def vector(a: SceneObject, b: SceneObject) -> np.ndarray:
    return np.array(b.centre[:2]) - np.array(a.centre[:2])


def parts(look: np.ndarray, aim: np.ndarray) -> tuple[float, float]:
    """How far `aim` points ahead and how far to the left, each in -1…1."""
    length = float(np.hypot(*look) * np.hypot(*aim))
    return float(look @ aim) / length, float(look[0] * aim[1] - look[1] * aim[0]) / length


def sine(degrees: float) -> float:
    return math.sin(math.radians(degrees)) - SLACK


def chosen(question: Question) -> str:
    """The option that the answer's letter stands for, as a reader of the lettered options finds it."""
    (option,) = [line for line in question.lettered_options() if line.startswith(f"{question.answer}. ")]
    return option.removeprefix(f"{question.answer}. ")


def words(pattern: str, question: Question) -> list[str]:
    match = re.fullmatch(pattern, question.text)
    assert match is not None, question.text
    return list(match.groups())


# ---- one check a type


def check_counting(scene: Scene, question: Question) -> None:
    (category,) = words(r"How many objects of the category (\w+) are in the room\?", question)
    assert int(question.answer) == sum(item.category == category for item in scene.objects) > 0


def check_abs_distance(scene: Scene, question: Question) -> None:
    names = words(
        r"How many meters lie between the (\w+) and the (\w+), from closest point to closest point\?", question
    )
    a, b = (only(scene, name) for name in names)
    assert a != b
    assert float(question.answer) == pytest.approx(distance(a, b), abs=0.05 + SLACK)
    assert distance(a, b) >= CLEARLY_CLOSER - SLACK


def check_size(scene: Scene, question: Question) -> None:
    (name,) = words(r"How long is the longest side of the (\w+), in centimeters\?", question)
    width, depth, height = only(scene, name).size
    assert int(question.answer) / 100 == pytest.approx(sorted((width, depth, height))[-1], abs=0.005 + SLACK)


def check_room(scene: Scene, question: Question) -> None:
    words(r"How large is the floor of the room, in square meters\?", question)
    x0, y0, x1, y1 = scene.bounds
    assert float(question.answer) == pytest.approx((x1 - x0) * (y1 - y0), abs=0.055 + SLACK)  # rounded twice


def check_rel_distance(scene: Scene, question: Question) -> None:
    (name,) = words(r"Which of these objects is closest to the (\w+)\?", question)
    anchor = only(scene, name)
    assert name not in question.options
    away = {option: distance(anchor, only(scene, option)) for option in question.options}
    closest, next_closest = sorted(away, key=lambda option: away[option])[:2]
    assert chosen(question) == closest
    assert away[next_closest] - away[closest] >= CLEARLY_CLOSER - SLACK


def standing(scene: Scene, question: Question) -> tuple[float, float]:
    names = words(r"Standing at the (\w+) and facing the (\w+), where is the (\w+)\?", question)
    a, b, c = (only(scene, name) for name in names)
    assert len(set(names)) == 3
    for one, other in itertools.combinations((a, b, c), 2):
        assert np.hypot(*vector(one, other)) >= APART - SLACK
    return parts(vector(a, b), vector(a, c))


def check_easy(scene: Scene, question: Question) -> None:
    _, left = standing(scene, question)
    assert chosen(question) == ("left" if left > 0 else "right")
    assert abs(left) >= sine(TO_BORDER)


def check_medium(scene: Scene, question: Question) -> None:
    ahead, left = standing(scene, question)
    # within 45 degrees of one of the four ways, less the margin: its part is at least cos 30
    if abs(left) >= sine(90 - 45 + TO_BORDER):
        assert chosen(question) == ("left" if left > 0 else "right")
    else:
        assert -ahead >= sine(90 - 45 + TO_BORDER)
        assert chosen(question) == "back"


def check_hard(scene: Scene, question: Question) -> None:
    ahead, left = standing(scene, question)
    assert min(abs(ahead), abs(left)) >= sine(TO_BORDER)
    assert chosen(question) == f"{'front' if ahead > 0 else 'back'}-{'left' if left > 0 else 'right'}"


def check_order(scene: Scene, question: Question) -> None:
    (listed,) = words(r"In which order do these first appear in the video: ([\w, ]+)\?", question)
    names = listed.split(", ")
    assert len(set(names)) == len(names)
    for option in question.options:
        assert sorted(option.split(", ")) == sorted(names)
    times = []
    for name in chosen(question).split(", "):
        seen = [item.first_seen for item in scene.objects if item.category == name and item.first_seen is not None]
        times.append(min(seen))
    for earlier, later in itertools.pairwise(times):
        assert later - earlier >= CLEARLY_LATER - SLACK


def check_route(scene: Scene, question: Question) -> None:
    names = words(
        r"You stand at the (\w+) facing the (\w+)\. You go to the (\w+), turn, go to the (\w+), turn again and go to "
        r"the (\w+)\. Which turns do you take\?",
        question,
    )
    assert names[1] == names[2]
    stops = [only(scene, name) for name in (names[0], names[1], names[3], names[4])]
    for one, other in itertools.combinations(stops, 2):
        assert np.hypot(*vector(one, other)) >= APART - SLACK
    look, here, said = vector(stops[0], stops[1]), stops[1], []
    for goal in stops[2:]:
        way = vector(here, goal)
        ahead, left = parts(look, way)
        if abs(left) >= sine(90 - 45 + TO_BORDER):
            said.append("turn left" if left > 0 else "turn right")
        else:
            assert -ahead >= sine(90 - 45 + TO_BORDER)
            said.append("turn back")
        look, here = way, goal
    assert chosen(question) == ", then ".join(said)


CHECKS: dict[str, Callable[[Scene, Question], None]] = {
    "object_counting": check_counting,
    "object_abs_distance": check_abs_distance,
    "object_size_estimation": check_size,
    "room_size_estimation": check_room,
    "object_rel_distance": check_rel_distance,
    "object_rel_direction_easy": check_easy,
    "object_rel_direction_medium": check_medium,
    "object_rel_direction_hard": check_hard,
    "obj_appearance_order": check_order,
    "route_planning": check_route,
}
OPTIONS = {
    "object_rel_distance": {3, 4},
    "object_rel_direction_easy": {2},
    "object_rel_direction_medium": {3},
    "object_rel_direction_hard": {4},
    "obj_appearance_order": {4},
    "route_planning": {4},
}


@pytest.mark.parametrize("kind", QUESTION_TYPES)
def test_answers_follow_from_the_annotation(kind: str) -> None:
    found = asked()[kind]
    assert len(found) > SCENES / 2
    for scene, question in found:
        assert question.question_type == kind
        CHECKS[kind](scene, question)


@pytest.mark.parametrize("kind", QUESTION_TYPES)
def test_one_option_is_right_and_all_differ(kind: str) -> None:
    for _, question in asked()[kind]:
        if kind in OPTIONS:
            assert question.problem_type == "multiple choice"
            assert len(question.options) in OPTIONS[kind]
            assert len(set(question.options)) == len(question.options)
            assert question.answer in "ABCD"[: len(question.options)]
        else:
            assert question.problem_type == "numerical"
            assert question.options == ()
            assert float(question.answer) > 0


@pytest.mark.parametrize("kind", OPTIONS)
def test_every_way_to_be_right_occurs(kind: str) -> None:
    """No direction or turn is left out, and a question's answer cannot be told without its scene."""
    right = Counter(chosen(question) for _, question in asked()[kind])
    expected = {"object_rel_direction_easy": 2, "object_rel_direction_medium": 3, "object_rel_direction_hard": 4}
    assert len(right) >= expected.get(kind, 9)
    assert right.most_common(1)[0][1] <= 1.35 * right.total() / expected.get(kind, 4)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_letters_are_balanced(count: int) -> None:
    letters: Counter[str] = Counter()
    kinds = [kind for kind, counts in OPTIONS.items() if count in counts]
    for number in itertools.count():
        for index, scene in enumerate(scenes()[:SCENES]):
            rng = np.random.default_rng([number, index, 5])
            for kind in kinds:
                question = QUESTION_TYPES[kind](scene, rng)
                if question is not None and len(question.options) == count:
                    letters[question.answer] += 1
        if letters.total() >= 1500:
            break
    for letter in "ABCD"[:count]:
        assert abs(letters[letter] / letters.total() - 1 / count) <= 0.05
    assert set(letters) == set("ABCD"[:count])


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_every_type_is_at_least_two_in_a_hundred(split: str, shipped_rooms: dict[str, Any]) -> None:
    settings = RoomsSettings(root="nowhere", **shipped_rooms)
    count: Counter[str] = Counter()
    for index in range(SCENES):
        scene = rooms.make_scene(settings, split, index, None)
        kinds = [str(line["question_type"]) for line in rooms._lines(settings, scene, split, index)]
        assert len(set(kinds)) == len(kinds) > 0
        count.update(kinds)
    assert set(count) == set(CHECKS)
    assert min(count.values()) >= 0.02 * count.total()


@pytest.mark.parametrize("kind", QUESTION_TYPES)
def test_reasoning_reads_the_map_and_ends_in_the_answer(kind: str) -> None:
    for scene, question in asked()[kind]:
        cells = scene.cognitive_map()
        for name, x, y in re.findall(r"(\w+) \[(\d+),(\d+)\]", question.reasoning):
            assert cells[name] == [[int(x), int(y)]]
        if question.options:
            assert question.explained() == f"{question.reasoning} That is {question.answer}."
            right = chosen(question)
            assert (right.replace(", ", ", then ") if kind == "obj_appearance_order" else right) in question.reasoning
        else:
            assert question.explained() == question.reasoning
            said = re.sub(r"\[[^]]*\]", "", question.reasoning)
            assert re.findall(r"\d+(?:\.\d+)?", said) == [question.answer]
        if kind in ("object_abs_distance", "object_rel_distance", "route_planning") or "direction" in kind:
            mentioned = {name for name in cells if re.search(rf"\b{name}\b", question.text + str(question.options))}
            located = {name for name, _, _ in re.findall(r"(\w+) \[(\d+),(\d+)\]", question.reasoning)}
            assert located == mentioned


def test_map_cells_hold_their_objects() -> None:
    for scene in scenes():
        x0, y0, x1, y1 = scene.bounds
        drawn = scene.cognitive_map()
        assert json.loads(json.dumps(drawn)) == drawn
        free = {name: [tuple(cell) for cell in cells] for name, cells in drawn.items()}
        for item in scene.objects:
            (cell,) = {
                (x, y)
                for x, y in free[item.category]
                if x0 + (x1 - x0) * x / 10 <= item.centre[0] + SLACK and item.centre[0] < x0 + (x1 - x0) * (x + 1) / 10
                if y0 + (y1 - y0) * y / 10 <= item.centre[1] + SLACK and item.centre[1] < y0 + (y1 - y0) * (y + 1) / 10
            }
            assert all(0 <= value <= 9 for value in cell)
            free[item.category].remove(cell)
        assert not any(free.values())  # nothing is on the map that is not in the room


def test_the_same_draw_poses_the_same_questions() -> None:
    scene = scenes()[0]
    assert pose(scene, np.random.default_rng(4)) == pose(scene, np.random.default_rng(4))
    assert pose(scene, np.random.default_rng(4)) != pose(scene, np.random.default_rng(5))


def test_a_room_that_allows_few_types_gets_those() -> None:
    bed = SceneObject("bed", (1.0, 1.0, 0.5), (1.5, 2.0, 1.0), 0.0, None)
    alone = pose(Scene("room", (0.0, 0.0, 4.0, 5.0), 20.0, (bed,)), np.random.default_rng(0))
    assert {kind: question.answer for kind, question in alone.items()} == {
        "object_counting": "1",
        "object_size_estimation": "200",
        "room_size_estimation": "20.0",
    }
    empty = pose(Scene("room", (0.0, 0.0, 4.0, 5.0), 20.0, ()), np.random.default_rng(0))
    assert list(empty) == ["room_size_estimation"]


def test_several_of_a_category_are_never_meant_by_its_name() -> None:
    spots = [(0.5, 0.5), (3.5, 0.5), (0.5, 4.5), (3.5, 4.5), (2.0, 2.5)]
    chairs = tuple(SceneObject("chair", (x, y, 0.4), (0.5, 0.5, 0.8), 0.0, 1.0) for x, y in spots)
    posed = pose(Scene("room", (0.0, 0.0, 4.0, 5.0), 20.0, chairs), np.random.default_rng(0))
    assert {kind: question.answer for kind, question in posed.items()} == {
        "object_counting": "5",
        "room_size_estimation": "20.0",
    }
