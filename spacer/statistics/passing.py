"""How often questions are answered rightly where each has several completions: pass rates with intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spacer.statistics.summaries import mean_interval


@dataclass(frozen=True)
class PassRates:
    """How often some questions are answered rightly: the mean of their pass rates with its 95 % interval, and how many
    questions have a pass rate of 0, one between, and one of 1.

    `teaching` are the questions whose completions have different rewards, the groups that GRPO learns from. `low` and
    `high` are NaN where there is no interval, as in `PairedDelta`.
    """

    mean: float
    low: float
    high: float
    never: int
    sometimes: int
    always: int
    teaching: int
    scenes: int

    @property
    def questions(self) -> int:
        """The number of questions."""
        return self.never + self.sometimes + self.always


def pass_rates(rows: Iterable[Mapping[str, Any]], resamples: int, seed: int) -> Mapping[str, PassRates]:
    """Question type → the pass rates of its questions that could be asked, in the order of types.

    Args:
        rows: of `generated.jsonl`; of a question that could not be asked, `pass_rate` is None.
        resamples, seed: of the intervals, which resample scenes.

    >>> rows = [
    ...     {"question_type": "route", "scene": "a", "pass_rate": rate, "completions": [{"reward": {"total": rate}}]}
    ...     for rate in (0.0, 0.25, 1.0, None)
    ... ]
    >>> found = pass_rates(rows, resamples=10, seed=0)["route"]
    >>> round(found.mean, 4), found.never, found.sometimes, found.always, found.teaching
    (0.4167, 1, 1, 1, 0)
    """
    by_type: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["pass_rate"] is not None:
            by_type.setdefault(row["question_type"], []).append(row)
    return {kind: summed(of, resamples, seed) for kind, of in sorted(by_type.items())}


def summed(rows: Sequence[Mapping[str, Any]], resamples: int, seed: int) -> PassRates:
    """The pass rates of questions that could be asked, as one; NaN for none. Arguments as `pass_rates`."""
    if not rows:
        return PassRates(math.nan, math.nan, math.nan, 0, 0, 0, 0, 0)
    rates, scenes = [row["pass_rate"] for row in rows], [str(row["scene"]) for row in rows]
    mean, low, high = mean_interval(rates, scenes, resamples=resamples, seed=seed)
    never, always = rates.count(0.0), rates.count(1.0)
    teaching = sum(len({each["reward"]["total"] for each in row["completions"]}) > 1 for row in rows)
    return PassRates(mean, low, high, never, len(rates) - never - always, always, teaching, len(set(scenes)))
