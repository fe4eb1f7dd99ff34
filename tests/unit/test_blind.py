"""Policies that never look: what they find in the prompt, and what they cannot find."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from spacer.data.samples import Sample
from spacer.evaluation.blind import (
    Asked,
    BlindPolicy,
    blind_scores,
    constant_layout,
    cross_blind_scores,
    prior_completions,
)
from spacer.rewards import map_score
from tests.unit.data.making import sample


def number(text: str, answer: float, scene: int) -> Asked:
    return Asked("size", "numerical", text, (), str(answer), f"scene{scene}")


def choice(right: str, options: tuple[str, ...], scene: int, text: str = "Which?") -> Asked:
    return Asked("which", "multiple choice", text, options, "ABCDE"[options.index(right)], f"scene{scene}")


def test_a_number_that_the_category_gives_away_is_found() -> None:
    questions = [
        number(f"How long is the {name}?", size, i) for i in range(40) for name, size in (("bed", 200), ("cup", 10))
    ]
    (score,) = blind_scores(questions[:40], questions[40:]).values()
    assert (score.questions, score.blind) == (40, 1.0)
    assert score.chance == pytest.approx(0.5)  # one number is right for one of the two alone


def test_the_one_number_is_the_best_by_relative_accuracy_and_not_the_mean() -> None:
    """Of 1, 1, 1 and 10 the mean of 3.25 is right for none."""
    questions = [number("How many?", answer, i) for i in range(20) for answer in (1, 1, 1, 10)]
    assert float(BlindPolicy(questions).answer(number("Another wording?", 0, 99))) == 1


def test_letters_and_words_that_are_right_too_often_are_found() -> None:
    rng = np.random.default_rng(0)
    letters = [choice("left", ("left", *wrong), i) for i in range(60) for wrong in (("right",), ("back", "right"))]
    assert blind_scores(letters[:60], letters[60:])["which"].blind == 1.0
    words = []
    for i in range(200):
        options = tuple(str(option) for option in rng.permutation(["bed", "cup", "lamp"]))
        words.append(choice("bed" if rng.random() < 0.8 else "cup", options, i))
    score = blind_scores(words[:100], words[100:])["which"]
    assert 0.7 < score.blind < 0.9 and score.chance == pytest.approx(1 / 3)


def test_balanced_questions_are_worth_chance() -> None:
    """No policy finds what is not there: 2,000 questions with letters and words drawn evenly."""
    rng = np.random.default_rng(1)
    questions = []
    for i in range(2000):
        options = tuple(str(option) for option in rng.permutation(["front", "back", "left", "right"]))
        questions.append(choice(options[int(rng.integers(4))], options, i, f"Which, of the {rng.integers(9)}?"))
    assert blind_scores(questions[:1000], questions[1000:])["which"].blind == pytest.approx(0.25, abs=0.05)


def test_each_half_of_the_scenes_is_scored_by_the_other() -> None:
    """Answers that only a question's own scene tells are worth nothing, though each is asked about twice."""
    questions = [number(f"What of {i}?", 10.0 ** (i % 7), i) for i in range(60) for _ in range(2)]
    own = cross_blind_scores(questions)["size"]
    assert own.questions == 120 and own.blind <= 0.25
    assert cross_blind_scores([number("What?", 3, 0)]) == {}  # of one scene: nothing to learn from


def test_types_without_a_policy_and_types_that_training_lacks() -> None:
    free = replace(number("Say.", 1, 0), problem_type="free-form", answer="yes")
    assert blind_scores([free], [free]) == {}
    assert BlindPolicy([]).answer(number("How many?", 1, 0)) == ""


def test_the_constant_layout_is_the_best_of_the_medians() -> None:
    maps = [
        {"bed": [[1, 1]]},
        {"bed": [[2, 1]]},
        {"bed": [[9, 1]]},
        {"cup": [[0, 0], [4, 4]]},
        {"cup": [[4, 6], [0, 2]]},
    ]
    layout = constant_layout(maps)
    assert layout == {"bed": [[2, 1]], "cup": [[0, 1], [4, 5]]}
    assert map_score(f"<map>{layout}</map>", maps[1]) == 1.0


def test_a_completion_is_scored_as_the_models_are() -> None:
    known: list[Sample] = [
        sample(str(i), scene=f"s{i}", problem="How many?", solution="3", true_map={"bed": [[2, 5]]}) for i in range(8)
    ]
    asked = sample("new", scene="new", problem="How many?", true_map={"bed": [[0, 0]], "cup": [[1, 1]]})
    assert prior_completions(known, [asked, replace(asked, true_map=None)]) == [
        '<think><map>{"bed":[[2,5]]}</map></think><answer>3.0</answer>',
        "<think></think><answer>3.0</answer>",
    ]
