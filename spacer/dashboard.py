"""The stage that makes a W&B workspace and report which compare a project's runs; it needs neither model nor data."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from spacer.benchmarks import names
from spacer.errors import UserError
from spacer.files import read_rows, write_text
from spacer.offline import wandb_mode
from spacer.report.dashboard import CURVES, Figure, definition, make_report, make_workspace
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
    entity = settings.logger.entity or (wandb.Api().default_entity if online else None) or ""
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


def _never_logged(runs: Sequence[str]) -> list[str]:
    """Curves of the dashboard that none of the runs has, where some have a history at all."""
    rows = [row for run in runs for row in read_rows(Path(run).expanduser() / "history.jsonl")]
    logged = {name for row in rows for name in row}
    return [name for curves in CURVES.values() for name in curves if rows and name not in logged]


def read_figures(run: Path) -> list[Figure]:
    """The scores of a run folder, those of a benchmark or of held-out questions, each with its interval.

    Raises:
        UserError: a file is not what a run writes.
    """
    path = run / "scores.json" if (run / "scores.json").exists() else run / "summary.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return list(_of_benchmark(run.name, found) if path.name == "scores.json" else _of_summary(run, found))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is not what a run writes ({error!r}): evaluate that run again, or leave it out"
        ) from error


def _of_benchmark(run: str, scores: dict[str, Any]) -> Iterator[Figure]:
    for name, value in scores["official"].items():
        low, high = scores["intervals"].get(name) or (None, None)
        yield Figure(run, f"eval/{scores['benchmark']}/{name}", value, low, high)


def _of_summary(run: Path, summary: dict[str, Any]) -> Iterator[Figure]:
    for name, part in summary.get("scores", {}).items():  # of stage=evaluate
        yield Figure(run.name, f"eval/rooms/{name}", part["mean"], part["low"], part["high"])
    for name, part in summary["metrics"].items():  # of a training run, whose intervals are of the change
        yield Figure(run.name, f"eval/rooms/{name}", part["after"], None, None)
        yield Figure(run.name, f"eval/rooms/{name} (change)", part["delta"], part["delta_low"], part["delta_high"])
