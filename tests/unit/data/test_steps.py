"""Reasoning in steps is read again, and its arithmetic held to an oracle of its own."""

from __future__ import annotations

import cmath
import itertools
import math
import re

import numpy as np
import pytest

from spacer.config.settings import RoomsSettings
from spacer.data.scenes import rooms
from spacer.data.scenes.lines import Question
from spacer.data.scenes.questions import pose
from spacer.data.scenes.scene import Scene
from spacer.data.scenes.steps import THROUGH_OPTIONS, contradicted, in_steps, steps, ways

LEG = re.compile(r"([+-]\d)([+-]\d)(?:([a-x])| (\d+\.\d))")


@pytest.fixture(scope="module")
def posed() -> list[tuple[Scene, Question]]:
    settings = RoomsSettings(root="nowhere", seed=3, size_spread=2.2)
    scenes = [rooms.make_scene(settings, "train", index, None) for index in range(60)]
    return [(scene, item) for n, scene in enumerate(scenes) for item in pose(scene, np.random.default_rng(n)).values()]


def place(scene: Scene, name: str) -> complex:
    (x, y), *_ = scene.cognitive_map()[name]
    return complex(x, y)


def eighths(before: str, after: str) -> int:
    return int((ord(after) - ord(before)) * 15 % 360 // 45)


def test_every_difference_heading_and_length_is_that_of_the_map(posed: list[tuple[Scene, Question]]) -> None:
    headings = lengths = 0
    for scene, question in posed:
        about = question.drawn_last()
        legs = list(LEG.finditer(steps(question, scene).text))
        if legs:
            assert len(legs) == len(about) - 1
        route = question.question_type == "route_planning"
        for number, leg in enumerate(legs):
            way = place(scene, about[number + 1]) - place(scene, about[number if route else 0])
            assert complex(int(leg[1]), int(leg[2])) == way
            if leg[3] and way:
                off = (math.degrees(cmath.phase(way)) - 15 * (ord(leg[3]) - ord("a"))) % 360
                assert min(off, 360 - off) <= 7.5 + 1e-9
                headings += 1
            elif leg[4]:
                assert float(leg[4]) == pytest.approx(abs(way), abs=0.051)
                lengths += 1
    assert headings > 200 and lengths > 100


def test_turns_are_differences_of_headings(posed: list[tuple[Scene, Question]]) -> None:
    turned = 0
    for scene, question in posed:
        headings = re.findall(r"[+-]\d[+-]\d([a-x])", text := steps(question, scene).text)
        turns = [eighths(before, after) for before, after in itertools.pairwise(headings)]
        assert [int(turn) for turn in re.findall(r"=(\d)", text)] == turns
        turned += len(turns)
    assert turned > 200


def test_exercises_are_legs_of_the_map_that_they_end(posed: list[tuple[Scene, Question]]) -> None:
    forms: set[str] = set()
    for number, scene in enumerate({scene.name: scene for scene, _ in posed}.values()):
        if len(scene.unique_objects()) < 2:
            continue
        made = ways(scene, np.random.default_rng(number))
        asked, named = made.text.split("? ")
        start, *ends = re.split(", |: ", named.removeprefix("From the ").removesuffix("."))
        assert made.about == tuple(dict.fromkeys((start, *ends)))
        starts = [start, *ends] if asked == "Which way in turn" else [start] * len(ends)
        there = [place(scene, end) - place(scene, way) for way, end in zip(starts, ends, strict=False)]
        assert [complex(int(x), int(y)) for x, y in re.findall(r"([+-]\d)([+-]\d)", made.reasoning)] == there
        if asked == "How far":
            lengths = re.findall(r"([A-D])[+-]\d[+-]\d (\d+\.\d)[,!]", made.reasoning)
            assert [(letter, float(length)) for letter, length in lengths] == [
                (letter, pytest.approx(abs(way), abs=0.051)) for letter, way in zip("ABCD", there, strict=False)
            ]
        else:
            assert len(there) == 4
            found = re.findall(r"([a-x])(?:=(\d))?", made.reasoning)
            turns = [str(eighths(before, after)) for (before, _), (after, _) in itertools.pairwise(found)]
            assert ["", *turns] == [turn for _, turn in found]
        forms.add(asked)
    assert forms == {"How far", "Which way", "Which way in turn"}


def test_where_the_map_is_fine_enough_it_leads_to_the_right_answer(posed: list[tuple[Scene, Question]]) -> None:
    followed: dict[str, list[bool]] = {}
    for scene, question in posed:
        followed.setdefault(question.question_type, []).append(steps(question, scene).conclusion == question.content())
    for kind, right in followed.items():
        if "direction" in kind or kind == "route_planning":
            assert np.mean(right) > 0.85, kind
        elif kind in ("object_counting", "object_abs_distance", "obj_appearance_order"):
            assert all(right), kind
        elif kind == "object_rel_distance":
            assert np.mean(right) > 0.7
        else:  # sizes are not on the map
            assert not any(right), kind


def test_the_frames_of_an_order_are_what_the_video_shows_first(posed: list[tuple[Scene, Question]]) -> None:
    orders = [(scene, item) for scene, item in posed if item.question_type == "obj_appearance_order"]
    assert orders
    for scene, question in orders:
        found = steps(question, scene)
        frames = dict(re.findall(r"([a-z]+)(\d+)", found.seen))
        assert sorted(frames, key=lambda name: int(frames[name])) == question.content().split(", ")
        assert tuple(frames) == question.about
        assert in_steps(question, scene).explained().startswith(found.seen)
        assert in_steps(question, scene).reasoning == found.whole()
        passed = re.findall(r"([A-D]) ([^,!]+)([,!])", found.text)
        assert [letter for letter, *_ in passed] == list("ABCD"[: "ABCD".index(question.answer) + 1])
        for (letter, told, mark), option in zip(passed, question.options, strict=False):
            names, times = zip(*re.findall(r"([a-z]+)(\d+)", told), strict=True)
            assert times == tuple(frames[name] for name in names)
            assert ", ".join(names) == option if mark == "!" else option.startswith(", ".join(names))
            forward = [int(after) > int(before) for before, after in itertools.pairwise(times)]
            assert (
                forward == [True] * len(names[1:])
                if letter == question.answer
                else forward.index(False) == len(names) - 2
            )
            assert (mark == "!") == (letter == question.answer)


def test_distances_are_told_apart_only_where_they_differ() -> None:
    settings = RoomsSettings(root="nowhere", seed=3)
    ties = 0
    for index in range(80):
        scene = rooms.make_scene(settings, "train", index, None)
        names = [item.category for item in scene.unique_objects()]
        if len(names) < 4:
            continue
        question = Question("object_rel_distance", "multiple choice", "", tuple(names[1:4]), "A", "", (names[0],))
        away = sorted(round(abs(place(scene, name) - place(scene, names[0])), 1) for name in names[1:4])
        conclusion = steps(question, scene).conclusion
        ties += conclusion is None
        assert (conclusion is None) == (away[0] == away[1])
    assert ties


def test_options_are_gone_through_to_what_was_concluded(posed: list[tuple[Scene, Question]]) -> None:
    gone = 0
    for scene, question in posed:
        if question.options and question.question_type not in THROUGH_OPTIONS:
            concluded, written = steps(question, scene).whole(), in_steps(question, scene).reasoning
            assert written.startswith(f"{concluded} A ")
            *passed, last = re.findall(r"([A-E]) ([^!]+?)([,!])(?= [A-E] |$)", written.removeprefix(concluded))
            lettered = question.lettered_options()
            assert [f"{letter}. {option}" for letter, option, _ in (*passed, last)] == lettered[: len(passed) + 1]
            assert {mark for *_, mark in passed} <= {","} and (last[0], last[2]) == (question.answer, "!")
            gone += 1
    assert gone > 100


def test_a_length_is_marked_where_it_is_the_shortest_so_far(posed: list[tuple[Scene, Question]]) -> None:
    found = 0
    for scene, question in posed:
        if question.question_type == "object_rel_distance":
            legs = re.findall(r"([A-E])[+-]\d[+-]\d (\d+\.\d)([,!])", steps(question, scene).text)
            assert [letter for letter, *_ in legs] == list("ABCDE"[: len(question.options)])
            lengths = [float(length) for _, length, _ in legs]
            assert [mark == "!" for *_, mark in legs] == [
                length < min(lengths[:n], default=math.inf) for n, length in enumerate(lengths)
            ]
            if not contradicted(question, scene):
                assert [letter for letter, _, mark in legs if mark == "!"][-1] == question.answer
                found += 1
    assert found > 20


def test_a_map_contradicts_where_it_leads_to_another_option(posed: list[tuple[Scene, Question]]) -> None:
    told = [(contradicted(question, scene), question, steps(question, scene)) for scene, question in posed]
    for wrong, question, found in told:
        assert wrong == (bool(question.options) and found.conclusion != question.content())
    assert 0 < sum(wrong for wrong, *_ in told) < 0.1 * len(told)
    for kind in ("object_counting", "object_size_estimation", "room_size_estimation", "obj_appearance_order"):
        assert not any(wrong for wrong, question, _ in told if question.question_type == kind)
