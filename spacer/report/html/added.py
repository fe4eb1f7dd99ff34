"""What the video adds to a run's scores, by its controls, as `summary.json` has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from spacer.errors import UserError
from spacer.report.comparison import name_of
from spacer.report.html.contents import Added, EvaluationResult
from spacer.report.html.lines import Line, read_object
from spacer.report.labels import CONTROLS, label_of
from spacer.statistics.intervals import why_no_interval

_ANSWER, _OVERALL = "reward/answer", "overall"  # what leads: of held-out questions, of a benchmark


def read_added(folder: Path) -> dict[str, dict[str, Added]]:
    """Control → metric → what the video adds to it; empty where the run had no controls.

    Raises:
        UserError: `summary.json` cannot be read, or an entry is not what a run writes; the message names it.
    """
    path = folder / "summary.json"
    controls = Line(str(path), read_object(path) or {}).object("controls")
    return {control: _of_control(controls.object(control)) for control in controls.row}


def _of_control(metrics: Line) -> dict[str, Added]:
    return {metric: _added(metrics.object(metric)) for metric in metrics.row}


def _added(entry: Line) -> Added:
    def needed(name: str) -> float:
        value = entry.number(name)
        if value is None:
            raise UserError(f"{entry.where}: lacks {name!r}: redo the run, or fix the file")
        return value

    low, high = entry.number("delta_low"), entry.number("delta_high")
    counts = int(needed("questions")), int(needed("scenes"))
    return Added(needed("before"), needed("after"), needed("delta"), low, high, *counts)


def added_entries(evaluation: EvaluationResult) -> list[dict[str, Any]]:
    """What the video adds to an evaluation, in the page's format: an entry for each control, the one nearest to the
    video first, with the leading metric before those of the question types or tasks."""
    found = []
    for control in (name for name in CONTROLS if name in evaluation.adds):
        metrics = evaluation.adds[control]
        if _ANSWER in metrics:
            names = [_ANSWER, *(name for name in metrics if name.startswith("answer/"))]
            labels = {name: label_of(name) for name in names} | {_ANSWER: "answer accuracy"}
        elif _OVERALL in metrics:
            names = [_OVERALL, *(name for name in metrics if name != _OVERALL)]
            labels = {name: name_of(name) for name in names} | {_OVERALL: "overall"}
        else:
            continue
        entries = [_entry(name, labels[name], metrics[name]) for name in names]
        found.append({"control": control, "label": CONTROLS[control], "metrics": entries})
    return found


def _entry(name: str, label: str, added: Added) -> dict[str, Any]:
    why = "" if added.low is not None else why_no_interval(added.scenes, "videos")
    return {
        "name": name,
        "label": label,
        "cell": {"value": added.own, "without": added.without, "questions": added.questions},
        "change": {"delta": added.delta, "low": added.low, "high": added.high, "why": why},
    }
