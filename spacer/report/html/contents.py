"""What a report is made of: typed, so that reading run folders and writing a page know nothing of each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spacer.benchmarks.question import Question

Grid = Mapping[str, Sequence[Sequence[float]]]  # category → centres [x, y] on the 10 x 10 grid, y up


@dataclass(frozen=True)
class Asked:
    """A question. `key` tells it from the others of its subject, in whatever run it is asked.

    `cluster` is what questions share (their video). `media` is the video or image file, which need not exist, or
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
    """An answer. `score` is between 0 and 1; `read` is what was read from the completion, None where nothing could be.

    `completion` is None where the run left only the score, `error` says why a question was not asked, and `values`
    are its metrics (`reward/total`, …), none for a benchmark.
    """

    score: float
    read: str | None
    completion: str | None
    tokens: int | None
    error: str | None
    values: Mapping[str, float]
    drawn_map: Grid | None


@dataclass(frozen=True)
class Sitting:
    """All questions of a subject (a benchmark, or what the data hold out) as one model answered them.

    `phase` tells the sittings of one run apart: before, after, or empty. `figures` are the subject's own, as they were
    written down: name → value, low, high. `graded` are the benchmark's questions by id, where its files are at hand.
    """

    subject: str
    phase: str
    questions: Mapping[str, Asked]
    answers: Mapping[str, Answered]
    figures: Mapping[str, tuple[float, float | None, float | None]]
    graded: Mapping[str, Question]
    conditions: Mapping[str, Any]


@dataclass(frozen=True)
class RunFolder:
    """A run: what it was told, what it did, and what whoever reads the report must know of its files (`notes`)."""

    folder: Path
    name: str
    stage: str | None
    config: str  # YAML as recorded; empty where it was not
    overrides: tuple[str, ...]
    sittings: tuple[Sitting, ...]
    history: Sequence[Mapping[str, Any]]
    rollouts: Sequence[Mapping[str, Any]]
    faults: Sequence[Mapping[str, Any]]
    seconds: Mapping[str, float]
    notes: tuple[str, ...]
