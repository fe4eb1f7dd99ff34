"""Predictions → scores: what a benchmark's figures are computed from, and the two files that they are written to."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spacer.benchmarks import benchmark
from spacer.benchmarks.question import Grade, Question
from spacer.evaluation.intervals import Interval, intervals
from spacer.evaluation.metrics import Metric
from spacer.files import write_rows, write_text

WRONG = Grade(None, 0.0, 0.0)  # of a question without a prediction


@dataclass(frozen=True)
class Scored:
    """A benchmark's questions, each with its grade, and the figures of both kinds as weights on their scores.

    `answered` says which questions have a prediction; those without one are graded wrong. `strangers` are ids of
    predictions that are none of the questions'.
    """

    benchmark: str
    questions: tuple[Question, ...]
    grades: tuple[Grade, ...]
    answered: tuple[bool, ...]
    strangers: tuple[str, ...]
    official: tuple[Metric, ...]
    released: tuple[Metric, ...]

    @property
    def official_scores(self) -> list[float]:
        """One score a question, as the benchmark's authors define it."""
        return [grade.official for grade in self.grades]

    @property
    def released_scores(self) -> list[float]:
        """One score a question, as SpaceR's evaluation code gives it."""
        return [grade.released for grade in self.grades]

    @property
    def official_values(self) -> dict[str, float]:
        """Metric → value, by the authors' rules."""
        return {metric.name: metric.value(self.official_scores) for metric in self.official}

    @property
    def released_values(self) -> dict[str, float]:
        """Metric → value, by the rules of SpaceR's evaluation code."""
        return {metric.name: metric.value(self.released_scores) for metric in self.released}

    @property
    def not_extracted(self) -> int:
        """How many predictions no answer could be read from."""
        return sum(done and grade.answer is None for done, grade in zip(self.answered, self.grades, strict=True))


def score_predictions(name: str, questions: Sequence[Question], predictions: Mapping[str, str]) -> Scored:
    """Grades what was written for each question, by id. A question without a prediction is wrong, never absent.

    Args:
        name: the benchmark's, as in `spacer.benchmarks.names()`.
        questions: of the benchmark, all or some, at least one.
        predictions: question id → the completion, whole, tags and reasoning included.

    Raises:
        UserError: there is no benchmark of that name.
    """
    if not questions:
        raise ValueError("no question to score")
    rules = benchmark(name)
    ids = {question.id for question in questions}
    return Scored(
        benchmark=name,
        questions=tuple(questions),
        grades=tuple(rules.grade(q, predictions[q.id]) if q.id in predictions else WRONG for q in questions),
        answered=tuple(question.id in predictions for question in questions),
        strangers=tuple(identity for identity in predictions if identity not in ids),
        official=tuple(rules.official(questions)),
        released=tuple(rules.released(questions)),
    )


def official_intervals(scored: Scored, resamples: int, seed: int) -> dict[str, Interval]:
    """Each official figure with its 95 % interval, over what questions share (their videos)."""
    clusters = [question.cluster for question in scored.questions]
    return intervals(scored.official, scored.official_scores, clusters, resamples=resamples, seed=seed)


def write_scores(folder: Path, scored: Scored, settings: Mapping[str, Any], spread: Mapping[str, Interval]) -> None:
    """Writes `scores.json` and `per_question.jsonl`.

    `settings` is how the answers came about, in plain JSON types; `spread` the intervals of the official figures, of
    which those that are not known (all questions are about one video) are null.
    """
    summary = {
        "benchmark": scored.benchmark,
        "questions": len(scored.questions),
        "answered": sum(scored.answered),
        "not_extracted": scored.not_extracted,
        "predictions_without_question": len(scored.strangers),
        "official": scored.official_values,
        "intervals": {
            name: None if math.isnan(found.low) else [found.low, found.high] for name, found in spread.items()
        },
        "spacer_eval": scored.released_values,
        "settings": dict(settings),
    }
    rows = (
        {
            "id": question.id,
            "task": question.task,
            "truth": question.truth,
            "answer": grade.answer,
            "score": grade.official,
            "extracted": grade.answer is not None,
            "released_score": grade.released,
            "cluster": question.cluster,
        }
        for question, grade in zip(scored.questions, scored.grades, strict=True)
    )
    write_rows(folder / "per_question.jsonl", rows)
    write_text(folder / "scores.json", [json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False), "\n"])
