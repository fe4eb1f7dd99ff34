"""The stage that makes a W&B workspace and report which compare a project's runs; it needs neither model nor data."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from spacer.benchmarks import names
from spacer.errors import UserError
from spacer.files import write_text
from spacer.offline import wandb_mode
from spacer.report.dashboard import CURVES, Figure, definition, make_report, make_workspace
from spacer.report.html.lines import read_lines
from spacer.settings import Settings

_HEAD = ("overall", "reward/total", "reward/answer")  # figures that a panel is for; the table has all


def dashboard(settings: Settings, folder: Path) -> float:
    """Writes the definitions to `dashboard/` and, where W&B is logged in, publishes them. Returns their panels' number.

    Raises:
        UserError: a file of a run cannot be read, or W&B refuses.
    """
    import wandb

    figures = [figure for name in settings.runs for figure in read_figures(Path(name).expanduser())]
    told = [figure.metric for figure in figures if figure.metric.split("/", 2)[2] in _HEAD]
    known = [f"eval/{name}/overall" for name in names()] + ["eval/rooms/reward/total", "eval/rooms/reward/answer"]
    metrics = list(dict.fromkeys(told or known))
    online = wandb_mode() == "online"
    project = settings.logger.project
    entity = settings.logger.entity or (_own_entity() if online else "")
    workspace, report = make_workspace(entity, project, metrics), make_report(entity, project, metrics, figures)
    console = Console()
    for name, found in {"workspace": definition(workspace), "report": definition(report)}.items():
        path = folder / "dashboard" / f"{name}.json"
        write_text(path, [json.dumps(found, indent=2), "\n"])
        console.print(f"  {name}: {path}", markup=False, highlight=False, soft_wrap=True)
    if absent := _never_logged(settings.runs):
        said = ", ".join(absent)
        console.print(f"  no run of these has logged: {said}", markup=False, highlight=False, soft_wrap=True)
    if online:
        try:
            workspace.save()
            report.save()
        except (wandb.Error, OSError) as error:  # the latter: no connection
            where = f"its definitions are in {folder / 'dashboard'}"
            raise UserError(f"W&B did not take the dashboard: {error}; {where}") from error
        for name, url in {"workspace": workspace.url, "report": report.url}.items():
            console.print(f"  published {name}: {url}", markup=False, highlight=False, soft_wrap=True)
    else:
        console.print("  not published: run `wandb login`, and then the same command again", highlight=False)
    return float(sum(len(section.panels) for section in workspace.sections))


def _own_entity() -> str:
    import wandb

    try:
        return wandb.Api().default_entity or ""
    except (wandb.Error, OSError) as error:
        raise UserError(
            f"W&B does not answer: {error}; WANDB_MODE=offline writes the definitions without it"
        ) from error


def _never_logged(runs: Sequence[str]) -> list[str]:
    """Curves of the dashboard that none of the runs has, where some have a history at all."""
    rows = [line.row for run in runs for line in read_lines(Path(run).expanduser() / "history.jsonl", [])]
    logged = {name for row in rows for name in row}
    return [name for curves in CURVES.values() for name in curves if rows and name not in logged]


def read_figures(run: Path) -> list[Figure]:
    """The scores of a run folder, those of a benchmark or of held-out questions, each with its interval.

    Raises:
        UserError: a file is not what a run writes.
    """
    scores = [run / "scores.json"] if (run / "scores.json").exists() else sorted(run.glob("*/scores.json"))
    if scores:
        return [figure for path in scores for figure in _figures(path, run, _of_benchmark)]
    return _figures(run / "summary.json", run, _of_summary)


def _figures(path: Path, run: Path, figures_of: Callable[[Path, dict[str, Any]], Iterator[Figure]]) -> list[Figure]:
    try:
        return list(figures_of(run, json.loads(path.read_text(encoding="utf-8"))))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is not what a run writes ({error!r}): evaluate that run again, or leave it out"
        ) from error


def _of_benchmark(run: Path, scores: dict[str, Any]) -> Iterator[Figure]:
    for name, value in scores["official"].items():
        low, high = scores["intervals"].get(name) or (None, None)
        yield Figure(run.name, f"eval/{scores['benchmark']}/{name}", value, low, high)


def _of_summary(run: Path, summary: dict[str, Any]) -> Iterator[Figure]:
    at, scores = f"eval/{summary.get('heldout', 'rooms')}", summary.get("scores", {})
    for name, part in scores.items():
        yield Figure(run.name, f"{at}/{name}", part["mean"], part["low"], part["high"])
    for name, part in summary["metrics"].items():  # of a training run, whose intervals are of the change
        if name not in scores:
            yield Figure(run.name, f"{at}/{name}", part["after"], None, None)
        yield Figure(run.name, f"{at}/{name} (change)", part["delta"], part["delta_low"], part["delta_high"])
