"""The contents of a report, typed, so that reading run folders and writing the page are independent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spacer.benchmarks.question import Question
from spacer.statistics.passing import PassRates

Grid = Mapping[str, Sequence[Sequence[float]]]  # category → centres [x, y] on the 10 x 10 grid, y up


@dataclass(frozen=True)
class Asked:
    """A question. `key` identifies it within its subject, in every run that asks it.

    `cluster` is what questions share (their video). `media` is the video or image file, which may not exist, or
    `pictures` are encoded images. `truth` is the right answer, the letter for a choice.
    """

    key: str
    id: str
    task: str
    text: str
    options: tuple[str, ...]
    truth: str
    cluster: str
    media: Path | None = None
    pictures: Sequence[bytes] = ()
    true_map: Grid | None = None


@dataclass(frozen=True)
class Answered:
    """An answer. `score` is between 0 and 1; `read` is what was extracted from the completion, None if nothing was.

    `completion` is None if the run kept only the score, `error` says why a question was not asked, and `values`
    are its metrics (`reward/total`, …), empty for a benchmark.
    """

    score: float
    read: str | None
    completion: str | None
    tokens: int | None
    error: str | None
    values: Mapping[str, float]
    drawn_map: Grid | None


@dataclass(frozen=True)
class Added:
    """A metric of the questions as a control changes them (`without` the video), of the unchanged ones (`own`), and the
    difference with the ends of its 95 % interval, None if it has none."""

    without: float
    own: float
    delta: float
    low: float | None
    high: float | None
    questions: int
    scenes: int


@dataclass(frozen=True)
class EvaluationResult:
    """All questions of a subject (a benchmark, or the held-out questions) as answered by one model.

    `phase` distinguishes the evaluations of one run: before, after, or empty. `metrics` are the subject's own
    recorded metrics: name → value, low, high. `graded` are the benchmark's questions by id, if its files are available.
    `adds` is what the video adds: control → metric → the difference.
    """

    subject: str
    phase: str
    questions: Mapping[str, Asked]
    answers: Mapping[str, Answered]
    metrics: Mapping[str, tuple[float, float | None, float | None]]
    graded: Mapping[str, Question]
    conditions: Mapping[str, Any]
    adds: Mapping[str, Mapping[str, Added]] = field(default_factory=dict)


@dataclass(frozen=True)
class RunFolder:
    """A run: its settings, its results, and notes for the reader on its files (`notes`)."""

    folder: Path
    name: str
    stage: str | None
    config: str  # YAML as recorded; empty if it was not
    overrides: tuple[str, ...]
    evaluations: tuple[EvaluationResult, ...]
    pass_rates: Mapping[str, PassRates]  # question type → those of stage=generate; empty for another stage
    history: Sequence[Mapping[str, Any]]
    rollouts: Sequence[Mapping[str, Any]]
    faults: Sequence[Mapping[str, Any]]
    seconds: Mapping[str, float]
    notes: tuple[str, ...]
