"""Output of a comparison of benchmark runs: a table for each run, `comparison.json` and a forest plot."""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.table import Table
from rich.text import Text

from spacer.evaluation.outcomes import OVERALL, Comparison
from spacer.report.drawing import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    SCREEN,
    VERMILION,
    Look,
    new_figure,
    plain_axes,
    written,
)
from spacer.report.labels import task_name
from spacer.statistics.intervals import FEWEST_CLUSTERS, Paired, why_no_interval
from spacer.terminal.tables import plain_table

_COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE)
_MARKERS = "osD^v"


def letter(place: int) -> str:
    """The label of the run at an index: A, B, …, Z, then its number.

    >>> letter(1), letter(26)
    ('B', 'run 27')
    """
    return string.ascii_uppercase[place] if place < 26 else f"run {place + 1}"


def name_of(metric: str) -> str:
    """Readable name of a metric.

    >>> name_of("overall"), name_of("task/object_counting"), name_of("task/S2E")
    ('overall (questions)', 'object count', 'S2E')
    """
    return "overall (questions)" if metric == OVERALL else task_name(metric)


def comparison_table(comparison: Comparison, place: int) -> Table:
    """Table comparing the run at `place` (from 1) with the first, in per cent; fits 80 columns."""
    a, b = letter(0), letter(place)
    title = f"{b} against {a}: {comparison.a.subject}{_protocol(comparison)}"
    table = plain_table(title, _caption(comparison, b), padding=0)  # for so many columns
    table.add_column("Task", overflow="fold")
    for heading in (a, b, f"{b} - {a}", "95 % interval", "p", "McN.", f"{b} won/\nlost/tied"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, metric in comparison.metrics.items():
        table.add_row(*_cells(name, metric), end_section=name == OVERALL)
    return table


def _protocol(comparison: Comparison) -> str:
    """The protocol of both runs, or each one's."""
    said = [run.protocol or "not known" for run in (comparison.a, comparison.b)]
    if said == ["not known"] * 2:
        return ""
    return f"; protocol: {said[0]}" if said[0] == said[1] else f"; protocols: {said[0]} and {said[1]}"


def _cells(name: str, metric: Paired) -> list[Text]:
    # ASCII only: a terminal or a log file in another encoding must not fail a run at its last line
    style = "" if not metric.excludes_zero else "green" if metric.delta > 0 else "red"
    interval = why_no_interval(metric.clusters)
    if math.isfinite(metric.low):
        interval = f"{100 * metric.low:+.1f}, {100 * metric.high:+.1f}"
    return [
        Text(name_of(name)),
        Text(f"{100 * metric.a:.1f}"),
        Text(f"{100 * metric.b:.1f}"),
        Text(f"{100 * metric.delta:+.1f}{'*' if metric.excludes_zero else ' '}", style=style),
        Text(interval, style=style),
        Text(_p(metric.p)),
        Text("-" if metric.mcnemar is None else _p(metric.mcnemar)),
        Text(f"{metric.wins}/{metric.losses}/{metric.ties}", style="dim"),
    ]


def _p(value: float) -> str:
    if math.isnan(value):
        return "-"
    return "<.001" if value < 0.0005 else f"{value:.3f}"


def _caption(comparison: Comparison, b: str) -> str:
    overall = comparison.metrics[OVERALL]
    said = [
        f"Per cent, of {overall.questions} questions in {overall.clusters} clusters.",
        "Overall is the mean over questions and a task's mean that over its questions, "
        "not the benchmark's own metrics.",
        "* the 95 % interval, which resamples clusters (videos), excludes 0; p swaps the runs' answers by clusters; "
        "McN., McNemar's exact p, is over questions, takes them for independent, and is for scores of 0 and 1.",
        "p are not corrected for being many.",
        f"Below {FEWEST_CLUSTERS} clusters there is no interval, no star and, where they share questions, no McN.",
    ]
    if comparison.unclustered:
        said.append(
            f"{comparison.unclustered} questions name no cluster and are taken for one each: where they share videos, "
            "intervals and p are too small."
        )
    if comparison.only_a or comparison.only_b:
        said.append(f"Left out: {comparison.only_a} questions of {letter(0)} alone, {comparison.only_b} of {b} alone.")
    return " ".join(said)


def comparison_summary(
    comparisons: Sequence[Comparison], folders: Sequence[Path], resamples: int, seed: int
) -> dict[str, Any]:
    """The contents of `comparison.json`. Scores and differences are between 0 and 1, as in the runs' own files."""
    return {
        "runs": {letter(place): {"folder": folder} for place, folder in enumerate(folders)},
        "comparisons": [
            {
                "subject": entry.a.subject,
                "a": letter(0),
                "b": letter(entry.place),
                "questions": [len(entry.a.questions), len(entry.b.questions)],
                "protocols": [entry.a.protocol, entry.b.protocol],
                "only_a": entry.only_a,
                "only_b": entry.only_b,
                "unclustered": entry.unclustered,
                "metrics": {name: asdict(metric) for name, metric in entry.metrics.items()},
            }
            for entry in comparisons
        ],
        "level": 0.95,
        "resamples": resamples,
        "seed": seed,
    }


def forest_plot(comparisons: Sequence[Comparison], path: str | Path | None = None, *, look: Look = SCREEN) -> Figure:
    """Differences from the first run with intervals: one row per task, one mark per run; filled where 0 is excluded."""
    names = list(dict.fromkeys(name for entry in comparisons for name in entry.metrics))
    step = 0.7 / len(comparisons)
    wide = look.width is None
    tall = max(0.34, 0.2 * len(comparisons)) if wide else max(0.2, 0.11 * len(comparisons))
    figure = new_figure(look.width or 9, (1.6 if wide else 1.0) + len(names) * tall)
    axes = figure.add_subplot()
    axes.axvline(0, color=GREY, linewidth=1)
    for place, entry in enumerate(comparisons):
        colour, marker = _COLOURS[place % len(_COLOURS)], _MARKERS[place % len(_MARKERS)]
        for row, name in enumerate(names):
            if name not in entry.metrics:
                continue
            found, height = entry.metrics[name], row + (place - (len(comparisons) - 1) / 2) * step
            if math.isfinite(found.low):
                axes.plot([100 * found.low, 100 * found.high], [height, height], color=colour, linewidth=look.line)
            fill = colour if found.excludes_zero else "white"
            axes.plot(100 * found.delta, height, marker, color=colour, markerfacecolor=fill, markersize=look.mark)
        label = f"{letter(entry.place)}: {entry.b.folder.name}"
        axes.plot([], [], marker, color=colour, linestyle="-", linewidth=look.line, markersize=look.mark, label=label)
    counts = {name: max(e.metrics[name].questions for e in comparisons if name in e.metrics) for name in names}
    axes.set_yticks(range(len(names)), [f"{name_of(name)} ({counts[name]})" for name in names])
    axes.get_yticklabels()[0].set_fontweight("bold")
    axes.axhline(0.5, color=GREY, linewidth=0.6)
    axes.set_ylim(len(names) - 0.5, -0.5)
    first = comparisons[0].a.folder.name
    if wide:
        axes.set_xlabel(f"difference to A: {first}, percentage points, with its 95 % interval", fontsize=look.label)
        axes.set_title("filled: the interval excludes 0", fontsize=look.label, loc="right", color=INK)
    else:
        axes.set_xlabel("difference to A, points,\nwith its 95 % interval", fontsize=look.label)
    columns = min(3 if wide else 1, len(comparisons))
    axes.legend(frameon=False, fontsize=look.label, ncols=columns, loc="lower left", bbox_to_anchor=(0, 1))
    plain_axes(axes, "x", look)
    return written(figure, path)
