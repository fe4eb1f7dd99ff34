"""The metrics of a subject, for all runs side by side: each with its interval and its difference from another one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from spacer.benchmarks import benchmark
from spacer.report.comparison import name_of
from spacer.report.html.contents import Asked, EvaluationResult
from spacer.report.labels import SECTIONS, label_of, section_of
from spacer.statistics.intervals import UNIT, Interval, Paired, intervals, paired, why_no_interval
from spacer.statistics.metrics import Metric, grouped, mean
from spacer.statistics.summaries import METRICS, answer_groups

OVERALL, QUESTIONS = "overall", "questions"  # the benchmark's own metric, and the mean over questions
_RARE = ("reward/length", "reward/temporal")  # omitted if no completion earned one
_OF_MAPS = ("reward/map", "map/quality", "map/drawn")  # omitted if there is no map, true or drawn


@dataclass(frozen=True)
class Cell:
    """A metric of one evaluation; `low` and `high` are None if it has no interval."""

    value: float
    low: float | None
    high: float | None
    questions: int
    why: str  # there is no interval; empty if there is one


@dataclass(frozen=True)
class Change:
    """A metric's difference from that of another evaluation, over their common questions."""

    delta: float
    low: float | None
    high: float | None
    questions: int
    why: str  # there is no interval; empty if there is one


@dataclass(frozen=True)
class ScoreRow:
    """A metric of all evaluations, None where one lacks it. `share` says whether it lies between 0 and 1, `better`
    whether more of it is better."""

    name: str
    label: str
    section: str
    share: bool
    better: bool
    cells: tuple[Cell | None, ...]
    changes: tuple[Change | None, ...]


def rows(
    evaluations: Sequence[EvaluationResult], against: Sequence[int | None], resamples: int, seed: int
) -> list[ScoreRow]:
    """The metrics of evaluations of one subject, each compared with the one that `against` gives the place of.

    Intervals and differences are from `spacer.statistics.intervals`, which resamples clusters of questions.
    """
    tell = partial(_told, evaluations, against, resamples=resamples, seed=seed)
    if any(answer.values for evaluation in evaluations for answer in evaluation.answers.values()):
        return _heldout_rows(evaluations, tell)
    return _benchmark_rows(evaluations, tell)


@dataclass(frozen=True)
class _Told:
    cells: tuple[Cell | None, ...]
    changes: tuple[Change | None, ...]


_Metrics = Callable[[Sequence[Asked]], Sequence[Metric]]
_Tell = Callable[..., Mapping[str, _Told]]


def _told(
    evaluations: Sequence[EvaluationResult],
    against: Sequence[int | None],
    metrics: _Metrics,
    value: str | None = None,
    *,
    tasks: Sequence[str] | None = None,
    resamples: int,
    seed: int,
) -> dict[str, _Told]:
    """The metrics that `metrics` defines over all questions or those of some tasks, from scores or named values.

    Values are taken over the questions whose answers have them.
    """

    def covered(evaluation: EvaluationResult) -> list[Asked]:
        found = [one for one in evaluation.questions.values() if tasks is None or one.task in tasks]
        return found if value is None else [one for one in found if value in evaluation.answers[one.key].values]

    def values(evaluation: EvaluationResult, asked: Iterable[Asked]) -> list[float]:
        answers = [evaluation.answers[one.key] for one in asked]
        return [answer.score if value is None else answer.values[value] for answer in answers]

    alone: list[Mapping[str, Interval]] = []
    differences: list[Mapping[str, Paired]] = []
    scale = UNIT if value is None else None
    for evaluation, base in zip(evaluations, against, strict=True):
        asked = covered(evaluation)
        clusters = [one.cluster for one in asked]
        tell = partial(intervals, scale=scale, resamples=resamples, seed=seed)
        alone.append(tell(metrics(asked), values(evaluation, asked), clusters) if asked else {})
        keys = {one.key for one in asked}
        both = [] if base is None else [one for one in covered(evaluations[base]) if one.key in keys]
        clusters = [one.cluster for one in both]
        a, b = values(evaluations[base or 0], both), values(evaluation, both)
        hold = partial(paired, scale=scale, resamples=resamples, seed=seed)
        differences.append(hold(metrics(both), a, b, clusters) if both else {})
    names = dict.fromkeys(name for found in alone for name in found)
    return {
        name: _Told(
            tuple(_cell(found.get(name)) for found in alone), tuple(_change(found.get(name)) for found in differences)
        )
        for name in names
    }


def _cell(found: Interval | None) -> Cell | None:
    if found is None:
        return None
    return Cell(found.value, _finite(found.low), _finite(found.high), found.questions, _why(found))


def _change(found: Paired | None) -> Change | None:
    if found is None:
        return None
    return Change(found.delta, _finite(found.low), _finite(found.high), found.questions, _why(found))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _why(found: Interval | Paired) -> str:
    return "" if math.isfinite(found.low) else why_no_interval(found.clusters)


def _over_all(name: str, asked: Sequence[Asked]) -> list[Metric]:
    return [mean(name, range(len(asked)))]


def _by_task(asked: Sequence[Asked]) -> list[Metric]:
    return [mean(f"task/{task}", of) for task, of in grouped([one.task for one in asked]).items()]


def _heldout_rows(evaluations: Sequence[EvaluationResult], tell: _Tell) -> list[ScoreRow]:
    """Rewards and properties of completions, over all questions, and answers by question type."""
    answers = [answer for evaluation in evaluations for answer in evaluation.answers.values()]
    found = []
    maps = any(answer.values.get("map/drawn") for answer in answers) or any(
        asked.true_map for evaluation in evaluations for asked in evaluation.questions.values()
    )
    values = dict.fromkeys(name for answer in answers for name in answer.values)
    custom = [name for name in values if name not in METRICS]
    for name in [*METRICS, *custom]:
        if name in _RARE and not any(answer.values.get(name, 0.0) for answer in answers):
            continue
        if name in _OF_MAPS and not maps:
            continue
        told = tell(partial(_over_all, name), name).get(name)
        if told is None:  # no completion that it is a metric of
            continue
        share = name not in ("reward/total", "completion/tokens")
        better = name != "completion/tokens"  # longer is not better
        section = SECTIONS[section_of(name)]
        found.append(ScoreRow(name, label_of(name), section, share, better, told.cells, told.changes))
    groups = answer_groups(asked.task for evaluation in evaluations for asked in evaluation.questions.values())
    for group, tasks in groups.items():
        # each on its own, as in the table at the end of the run
        name = f"answer/{group}"
        told = tell(partial(_over_all, name), "reward/answer", tasks=tasks)[name]
        found.append(ScoreRow(name, label_of(name), SECTIONS["answer"], True, True, told.cells, told.changes))
    return found


def _benchmark_rows(evaluations: Sequence[EvaluationResult], tell: _Tell) -> list[ScoreRow]:
    """The benchmark's own metrics, and the mean over questions.

    If the benchmark's files are not available, its own metrics are those that the runs recorded, and differences
    are given only for tasks and for all questions.
    """
    graded = {key: question for evaluation in evaluations for key, question in evaluation.graded.items()}
    official = all(key in graded for evaluation in evaluations for key in evaluation.questions)
    told: dict[str, _Told] = {}
    if official:
        rules = benchmark(evaluations[0].subject)
        told |= tell(lambda asked: rules.official([graded[one.key] for one in asked]))
    else:
        computed = tell(_by_task)
        written = dict.fromkeys(name for evaluation in evaluations for name in evaluation.metrics)
        told |= {name: _as_written(name, evaluations, computed.get(name)) for name in written}
        told |= {name: found for name, found in computed.items() if name not in told}
    told |= tell(partial(_over_all, QUESTIONS))
    sections = {OVERALL: "Overall", QUESTIONS: "Overall"}
    labels = {OVERALL: "overall", QUESTIONS: "mean over questions"}
    found = []
    for name, (cells, changes) in ((name, (entry.cells, entry.changes)) for name, entry in told.items()):
        section = sections.get(name, "Tasks" if name.startswith("task/") else "Other metrics")
        found.append(ScoreRow(name, labels.get(name) or name_of(name), section, True, True, cells, changes))
    return sorted(found, key=lambda row: ("Overall", "Tasks", "Other metrics").index(row.section))


def _as_written(name: str, evaluations: Sequence[EvaluationResult], computed: _Told | None) -> _Told:
    """A metric that the runs recorded, with the difference if its questions are known."""
    cells: list[Cell | None] = []
    for place, evaluation in enumerate(evaluations):
        cell = None if computed is None else computed.cells[place]
        if name in evaluation.metrics:
            value, low, high = evaluation.metrics[name]
            count = len(evaluation.questions) if cell is None else cell.questions
            why = "" if low is not None else "not recorded" if cell is None else cell.why
            cell = Cell(value, low, high, count, why)
        cells.append(cell)
    return _Told(tuple(cells), (None,) * len(evaluations) if computed is None else computed.changes)
