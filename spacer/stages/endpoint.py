"""Evaluates a model behind a server on benchmarks; no model is loaded."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path

from spacer.benchmarks.question import Question
from spacer.config.choices import Control
from spacer.config.settings import Settings
from spacer.data.controls import with_other_media
from spacer.data.samples import Fault, Sample
from spacer.evaluation.asked import answered_row, as_samples, check_media, failed_row, malformed_row, media_settings
from spacer.evaluation.chosen import choose_questions
from spacer.evaluation.conditions import digest_of, endpoint_conditions, require_same_conditions
from spacer.evaluation.endpoint import Asking, Usage, ask_all
from spacer.evaluation.kept import (
    Answer,
    Row,
    append_answers,
    bare,
    by_medium,
    join_parts,
    kept_rows,
    key_of,
    part_file,
    part_files,
)
from spacer.evaluation.messages import Messages
from spacer.stages.evaluate import write_and_report
from spacer.stages.report import report_at_end
from spacer.stages.summary import report_all
from spacer.terminal.progress import progress_bar

log = logging.getLogger(__name__)


def evaluate_endpoint(settings: Settings, folder: Path) -> float:
    """Asks the benchmark, or each that has a root. Returns the (mean) official overall score."""
    if not settings.benchmarks:
        overall = _evaluate(settings, folder)
        report_at_end(settings, folder)
        return overall
    chosen = {name: part for name, part in settings.benchmarks.items() if part.root is not None}
    for part in chosen.values():  # report all faults of their files before anything is asked
        check_media(choose_questions(part).questions, part)
    found = {
        name: _evaluate(replace(settings, benchmark=part, benchmarks={}), folder / name)
        for name, part in chosen.items()
    }
    report_all(folder, found)
    report_at_end(settings, folder)
    return sum(found.values()) / len(found)


def _evaluate(settings: Settings, folder: Path) -> float:
    assert settings.benchmark is not None  # ensured by a config rule
    chosen = choose_questions(settings.benchmark)
    chosen.warn()
    missing = check_media(chosen.questions, settings.benchmark)
    start = time.monotonic()
    rows = _ask(settings, folder, chosen.questions)
    controls = {
        control.value: _ask(settings, folder, chosen.questions, control) for control in settings.evaluation.controls
    }
    seconds = {"ask": round(time.monotonic() - start, 2)}
    return write_and_report(settings, folder, chosen.questions, rows, controls, missing, seconds)


def _ask(
    settings: Settings, folder: Path, questions: tuple[Question, ...], control: Control | None = None
) -> list[Row]:
    """The rows of all questions, of which those are asked that have none yet."""
    asked, model = settings.benchmark, settings.model
    assert asked is not None and model.endpoint is not None
    now = endpoint_conditions(model, asked, settings.seed)
    name = asked.name
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
    digest, file = digest_of(now), part_file(path, 0)
    keys = {item.id: key_of(digest, item) for item in samples}
    order = {item.id: place for place, item in enumerate(samples)}
    done = kept_rows(path, digest, keys)
    left = [samples[place] for place in by_medium([order[id] for id in order if id not in done], samples)]
    by_id = {question.id: question for question in sound}
    bar = progress_bar(total=len(left), desc=f"asking {asked.name}", unit=" questions")

    def keep(item: Sample, row: Row) -> None:
        append_answers(file, [row | {"key": keys[item.id]}])
        bar.update(1)

    def answered(item: Sample, answer: Answer, usage: Usage) -> None:
        keep(item, answered_row(item, answer, by_id, asked.name) | {"prompt_tokens": usage.prompt_tokens})

    def refused(item: Sample, fault: Fault) -> None:
        keep(item, failed_row(item, fault))

    if left:
        messages = Messages(media_settings(asked), model.endpoint.video, control)
        ask_all(left, Asking(messages, answered, refused), model, asked, settings.seed)
    bar.close()
    if left or part_files(path):
        join_parts(path, kept_rows(path, digest, keys), order)
    rows = [bare(row) for row in kept_rows(path, digest, keys).values() if row["id"] in order]
    rows.sort(key=lambda row: order[row["id"]])
    spent = {what: sum(row.get(what, 0) for row in rows) for what in ("prompt_tokens", "completion_tokens")}
    log.info("%s: %d prompt and %d completion tokens", name, *spent.values())
    return rows + [malformed_row(question) for question in questions if question.fault is not None]
