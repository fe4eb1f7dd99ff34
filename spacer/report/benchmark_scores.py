"""Prints a benchmark's scores on the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from spacer.benchmarks import benchmark
from spacer.evaluation.scoring import Scored
from spacer.report.labels import task_name
from spacer.report.published import PUBLISHED
from spacer.statistics.intervals import Interval, why_no_interval
from spacer.terminal.tables import plain_table

SHOWN = 6  # published scores on the terminal


def show(
    console: Console, scored: Scored, spread: Mapping[str, Interval], folder: Path, protocol: str = "not known"
) -> None:
    """Prints the metrics under their protocol, the unanswered questions, and the location of the files."""
    title = f"{scored.benchmark}, in percent; protocol: {protocol}"
    table = plain_table(title)
    table.add_column("Metric", overflow="fold")  # names of tasks may be longer than a line
    for heading in ("Official", "95 % interval", *([scored.second] if scored.second else []), "N"):
        table.add_column(heading, justify="right", no_wrap=True)
    official, released = scored.official_values, scored.released_values
    counts = {metric.name: sum(len(of) for _, of in metric.parts) for metric in (*scored.released, *scored.official)}
    for name in official | released:
        second = [_percent(released, name)] if scored.second else []
        table.add_row(Text(task_name(name)), _percent(official, name), _range(spread, name), *second, str(counts[name]))
    console.print(table)
    answered = sum(scored.answered)
    cut_off = {"of these, thinking cut off that the prompts had opened": scored.cut_off} if scored.cut_off else {}
    told = {
        "questions": len(scored.questions),
        "answered": answered,
        "answers that could not be read, which are wrong": scored.not_extracted,
        **cut_off,
        "questions without a prediction, which are wrong": len(scored.questions) - scored.malformed - answered,
        "predictions without a question": len(scored.strangers),
    }
    if scored.malformed:
        told["questions whose row is malformed, which are wrong"] = scored.malformed
    for what, count in told.items():
        console.print(f"  {what}: {count}")
    if note := benchmark(scored.benchmark).NOTE:
        console.print(f"  {note}")
    for what, name in (("scores", "scores.json"), ("each question", "per_question.jsonl")):
        console.print(f"  {what}: {folder / name}", soft_wrap=True)


def published_table(name: str) -> Table | None:
    """What others published of a benchmark, a table of its own beside what was measured; None if nothing is known."""
    known = [entry for entry in PUBLISHED if entry.benchmark == name]
    if not known:
        return None
    table = plain_table(f"{name}: published overall scores, in percent, none of them measured here")
    table.caption = "For orientation: published models differ in frames, pixels, prompts and lengths."
    if len(known) > SHOWN:
        table.caption += f" {len(known) - SHOWN} more are in report.html."
    table.add_column("Model", overflow="fold")
    table.add_column("Overall", justify="right", no_wrap=True)
    table.add_column("Source", overflow="fold")
    for entry in sorted(known[:SHOWN], key=lambda entry: -entry.value):
        source = "; ".join(filter(None, (entry.source, entry.note)))
        table.add_row(entry.model, f"{entry.value:.2f}", Text(source, style="dim"))
    return table


def _range(spread: Mapping[str, Interval], name: str) -> str:
    if name not in spread:
        return ""
    if math.isnan(spread[name].low):
        return why_no_interval(spread[name].clusters, "videos")
    return f"{100 * spread[name].low:.1f} to {100 * spread[name].high:.1f}"


def _percent(values: Mapping[str, float], name: str) -> str:
    return f"{100 * values[name]:.2f}" if name in values else ""
