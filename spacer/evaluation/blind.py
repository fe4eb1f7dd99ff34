"""A blind baseline: priors of the training split, applied to the prompt alone (pure).

Models answer many spatial questions without looking, which is why the authors of VSI-Bench debiased it: a score means
little without the score that the prompt alone gives.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from spacer.data.prompts import map_literal
from spacer.data.samples import Sample
from spacer.rewards import map_score, mean_relative_accuracy

CHOICE, NUMBER = "multiple choice", "numerical"
FEW = 4  # minimum number of questions with the same words for their answers to be a prior
CANDIDATES = 60  # candidates for the constant number, at even quantiles
LETTERS = "ABCDEFGHIJ"

Layout = dict[str, list[list[int]]]


@dataclass(frozen=True)
class Asked:
    """What a blind policy may know of a question, and its `scene` and right `answer`: a letter, or a number as text.

    `options` are without their letters.
    """

    question_type: str
    problem_type: str
    text: str
    options: tuple[str, ...]
    answer: str
    scene: str


@dataclass(frozen=True)
class BlindScore:
    """The blind policy's mean answer score on a question type, and the score of guessing: a random option, or one
    number for all questions."""

    questions: int
    blind: float
    chance: float


def asked_of(sample: Sample) -> Asked:
    """The question of a sample."""
    options = tuple(re.sub(r"^[A-Z][.):]\s*", "", option) for option in sample.options)
    return Asked(
        sample.question_type, sample.problem_type, sample.problem, options, sample.solution.strip(), sample.scene
    )


Policy = Callable[[Asked], str]


class BlindPolicy:
    """For each question type, the policy that scored best in cross-validation over scenes of the training questions.

    Numbers: a constant, or one for each wording. Choices: a letter, or the option text that is right most often,
    over all questions or over those of the same wording. Other problem types get no answer.
    """

    def __init__(self, training: Sequence[Asked]) -> None:
        self._policies: dict[str, Policy] = {}
        for kind, questions in _by_type(training).items():
            makers = _MAKERS.get(questions[0].problem_type)
            if makers is not None:
                self._policies[kind] = max(makers, key=lambda make: _over_folds(make, questions))(questions)

    def answer(self, question: Asked) -> str:
        """The answer; empty for a type that is absent from the training split."""
        policy = self._policies.get(question.question_type)
        return "" if policy is None else policy(question)


def blind_scores(training: Sequence[Asked], heldout: Sequence[Asked]) -> dict[str, BlindScore]:
    """Question type → score of the training questions' priors on the held-out questions.

    Types whose answers are neither choices nor numbers are left out.
    """
    policy, ones = BlindPolicy(training), _by_type(training)
    found = {}
    for kind, questions in _by_type(heldout).items():
        if questions[0].problem_type not in _MAKERS:
            continue
        scores = [_score(policy.answer(question), question) for question in questions]
        found[kind] = BlindScore(len(questions), float(np.mean(scores)), _chance(ones.get(kind, ()), questions))
    return found


def cross_blind_scores(questions: Sequence[Asked]) -> dict[str, BlindScore]:
    """`blind_scores` without a train split: each half of the scenes is answered with priors of the other half."""
    halves = [[question for question in questions if _fold(question) == half] for half in (0, 1)]
    if not all(halves):
        return {}
    parts = [blind_scores(halves[1 - half], halves[half]) for half in (0, 1)]
    found = {}
    for kind in _by_type(questions):
        scored = [part[kind] for part in parts if kind in part]
        total = sum(score.questions for score in scored)
        if total:
            blind, chance = (
                sum(getattr(score, name) * score.questions for score in scored) / total for name in ("blind", "chance")
            )
            found[kind] = BlindScore(total, blind, chance)
    return found


def constant_layout(maps: Sequence[Mapping[str, Sequence[Sequence[float]]]]) -> Layout:
    """The constant map that fits all scenes best: for each category, the points that score best against its maps.

    Candidates are, for each count at which the category occurs, the medians over the maps with that count.
    """
    by_category: dict[str, list[list[list[float]]]] = defaultdict(list)
    for known in maps:
        for category, points in known.items():
            by_category[category].append(sorted(map(list, points)))
    return {category: _best_points(category, found) for category, found in by_category.items()}


def _best_points(category: str, found: Sequence[list[list[float]]]) -> list[list[int]]:
    tried = []
    for count in sorted({len(points) for points in found if points}):
        same = np.array([points for points in found if len(points) == count])
        tried.append(np.rint(np.median(same, axis=0)).astype(int).tolist())

    def worth(points: list[list[int]]) -> float:
        text = f"<map>{map_literal({category: points})}</map>"
        return sum(map_score(text, {category: known}) for known in found)

    return max(tried, key=worth, default=[])


def prior_completions(training: Sequence[Sample], heldout: Sequence[Sample]) -> list[str]:
    """A completion for each held-out question: the constant layout, restricted to the categories that the prompt
    names, and the blind policy's answer."""
    policy = BlindPolicy([asked_of(sample) for sample in training])
    known = {sample.scene: sample.true_map for sample in training if sample.true_map}
    layout = constant_layout(list(known.values()))
    found = []
    for sample in heldout:
        drawn = {category: layout[category] for category in sample.true_map or () if category in layout}
        text = f"<map>{map_literal(drawn)}</map>" if drawn else ""
        found.append(f"<think>{text}</think><answer>{policy.answer(asked_of(sample))}</answer>")
    return found


def _by_type(questions: Sequence[Asked]) -> dict[str, list[Asked]]:
    found: dict[str, list[Asked]] = {}
    for question in questions:
        found.setdefault(question.question_type, []).append(question)
    return found


def _fold(question: Asked) -> int:
    """The half that a question's scene is in, independent of order and of other scenes."""
    return hashlib.sha256(question.scene.encode()).digest()[0] % 2


def _over_folds(make: Callable[[Sequence[Asked]], Policy], questions: Sequence[Asked]) -> float:
    """The mean score of each half under a policy fitted to the other half."""
    total = 0.0
    for half in (0, 1):
        policy = make([question for question in questions if _fold(question) != half])
        total += sum(_score(policy(question), question) for question in questions if _fold(question) == half)
    return total


def _score(answer: str, question: Asked) -> float:
    if question.problem_type == CHOICE:
        return float(answer == question.answer)
    return mean_relative_accuracy(float(answer), float(question.answer)) if answer else 0.0


def _chance(training: Sequence[Asked], questions: Sequence[Asked]) -> float:
    if questions[0].problem_type == CHOICE:
        return float(np.mean([1 / len(question.options) for question in questions]))
    one = _one_number(training)
    return float(np.mean([_score(one(question), question) for question in questions]))


def _best_number(truths: Sequence[float]) -> float:
    """The number with the best mean relative accuracy over the truths, among their even quantiles."""
    tried = np.unique(np.quantile(truths, np.linspace(0, 1, CANDIDATES), method="nearest"))
    return float(max(tried, key=lambda number: sum(mean_relative_accuracy(number, truth) for truth in truths)))


def _one_number(questions: Sequence[Asked]) -> Policy:
    truths = [float(question.answer) for question in questions]
    answer = repr(_best_number(truths)) if truths else ""
    return lambda question: answer


def _number_by_wording(questions: Sequence[Asked]) -> Policy:
    groups: dict[str, list[float]] = defaultdict(list)
    for question in questions:
        groups[question.text].append(float(question.answer))
    best = {text: repr(_best_number(truths)) for text, truths in groups.items() if len(truths) >= FEW}
    other = _one_number(questions)
    return lambda question: best.get(question.text) or other(question)


def _one_letter(questions: Sequence[Asked]) -> Policy:
    right = Counter(question.answer for question in questions)
    ranked = sorted(LETTERS, key=lambda letter: -right[letter])
    return lambda question: next(letter for letter in ranked if letter in LETTERS[: len(question.options)])


def _option_by_words(questions: Sequence[Asked], wording: bool = False) -> Policy:
    """The option text that was right most often when offered, with rates of rare texts shrunk towards chance."""
    offered: Counter[tuple[str, str]] = Counter()
    right: Counter[tuple[str, str]] = Counter()
    for question in questions:
        for text in ("", question.text) if wording else ("",):
            offered.update((text, option) for option in question.options)
            right[text, _right(question)] += 1

    def worth(question: Asked, option: str) -> float:
        expected = 1 / len(question.options)
        for text in ("", question.text) if wording else ("",):
            expected = (right[text, option] + FEW * expected) / (offered[text, option] + FEW)
        return expected

    def answer(question: Asked) -> str:
        worths = [worth(question, option) for option in question.options]
        return LETTERS[int(np.argmax(worths))]

    return answer


def _option_by_wording(questions: Sequence[Asked]) -> Policy:
    return _option_by_words(questions, wording=True)


def _right(question: Asked) -> str:
    return question.options[LETTERS.index(question.answer)]


_MAKERS: dict[str, tuple[Callable[[Sequence[Asked]], Policy], ...]] = {
    NUMBER: (_one_number, _number_by_wording),
    CHOICE: (_one_letter, _option_by_words, _option_by_wording),
}
