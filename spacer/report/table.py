"""The table at the end of a run, and the same metrics as `summary.json`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from spacer.files import write_text
from spacer.report.labels import SECTIONS, label_of, section_of, task_name
from spacer.statistics.intervals import FEWEST_CLUSTERS, why_no_interval
from spacer.statistics.summaries import PairedDelta
from spacer.terminal.tables import plain_table


def before_after_table(
    deltas: Mapping[str, PairedDelta],
    *,
    title: str = "Held-out questions before and after training",
    level: float = 0.95,
    headings: tuple[str, str, str] = ("Before", "After", "Change"),
) -> Table:
    """Table of every metric before and after, with the interval of its change; fits 80 columns.

    Args:
        deltas: metric name to its change, as returned by `spacer.statistics.summaries.compare`.
        title: above the table.
        level: the interval's coverage, for the heading.
        headings: above the first evaluation, the second and the difference.
    """
    table = plain_table(title, _caption(deltas))
    table.add_column("Metric", no_wrap=True, overflow="fold")
    for heading in ("N", *headings):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column(f"{100 * level:g} % interval", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for section, heading in SECTIONS.items():
        metrics = [metric for metric in deltas if section_of(metric) == section]
        if not metrics:
            continue
        table.add_row(Text(heading, style="bold"))
        for metric in metrics:
            table.add_row(*_cells(metric, deltas[metric]), end_section=metric == metrics[-1])
    return table


def _cells(metric: str, delta: PairedDelta) -> list[Text]:
    # ASCII only: a terminal or a log file in another encoding must not fail a run at its last line.
    digits = 1 if metric == "completion/tokens" else 3
    interval = why_no_interval(delta.scenes, "scenes")
    if math.isfinite(delta.delta_low):
        interval = f"[{delta.delta_low:+.{digits}f}, {delta.delta_high:+.{digits}f}]"
    style = ""
    if delta.excludes_zero:
        # The table does not judge whether longer completions are better.
        style = "bold" if section_of(metric) == "completion" else "green" if delta.delta > 0 else "red"
    return [
        Text("  " + label_of(metric)),
        Text(str(delta.questions), style="dim"),
        Text(f"{delta.before:.{digits}f}"),
        Text(f"{delta.after:.{digits}f}"),
        Text(f"{delta.delta:+.{digits}f}", style=style),
        Text(interval, style=style),
        Text("*" if delta.excludes_zero else "", style=style),
    ]


def _caption(deltas: Mapping[str, PairedDelta]) -> str:
    scenes = max((delta.scenes for delta in deltas.values()), default=0)
    few = any(delta.scenes < FEWEST_CLUSTERS for delta in deltas.values())
    said = f"* the interval excludes 0. N questions; paired bootstrap over {scenes} scene{'' if scenes == 1 else 's'}."
    return said + (f" Below {FEWEST_CLUSTERS} scenes there is no interval and no *." if few else "")


_BLIND = {  # of a benchmark: heading of the column, in the order of what is shown
    "chance": "Chance",
    "constant": "Const.",
    "none": "Text",
    "grey": "Grey",
    "other_video": "Other",
}


def video_adds_table(
    own: Mapping[str, float],
    baselines: Mapping[str, Mapping[str, float]],
    adds: Mapping[str, Mapping[str, PairedDelta]],
) -> Table:
    """What the video adds to a benchmark's metrics, in per cent: baselines and controls beside the scores.

    Args:
        own: metric → score.
        baselines: chance and constant: metric → score, NaN where it is not known.
        adds: control → metric → the change from the control to `own`.
    """
    blind = {name: dict(of) for name, of in baselines.items()}
    blind |= {name: {metric: delta.before for metric, delta in of.items()} for name, of in adds.items()}
    shown = [name for name in _BLIND if name in blind]
    hardest = shown[-1] if shown[-1] in adds else None  # the control that is nearest to the video
    title = "Blind baselines, in percent" if hardest is None else "What the video adds, in percent"
    table = plain_table(title)
    table.add_column("Metric", overflow="fold")
    for heading in (*(_BLIND[name] for name in shown), "Own"):
        table.add_column(heading, justify="right", no_wrap=True)
    if hardest is not None:
        table.add_column("Adds", justify="right", no_wrap=True)
        table.caption = (
            f"Adds: own less {_BLIND[hardest]}, with its 95 % interval, which resamples videos. Below "
            f"{FEWEST_CLUSTERS} videos there is none. summary.json has those of all controls."
        )
    for metric, score in own.items():
        cells = [_percent(blind[name].get(metric, math.nan)) for name in shown]
        change = [] if hardest is None else [_added(adds[hardest][metric])]
        table.add_row(Text(task_name(metric)), *cells, _percent(score), *change)
    return table


def _percent(value: float) -> str:
    return f"{100 * value:.1f}" if math.isfinite(value) else "-"


def _added(delta: PairedDelta) -> str:
    if not math.isfinite(delta.delta_low):
        return f"{100 * delta.delta:+.1f}, {why_no_interval(delta.scenes, 'videos')}"
    return f"{100 * delta.delta:+.1f} [{100 * delta.delta_low:+.1f}, {100 * delta.delta_high:+.1f}]"


def write_summary(
    path: str | Path, deltas: Mapping[str, PairedDelta], seconds: Mapping[str, float], extra: Mapping[str, Any]
) -> None:
    """Writes {"metrics": {name: {…}}, "seconds": {phase: s}, **extra} as JSON, atomically.

    A metric holds before, after, delta, delta_low, delta_high, questions and scenes. JSON has no NaN, so non-finite
    values (an interval that there is none of) are null.

    Args:
        path: the file; missing folders are made.
        deltas: metric name to its change.
        seconds: phase to its duration in seconds.
        extra: more top-level entries; may not be called metrics or seconds.
    """
    if taken := {"metrics", "seconds"} & set(extra):
        raise ValueError(f"extra entries of the summary may not be called {', '.join(sorted(taken))}")
    summary = {"metrics": {name: asdict(delta) for name, delta in deltas.items()}, "seconds": dict(seconds), **extra}
    write_json(path, summary)


def write_json(path: str | Path, value: Mapping[str, Any]) -> None:
    """Writes JSON atomically, with paths as text and non-finite values as null."""
    text = json.dumps(_json_value(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_text(Path(path), [text])


def _json_value(value: Any) -> Any:
    """Converts paths, numpy scalars and arrays to plain JSON types and non-finite floats to None."""
    if isinstance(value, Mapping):
        return {str(key): _json_value(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(entry) for entry in value]
    if isinstance(value, np.ndarray | np.generic):
        return _json_value(value.tolist())
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
