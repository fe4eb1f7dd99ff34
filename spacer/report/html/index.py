"""What the page needs at once: columns, figures, a short entry for each question. Texts and media come by chunks."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import yaml

from spacer.report.comparison import letter
from spacer.report.html.contents import RunFolder, Sitting
from spacer.report.html.published import PUBLISHED
from spacer.report.html.scores import rows
from spacer.report.html.texts import Questions
from spacer.report.labels import QUESTION_TYPES, label_of

HEAD = 160  # characters of a question in the list
_CHOSEN = "benchmark.limit or benchmark.tasks chose some questions: published figures, which are of all, are left out"
FAULTS = 500  # of a run that are listed
POINTS = 800  # of a curve; of longer ones neighbours are averaged
_NO_METRICS = ("step", "epoch")


@dataclass(frozen=True)
class Column:
    """One run's answers to a subject: the run's place, and what the column is called."""

    run: int
    label: str


@dataclass(frozen=True)
class Subject:
    """A benchmark, or what the data hold out, with everybody's answers."""

    name: str
    columns: tuple[Column, ...]
    questions: Questions


def subjects(runs: Sequence[RunFolder]) -> list[Subject]:
    """The subjects of the runs, each with a column for every sitting."""
    found: dict[str, list[tuple[Column, Sitting]]] = {}
    for place, run in enumerate(runs):
        for sitting in run.sittings:
            name = letter(place) if len(runs) > 1 else "" if sitting.phase else run.name
            label = " ".join(filter(None, (name, sitting.phase)))
            found.setdefault(sitting.subject, []).append((Column(place, label), sitting))
    return [
        Subject(name, tuple(column for column, _ in pairs), Questions.of([sitting for _, sitting in pairs]))
        for name, pairs in found.items()
    ]


def subject_entry(subject: Subject, media: Sequence[int], resamples: int, seed: int) -> dict[str, Any]:
    """A subject as the page reads it; `media` are the places of the questions' media, -1 where there is none."""
    asked, sittings = subject.questions.asked, subject.questions.sittings
    tasks = list(dict.fromkeys(one.task for one in asked))
    clusters = list(dict.fromkeys(one.cluster for one in asked))
    task_at, cluster_at = ({name: place for place, name in enumerate(names)} for names in (tasks, clusters))
    chosen = any(_is_chosen(sitting) for sitting in sittings)
    return {
        "name": subject.name,
        "columns": [asdict(column) for column in subject.columns],
        "tasks": [{"name": task, "label": QUESTION_TYPES.get(task, task.replace("_", " "))} for task in tasks],
        "clusters": clusters,
        "id": [one.id for one in asked],
        "task": [task_at[one.task] for one in asked],
        "cluster": [cluster_at[one.cluster] for one in asked],
        "head": [" ".join(one.text[: 2 * HEAD].split())[:HEAD] for one in asked],
        "media": list(media),
        "answers": [_short(subject.questions, place) for place in range(len(sittings))],
        "figures": [asdict(row) for row in rows(sittings, resamples, seed)],
        "published": [] if chosen else [asdict(entry) for entry in PUBLISHED if entry.benchmark == subject.name],
        "notes": _overlaps(subject) + ([_CHOSEN] if chosen else []),
        "conditions": [_flat(_asked_how(sitting)) for sitting in sittings],
    }


def _short(questions: Questions, place: int) -> dict[str, list[Any]]:
    """Score of each question, null where it was not in this sitting, and state: answered, not read, not asked."""
    answers = [questions.sittings[place].answers.get(asked.key) for asked in questions.asked]
    return {
        "score": [None if answer is None else round(answer.score, 4) for answer in answers],
        "state": [
            "" if answer is None or answer.read is not None else "unread" if answer.error is None else "error"
            for answer in answers
        ],
    }


def _overlaps(subject: Subject) -> list[str]:
    """Where columns were not asked the same questions."""
    first, *others = subject.questions.sittings
    notes = []
    for column, other in zip(subject.columns[1:], others, strict=True):
        both = len(first.questions.keys() & other.questions.keys())
        if both < max(len(first.questions), len(other.questions)):
            notes.append(
                f"{subject.columns[0].label} and {column.label} have {both} questions in common, of "
                f"{len(first.questions)} and {len(other.questions)}: differences are over those alone"
            )
    return notes


def _is_chosen(sitting: Sitting) -> bool:
    """Whether only some of a benchmark's questions were asked."""
    return sitting.conditions.get("limit") is not None or sitting.conditions.get("tasks") is not None


def _asked_how(sitting: Sitting) -> dict[str, Any]:
    return {name: value for name, value in sitting.conditions.items() if value is not None}


def run_entry(run: RunFolder, place: int) -> dict[str, Any]:
    """A run as the page reads it, without its answers."""
    return {
        "letter": letter(place),
        "name": run.name,
        "folder": str(run.folder),
        "stage": run.stage,
        "config": run.config,
        "command": shlex.join(run.overrides),
        "seconds": dict(run.seconds),
        "faults": [{name: str(value) for name, value in fault.items()} for fault in run.faults[:FAULTS]],
        "fault_count": len(run.faults),
        "notes": list(run.notes),
        "curves": curves(run.history),
    }


def curves(history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every metric of the history: name, label and points [step, value]."""
    found: dict[str, list[tuple[float, float]]] = {}
    for row in history:
        for name, value in row.items():
            number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if number and name not in _NO_METRICS:
                found.setdefault(name, []).append((row["step"], value))
    return [{"name": name, "label": label_of(name), "points": thinned(points)} for name, points in found.items()]


def thinned(points: Sequence[tuple[float, float]], most: int = POINTS) -> list[list[float]]:
    """At most so many points: the means of neighbours where there are more.

    >>> thinned([(0, 1.0), (1, 3.0), (2, 5.0), (3, 7.0)], most=2)
    [[0.5, 2.0], [2.5, 6.0]]
    """
    if len(points) <= most:
        return [[step, float(f"{value:.6g}")] for step, value in points]
    ends = [len(points) * place // most for place in range(most + 1)]
    bins = [points[a:b] for a, b in pairwise(ends)]
    means = [[sum(column) / len(each) for column in zip(*each, strict=True)] for each in bins]
    return [[step, float(f"{value:.6g}")] for step, value in means]


def differences(runs: Sequence[RunFolder]) -> list[dict[str, Any]]:
    """The settings that are not the same in all runs: key and each run's value."""
    flat = [dict(_flat(yaml.safe_load(run.config) or {})) for run in runs]
    keys = dict.fromkeys(key for entry in flat for key in entry)
    values = {key: [entry.get(key, "—") for entry in flat] for key in keys}
    return [{"key": key, "values": found} for key, found in values.items() if len(set(found)) > 1]


def _flat(value: Any, at: str = "") -> list[tuple[str, str]]:
    """Every value of nested sections, with its path."""
    if isinstance(value, Mapping):
        return [entry for key, inner in value.items() for entry in _flat(inner, f"{at}.{key}" if at else str(key))]
    return [(at, str(value))]
