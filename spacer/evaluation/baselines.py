"""Blind baselines of a benchmark: what guessing and the best constant answers score, without a model (pure)."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache

from spacer.benchmarks import benchmark
from spacer.benchmarks.question import Kind, Question
from spacer.evaluation.scoring import Scored, score_predictions

CANDIDATES = 16  # numbers that are tried as a task's constant, at even ranks of its truths
Values = Mapping[str, float]


def chance(scored: Scored) -> dict[str, float]:
    """Official metric → its expectation where each question is answered with one of its options at random.

    NaN for a metric with a question that is no choice, or whose options stand in its text alone.
    """
    questions = scored.questions
    expected = [_chance(question) for question in questions]
    return {
        metric.name: metric.value(expected) if _known(metric.parts, expected) else math.nan
        for metric in scored.official
    }


def _chance(question: Question) -> float:
    if question.fault is not None:
        return 0.0
    return 1 / len(question.options) if question.kind == Kind.choice and question.options else math.nan


def _known(parts: Sequence[tuple[float, tuple[int, ...]]], expected: Sequence[float]) -> bool:
    return all(math.isfinite(expected[place]) for _, of in parts for place in of)


def constant(name: str, questions: Sequence[Question]) -> dict[str, float]:
    """Official metric → its value where all questions of a task have one answer: the letter that is right most often,
    or the number that scores best.

    The answer is chosen on one half of the videos and scored on the other, each half in turn, so that a benchmark with
    one question for each task does not score itself. A task that is in one half alone, or is answered in words, scores
    0.
    """
    answers = {
        (task, half): _best(name, [q for q in of if _half(q) != half])
        for task, of in _by_task(questions).items()
        for half in (0, 1)
    }
    predictions = {
        question.id: f"<answer>{answer}</answer>"
        for question in questions
        if (answer := answers.get((question.task, _half(question)))) is not None
    }
    return score_predictions(name, questions, predictions).official_values


def _by_task(questions: Sequence[Question]) -> dict[str, list[Question]]:
    found: dict[str, list[Question]] = {}
    for question in questions:
        if question.fault is None:
            found.setdefault(question.task, []).append(question)
    return found


def _half(question: Question) -> int:
    """The half that a question's video is in, independent of order and of other videos."""
    return hashlib.sha256(question.cluster.encode()).digest()[0] % 2


def _best(name: str, questions: Sequence[Question]) -> str | None:
    """The constant answer that scores best over the questions of a task; None for none, and for words."""
    if not questions or questions[0].kind == Kind.text:
        return None
    truths = Counter(question.truth for question in questions)
    if questions[0].kind == Kind.choice:
        return max(sorted(truths), key=lambda truth: truths[truth])
    ranked = sorted(truths.elements(), key=_number)
    tried = sorted({ranked[round(i * (len(ranked) - 1) / (CANDIDATES - 1))] for i in range(CANDIDATES)}, key=_number)
    examples = {question.truth: question for question in questions}

    @cache
    def grade(truth: str, answer: str) -> float:
        return benchmark(name).grade(examples[truth], f"<answer>{answer}</answer>").official

    return max(tried, key=lambda answer: sum(count * grade(truth, answer) for truth, count in truths.items()))


def _number(truth: str) -> float:
    try:
        return float(truth)
    except ValueError:
        return math.inf
