"""Predictions → scores: the input of a benchmark's metrics, and the two files that they are written to."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from spacer.benchmarks import benchmark
from spacer.benchmarks.question import Grade, Question
from spacer.files import write_rows, write_text
from spacer.rewards.reading import final_text
from spacer.statistics.intervals import UNIT, Interval, intervals, paired
from spacer.statistics.metrics import Metric
from spacer.statistics.summaries import PairedDelta

WRONG = Grade(None, 0.0, 0.0)  # for a question without a prediction


@dataclass(frozen=True)
class Scored:
    """A benchmark's questions with their grades, and both kinds of metrics as weights on the scores.

    `answered` marks the questions whose prediction could be judged; the others, including those with a malformed
    row, are graded wrong. `strangers` are ids of predictions that match no question. `cut_off` counts
    the predictions that never finished the thinking that their prompts had opened. `second` names the reading of the
    `released` metrics, "" if there are none (`spacer.benchmarks`).
    """

    benchmark: str
    questions: tuple[Question, ...]
    grades: tuple[Grade, ...]
    answered: tuple[bool, ...]
    strangers: tuple[str, ...]
    official: tuple[Metric, ...]
    released: tuple[Metric, ...]
    cut_off: int = 0
    second: str = ""

    @property
    def official_scores(self) -> list[float]:
        """One score per question, as the benchmark's authors define it."""
        return [grade.official for grade in self.grades]

    @property
    def released_scores(self) -> list[float]:
        """One score per question, as the second reading has it."""
        return [grade.released for grade in self.grades]

    @property
    def official_values(self) -> dict[str, float]:
        """Metric → value, by the authors' rules."""
        return {metric.name: metric.value(self.official_scores) for metric in self.official}

    @property
    def released_values(self) -> dict[str, float]:
        """Metric → value, by the second reading."""
        return {metric.name: metric.value(self.released_scores) for metric in self.released}

    @property
    def malformed(self) -> int:
        """The number of questions with a malformed row."""
        return sum(question.fault is not None for question in self.questions)

    @property
    def not_extracted(self) -> int:
        """The number of predictions from which no answer could be extracted."""
        return sum(done and grade.answer is None for done, grade in zip(self.answered, self.grades, strict=True))


def opened_in_prompts(predictions: Mapping[str, str]) -> bool:
    """Whether the prompts of some predictions ended with an opened `<think>`.

    True if most completions close a thought that they do not open; or if a twentieth does, fewer open one, and those
    without a tag are as long or longer, as truncated thinking is, and answers without thinking are not.

    >>> opened_in_prompts({"1": "A?</think>B", "2": "C?</think>D", "3": "It may be"}), opened_in_prompts({"1": "B"})
    (True, False)
    >>> [opened_in_prompts({"1": "A?</think>B", "2": text, "3": text}) for text in ("It may be A, or B", "B")]
    [True, False]
    """
    written = [text for text in predictions.values() if text.strip()]
    opens = [text for text in written if "<think>" in text.partition("</think>")[0]]
    closes = [len(text) for text in written if "</think>" in text and "<think>" not in text.partition("</think>")[0]]
    untagged = [len(text) for text in written if "</think>" not in text and "<think>" not in text]
    if 2 * len(closes) > len(written):
        return True
    some = len(closes) > len(opens) and 20 * len(closes) >= len(written)
    return some and (not untagged or median(untagged) >= median(closes))


def score_predictions(
    name: str, questions: Sequence[Question], predictions: Mapping[str, str], opened_think: bool = False
) -> Scored:
    """Grades the completion of each question, by id. A question without a prediction is wrong, never left out.

    Args:
        name: the benchmark's, as in `BENCHMARKS`.
        questions: of the benchmark, all or some, at least one.
        predictions: question id → the full completion, with tags and reasoning.
        opened_think: whether the prompts ended with an opened `<think>`; a completion that does not close it was
            truncated, and gives no answer.

    Raises:
        UserError: there is no benchmark of that name.
    """
    if not questions:
        raise ValueError("no question to score")
    rules = benchmark(name)
    ids = {question.id for question in questions}

    def grade(question: Question, text: str) -> Grade:
        made = rules.grade(question, text)
        cut_off = opened_think and not final_text(text, opened_think)
        return replace(made, answer=None, official=0.0) if cut_off else made

    judged = tuple(question.fault is None and question.id in predictions for question in questions)
    return Scored(
        benchmark=name,
        questions=tuple(questions),
        grades=tuple(
            grade(question, predictions[question.id]) if known else WRONG
            for question, known in zip(questions, judged, strict=True)
        ),
        answered=judged,
        strangers=tuple(identity for identity in predictions if identity not in ids),
        official=tuple(rules.official(questions)),
        released=tuple(rules.released(questions)),
        second=rules.SECOND,
        cut_off=sum(opened_think and "</think>" not in predictions.get(identity, "</think>") for identity in ids),
    )


def official_intervals(scored: Scored, resamples: int, seed: int) -> dict[str, Interval]:
    """Each official metric with its 95 % interval, clustered by what questions share (their videos)."""
    clusters = [question.cluster for question in scored.questions]
    return intervals(scored.official, scored.official_scores, clusters, scale=UNIT, resamples=resamples, seed=seed)


def video_adds(own: Scored, other: Scored, resamples: int, seed: int) -> dict[str, PairedDelta]:
    """Each official metric under a control, without it, and their difference with its interval: questions are paired,
    and clusters (their videos) are resampled.

    Raises:
        ValueError: the two cover different questions.
    """
    if own.questions != other.questions:
        raise ValueError("a control is of the same questions as what it is held against")
    clusters = [question.cluster for question in own.questions]
    scores = (other.official_scores, own.official_scores)
    spread = paired(own.official, *scores, clusters, scale=UNIT, resamples=resamples, seed=seed)
    found = {}
    for metric in own.official:
        of = sorted({place for _, places in metric.parts for place in places})
        found[metric.name] = PairedDelta(
            before=spread[metric.name].a,
            after=spread[metric.name].b,
            delta=spread[metric.name].delta,
            delta_low=spread[metric.name].low,
            delta_high=spread[metric.name].high,
            questions=len(of),
            scenes=len({clusters[place] for place in of}),
        )
    return found


def write_scores(
    folder: Path,
    scored: Scored,
    settings: Mapping[str, Any],
    spread: Mapping[str, Interval],
    protocol: Mapping[str, str] | None = None,
) -> None:
    """Writes `scores.json` and `per_question.jsonl`.

    `settings` describes how the answers were produced, in plain JSON types; `spread` has the intervals of the official
    metrics, null where there is none; `clusters` says of how many videos they are. `protocol` has the name and the
    digest of how the questions were asked, null where that is not known.
    """
    summary = {
        "benchmark": scored.benchmark,
        "protocol": None if protocol is None else dict(protocol),
        "questions": len(scored.questions),
        "answered": sum(scored.answered),
        "not_extracted": scored.not_extracted,
        "malformed": scored.malformed,
        "predictions_without_question": len(scored.strangers),
        "official": scored.official_values,
        "intervals": {
            name: None if math.isnan(found.low) else [found.low, found.high] for name, found in spread.items()
        },
        "clusters": {name: found.clusters for name, found in spread.items()},
        **({scored.second: scored.released_values} if scored.second else {}),
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
            "cluster": question.cluster,
        }
        | ({"released_score": grade.released} if scored.second else {})
        | ({} if question.fault is None else {"error": f"malformed row: {question.fault}"})
        for question, grade in zip(scored.questions, scored.grades, strict=True)
    )
    write_rows(folder / "per_question.jsonl", rows)
    write_text(folder / "scores.json", [json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False), "\n"])
