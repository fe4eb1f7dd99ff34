"""Official scores and overall scores are the authors' own, on answers in the forms that their rules are made for."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest

from spacer.benchmarks import benchmark, release
from spacer.benchmarks.question import Kind, Question
from spacer.benchmarks.view_change import AXES, read_motion
from spacer.benchmarks.vsi_bench import DIRECTION
from spacer.config.choices import BENCHMARKS
from spacer.evaluation.scoring import score_predictions
from tests.benchmarks_as_distributed import MAKERS
from tests.unit.benchmarks import authors

TOLERATED = 1 - np.linspace(0.5, 0.95, 10)  # as the authors of VSI-Bench and of SPAR-Bench compute it


def mra(number: float, truth: float) -> float:
    """The share of thresholds that a relative error is within; of a truth of 0, the error itself."""
    return float((abs(number - truth) / (abs(truth) or 1) <= TOLERATED).mean())


def vsi(question: Question, text: str) -> float:
    if question.kind is Kind.choice:
        return float(authors.vsi_choice(text) == question.truth)
    number = authors.vsi_number(text)
    return 0.0 if number is None else mra(number, float(question.truth))


def spar(question: Question, text: str) -> float:
    if question.task == "view_change_infer":
        given, true = (read_motion(side) or {} for side in (text, question.truth))
        pairs = ([motion.get(plus, 0) - motion.get(minus, 0) for motion in (given, true)] for plus, minus in AXES)
        return float(np.mean([mra(number, truth) for number, truth in pairs]))
    if question.kind is Kind.number:
        number = release.spar_number(text, question.task.endswith("_mv"))
        return 0.0 if number is None else mra(number, float(question.truth))
    return float(release.spar_choice(text, question.truth))


def tempcompass(question: Question, text: str) -> float:
    if question.kind is Kind.choice:
        option = next(option for option in question.options if option[0] == question.truth)
        return float(release.tempcompass_choice(text, option))
    if question.options:
        return float(authors.tempcompass_line(text, question.options) == question.truth.partition(":")[0])
    return float(authors.tempcompass_yes_no(text) == question.truth)


def by_letter(read: Callable[[str], str]) -> Callable[[Question, str], float]:
    return lambda question, text: float(read(text) == question.truth)


def lone_letter(question: Question, text: str) -> float:
    """The one letter that a form of `LETTERS` holds."""
    (letter,) = re.findall(r"(?<![A-Za-z])[A-F](?![A-Za-z])", text)
    return float(letter == question.truth)


SCORES: dict[str, Callable[[Question, str], float]] = {
    "vsi_bench": vsi,
    "sti_bench": by_letter(release.sti_choice),
    "spar_bench": spar,
    "video_mme": by_letter(lambda text: release.first_capital(text, "ABCD", also_correct=True)),
    "longvideobench": by_letter(lambda text: release.first_capital(text, "ABCDE")),
    "tempcompass": tempcompass,
    "revsi": vsi,
    "vsi_debiased": vsi,
}
# forms of a letter that the authors' rule reads; the forms of a number are for all
LETTERS = {
    "vsi_bench": ("{}", "{}.", "{} "),
    "sti_bench": ("({})", "Ans='{}'", "Answer: {}", "Option {}", "{} is correct", "{}."),
    "spar_bench": ("{}", "{}.", "{}. left"),
    "video_mme": ("{}", "{}.", "({})", "The best answer is {}.", "The correct option is {}", "Answer: {}"),
    "longvideobench": ("{}", "{}.", "({})", "The answer is {}.", "Best option: {}"),
    "tempcompass": ("{}", "{}.", "{})"),
    "mmsi_bench": ("``{}``", "`{}`", "{}", "The answer is {}."),
    "mindcube": ("{}.", "<answer>{}. Sofa</answer>", "Answer: {}", "{}"),
    "viewspatial": ("{}", "{}.", "({})", "I look at it.\nAnswer: {}"),
    "site_bench": ("({})", "{}", "{}.", "{}:"),
    "blink": ("({})", "{}", "The answer is ({}) then"),
    "threedsrbench": ("{}", "{}.", "({})"),
    "embspatial": ("{}", "{}.", "({})"),
    "omnispatial": ("It moves.\nAnswer: {}", "Answer: {}"),
    "mmsi_video": ("{}", "<answer>{}</answer>", "\\boxed{{{}}}", "The answer is {}."),
    "revsi": ("{}", "{}.", "{} "),
    "vsi_debiased": ("{}", "{}.", "{} "),
}
NUMBERS = ("{}", "{:.2f}", "{} ")


def answers(name: str, question: Question, rng: random.Random) -> str:
    """What a model might write: right or not, in one of the forms."""
    if question.kind is Kind.choice:
        letter = rng.choice([option[0] for option in question.options] or ["A", "B"])
        return rng.choice(LETTERS[name]).format(letter)
    if question.kind is Kind.number:
        truth = float(question.truth)
        return rng.choice(NUMBERS).format(round(truth * rng.choice((1, 0.95, 1.05, 0.9, 1.2, 0.5, 3)), 2))
    if question.task == "view_change_infer":
        return ",".join(f"{action}:{rng.choice((0.5, 1, 1.1)) * value:g}" for action, value in _motion(question))
    if question.options:
        line = rng.choice(question.options)
        return rng.choice((line, line.partition(":")[0], line.partition(": ")[2], line.partition(":")[0][-1]))
    return rng.choice(("yes", "No", "Yes, it is.", "no."))


def _motion(question: Question) -> list[tuple[str, float]]:
    return list((read_motion(question.truth) or {}).items())


def overall(name: str, questions: Sequence[Question], scores: Sequence[float]) -> float:
    """The authors' overall score: of questions where nothing else is said."""
    if name == "mindcube":
        return fmean(score for q, score in zip(questions, scores, strict=True) if "translation" not in q.id)
    if name == "site_bench":
        chance = [1 / len(q.options) for q in questions]
        return sum(s - c for s, c in zip(scores, chance, strict=True)) / sum(1 - c for c in chance)
    if name == "threedsrbench":
        circles: dict[str, list[float]] = {}
        for question, score in zip(questions, scores, strict=True):
            circles.setdefault(question.groups["qid"][:8] + "flip" * ("flip" in question.groups["qid"]), []).append(
                score
            )
        return fmean(min(circle) for circle in circles.values())
    if name not in ("vsi_bench", "spar_bench", "vsi_debiased", "blink", "revsi"):
        return fmean(scores)
    by_task: dict[str, list[float]] = {}
    for question, score in zip(questions, scores, strict=True):
        by_task.setdefault(question.task, []).append(score)
    tasks = {task: fmean(found) for task, found in by_task.items()}
    if name == "revsi":
        groups: dict[str, list[float]] = {}
        for task, score in tasks.items():
            group = next(one for one in ("direction", "distance_", "counting", "room_size", task) if one in task)
            groups.setdefault(group if group in ("direction", "counting", "room_size") else task, []).append(score)
        closest = groups.pop("object_rel_distance_closest") + groups.pop("object_rel_distance_farthest")
        return fmean([fmean(closest), *map(fmean, groups.values())])
    if name in ("vsi_bench", "vsi_debiased"):
        tasks["direction"] = fmean(tasks.pop(level) for level in DIRECTION)
    return fmean(tasks.values())


@pytest.mark.parametrize("name", BENCHMARKS)
def test_official_is_what_the_authors_compute(name: str, tmp_path: Path) -> None:
    MAKERS[name](tmp_path)
    questions, faults = benchmark(name).read(tmp_path)
    assert not faults
    rng = random.Random(0)
    for tagged in ("{}", "<think>A or B, 7?</think><answer>{}</answer>"):
        for _ in range(20):
            texts = [answers(name, question, rng) for question in questions]
            score = SCORES.get(name, lone_letter)
            expected = [score(question, text) for question, text in zip(questions, texts, strict=True)]
            written = {question.id: tagged.format(text) for question, text in zip(questions, texts, strict=True)}
            made = score_predictions(name, questions, written)
            assert dict(zip(texts, made.official_scores, strict=True)) == dict(zip(texts, expected, strict=True))
            assert made.official_scores == expected
            if tagged == "{}" and made.second == "authors_code":
                assert made.released_scores == expected
            assert made.official_values["overall"] == pytest.approx(overall(name, questions, expected))
