"""Evaluates benchmarks through messages of text and pictures, without trees: by a server, or plain computation."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spacer.benchmarks.question import Question
from spacer.config.choices import Control
from spacer.config.derived import controls_of
from spacer.config.settings import Settings
from spacer.data.controls import with_other_media
from spacer.data.samples import Fault, Sample
from spacer.evaluation.asked import answered_row, as_samples, check_controls, check_media, failed_row, malformed_row
from spacer.evaluation.chosen import choose_questions
from spacer.evaluation.conditions import digest_of, require_same_conditions
from spacer.evaluation.kept import Answer, AnswerFile, Row
from spacer.stages.benchmark_summary import report_all
from spacer.stages.evaluate import write_and_report
from spacer.stages.report import report_at_end
from spacer.terminal.progress import progress_bar

log = logging.getLogger(__name__)

Answered = Callable[[Sample, Answer, int], None]  # with the tokens of the prompt
Refused = Callable[[Sample, Fault], None]


@dataclass(frozen=True)
class Pathway:
    """How questions reach the model: the conditions of its answers, and the call that asks.

    `ask` calls the first function for each question as it is answered, and the second for each that cannot be.
    """

    conditions: Callable[[Settings], Mapping[str, Any]]
    ask: Callable[[Settings, Sequence[Sample], Control | None, Answered, Refused], None]


def evaluate_outside(settings: Settings, folder: Path, pathway: Pathway) -> float:
    """Asks the benchmark, or each that has a root. Returns the (mean) official overall score."""
    if not settings.benchmarks:
        overall = _evaluate(settings, folder, pathway)
        report_at_end(settings, folder)
        return overall
    chosen = {name: part for name, part in settings.benchmarks.items() if part.root is not None}
    for part in chosen.values():  # report all faults of their files before anything is asked
        questions = choose_questions(part).questions
        check_media(questions, part)
        check_controls(questions, part, controls_of(settings))
    found = {
        name: _evaluate(replace(settings, benchmark=part, benchmarks={}), folder / name, pathway)
        for name, part in chosen.items()
    }
    report_all(folder, found)
    report_at_end(settings, folder)
    return sum(found.values()) / len(found)


def _evaluate(settings: Settings, folder: Path, pathway: Pathway) -> float:
    assert settings.benchmark is not None  # ensured by a config rule
    chosen = choose_questions(settings.benchmark)
    chosen.warn()
    missing = check_media(chosen.questions, settings.benchmark)
    check_controls(chosen.questions, settings.benchmark, controls_of(settings))
    start = time.monotonic()
    rows = _ask(settings, folder, chosen.questions, pathway)
    controls = {
        control.value: _ask(settings, folder, chosen.questions, pathway, control) for control in controls_of(settings)
    }
    seconds = {"ask": round(time.monotonic() - start, 2)}
    return write_and_report(settings, folder, chosen.questions, rows, controls, missing, seconds)


def _ask(
    settings: Settings,
    folder: Path,
    questions: tuple[Question, ...],
    pathway: Pathway,
    control: Control | None = None,
) -> list[Row]:
    """The rows of all questions, of which those are asked that have none yet."""
    asked = settings.benchmark
    assert asked is not None
    now, name = dict(pathway.conditions(settings)), asked.name
    if control is not None:
        now["control"] = control.value
        name = f"controls/{name}.{control.value}"
    path = folder / "predictions" / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    require_same_conditions(path.with_name(f"{path.stem}.conditions.json"), now)
    sound = [question for question in questions if question.fault is None]
    samples = as_samples(sound, asked)
    if control == Control.other_video:
        samples = tuple(with_other_media(samples))
    answers = AnswerFile(path, digest_of(now), samples)
    left = [samples[place] for place in answers.left()]
    by_id = {question.id: question for question in sound}
    bar = progress_bar(total=len(left), desc=f"asking {asked.name}", unit=" questions")

    def keep(item: Sample, row: Row) -> None:
        answers.append(item, row)
        bar.update(1)

    def answered(item: Sample, answer: Answer, prompt_tokens: int) -> None:
        keep(item, answered_row(item, answer, by_id, asked.name) | {"prompt_tokens": prompt_tokens})

    def refused(item: Sample, fault: Fault) -> None:
        keep(item, failed_row(item, fault))

    if left:
        pathway.ask(settings, left, control, answered, refused)
    bar.close()
    if left or answers.in_parts:
        answers.join()
    rows = answers.rows()
    spent = {what: sum(row.get(what, 0) for row in rows) for what in ("prompt_tokens", "completion_tokens")}
    log.info("%s: %d prompt and %d completion tokens", name, *spent.values())
    return rows + [malformed_row(question) for question in questions if question.fault is not None]
