"""A run's history with one row per step, however often it was resumed; without torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def by_step(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per step, in order. Of steps repeated after resuming from a crash, the last row counts.

    >>> by_step([{"step": 1, "loss": 3.0}, {"step": 0, "loss": 4.0}, {"step": 1, "loss": 2.0}])
    [{'step': 0, 'loss': 4.0}, {'step': 1, 'loss': 2.0}]
    """
    found: dict[int, dict[str, Any]] = {}
    for row in rows:
        found.setdefault(row["step"], {}).update(row)
    return [found[step] for step in sorted(found)]
