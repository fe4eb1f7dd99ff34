"""The stage that scores predictions of a benchmark from a file, whatever wrote them: without torch."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

import spacer
from spacer.benchmarks import benchmark
from spacer.benchmarks.question import Question
from spacer.data.samples import Fault, describe
from spacer.errors import UserError
from spacer.evaluation.intervals import Interval
from spacer.evaluation.scoring import Scored, official_intervals, score_predictions, write_scores
from spacer.settings import BenchmarkSettings, Settings


@dataclass(frozen=True)
class Chosen:
    """The questions that the settings choose, and the ids of the benchmark's other ones."""

    questions: tuple[Question, ...]
    others: frozenset[str]


def score(settings: Settings, folder: Path) -> float:
    """Writes `scores.json` and `per_question.jsonl` into the run's folder and prints the figures.

    Returns the official overall figure.

    Raises:
        UserError: the benchmark's files or the predictions are faulty, or do not belong together.
    """
    assert settings.predictions is not None  # a rule of the configuration
    file = Path(settings.predictions).expanduser()
    chosen = choose_questions(settings.benchmark)
    predictions = read_predictions(file)
    known = {question.id for question in chosen.questions} | chosen.others
    if predictions.keys().isdisjoint(known):
        raise UserError(
            f"{file}: none of its {len(predictions)} predictions is of a question of {settings.benchmark.name}, whose "
            f"ids are like {chosen.questions[0].id!r}: choose the benchmark that was asked, with its own ids"
        )
    # what was answered beside the chosen questions is no mistake
    kept = {identity: text for identity, text in predictions.items() if identity not in chosen.others}
    scored = score_predictions(settings.benchmark.name, chosen.questions, kept)
    how = {
        "root": str(Path(str(settings.benchmark.root)).expanduser().resolve()),
        "predictions": str(file.resolve()),
        "tasks": None if settings.benchmark.tasks is None else list(settings.benchmark.tasks),
        "limit": settings.benchmark.limit,
        "spacer": spacer.__version__,
    }
    spread = official_intervals(scored, settings.benchmark.resamples, settings.seed)
    write_scores(folder, scored, how, spread)
    show(Console(), scored, spread, folder)
    return scored.official_values["overall"]


def choose_questions(settings: BenchmarkSettings) -> Chosen:
    """The questions of the benchmark's files, of the wanted tasks, the first so many.

    Raises:
        UserError: a file or a row is faulty (all are told), or a task is not there.
    """
    assert settings.root is not None  # a rule of the configuration
    root = Path(settings.root).expanduser().resolve()
    questions, faults = benchmark(settings.name).read(root)
    if faults:
        raise UserError(
            f"{root}: {len(faults)} fault{'s' if len(faults) > 1 else ''} in the files of {settings.name}\n"
            f"{describe(faults)}\nFetch the files again, as the authors distribute them: conf/benchmark/"
            f"{settings.name}.yaml says which. Questions are not left out, for that would change the figures."
        )
    if not questions:
        raise UserError(f"{root}: the files of {settings.name} have no question in them: fetch them again")
    wanted = questions
    if settings.tasks is not None:
        tasks = sorted({question.task for question in questions})
        for task in settings.tasks:
            if task not in tasks:
                close = difflib.get_close_matches(task, tasks, n=1)
                hint = f" (did you mean {close[0]}?)" if close else ""
                raise UserError(f"benchmark.tasks: no question is of {task!r}{hint}. Valid here: {', '.join(tasks)}")
        wanted = [question for question in questions if question.task in settings.tasks]
        if not wanted:
            raise UserError("benchmark.tasks is empty: name tasks, or set it to null for all")
    wanted = wanted[: settings.limit]
    return Chosen(tuple(wanted), frozenset(q.id for q in questions) - {q.id for q in wanted})


def read_predictions(path: Path) -> dict[str, str]:
    """Question id → completion, from lines of {"id", "prediction"}; a prediction of null is none.

    Raises:
        UserError: lines are faulty, or an id comes twice; all are told.
    """
    found: dict[str, str | None] = {}
    faults: list[Fault] = []
    with open(path, "rb") as lines:  # decoded line by line, so that one bad line is one fault
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                faults.append(Fault(f"line {number}", "not JSON", str(error)))
                continue
            wrong = [Fault(f"line {number}", *fault) for fault in _faults(row)]
            if not wrong and (identity := str(row["id"])) in found:
                wrong.append(Fault(f"line {number}", "duplicate id", repr(identity)))
            elif not wrong:
                found[identity] = row["prediction"]
            faults += wrong
    if faults:
        count = len({fault.where for fault in faults})
        raise UserError(
            f"{path}: {count} faulty line{'s' if count > 1 else ''}\n{describe(faults)}\n"
            'Each line must be {"id": …, "prediction": "…"}, one for a question.'
        )
    return {identity: text for identity, text in found.items() if text is not None}


def _faults(row: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(row, dict):
        yield "not an object", f"a line must be a JSON object, this one is {type(row).__name__}"
        return
    identity = row.get("id")
    if not isinstance(identity, int | str) or isinstance(identity, bool):
        yield "wrong field", f"'id' must be text or a whole number, not {identity!r}"
    if "prediction" not in row:
        yield "missing field", "'prediction' is not there; where a model wrote nothing, it is empty text or null"
    elif not isinstance(row["prediction"], str | None):
        yield "wrong field", f"'prediction' must be text or null, not {row['prediction']!r}"


def show(console: Console, scored: Scored, spread: Mapping[str, Interval], folder: Path) -> None:
    """Prints the figures, what was not answered, and where everything lies."""
    table = Table(title=f"{scored.benchmark}, in percent", box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("Metric", no_wrap=True, overflow="fold")
    for heading in ("Official", "95 % interval", "spacer_eval", "N"):
        table.add_column(heading, justify="right", no_wrap=True)
    official, released = scored.official_values, scored.released_values
    counts = {metric.name: sum(len(of) for _, of in metric.parts) for metric in (*scored.released, *scored.official)}
    for name in official | released:
        table.add_row(name, _percent(official, name), _range(spread, name), _percent(released, name), str(counts[name]))
    console.print(table)
    answered = sum(scored.answered)
    told = {
        "questions": len(scored.questions),
        "answered": answered,
        "answers that could not be read, which are wrong": scored.not_extracted,
        "questions without a prediction, which are wrong": len(scored.questions) - answered,
        "predictions without a question": len(scored.strangers),
    }
    for what, count in told.items():
        console.print(f"  {what}: {count}", markup=False, highlight=False)
    if note := benchmark(scored.benchmark).NOTE:
        console.print(f"  {note}", markup=False, highlight=False)
    for what, name in (("scores", "scores.json"), ("each question", "per_question.jsonl")):
        console.print(f"  {what}: {folder / name}", markup=False, highlight=False, soft_wrap=True)


def _range(spread: Mapping[str, Interval], name: str) -> str:
    if name not in spread or math.isnan(spread[name].low):
        return ""
    return f"{100 * spread[name].low:.1f} to {100 * spread[name].high:.1f}"


def _percent(values: Mapping[str, float], name: str) -> str:
    return f"{100 * values[name]:.2f}" if name in values else ""
