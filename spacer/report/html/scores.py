"""The figures of a subject, run beside run: each with its interval, and its difference to the first."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from spacer.benchmarks import benchmark
from spacer.evaluation.intervals import Interval, Paired, intervals, paired
from spacer.evaluation.metrics import Metric, grouped, mean
from spacer.evaluation.statistics import METRICS, QUESTION_TYPES
from spacer.report.comparison import name_of
from spacer.report.html.contents import Asked, Sitting
from spacer.report.labels import SECTIONS, label_of, section_of

OVERALL, QUESTIONS = "overall", "questions"  # the benchmark's own figure, and the mean over questions
_RARE = ("reward/length", "reward/temporal")  # not told where no completion earned one


@dataclass(frozen=True)
class Cell:
    """A figure of one sitting; `low` and `high` are None where its interval is not known."""

    value: float
    low: float | None
    high: float | None
    questions: int


@dataclass(frozen=True)
class Change:
    """A figure's difference to the first sitting's, over the questions of both."""

    delta: float
    low: float | None
    high: float | None
    questions: int


@dataclass(frozen=True)
class Row:
    """A figure of all sittings, None where a sitting does not have it. `share` says whether it lies between 0 and 1."""

    name: str
    label: str
    section: str
    share: bool
    cells: tuple[Cell | None, ...]
    changes: tuple[Change | None, ...]


def rows(sittings: Sequence[Sitting], resamples: int, seed: int) -> list[Row]:
    """The figures of sittings of one subject, the first of which is what the others are held against.

    Intervals and differences are those of `spacer.evaluation.intervals`: they resample what questions share.
    """
    tell = partial(_told, sittings, resamples=resamples, seed=seed)
    if any(answer.values for sitting in sittings for answer in sitting.answers.values()):
        return _heldout_rows(sittings, tell)
    return _benchmark_rows(sittings, tell)


@dataclass(frozen=True)
class _Told:
    cells: tuple[Cell | None, ...]
    changes: tuple[Change | None, ...]


_Metrics = Callable[[Sequence[Asked]], Sequence[Metric]]
_Tell = Callable[..., Mapping[str, _Told]]


def _told(
    sittings: Sequence[Sitting],
    metrics: _Metrics,
    value: str | None = None,
    *,
    task: str | None = None,
    resamples: int,
    seed: int,
) -> dict[str, _Told]:
    """Figures that `metrics` gives for questions, all or those of a task, of a value of the answers, or their score."""

    def values(sitting: Sitting, asked: Iterable[Asked]) -> list[float]:
        answers = [sitting.answers[one.key] for one in asked]
        return [answer.score if value is None else answer.values.get(value, 0.0) for answer in answers]

    alone: list[Mapping[str, Interval]] = []
    against: list[Mapping[str, Paired]] = []
    first = sittings[0]
    for sitting in sittings:
        asked = _of(sitting, task)
        clusters = [one.cluster for one in asked]
        how = {"resamples": resamples, "seed": seed}
        alone.append(intervals(metrics(asked), values(sitting, asked), clusters, **how) if asked else {})
        both = [] if sitting is first else [one for one in _of(first, task) if one.key in sitting.questions]
        clusters = [one.cluster for one in both]
        a, b = values(first, both), values(sitting, both)
        against.append(paired(metrics(both), a, b, clusters, **how) if both else {})
    names = dict.fromkeys(name for found in alone for name in found)
    return {
        name: _Told(
            tuple(_cell(found.get(name)) for found in alone), tuple(_change(found.get(name)) for found in against)
        )
        for name in names
    }


def _of(sitting: Sitting, task: str | None) -> list[Asked]:
    return [one for one in sitting.questions.values() if task in (None, one.task)]


def _cell(found: Interval | None) -> Cell | None:
    return None if found is None else Cell(found.value, _finite(found.low), _finite(found.high), found.questions)


def _change(found: Paired | None) -> Change | None:
    return None if found is None else Change(found.delta, _finite(found.low), _finite(found.high), found.questions)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _over_all(name: str, asked: Sequence[Asked]) -> list[Metric]:
    return [mean(name, range(len(asked)))]


def _by_task(asked: Sequence[Asked]) -> list[Metric]:
    return [mean(f"task/{task}", of) for task, of in grouped([one.task for one in asked]).items()]


def _heldout_rows(sittings: Sequence[Sitting], tell: _Tell) -> list[Row]:
    """Rewards and what completions are like, over all questions, and answers by question type."""
    answers = [answer for sitting in sittings for answer in sitting.answers.values()]
    found = []
    for name in METRICS:
        if name in _RARE and not any(answer.values.get(name, 0.0) for answer in answers):
            continue
        told = tell(partial(_over_all, name), name)[name]
        share = name not in ("reward/total", "completion/tokens")
        found.append(Row(name, label_of(name), SECTIONS[section_of(name)], share, told.cells, told.changes))
    tasks = {asked.task for sitting in sittings for asked in sitting.questions.values()}
    known = [task for task in QUESTION_TYPES if task in tasks]
    for task in known + sorted(tasks.difference(known)):
        # each by itself, as in the table that the run ended with
        name = f"answer/{task}"
        told = tell(partial(_over_all, name), "reward/answer", task=task)[name]
        found.append(Row(name, label_of(name), SECTIONS["answer"], True, told.cells, told.changes))
    return found


def _benchmark_rows(sittings: Sequence[Sitting], tell: _Tell) -> list[Row]:
    """The benchmark's own figures, and the mean over questions.

    Where the benchmark's files are not at hand, its own figures are those that the runs wrote down, and differences
    are told of tasks and of all questions alone.
    """
    graded = {key: question for sitting in sittings for key, question in sitting.graded.items()}
    official = all(key in graded for sitting in sittings for key in sitting.questions)
    told: dict[str, _Told] = {}
    if official:
        rules = benchmark(sittings[0].subject)
        told |= tell(lambda asked: rules.official([graded[one.key] for one in asked]))
    else:
        computed = tell(_by_task)
        written = dict.fromkeys(name for sitting in sittings for name in sitting.figures)
        told |= {name: _as_written(name, sittings, computed.get(name)) for name in written}
        told |= {name: found for name, found in computed.items() if name not in told}
    told |= tell(partial(_over_all, QUESTIONS))
    sections = {OVERALL: "Overall", QUESTIONS: "Overall"}
    labels = {OVERALL: "overall", QUESTIONS: "mean over questions"}
    found = []
    for name, (cells, changes) in ((name, (entry.cells, entry.changes)) for name, entry in told.items()):
        section = sections.get(name, "Tasks" if name.startswith("task/") else "Other figures")
        found.append(Row(name, labels.get(name) or name_of(name), section, True, cells, changes))
    return sorted(found, key=lambda row: ("Overall", "Tasks", "Other figures").index(row.section))


def _as_written(name: str, sittings: Sequence[Sitting], computed: _Told | None) -> _Told:
    """A figure that the runs wrote down, with the difference where its questions are known."""
    cells: list[Cell | None] = []
    for place, sitting in enumerate(sittings):
        cell = None if computed is None else computed.cells[place]
        if name in sitting.figures:
            value, low, high = sitting.figures[name]
            cell = Cell(value, low, high, len(sitting.questions) if cell is None else cell.questions)
        cells.append(cell)
    return _Told(tuple(cells), (None,) * len(sittings) if computed is None else computed.changes)
