"""Questions whose words do not tell the answer: what goes, and what a policy that never looks is left with."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spacer.config.settings import RoomsSettings
from spacer.data.samples import Medium, to_sample
from spacer.data.scenes import rooms
from spacer.data.scenes.evening import even_out
from spacer.data.scenes.lines import Question
from spacer.errors import UserError
from spacer.evaluation.blind import asked_of, blind_scores


def count(category: str, answer: int) -> Question:
    return Question("object_counting", "numerical", f"How many {category}?", (), str(answer), "")


def choice(right: str, *wrong: str) -> Question:
    options = (right, *wrong)
    return Question("object_rel_distance", "multiple choice", "Which is closest?", options, "A", "")


def named(questions: list[Question]) -> list[tuple[str, Question]]:
    return [(str(place), question) for place, question in enumerate(questions)]


def test_counts_of_a_category_come_equally_often_and_lone_ones_are_not_asked() -> None:
    chairs = [count("chair", answer) for answer in [1] * 60 + [2] * 30 + [3] * 20 + [4]]
    kept = even_out(named([*chairs, *[count("bed", 1)] * 50]), 0)
    assert Counter(question.answer for _, question in kept) == {"1": 20, "2": 20, "3": 20}
    assert kept == sorted(kept, key=lambda item: int(item[0]))  # in the order that they came in


def test_numbers_are_spread_over_equal_ratios() -> None:
    """Five spans between the values that a fiftieth is below and above; those that hardly come are not asked for."""
    rng = np.random.default_rng(0)
    values = np.exp(rng.normal(3.4, 0.3, 3000))
    sizes = [Question("room_size_estimation", "numerical", "How large?", (), f"{value:.3f}", "") for value in values]
    kept = [float(question.answer) for _, question in even_out(named(sizes), 0)]
    edges = np.log(np.quantile(values, [0.02, 0.98]))
    before, after = (np.histogram(np.log(some), bins=5, range=tuple(edges))[0] for some in (values, kept))
    assert before.max() > 3 * before.min()
    assert after.max() < 1.5 * after.min() and len(kept) > 1000


def test_an_option_that_is_right_too_often_goes_until_it_is_not() -> None:
    rng = np.random.default_rng(0)
    names, asked = ["bed", "sofa", "lamp", "plant", "table"], []
    for _ in range(4000):
        options = [str(name) for name in rng.permutation(names)[:3]]
        right = "bed" if "bed" in options and rng.random() < 0.7 else options[0]
        asked.append(choice(right, *(name for name in options if name != right)))
    kept = [question for _, question in even_out(named(asked), 0)]
    rates = {name: sum(q.content() == name for q in kept) / sum(name in q.options for q in kept) for name in names}
    assert len(kept) > 1000
    assert all(rate == pytest.approx(1 / 3, abs=0.05) for rate in rates.values()), rates


def test_an_answer_that_hardly_comes_is_neither_asked_for_nor_offered() -> None:
    asked = [choice("left", "right", "back")] * 100 + [choice("right", "left", "back")] * 100
    asked += [choice("back", "left", "right")] * 100 + [choice("up", "left", "right"), choice("left", "up", "right")]
    assert not any("up" in question.options for _, question in even_out(named(asked), 0))


def test_what_goes_is_drawn_by_the_seed_and_the_question_alone() -> None:
    asked = named([count("chair", answer) for answer in [1] * 60 + [2] * 30])
    assert even_out(asked, 0) == sorted(even_out(asked[::-1], 0), key=lambda item: int(item[0]))
    assert {name for name, _ in even_out(asked, 0)} != {name for name, _ in even_out(asked, 1)}


def test_too_few_rooms_to_choose_questions_from_are_told(tmp_path: Path) -> None:
    settings = RoomsSettings(str(tmp_path), balanced=True, train_scenes=1, heldout_scenes=1, size_px=64, video_fps=1)
    with pytest.raises(UserError, match=r"no question about 1 rooms.*dataset\.train_scenes to 4 or more"):
        rooms.build(settings)
    assert not any(tmp_path.glob("*/*.jsonl"))


def test_rooms_are_worth_chance_without_looking() -> None:
    """By the best of the blind policies, as an evaluation has them; object sizes keep some of what their kind tells."""
    settings = RoomsSettings(root="unused", balanced=True, size_spread=2.2, fixed_height=True, seed=3)
    settings = replace(settings, questions_per_scene=6, heldout_questions_per_scene=6, video_fps=4)
    asked = {}
    for split, number in (("train", 300), ("heldout", 200)):
        scenes = [rooms.make_scene(settings, split, index, None) for index in range(number)]
        lines = list(rooms.even_lines(settings, split, scenes))
        assert len({line["problem_id"] for line in lines}) == len(lines) > 3 * number
        maps = {scene.name: scene.cognitive_map() for scene in scenes}
        asked[split] = [
            asked_of(to_sample(line, (Medium("video", rooms.Path(str(line["path"]))),), maps[str(line["scene"])]))
            for line in lines
        ]
    scores = blind_scores(asked["train"], asked["heldout"])
    assert len(scores) == 10
    for kind, score in scores.items():
        allowed = 0.2 if kind == "object_size_estimation" else 0.12  # of some sixty to two hundred questions each
        assert score.blind < score.chance + allowed, (kind, score)
    assert np.mean([score.blind - score.chance for score in scores.values()]) < 0.05
