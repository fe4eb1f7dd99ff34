"""What the page loads at once: columns, metrics and a short entry per question. Texts and media load in chunks."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from spacer.files import parse_yaml
from spacer.report.comparison import letter
from spacer.report.html.added import added_entries
from spacer.report.html.contents import EvaluationResult, RunFolder
from spacer.report.html.pass_rates import pass_rate_entries
from spacer.report.html.scores import rows
from spacer.report.html.texts import Questions
from spacer.report.labels import QUESTION_TYPES, label_of
from spacer.report.published import PUBLISHED

HEAD = 160  # characters of a question in the list
_CHOSEN = "benchmark.limit or benchmark.tasks chose some questions: published scores, which are of all, are left out"
FAULTS = 500  # listed per run
POINTS = 800  # per curve; longer ones average neighbours
_NO_METRICS = ("step", "epoch")


@dataclass(frozen=True)
class Column:
    """One run's answers to a subject: the run's index, and the column's name."""

    run: int
    label: str


@dataclass(frozen=True)
class Subject:
    """A benchmark, or the held-out questions, with all runs' answers."""

    name: str
    columns: tuple[Column, ...]
    questions: Questions


def subjects(runs: Sequence[RunFolder]) -> list[Subject]:
    """The subjects of the runs, each with a column per evaluation."""
    found: dict[str, list[tuple[Column, EvaluationResult]]] = {}
    for place, run in enumerate(runs):
        for evaluation in run.evaluations:
            name = letter(place) if len(runs) > 1 else "" if evaluation.phase else run.name
            label = " ".join(filter(None, (name, evaluation.phase)))
            found.setdefault(evaluation.subject, []).append((Column(place, label), evaluation))
    return [
        Subject(name, tuple(column for column, _ in pairs), Questions.of([evaluation for _, evaluation in pairs]))
        for name, pairs in found.items()
    ]


def baselines(columns: Sequence[Column]) -> list[int | None]:
    """The place of the column that each column is compared with: of one run after with before, of several runs the last
    of each with that of the first.

    >>> one, two = [Column(0, "before"), Column(0, "after")], [Column(1, "B before"), Column(1, "B after")]
    >>> baselines(one), baselines(one + two), baselines([one[1], two[1]])
    ([None, 0], [None, None, None, 1], [None, 0])
    """
    last = {column.run: place for place, column in enumerate(columns)}
    first = min(last.values())
    if len(last) == 1:
        return [None if place == 0 else 0 for place in range(len(columns))]
    return [first if place in last.values() and place != first else None for place in range(len(columns))]


def subject_entry(subject: Subject, media: Sequence[int], resamples: int, seed: int) -> dict[str, Any]:
    """A subject in the page's format; `media` are the indices of the questions' media, -1 for none."""
    asked, evaluations = subject.questions.asked, subject.questions.evaluations
    tasks = list(dict.fromkeys(one.task for one in asked))
    clusters = list(dict.fromkeys(one.cluster for one in asked))
    task_at, cluster_at = ({name: place for place, name in enumerate(names)} for names in (tasks, clusters))
    against = baselines(subject.columns)
    chosen = any(_is_chosen(evaluation) for evaluation in evaluations)
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
        "answers": [_short(subject.questions, place) for place in range(len(evaluations))],
        "against": against,
        "metrics": [asdict(row) for row in rows(evaluations, against, resamples, seed)],
        "adds": [added_entries(evaluation) for evaluation in evaluations],
        "published": [] if chosen else [asdict(entry) for entry in PUBLISHED if entry.benchmark == subject.name],
        "notes": _overlaps(subject) + _protocols(subject) + ([_CHOSEN] if chosen else []),
        "protocols": [str(evaluation.conditions.get("protocol", "")) for evaluation in evaluations],
        "conditions": [_flat(_asked_how(evaluation)) for evaluation in evaluations],
    }


def _short(questions: Questions, place: int) -> dict[str, list[Any]]:
    """Each question's score, null if it is not in this evaluation, and state: answered, not read, not asked."""
    answers = [questions.evaluations[place].answers.get(asked.key) for asked in questions.asked]
    return {
        "score": [None if answer is None else round(answer.score, 4) for answer in answers],
        "state": [
            "" if answer is None or answer.read is not None else "unread" if answer.error is None else "error"
            for answer in answers
        ],
    }


def _overlaps(subject: Subject) -> list[str]:
    """Notes on columns that cover different questions."""
    first, *others = subject.questions.evaluations
    found: dict[tuple[int, int], list[str]] = {}
    for column, other in zip(subject.columns[1:], others, strict=True):
        both = len(first.questions.keys() & other.questions.keys())
        if both < max(len(first.questions), len(other.questions)):
            found.setdefault((both, len(other.questions)), []).append(column.label)
    return [
        f"{subject.columns[0].label} and {', '.join(labels)} have {both} questions in common, of "
        f"{len(first.questions)} and {count}: differences are over those alone"
        for (both, count), labels in found.items()
    ]


def _protocols(subject: Subject) -> list[str]:
    """A note on columns that were asked by different protocols."""
    asked = [each.conditions for each in subject.questions.evaluations]
    known = sorted({str(how["protocol"]) for how in asked if "protocol" in how})
    told = f"{subject.name} was asked by different protocols, which change scores by themselves: {', '.join(known)}"
    return [told] if len(known) > 1 else []


def _is_chosen(evaluation: EvaluationResult) -> bool:
    """Whether only some of a benchmark's questions were asked."""
    return evaluation.conditions.get("limit") is not None or evaluation.conditions.get("tasks") is not None


def _asked_how(evaluation: EvaluationResult) -> dict[str, Any]:
    return {name: value for name, value in evaluation.conditions.items() if value is not None}


def run_entry(run: RunFolder, place: int) -> dict[str, Any]:
    """A run in the page's format, without its answers."""
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
        "pass_rates": pass_rate_entries(run.pass_rates),
        "curves": curves(run.history),
    }


def curves(history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every metric of the history: name, label and points [step, value]; `ends` [step, low, high], where it has an
    interval."""
    found: dict[str, list[tuple[float, float]]] = {}
    for row in history:
        for name, value in row.items():
            number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if number and name not in _NO_METRICS:
                found.setdefault(name, []).append((row["step"], value))
    drawn = {}
    for name, points in found.items():
        base, _, end = name.rpartition("/")
        if end in ("low", "high") and base in found:
            continue
        drawn[name] = {"name": name, "label": label_of(name), "points": thinned(points)}
        low, high = (dict(found.get(f"{name}/{end}", ())) for end in ("low", "high"))
        if low and len(points) <= POINTS:
            ends = [(step, low[step], high[step]) for step in low if step in high]
            drawn[name]["ends"] = [[step, float(f"{a:.6g}"), float(f"{b:.6g}")] for step, a, b in ends]
    return list(drawn.values())


def thinned(points: Sequence[tuple[float, float]], most: int = POINTS) -> list[list[float]]:
    """At most `most` points: neighbours are averaged if there are more.

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
    """The settings that differ between runs: key and each run's value."""
    flat = [dict(_flat(parse_yaml(run.config) or {})) for run in runs]
    keys = dict.fromkeys(key for entry in flat for key in entry)
    values = {key: [entry.get(key, "—") for entry in flat] for key in keys}
    return [{"key": key, "values": found} for key, found in values.items() if len(set(found)) > 1]


def _flat(value: Any, at: str = "") -> list[tuple[str, str]]:
    """Every value in nested sections, with its path."""
    if isinstance(value, Mapping):
        return [entry for key, inner in value.items() for entry in _flat(inner, f"{at}.{key}" if at else str(key))]
    return [(at, str(value))]
