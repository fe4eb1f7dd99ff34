"""Evaluates held-out questions or benchmarks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from spacer.benchmarks.question import Question
from spacer.config.derived import controls_of, heldout_name
from spacer.config.settings import Settings
from spacer.data.samples import Fault
from spacer.evaluation.asked import check_controls, check_media
from spacer.evaluation.chosen import choose_questions
from spacer.evaluation.conditions import protocol_of
from spacer.evaluation.kept import Row
from spacer.evaluation.scoring import Scored, official_intervals, score_predictions, video_adds, write_scores
from spacer.stages.asking import ask_benchmark, ask_controls, ask_heldout
from spacer.stages.benchmark_summary import report_all, report_benchmark
from spacer.stages.report import report_at_end
from spacer.stages.running import Run
from spacer.stages.summary import mean_reward, report_evaluation
from spacer.tracking.provenance import index_samples
from spacer.training.preemption import SignalWatcher


def evaluate(run: Run) -> float:
    """Evaluates the held-out questions, or a benchmark. Returns the total reward, or the official overall score."""
    if run.settings.benchmark is not None:
        overall = evaluate_benchmark(run)
        if run.reports:
            report_at_end(run.settings, run.folder)
        return overall
    rows = ask_heldout(run, heldout_name(run.settings))
    controls = ask_controls(run, heldout_name(run.settings))
    if run.reports:
        asked = partial(index_samples, [sample for data in run.splits for sample in data.heldout.samples])
        report_evaluation(run.settings, run.folder, rows, run.faults(), run.seconds, asked, controls)
    return mean_reward(rows)


def evaluate_benchmark(run: Run) -> float:
    """Evaluates a benchmark by its authors' rules and by a second reading. Returns the official overall score."""
    rows = ask_benchmark(run)
    controls = {control.value: ask_benchmark(run, control) for control in controls_of(run.settings)}
    if not run.reports:
        return _score(run.settings, run.questions, rows).official_values["overall"]
    return write_and_report(run.settings, run.folder, run.questions, rows, controls, run.missing, run.seconds)


def write_and_report(
    settings: Settings,
    folder: Path,
    questions: Sequence[Question],
    rows: list[Row],
    controls: Mapping[str, list[Row]],
    missing: Sequence[Fault],
    seconds: Mapping[str, float],
) -> float:
    """Scores the rows of a benchmark's questions, and writes and prints the metrics. Returns the official overall
    score."""
    asked = settings.benchmark
    assert asked is not None
    scored = _score(settings, questions, rows)
    how = json.loads((folder / "predictions" / f"{asked.name}.conditions.json").read_text())
    tasks = asked.tasks
    root = Path(str(asked.root)).expanduser().resolve()
    how |= {"tasks": None if tasks is None else list(tasks), "limit": asked.limit, "root": str(root)}
    if settings.model.base_url is not None:
        how |= {"base_url": settings.model.base_url}
    how |= {what: sum(row.get(what, 0) for row in rows) for what in ("prompt_tokens", "completion_tokens")}
    resamples, seed = settings.evaluation.resamples, settings.seed
    spread = official_intervals(scored, resamples, seed)
    protocol = protocol_of(asked, settings.model)
    write_scores(folder, scored, how, spread, asdict(protocol))
    adds = {
        control: video_adds(scored, _score(settings, questions, other), resamples, seed)
        for control, other in controls.items()
    }
    report_benchmark(settings, folder, scored, spread, how, protocol, rows, missing, seconds, adds)
    return scored.official_values["overall"]


def _score(settings: Settings, questions: Sequence[Question], rows: list[Row]) -> Scored:
    assert settings.benchmark is not None
    # an error is no prediction: by some rules of the release an empty one would be right
    predictions = {row["id"]: row["prediction"] for row in rows if "error" not in row}
    return score_predictions(settings.benchmark.name, questions, predictions)


def evaluate_all(settings: Settings, folder: Path, watch: SignalWatcher) -> float:
    """Evaluates every benchmark with a root, each in its own folder. Returns the mean official overall score."""
    chosen = {name: part for name, part in settings.benchmarks.items() if part.root is not None}
    for part in chosen.values():  # report all faults of their files before the model is loaded
        questions = choose_questions(part).questions
        check_media(questions, part)
        check_controls(questions, part, controls_of(settings))
    overall: dict[str, float] = {}
    first: Run | None = None
    for name, part in chosen.items():
        run = Run(replace(settings, benchmark=part, benchmarks={}), folder / name, watch, first)
        first = first or run
        overall[name] = evaluate_benchmark(run)
    if first is not None and first.reports:
        report_all(folder, overall)
        report_at_end(settings, folder)
    return sum(overall.values()) / len(overall)
