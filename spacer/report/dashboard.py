"""A W&B workspace and a report that compare a project's runs, defined with `wandb-workspaces`.

Curves are grouped by each run's reward (`choice/reward` in its configuration) and drawn over prompts seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws

from spacer.report.labels import STEP_AXIS, label_of
from spacer.terminal.printable import markdown

GROUP = "choice/reward"
TABLE = "rollout/table"
_ADDS = "What the video adds"
CURVES = {
    "Reward": {
        "reward/total": "Total reward",
        "reward/answer": "Answer",
        "reward/map": "Map, where it counts",
        "reward/format": "Format",
        "reward/length": "Length bonus",
        "reward/temporal": "Temporal bonus",
    },
    "Lengths and entropy": {
        "rollout/length": "Tokens a completion",
        "rollout/truncated": "Completions that never ended",
        "rollout/entropy": "Entropy, nats a token",
    },
    "Rollouts": {
        "rollout/map_drawn": "Completions with a map",
        "rollout/map_quality": "Score against the true map",
        "rollout/groups_teaching": "Groups that teach",
        "rollout/filled": "Groups that teach, per group of a step",
    },
    "Training": {
        "train/kl": "KL to the reference",
        "train/clip_fraction": "Clipped tokens",
        "train/learning_rate": "Learning rate",
    },
    "Speed": {
        "speed/step_s": "Seconds a step",
        "speed/wait_s": "of them waiting for data",
        "speed/tokens_per_s": "Tokens a second",
        "speed/memory_gb": "Peak memory, GB",
    },
}


@dataclass(frozen=True)
class MetricValue:
    """A score of a run, with its 95 % interval if known."""

    run: str
    metric: str  # name in W&B, such as eval/vsi_bench/overall
    value: float
    low: float | None
    high: float | None


def curves_of(logged: Sequence[str]) -> dict[str, dict[str, str]]:
    """Those of `CURVES` that were `logged`, all of them where nothing is known, with the user's own rewards among those
    of the reward."""
    custom = [name for name in logged if name.startswith("reward/") and name not in CURVES["Reward"]]
    curves = CURVES | {"Reward": CURVES["Reward"] | {metric: label_of(metric) for metric in custom}}
    return {
        section: {metric: title for metric, title in drawn.items() if metric in logged or not logged}
        for section, drawn in curves.items()
    }


def make_workspace(
    entity: str,
    project: str,
    metrics: Sequence[str],
    adds: Sequence[str] = (),
    curves: Mapping[str, Mapping[str, str]] = CURVES,
) -> ws.Workspace:
    """The workspace: curves by reward, a bar chart for each metric of what the video `adds` and for each of the
    evaluation's `metrics`, and the rollout table."""
    of = {name: _section(name, [_line(*curve) for curve in drawn.items()]) for name, drawn in curves.items() if drawn}
    for name, found in ((_ADDS, adds), ("Evaluation", metrics)):
        of |= {name: _section(name, [wr.BarPlot(title=metric, metrics=[metric]) for metric in found])} if found else {}
    table = wr.WeavePanelSummaryTable(table_name=TABLE, layout=wr.Layout(w=24, h=14))
    of[TABLE] = ws.Section(name="Rollouts and maps", panels=[table], is_open=True)
    first = ("Reward", _ADDS, "Lengths and entropy", "Evaluation", TABLE)
    sections = [of[name] for name in (*first, *(name for name in of if name not in first)) if name in of]
    ends = [f"summary:{name}{end}" for name in metrics for end in ("", "/low", "/high")]
    return ws.Workspace(
        entity=entity,
        project=project,
        name="Spacer: runs compared",
        sections=sections,
        settings=ws.WorkspaceSettings(x_axis=STEP_AXIS, group_by_prefix="first", max_runs=50),
        runset_settings=ws.RunsetSettings(
            groupby=[ws.Config(GROUP)], pinned_columns=["run:displayName", f"config:{GROUP}.value", *ends]
        ),
    )


def make_report(
    entity: str,
    project: str,
    metrics: Sequence[str],
    values: Sequence[MetricValue],
    curves: Mapping[str, Mapping[str, str]] = CURVES,
) -> wr.Report:
    """The report: curves by reward, a table of the scores in `values` with intervals, bars, and the rollout table."""
    by_reward = wr.Runset(entity=entity, project=project, name="by reward", groupby=[f"config.{GROUP}"])
    each = wr.Runset(entity=entity, project=project, name="runs")
    blocks: list[Any] = [
        wr.H1("Reward curves, by reward"),
        wr.PanelGrid(runsets=[by_reward], panels=[_line(*curve) for curve in curves["Reward"].items()]),
        wr.H1("Evaluation"),
    ]
    if values:
        blocks.append(wr.MarkdownBlock(metric_table(values)))
    if metrics:
        bars: list[Any] = [wr.BarPlot(title=name, metrics=[name]) for name in metrics]
        blocks.append(wr.PanelGrid(runsets=[each], panels=bars))
    table = wr.WeavePanelSummaryTable(table_name=TABLE, layout=wr.Layout(w=24, h=16))
    blocks += [wr.H1("Rollouts and maps"), wr.PanelGrid(runsets=[each], panels=[table])]
    return wr.Report(
        entity=entity,
        project=project,
        title="Spacer: runs compared",
        description="The table of rollouts repeats the held-out prompts, answered greedily.",
        blocks=blocks,
        width="fluid",
    )


def metric_table(values: Sequence[MetricValue]) -> str:
    """Markdown table with one row per score and its interval.

    >>> print(metric_table([MetricValue("a|b", "eval/rooms/reward/total", 1.5, 1.4, 1.6)]))
    | run | metric | value | 95 % interval |
    | --- | --- | ---: | --- |
    | a\\|b | eval/rooms/reward/total | 1.500 | 1.400 to 1.600 |
    """
    lines = ["| run | metric | value | 95 % interval |", "| --- | --- | ---: | --- |"]
    for value in sorted(values, key=lambda value: (value.metric, value.run)):
        ends = "none" if value.low is None or value.high is None else f"{value.low:.3f} to {value.high:.3f}"
        lines.append(f"| {markdown(value.run)} | {markdown(value.metric)} | {value.value:.3f} | {ends} |")
    return "\n".join(lines)


def definition(board: ws.Workspace | wr.Report) -> dict[str, Any]:
    """The JSON of a workspace or a report as it is sent to W&B.

    Raises:
        ValueError: reading it back gives other panels.
    """
    # private: the package has no public way to view a definition without a server, or to read one back
    model: Any = board._to_model()
    found: dict[str, Any] = model.model_dump(mode="json", by_alias=True, exclude_none=True)
    kind: Any = type(board)
    again = kind._from_model(type(model).model_validate(found))
    if drawn(again._to_model().model_dump(mode="json", by_alias=True, exclude_none=True)) != drawn(found):
        raise ValueError("the definition of the dashboard does not read back with the same panels")
    return found


def drawn(found: Any) -> list[str]:
    """The metrics of all panels in a definition, in order.

    >>> drawn({"panels": [{"metrics": ["a", "b"]}, {"config": {"metrics": ["a"]}}]})
    ['a', 'b', 'a']
    """
    if isinstance(found, list):
        return [name for item in found for name in drawn(item)]
    if not isinstance(found, dict):
        return []
    inner = [name for key, value in found.items() if key != "metrics" for name in drawn(value)]
    return [*found.get("metrics", ()), *inner]


def _section(name: str, panels: list[Any]) -> ws.Section:
    return ws.Section(name=name, panels=panels, is_open=name != "Speed")


def _line(metric: str, title: str) -> wr.LinePlot:
    return wr.LinePlot(title=title, x=STEP_AXIS, y=[metric], title_x="prompts seen", smoothing_show_original=True)
