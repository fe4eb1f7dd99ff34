"""A W&B workspace and a report that compare the runs of a project, as `wandb-workspaces` defines them.

Curves are grouped by the reward that runs chose (`choice/reward` of their configuration) and drawn over prompts seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws

from spacer.report.labels import STEP_AXIS

GROUP = "choice/reward"
TABLE = "rollout/table"
CURVES = {
    "Reward": {
        "reward/total": "Total reward",
        "reward/answer": "Answer",
        "reward/map": "Map, where it counts",
        "reward/format": "Format",
        "reward/length": "Length bonus",
        "reward/temporal": "Temporal bonus",
    },
    "Rollouts": {
        "rollout/map_drawn": "Completions with a map",
        "rollout/map_quality": "Score against the true map",
        "rollout/length": "Tokens a completion",
        "rollout/groups_zero_variance": "Groups without an advantage",
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
class Figure:
    """A score of a run, with its 95 % interval where it is known."""

    run: str
    metric: str  # as W&B has it, such as eval/vsi_bench/overall
    value: float
    low: float | None
    high: float | None


def make_workspace(entity: str, project: str, metrics: Sequence[str]) -> ws.Workspace:
    """The workspace: curves by reward, a bar for each of the evaluation's `metrics`, the table of rollouts."""
    sections = [_section(name, [_line(*curve) for curve in curves.items()]) for name, curves in CURVES.items()]
    sections.insert(1, _section("Evaluation", [wr.BarPlot(title=name, metrics=[name]) for name in metrics]))
    table = wr.WeavePanelSummaryTable(table_name=TABLE, layout=wr.Layout(w=24, h=14))
    sections.insert(2, ws.Section(name="Rollouts and maps", panels=[table], is_open=True))
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


def make_report(entity: str, project: str, metrics: Sequence[str], figures: Sequence[Figure]) -> wr.Report:
    """The report: curves by reward, the scores of `figures` as a table with intervals, bars, the table of rollouts."""
    by_reward = wr.Runset(entity=entity, project=project, name="by reward", groupby=[f"config.{GROUP}"])
    each = wr.Runset(entity=entity, project=project, name="runs")
    blocks: list[Any] = [
        wr.H1("Reward curves, by reward"),
        wr.PanelGrid(runsets=[by_reward], panels=[_line(*curve) for curve in CURVES["Reward"].items()]),
        wr.H1("Evaluation"),
    ]
    if figures:
        blocks.append(wr.MarkdownBlock(figure_table(figures)))
    if metrics:
        bars: list[Any] = [wr.BarPlot(title=name, metrics=[name]) for name in metrics]
        blocks.append(wr.PanelGrid(runsets=[each], panels=bars))
    table = wr.WeavePanelSummaryTable(table_name=TABLE, layout=wr.Layout(w=24, h=16))
    blocks += [wr.H1("Rollouts and maps"), wr.PanelGrid(runsets=[each], panels=[table])]
    return wr.Report(
        entity=entity,
        project=project,
        title="Spacer: runs compared",
        description="Held-out prompts stand in the table of rollouts again and again, answered greedily.",
        blocks=blocks,
        width="fluid",
    )


def figure_table(figures: Sequence[Figure]) -> str:
    """Markdown: a row a figure, with its interval.

    >>> print(figure_table([Figure("a|b", "eval/rooms/reward/total", 1.5, 1.4, 1.6)]))
    | run | figure | value | 95 % interval |
    | --- | --- | ---: | --- |
    | a\\|b | eval/rooms/reward/total | 1.500 | 1.400 to 1.600 |
    """
    lines = ["| run | figure | value | 95 % interval |", "| --- | --- | ---: | --- |"]
    for figure in sorted(figures, key=lambda figure: (figure.metric, figure.run)):
        ends = "" if figure.low is None or figure.high is None else f"{figure.low:.3f} to {figure.high:.3f}"
        run = figure.run.replace("|", "\\|")
        lines.append(f"| {run} | {figure.metric} | {figure.value:.3f} | {ends} |")
    return "\n".join(lines)


def definition(board: ws.Workspace | wr.Report) -> dict[str, Any]:
    """What W&B is sent of a workspace or a report, as JSON.

    Raises:
        ValueError: it does not read back with the same panels.
    """
    # private: the package has no public way to see a definition without a server, or to read one back
    model: Any = board._to_model()
    found: dict[str, Any] = model.model_dump(mode="json", by_alias=True, exclude_none=True)
    kind: Any = type(board)
    again = kind._from_model(type(model).model_validate(found))
    if drawn(again._to_model().model_dump(mode="json", by_alias=True, exclude_none=True)) != drawn(found):
        raise ValueError("the definition of the dashboard does not read back with the same panels")
    return found


def drawn(found: Any) -> list[str]:
    """The metrics of all panels of a definition, in order.

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
