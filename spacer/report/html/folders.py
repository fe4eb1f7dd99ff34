"""Run folders → `RunFolder`s, for every stage."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from spacer.errors import UserError
from spacer.files import parse_yaml, read_ordinary
from spacer.report.html.added import read_added
from spacer.report.html.contents import EvaluationResult, RunFolder
from spacer.report.html.evaluations import benchmark_evaluation, heldout_evaluation
from spacer.report.html.lines import Line, latest, read_lines, read_object
from spacer.report.html.pass_rates import read_pass_rates
from spacer.report.steps import by_step

_NAME = "predictions"
_PHASES = ("before", "after")
_TIME = re.compile(r"[\d:._-]+")  # name of a folder created by Hydra
_ROLLOUT = ("step", "split", "id", "question", "n")  # identifies a completion in rollouts.jsonl


def read_runs(folders: Sequence[Path]) -> list[RunFolder]:
    """The runs in the folders, in order; a run of stage=compare is replaced by the runs that it compared.

    Raises:
        UserError: lists all faults of all runs: a file cannot be read, a line is broken, or a folder
            holds nothing to show.
    """
    found: list[RunFolder] = []
    faults = []
    for folder in folders:
        try:
            found += [read_run(each) for each in _compared(folder)]
        except UserError as error:
            faults.append(str(error))
    if faults:
        raise UserError("\n".join(faults))
    once: dict[Path, RunFolder] = {}
    for run in found:
        once.setdefault(run.folder.resolve(), run)
    return list(once.values())


def _compared(folder: Path) -> list[Path]:
    comparison = read_object(folder / "comparison.json")
    if comparison is None:
        return [folder]
    try:
        return [Path(run["folder"]) for run in comparison["runs"].values()]
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{folder / 'comparison.json'} is not what stage=compare writes: {error!r}") from error


def read_run(folder: Path) -> RunFolder:
    """The contents of a run folder, including per-benchmark subfolders.

    Raises:
        UserError: a file cannot be read, a line is broken, or there is nothing to show.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not an existing folder: name the folder of a run")
    notes: list[str] = []
    config = _text(folder / ".hydra" / "config.yaml", notes)
    recorded = _yaml(folder / ".hydra" / "config.yaml", config)
    summary = read_object(folder / "summary.json")
    evaluations = tuple(_evaluations(folder, recorded, notes))
    history = by_step(line.row for line in read_lines(folder / "history.jsonl", notes) if _is_step(line))
    pass_rates = read_pass_rates(folder)
    if not evaluations and not history and not pass_rates:
        raise UserError(
            f"{folder} holds no answers and no history of training: name the folder of a run of stage=train, sft, "
            "evaluate, score or compare, or of stage=generate that has ended"
        )
    if summary is None:
        notes.append("summary.json is not there: the run has not ended")
    stage = recorded.get("stage")
    return RunFolder(
        folder=folder,
        name=name_of(folder),
        stage=str(stage["name"]) if isinstance(stage, dict) and "name" in stage else None,
        config=config,
        overrides=_overrides(folder),
        evaluations=evaluations,
        pass_rates=pass_rates,
        history=history,
        rollouts=[
            line.row for line in latest(read_lines(folder / "rollouts.jsonl", notes), *_ROLLOUT) if _is_step(line)
        ],
        faults=[line.row for line in read_lines(folder / "faults.jsonl", notes)],
        seconds=Line(str(folder / "summary.json"), summary or {}).numbers("seconds"),
        notes=tuple(notes),
    )


def name_of(folder: Path) -> str:
    """A run's name: its folder's, with the parent's in front if that is a time or a number.

    >>> name_of(Path("outputs/2026-11-22/21-50-00")), name_of(Path("outputs/sweep/0")), name_of(Path("runs/spacer_7b"))
    ('2026-11-22/21-50-00', 'sweep/0', 'spacer_7b')
    """
    parts = folder.parts
    return "/".join(parts[-2:]) if _TIME.fullmatch(folder.name) else folder.name


def _evaluations(folder: Path, recorded: Mapping[str, Any], notes: list[str]) -> Iterator[EvaluationResult]:
    scores = read_object(folder / "scores.json")
    if (folder / "per_question.jsonl").exists():
        yield replace(benchmark_evaluation(folder, scores or {}, notes), adds=read_added(folder))
    elif scores is not None:
        notes.append("per_question.jsonl is not there: the questions are not shown")
    for below in sorted(path.parent for path in folder.glob("*/per_question.jsonl")):
        scored = benchmark_evaluation(below, read_object(below / "scores.json") or {}, notes)
        yield replace(scored, adds=read_added(below))
    heldout = _heldout_name(recorded.get("dataset"))
    taken = {str((scores or {}).get("benchmark"))}
    unfinished = sorted((folder / _NAME).glob("*.part.jsonl"))
    for path in unfinished:
        notes.append(f"{_NAME}/{path.name}: these answers are being written and are not shown yet")
    whole = {path.stem: path for path in (folder / _NAME).glob("*.jsonl") if path not in unfinished}
    for name in [*(name for name in _PHASES if name in whole), *sorted(whole.keys() - {*_PHASES})]:
        if name in _PHASES:
            asked = heldout_evaluation(whole[name], heldout, name, notes)
            yield replace(asked, adds=read_added(folder)) if name == "after" else asked
        elif name in taken:
            continue
        elif name != heldout and (folder / _NAME / f"{name}.conditions.json").exists():  # answers to a benchmark
            notes.append(f"{_NAME}/{name}.jsonl: these answers are not scored yet, or others were since: not shown")
        else:
            asked = heldout_evaluation(whole[name], name, "", notes)
            yield replace(asked, adds=read_added(folder)) if name == heldout else asked


def _heldout_name(data: Any) -> str:
    """As `spacer.config.derived.heldout_name` of the recorded data set; where none is known, it is not called rooms.

    >>> _heldout_name({"kind": "rooms"}), _heldout_name({"kind": "jsonl"}), _heldout_name(None)
    ('rooms', 'heldout', 'heldout')
    """
    kinds = [data.get("kind")] if isinstance(data, dict) else []
    if kinds == ["mix"] and isinstance(parts := data.get("parts"), dict):
        kinds = [part.get("kind") for part in parts.values() if isinstance(part, dict)]
    return "rooms" if kinds and set(kinds) <= {"rooms", "stills"} else "heldout"


def _is_step(line: Line) -> bool:
    """Whether a line of the history is of a step; others are metrics that a run logs once."""
    return line.number("step") is not None


def _text(path: Path, notes: list[str]) -> str:
    try:
        return read_ordinary(path).decode()
    except FileNotFoundError:
        notes.append(f"{path.parent.name}/{path.name} is not there: the run's settings are not known")
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def _yaml(path: Path, text: str) -> dict[str, Any]:
    try:
        value = parse_yaml(text)
    except ValueError as error:
        raise UserError(f"{path} cannot be read as YAML: {error}") from error
    return value if isinstance(value, dict) else {}


def _overrides(folder: Path) -> tuple[str, ...]:
    path = folder / ".hydra" / "overrides.yaml"
    if not path.is_file():
        return ()
    try:
        value = parse_yaml(read_ordinary(path).decode())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as YAML: {error}") from error
    return tuple(str(word).removeprefix("++") for word in value) if isinstance(value, list) else ()
