"""Prompts: what a model is asked, and which answer it is shown in supervised training."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest

from spacer.config.settings import RoomsSettings
from spacer.data.prompts import ShownTarget, map_literal, prompt_text, worked_completion
from spacer.data.samples import Sample
from tests.unit.data.making import sample

# ---- prompts


def test_prompts_say_what_the_sample_needs(settings: RoomsSettings) -> None:
    choice = sample(problem="Where?", problem_type="multiple choice", options=("A. here", "B. there"))
    text = prompt_text(choice, settings.prompts)
    assert "Where?\nA. here\nB. there\n" in text
    assert settings.prompts["multiple choice"] in text and "<map>" not in text
    mapped = prompt_text(dataclasses.replace(choice, true_map={"sofa": [[1, 2]], "bed": []}), settings.prompts)
    assert "bed, sofa" in mapped and "<map>" in mapped
    assert "[1" not in mapped.replace("[[x,y]]", "")  # positions are not given away


@pytest.mark.parametrize("problem_type", ["multiple choice", "numerical", "OCR", "free-form", "regression"])
def test_every_problem_type_has_its_line(problem_type: str, settings: RoomsSettings) -> None:
    assert settings.prompts[problem_type] in prompt_text(sample(problem_type=problem_type), settings.prompts)


def test_dollars_and_braces_of_a_question_stay(settings: RoomsSettings) -> None:
    text = prompt_text(sample(problem="Is it $5, ${x} or {y}?"), settings.prompts)
    assert text.startswith("Is it $5, ${x} or {y}?")


def test_a_template_that_names_something_else_is_an_error() -> None:
    with pytest.raises(KeyError, match="nonsense"):
        prompt_text(sample(), {"plain": "$nonsense", "numerical": ""})


# ---- what is shown in supervised training


def answers_of(target: ShownTarget, item: Sample, count: int = 2_000) -> list[str]:
    return [target(item, position, np.random.default_rng([0, 1, position])) for position in range(count)]


MANY = tuple(
    [sample(str(number), solution=str(number)) for number in range(10)]
    + [sample("size", solution="999", question_type="object_size_estimation")]
    + [sample("mc", problem_type="multiple choice", options=("A. x", "B. y", "C. z"), solution="B", question_type="mc")]
)


def test_the_worked_completion_has_map_reasoning_and_solution() -> None:
    item = sample(reasoning="One and two.", true_map={"bed": [[1, 2], [3, 4]], "sofa": [[0, 9]]})
    assert worked_completion(item) == (
        '<think><map>{"bed":[[1,2],[3,4]],"sofa":[[0,9]]}</map> One and two.</think><answer>3</answer>'
    )
    assert worked_completion(sample()) == "<answer>3</answer>"
    assert map_literal({}) == "{}"


def test_until_after_the_worked_completion_is_shown() -> None:
    answers = answers_of(ShownTarget(MANY, share=1.0, after=1_500), MANY[0])
    assert set(answers[:1_500]) == {worked_completion(MANY[0])}
    assert worked_completion(MANY[0]) not in answers[1_500:]


def test_no_share_no_guess() -> None:
    assert set(answers_of(ShownTarget(MANY, share=0.0, after=0), MANY[0])) == {worked_completion(MANY[0])}


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_the_share_of_guesses_is_about_what_was_asked_for(share: float) -> None:
    answers = answers_of(ShownTarget(MANY, share=share, after=0), MANY[0])
    guesses = [answer for answer in answers if answer != worked_completion(MANY[0])]
    assert abs(len(guesses) / len(answers) - share) < 0.04  # over three standard deviations


def test_a_guess_is_another_answer_of_the_same_type() -> None:
    guesses = Counter(answers_of(ShownTarget(MANY, share=1.0, after=0), MANY[0]))
    assert set(guesses) == {f"<think>I guess.</think><answer>{number}</answer>" for number in range(10)}
    assert guesses.most_common(1)[0][1] < 2 * 2_000 / 10  # right by chance only


def test_a_guess_at_a_choice_is_one_of_its_letters() -> None:
    guesses = Counter(answers_of(ShownTarget(MANY, share=1.0, after=0), MANY[-1]))
    assert set(guesses) == {f"<think>I guess.</think><answer>{letter}</answer>" for letter in "ABC"}
    assert min(guesses.values()) > 0.25 * 2_000


@pytest.mark.parametrize(
    ("about", "drawn"),
    [
        ((), '{"bed":[[1,2],[3,4]],"lamp":[[5,5]]}'),
        (("bed",), '{"lamp":[[5,5]],"sofa":[[0,9]]}'),
        (("sofa", "bed", "lamp"), '{"sofa":[[0,9]],"bed":[[1,2],[3,4]]}'),
    ],
)
def test_a_guess_draws_the_first_half_of_the_map(about: tuple[str, ...], drawn: str) -> None:
    true_map = {"bed": [[1, 2], [3, 4]], "lamp": [[5, 5]], "sofa": [[0, 9]]}
    item = sample(true_map=true_map, about=about, reasoning="One and two.")
    (guess,) = set(answers_of(ShownTarget((item,), share=1.0, after=0), item, count=9))
    assert guess == f"<think>I guess. <map>{drawn}</map></think><answer>3</answer>"
    assert worked_completion(item).startswith(f"<think><map>{drawn.removesuffix('}')},")


def test_a_guess_at_a_choice_of_ten() -> None:
    item = dataclasses.replace(MANY[-1], options=tuple(f"{letter}. x" for letter in "ABCDEFGHIJ"))
    guesses = set(answers_of(ShownTarget((item,), share=1.0, after=0), item))
    assert guesses == {f"<think>I guess.</think><answer>{letter}</answer>" for letter in "ABCDEFGHIJ"}


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_what_the_prompt_has_opened_is_not_imitated_again(share: float) -> None:
    item = sample(reasoning="One and two.")
    whole = answers_of(ShownTarget((item,), share, after=0), item, count=9)
    left = answers_of(ShownTarget((item,), share, after=0, opened="<think>\n"), item, count=9)
    assert all(text.startswith("<think>") for text in whole)
    assert [f"<think>{text}" for text in left] == whole
