"""The stage that makes a W&B workspace and report comparing a project's runs, without a model or data."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from spacer.config.choices import BENCHMARKS
from spacer.config.settings import Settings
from spacer.errors import UserError
from spacer.files import write_text
from spacer.report.dashboard import MetricValue, curves_of, definition, make_report, make_workspace
from spacer.report.html.added import read_added
from spacer.report.html.lines import read_lines, read_object
from spacer.report.labels import CONTROLS
from spacer.terminal.screen import screen
from spacer.tracking.offline import wandb_mode

_HEAD = ("overall", "reward/total", "reward/answer")  # metrics with a panel of their own; the table has all
_HELDOUT = ("rooms", "heldout")  # names of held-out questions
_ANSWERS = ("overall", "reward/answer")


def dashboard(settings: Settings, folder: Path) -> float:
    """Writes the definitions to `dashboard/` and publishes them if W&B is logged in. Returns the number of panels.

    Raises:
        UserError: a run's file cannot be read, or W&B refuses.
    """
    import wandb

    values = [value for name in settings.runs for value in read_metric_values(Path(name).expanduser())]
    told = [value.metric for value in values if value.metric.split("/", 2)[2] in _HEAD]
    heldout = [f"eval/{name}/{metric}" for name in _HELDOUT for metric in ("reward/total", _ANSWERS[1])]
    known = [f"eval/{name}/overall" for name in BENCHMARKS] + heldout
    metrics = list(dict.fromkeys(told or known))
    online = wandb_mode() == "online"
    project = settings.logger.project
    entity = settings.logger.entity or (_own_entity() if online else "")
    logged = _logged(settings.runs)
    curves = curves_of(logged)
    adds = [f"eval/{name}/{_ANSWERS[1]}/over_{control}" for name in _HELDOUT for control in CONTROLS]
    adds = added_metrics(settings.runs) if settings.runs else adds
    workspace = make_workspace(entity, project, metrics, adds, curves)
    report = make_report(entity, project, metrics, values, curves)
    console = screen()
    for name, found in {"workspace": definition(workspace), "report": definition(report)}.items():
        path = folder / "dashboard" / f"{name}.json"
        write_text(path, [json.dumps(found, indent=2), "\n"])
        console.print(f"  {name}: {path}", soft_wrap=True)
    if online:
        try:
            workspace.save()
            report.save()
        except (wandb.Error, OSError) as error:  # the latter: no connection
            where = f"its definitions are in {folder / 'dashboard'}"
            raise UserError(f"W&B did not take the dashboard: {error}; {where}") from error
        for name, url in {"workspace": workspace.url, "report": report.url}.items():
            console.print(f"  published {name}: {url}", soft_wrap=True)
    else:
        console.print("  not published: run `wandb login`, and then the same command again")
    return float(sum(len(section.panels) for section in workspace.sections))


def _own_entity() -> str:
    import wandb

    try:
        return wandb.Api().default_entity or ""
    except (wandb.Error, OSError) as error:
        raise UserError(
            f"W&B does not answer: {error}; WANDB_MODE=offline writes the definitions without it"
        ) from error


def added_metrics(runs: Sequence[str]) -> list[str]:
    """The W&B names of what the video adds to answers in these runs, by control, in order.

    Raises:
        UserError: a run's summary is not what a run writes.
    """
    found: dict[str, None] = {}
    for name in runs:
        folder = Path(name).expanduser()
        adds = read_added(folder)
        summary = read_object(folder / "summary.json") or {}
        at = f"eval/{summary.get('benchmark') or summary.get('heldout', 'heldout')}"
        pairs = ((control, metric) for control, of in adds.items() for metric in of if metric in _ANSWERS)
        found |= dict.fromkeys(f"{at}/{metric}/over_{control}" for control, metric in pairs)
    return list(found)


def _logged(runs: Sequence[str]) -> list[str]:
    """The metrics in the runs' histories, in order."""
    rows = [line.row for run in runs for line in read_lines(Path(run).expanduser() / "history.jsonl", [])]
    return list(dict.fromkeys(name for row in rows for name in row))


def read_metric_values(run: Path) -> list[MetricValue]:
    """The scores in a run folder, of a benchmark or of held-out questions, each with its interval.

    Raises:
        UserError: a file is not in the format that a run writes.
    """
    scores = [run / "scores.json"] if (run / "scores.json").exists() else sorted(run.glob("*/scores.json"))
    if scores:
        return [value for path in scores for value in _metric_values(path, run, _of_benchmark)]
    return _metric_values(run / "summary.json", run, _of_summary)


def _metric_values(
    path: Path, run: Path, values_of: Callable[[Path, dict[str, Any]], Iterator[MetricValue]]
) -> list[MetricValue]:
    try:
        return list(values_of(run, json.loads(path.read_text(encoding="utf-8"))))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is not what a run writes ({error!r}): evaluate that run again, or leave it out"
        ) from error


def _of_benchmark(run: Path, scores: dict[str, Any]) -> Iterator[MetricValue]:
    for name, value in scores["official"].items():
        low, high = scores["intervals"].get(name) or (None, None)
        yield MetricValue(run.name, f"eval/{scores['benchmark']}/{name}", value, low, high)


def _of_summary(run: Path, summary: dict[str, Any]) -> Iterator[MetricValue]:
    at, scores = f"eval/{summary.get('heldout', 'heldout')}", summary.get("scores", {})
    for name, part in scores.items():
        yield MetricValue(run.name, f"{at}/{name}", part["mean"], part["low"], part["high"])
    for name, part in summary["metrics"].items():  # of a training run, whose intervals are of the change
        if name not in scores:
            yield MetricValue(run.name, f"{at}/{name}", part["after"], None, None)
        yield MetricValue(run.name, f"{at}/{name} (change)", part["delta"], part["delta_low"], part["delta_high"])
