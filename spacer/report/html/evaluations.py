"""Prediction files → evaluations: held-out questions, scored with the training reward, and benchmarks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spacer.benchmarks import benchmark
from spacer.benchmarks.question import Question
from spacer.config.choices import BENCHMARKS
from spacer.errors import UserError
from spacer.evaluation.predictions import read_predictions
from spacer.report.html.contents import Answered, Asked, EvaluationResult, Grid
from spacer.report.html.lines import Line, latest, read_lines
from spacer.rewards import answer_text, final_text, written_map
from spacer.statistics.summaries import covers, has_quality

MAP_POINTS = 300  # of a completion's map; a degenerate one has thousands


def heldout_evaluation(path: Path, subject: str, phase: str, notes: list[str]) -> EvaluationResult:
    """The answers to held-out questions in `predictions/NAME.jsonl`.

    Ids are unique only within a data set, so a question's key is its id and its content.

    Raises:
        UserError: a line is malformed; the message names it.
    """
    questions: dict[str, Asked] = {}
    answers: dict[str, Answered] = {}
    for line in latest(read_lines(path, notes), "id"):
        asked = _heldout_question(line)
        questions[asked.key] = asked
        answers[asked.key] = _heldout_answer(line, asked)
    return EvaluationResult(subject, phase, questions, answers, {}, {}, {})


def _heldout_question(line: Line) -> Asked:
    identity, true_map, options = line.identity(), line.grid("true_map"), line.texts("options")
    text, truth, media = line.text("question"), line.text("solution"), line.text("video")
    content = json.dumps([text, truth, options, true_map], sort_keys=True)
    return Asked(
        key=f"{identity}#{hashlib.sha256(content.encode()).hexdigest()[:12]}",
        id=identity,
        task=line.text("question_type"),
        text=text,
        options=options,
        truth=truth,
        cluster=line.text("scene") or identity,
        media=Path(media) if media else None,
        true_map=true_map,
    )


def _heldout_answer(line: Line, asked: Asked) -> Answered:
    parts, completion = line.numbers("reward"), line.text("completion")
    if "answer" not in parts:
        raise UserError(f"{line.where}: 'reward' lacks 'answer': redo the run, or fix the line")
    rewards = {f"reward/{name}": float(value) for name, value in parts.items() if name != "map_quality"}
    values = {name: value for name, value in rewards.items() if covers(name, line.row)}
    if has_quality(line.row):
        values["map/quality"] = float(parts.get("map_quality", 0.0))
    values |= {
        "map/drawn": float(bool(line.row.get("drawn"))),
        "completion/tokens": line.number("completion_tokens") or 0.0,
    }
    return Answered(
        score=min(max(float(parts["answer"]), 0.0), 1.0),
        read=(answer_text(completion) or final_text(completion)) if line.row.get("extracted") else None,
        completion=completion,
        tokens=int(line.number("completion_tokens") or 0),
        error=line.text("error") or None,
        values=values,
        drawn_map=_shown_map(completion, asked.true_map),
    )


def benchmark_evaluation(folder: Path, scores: Mapping[str, Any], notes: list[str]) -> EvaluationResult:
    """The answers of a run of `stage=evaluate` or `stage=score`, from its `per_question.jsonl`.

    Texts, options and media come from the benchmark's own files, if still present, and else from the predictions.

    Raises:
        UserError: a line is malformed; the message names it.
    """
    subject, how = str(scores.get("benchmark") or "benchmark"), scores.get("settings") or {}
    if isinstance(protocol := scores.get("protocol"), dict):
        how = {"protocol": f"{protocol.get('name')} {protocol.get('digest')}"} | how
    graded = _questions(subject, how.get("root"), notes)
    said = {line.identity(): line for line in read_lines(folder / "predictions" / f"{subject}.jsonl", notes)}
    said |= {} if said else _given(how.get("predictions"), notes)
    if not said:
        notes.append(f"predictions/{subject}.jsonl is not there: completions are not shown")
    questions: dict[str, Asked] = {}
    answers: dict[str, Answered] = {}
    for line in latest(read_lines(folder / "per_question.jsonl", notes), "id"):
        asked = _benchmark_question(line, said.get(line.identity()), graded.get(line.identity()))
        questions[asked.key] = asked
        answers[asked.key] = _benchmark_answer(line, said.get(asked.id))
    metrics: dict[str, tuple[float, float | None, float | None]] = {}
    for name, value in (scores.get("official") or {}).items():
        low, high = (scores.get("intervals") or {}).get(name) or (None, None)
        metrics[name] = (value, low, high)
    kept = {key: graded[key] for key in questions if key in graded}
    return EvaluationResult(subject, "", questions, answers, metrics, kept, how)


def _questions(subject: str, root: Any, notes: list[str]) -> dict[str, Question]:
    if subject not in BENCHMARKS or not isinstance(root, str):
        notes.append(f"where the files of {subject} lie is not recorded: its videos are not shown")
        return {}
    folder = Path(root).expanduser()
    if not folder.is_dir():
        notes.append(f"the files of {subject} are not at {root} any more: its videos are not shown")
        return {}
    questions, faults = benchmark(subject).read(folder.resolve())
    if faults:
        notes.append(f"{root}: {len(faults)} faults in the files of {subject}, the first: {faults[0]}")
    return {question.id: question for question in questions}


def _given(file: Any, notes: list[str]) -> dict[str, Line]:
    """The input of `stage=score`."""
    if not isinstance(file, str):
        return {}
    try:
        found = read_predictions(Path(file))
    except (OSError, UserError) as error:
        notes.append(f"the predictions that were scored cannot be read: {error}")
        return {}
    return {key: Line(file, {"id": key, "prediction": text}) for key, text in found.items()}


def _benchmark_question(line: Line, said: Line | None, question: Question | None) -> Asked:
    identity = line.identity()
    cluster = line.text("cluster") or identity
    if question is None:
        text, options = ("", ()) if said is None else (said.text("question"), said.texts("options"))
        return Asked(identity, identity, line.text("task"), text, options, line.text("truth"), cluster)
    return Asked(
        key=identity,
        id=identity,
        task=question.task,
        text=question.text,
        options=question.options,
        truth=question.truth,
        cluster=cluster,
        media=question.video,
        pictures=question.images,
    )


def _benchmark_answer(line: Line, said: Line | None) -> Answered:
    score = line.number("score")
    if score is None or not 0 <= score <= 1:
        raise UserError(f"{line.where}: 'score' is {score!r}, must be a number between 0 and 1: redo the run")
    completion = None if said is None else said.text("prediction")
    extracted = line.row.get("extracted", line.row.get("answer") is not None)
    return Answered(
        score=float(score),
        read=line.text("answer") if extracted else None,
        completion=completion,
        tokens=None if said is None or said.number("completion_tokens") is None else int(said.row["completion_tokens"]),
        error=line.text("error") or (None if said is None else said.text("error")) or None,
        values={},
        drawn_map=None if completion is None else _shown_map(completion, None),
    )


def _shown_map(completion: str, true_map: Grid | None) -> Grid | None:
    """The first points of a completion's map, clamped to the grid; None if it drew none."""
    return within_grid(written_map(completion, true_map or ()))


def within_grid(written: Mapping[str, Sequence[Sequence[float]]]) -> Grid | None:
    """The first points of a map, clamped to the grid; None if there are none."""
    left, shown = MAP_POINTS, {}
    for category, points in written.items():
        # clamped before conversion: a completion may hold integers too large for a float
        shown[category] = [[float(min(max(v, -0.5), 9.5)) for v in point] for point in points[:left]]
        left -= len(shown[category])
    return {category: points for category, points in shown.items() if points} or None
