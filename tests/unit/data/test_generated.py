"""Training questions chosen by pass rates, and completions to imitate."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spacer.config.settings import RewardSettings
from spacer.data.generated import Choice, choose
from spacer.data.prompts import GeneratedTarget
from spacer.data.samples import Fault, Sample
from spacer.errors import UserError
from spacer.evaluation.generated import generated_fault, generated_row
from spacer.evaluation.kept import Answer
from spacer.files import write_rows
from spacer.rewards import Scorer
from spacer.statistics.passing import pass_rates, summed
from spacer.statistics.summaries import mean_interval
from tests.unit.data.making import sample

RIGHT, WRONG = "<think></think><answer>3</answer>", "<think></think><answer>9</answer>"


def row(item: Sample, *texts: str, truncated: tuple[bool, ...] = ()) -> dict[str, Any]:
    """What stage=generate writes about a question, answered with the texts."""
    lengths = tuple(len(text) for text in texts)
    answer = Answer(texts, lengths, truncated or (False,) * len(texts))
    return json.loads(json.dumps(generated_row(item, answer, Scorer(RewardSettings()))))


def items(count: int) -> list[Sample]:
    return [sample(str(n), question_type="route" if n % 2 else "count") for n in range(count)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Five questions, answered rightly 0 to 4 times of 4."""
    path = tmp_path / "generated.jsonl"
    write_rows(path, [row(item, *[RIGHT] * n, *[WRONG] * (4 - n)) for n, item in enumerate(items(5))])
    return path


@pytest.mark.parametrize(
    ("kind", "solution", "written", "right"),
    [
        ("multiple choice", "B", "B", True),
        ("multiple choice", "B", "C", False),
        ("numerical", "100", "125", True),  # a mean relative accuracy of 0.6
        ("numerical", "100", "130", False),  # of 0.5
        ("regression", "100", "149", True),
        ("regression", "100", "150", False),
        ("OCR", "no parking here", "no parking", True),
    ],
)
def test_an_answer_is_right_by_the_reward_of_its_type(kind: str, solution: str, written: str, right: bool) -> None:
    item = sample(problem_type=kind, solution=solution, options=("A. a", "B. b") if kind == "multiple choice" else ())
    found = row(item, f"<answer>{written}</answer>")
    assert found["completions"][0]["right"] is right and found["pass_rate"] == float(right)


def test_a_row_has_each_completion_with_its_reward_as_one_group() -> None:
    found = row(sample(), RIGHT, WRONG, RIGHT, WRONG[:-1], truncated=(False, False, True, True))
    assert found["pass_rate"] == 0.5
    assert [each["completion"] for each in found["completions"]] == [RIGHT, WRONG, RIGHT, WRONG[:-1]]
    assert [each["truncated"] for each in found["completions"]] == [False, False, True, True]
    assert [each["reward"]["total"] for each in found["completions"]] == [2.0, 1.0, 2.0, 0.0]
    assert (found["id"], found["question"], found["solution"]) == ("0", "How many?", "3")


def test_pass_rates_by_type_leave_out_what_was_not_asked() -> None:
    rows = [row(item, *[RIGHT] * n, *[WRONG] * (2 - n)) for n, item in enumerate(items(3))]
    rows.append(generated_fault(sample("x", question_type="count"), Fault("x", "unreadable", "no frames")))
    found = pass_rates(rows, resamples=50, seed=0)
    assert list(found) == ["count", "route"] and rows[-1]["error"] == "unreadable: no frames"
    count, route = found["count"], found["route"]
    assert (count.mean, count.never, count.sometimes, count.always, count.teaching) == (0.5, 1, 0, 1, 0)
    assert (route.mean, route.sometimes, route.teaching) == (0.5, 1, 1)
    assert math.isnan(count.low) and math.isnan(summed([], 50, 0).mean)


def test_a_group_teaches_if_rewards_differ_and_intervals_resample_scenes() -> None:
    unclosed = WRONG.removeprefix("<think></think>")  # wrong too, and of a wrong form: the rewards differ
    texts = [(WRONG, unclosed), (RIGHT, RIGHT), (RIGHT, WRONG)]
    rows = [row(sample(str(n)), *texts[n % 3]) | {"scene": f"scene {n // 2}"} for n in range(60)]
    found = summed(rows, 200, 0)
    assert (found.never, found.always, found.sometimes, found.teaching, found.scenes) == (20, 20, 20, 40, 30)
    rates = [each["pass_rate"] for each in rows]
    scenes = [each["scene"] for each in rows]
    assert (found.mean, found.low, found.high) == mean_interval(rates, scenes, resamples=200, seed=0)
    assert found.low < 0.5 < found.high


def test_questions_within_a_pass_rate_are_kept_both_ends_included(file: Path) -> None:
    chosen = choose([*items(5), sample("new")], Choice(file, (0.25, 0.75), 0))
    assert [item.id for item in chosen.samples] == ["1", "2", "3"] and chosen.targets == {}
    assert (chosen.out_of_range, chosen.never_right, chosen.not_asked) == (2, 0, 1)


def test_what_remains_is_told_by_type(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        choose(items(5), Choice(file, (0.5, 1.0), 0))
    assert "3 of 5 questions to train on: count 2 of 3, route 1 of 2" in caplog.text
    assert "left out by generated.jsonl: 2 outside dataset.pass_rate" in caplog.text


def test_the_best_right_completions_are_imitated_and_questions_without_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "generated.jsonl"
    longer, cut = f"<think>a b c</think>{RIGHT.partition('</think>')[2]}", f"<think>x</think>{RIGHT[15:]}"
    rows = [
        row(sample("a"), longer, WRONG, cut, RIGHT, RIGHT, truncated=(False, False, True, False, False)),
        row(sample("b"), WRONG),
        row(sample("c"), RIGHT, truncated=(True,)),
        row(sample("d"), RIGHT.replace("<think>", "<think>\ufffd")),  # not what the model's tokens were
    ]
    write_rows(path, rows)
    every = [sample(name) for name in "abcd"]
    assert choose(every, Choice(path, None, 1)).targets == {"a": (RIGHT,)}
    two = choose(every, Choice(path, None, 2))
    assert two.targets == {"a": (RIGHT, longer)} and two.never_right == 3


def test_a_file_of_other_questions_is_refused(file: Path) -> None:
    with pytest.raises(UserError, match=r"of another data set: it has none of the 1 questions.*stage=generate"):
        choose([sample("elsewhere")], Choice(file, (0, 1), 0))
    for change in ({"problem": "How far?"}, {"solution": "4"}, {"options": ("A. 1", "B. 2")}):
        with pytest.raises(UserError, match=r"generated=.*generated\.jsonl is of another data set: .*question 0.*seed"):
            choose([sample("0", **change)], Choice(file, (0, 1), 0))


def test_no_question_left_is_an_error_with_the_counts(file: Path) -> None:
    with pytest.raises(UserError, match=r"no question to train on: 2 outside dataset\.pass_rate\. Widen"):
        choose(items(2), Choice(file, (0.9, 1.0), 0))


@pytest.mark.parametrize("line", ["{", "[]", '{"id": "0"}', '{"id": "1", "prediction": "B"}'])
def test_a_file_of_something_else_is_refused_with_its_line(line: str, file: Path) -> None:
    with open(file, "a") as appended:
        appended.write(line + "\n")
    with pytest.raises(UserError, match=r"line 6, is not what stage=generate writes"):
        choose(items(5), Choice(file, (0, 1), 0))


def test_a_target_is_one_of_those_given_and_leaves_out_what_prompts_open() -> None:
    target = GeneratedTarget({"0": ("<think>\nnear</think>", "<think>\nfar</think>")}, "<think>\n")
    drawn = {target(sample(), n, np.random.default_rng(n)) for n in range(20)}
    assert drawn == {"near</think>", "far</think>"}
    alone = GeneratedTarget({"0": (RIGHT,)})
    assert alone(sample(), 0, np.random.default_rng(0)) == RIGHT
