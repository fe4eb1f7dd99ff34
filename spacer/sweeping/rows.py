"""Results of a sweep's jobs, read from their folders: the rows of its table, ranked, and means over seeds."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spacer.sweeping.record import Record, Status

NOT_RUN = "not run"


@dataclass(frozen=True)
class JobRow:
    """A job: its status, held-out score with the ends of its 95 % interval, answer reward and duration in seconds.

    `overrides` are the values that the sweep gave it. `reason` says why it failed or was killed. `figures` are what
    else settings are compared by, each where the run has it: answers of the spatial types, what its own video adds to
    them over another scene's, and the quality of those maps that were drawn.
    """

    job: str
    overrides: tuple[str, ...]
    status: str
    folder: str
    reason: str | None = None
    score: float | None = None
    low: float | None = None
    high: float | None = None
    answer: float | None = None
    seconds: float | None = None
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class OverSeeds:
    """Jobs that differ by seed alone: the mean of their metric, and its standard deviation across jobs (n - 1).

    `figures` has the same pair for each figure that all of these jobs have.
    """

    overrides: tuple[str, ...]
    jobs: int
    mean: float
    std: float | None
    figures: Mapping[str, tuple[float, float | None]] = field(default_factory=dict)


def row_of(job: str, overrides: Iterable[str], folder: Path, record: Record | None, problem: str | None) -> JobRow:
    """A job's row, from its record or from `problem`, why it cannot run."""
    common = (job, tuple(overrides))
    if problem is not None:
        return JobRow(*common, Status.failed.value, str(folder), problem)
    if record is None:
        return JobRow(*common, NOT_RUN, str(folder))
    row = (*common, record.status.value, str(folder), record.reason)
    if record.status != Status.done:
        return JobRow(*row, seconds=record.seconds)
    summary = _json(folder / "summary.json")
    return JobRow(*row, record.score, *_held_out(folder, summary), record.seconds, _figures(summary))


def _held_out(folder: Path, summary: Mapping[str, Any]) -> tuple[float | None, float | None, float | None]:
    """The ends of the score's 95 % interval and the answer reward, each None if the run has not written it."""
    scores = summary.get("scores", {})
    total, answer = scores.get("reward/total"), scores.get("reward/answer")
    if total is not None:
        return total["low"], total["high"], answer["mean"]
    interval = _json(folder / "scores.json").get("intervals", {}).get("overall")  # of a benchmark
    return (None, None, None) if interval is None else (interval[0], interval[1], None)


def _figures(summary: Mapping[str, Any]) -> dict[str, float]:
    scores, swapped = summary.get("scores", {}), summary.get("controls", {}).get("other_video", {})
    found = {
        "spatial answers": scores.get("answer/spatial", {}).get("mean"),
        "video adds to them": swapped.get("answer/spatial", {}).get("delta"),
        "map quality": scores.get("map/quality", {}).get("mean"),
    }
    return {name: value for name, value in found.items() if value is not None}


def ranked_by(rows: Iterable[JobRow]) -> str:
    """The metric that ranks jobs: `score`, or `answer` where scores are totals of different rewards.

    >>> ranked_by([JobRow("", ("reward=grpo",), "done", "", score=2.0, answer=0.5)])
    'answer'
    """
    rows = [row for row in rows if row.score is not None]
    differ = any(override.startswith("reward") for row in rows for override in row.overrides)
    return "answer" if differ and all(row.answer is not None for row in rows) else "score"


def ranked(rows: Iterable[JobRow], by: str) -> list[JobRow]:
    """Sorts by the metric, best first; rows without it come last, in their order."""
    return sorted(rows, key=lambda row: math.inf if getattr(row, by) is None else -getattr(row, by))


def over_seeds(rows: Sequence[JobRow], by: str) -> list[OverSeeds]:
    """Means over jobs that differ by seed alone, best first; empty if the sweep has one seed.

    >>> rows = [JobRow("", ("reward=grpo", f"seed={n}"), "done", "", score=n) for n in (1.0, 3.0)]
    >>> over_seeds(rows, "score")
    [OverSeeds(overrides=('reward=grpo',), jobs=2, mean=2.0, std=1.4142135623730951, figures={})]
    """
    settings: dict[tuple[str, ...], list[JobRow]] = {}
    seeds = {override for row in rows for override in row.overrides if _is_seed(override)}
    for row in rows:
        if getattr(row, by) is not None and len(seeds) > 1:
            settings.setdefault(tuple(o for o in row.overrides if not _is_seed(o)), []).append(row)
    means = [
        OverSeeds(
            names,
            len(found),
            *_mean_and_std([getattr(row, by) for row in found]),
            {
                figure: _mean_and_std([row.figures[figure] for row in found])
                for figure in found[0].figures
                if all(figure in row.figures for row in found)
            },
        )
        for names, found in settings.items()
    ]
    return sorted(means, key=lambda entry: -entry.mean)


def _mean_and_std(values: Sequence[float]) -> tuple[float, float | None]:
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def _is_seed(override: str) -> bool:
    return override.startswith("seed=")


def _json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values
