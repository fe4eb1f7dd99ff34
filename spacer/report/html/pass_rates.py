"""How often a run of stage=generate answered its questions rightly, as `summary.json` has it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from spacer.errors import UserError
from spacer.report.html.lines import Line, read_object
from spacer.report.html.scores import Cell
from spacer.report.labels import QUESTION_TYPES
from spacer.statistics.intervals import why_no_interval
from spacer.statistics.passing import PassRates

ALL = "all"  # questions, whatever their type


def read_pass_rates(folder: Path) -> dict[str, PassRates]:
    """Question type → its pass rates, with `ALL` among them; empty for another stage, and where nothing was asked.

    Raises:
        UserError: `summary.json` cannot be read, or an entry is not what a run writes; the message names it.
    """
    path = folder / "summary.json"
    entries = Line(str(path), read_object(path) or {}).object("pass_rates")
    found = {kind: _rates(entries.object(kind)) for kind in entries.row}
    return {kind: rates for kind, rates in found.items() if rates.questions}


def _rates(entry: Line) -> PassRates:
    def counted(name: str) -> int:
        value = entry.number(name)
        if value is None:
            raise UserError(
                f"{entry.where}: lacks {name!r}: call the run once more, which asks no question again, or fix the file"
            )
        return int(value)

    def number(name: str) -> float:
        value = entry.number(name)
        return math.nan if value is None else value

    counts = (counted(name) for name in ("never", "sometimes", "always", "teaching", "scenes"))
    return PassRates(number("mean"), number("low"), number("high"), *counts)


def pass_rate_entries(rates: Mapping[str, PassRates]) -> list[dict[str, Any]]:
    """Pass rates in the page's format: an entry for each type, that of all questions first."""
    found = []
    for kind in sorted(rates, key=lambda kind: kind != ALL):
        each = rates[kind]
        there = math.isfinite(each.low)
        low, high, why = (each.low, each.high, "") if there else (None, None, why_no_interval(each.scenes, "scenes"))
        cell = asdict(Cell(each.mean, low, high, each.questions, why))
        label = "all questions" if kind == ALL else QUESTION_TYPES.get(kind, kind.replace("_", " "))
        shares = {name: getattr(each, name) for name in ("never", "sometimes", "always", "teaching")}
        found.append({"name": kind, "label": label, "cell": cell, **shares})
    return found
