"""How sure a held-out score is: intervals that resample scenes.

Questions about one scene share its video, so their scores rise and fall together and an interval that treats them as
independent is too narrow. Whole scenes are drawn instead, with all of their questions, which are pooled (a ratio of
sums, so that scenes with more questions weigh more, exactly as in the reported mean). Before and after answer the same
questions, so the change is resampled as the difference of each question, which takes the scene's own difficulty out of
the interval. `spacer.evaluation.resampling` says how resamples become an interval.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spacer.evaluation.intervals import intervals
from spacer.evaluation.metrics import mean
from spacer.evaluation.resampling import Floats

Prediction = Mapping[str, Any]  # one line of a predictions file

QUESTION_TYPES = (
    "object_counting",
    "object_abs_distance",
    "object_size_estimation",
    "room_size_estimation",
    "object_rel_distance",
    "object_rel_direction_easy",
    "object_rel_direction_medium",
    "object_rel_direction_hard",
    "obj_appearance_order",
    "route_planning",
)


@dataclass(frozen=True)
class PairedDelta:
    """Mean before, mean after and their difference with its interval, all in the metric's own unit.

    `delta_low` and `delta_high` are NaN when all questions come from one scene: nothing then says how much scenes
    differ, and the zero-width interval that the bootstrap would give must not pass for certainty.
    """

    before: float
    after: float
    delta: float
    delta_low: float
    delta_high: float
    questions: int
    scenes: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval of the change lies on one side of 0."""
        return self.delta_low > 0 or self.delta_high < 0


def paired_delta(
    before: Sequence[float],
    after: Sequence[float],
    scenes: Sequence[str],
    *,
    resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> PairedDelta:
    """Change of a mean between two evaluations of the same questions, by the bootstrap over scenes.

    Args:
        before, after: one value a question, in the same order. Shape (questions,).
        scenes: the scene of each question. Shape (questions,).
        resamples: bootstrap resamples.
        seed: of the resampling; equal seeds and scenes give equal draws, so metrics are resampled alike.
        level: coverage of the interval, between 0 and 1.

    >>> paired_delta([0.0, 1.0, 0.0], [1.0, 1.0, 1.0], ["kitchen", "kitchen", "study"]).delta_low
    0.5
    """
    if len(before) != len(after):
        raise ValueError(f"{len(before)} values before but {len(after)} after")
    values_before, values_after = _finite(before), _finite(after)
    delta, low, high = mean_interval(values_after - values_before, scenes, resamples=resamples, seed=seed, level=level)
    return PairedDelta(
        before=float(values_before.mean()),
        after=float(values_after.mean()),
        delta=delta,
        delta_low=low,
        delta_high=high,
        questions=len(values_before),
        scenes=len(set(scenes)),
    )


def mean_interval(
    values: Sequence[float] | Floats,
    scenes: Sequence[str],
    *,
    resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float, float]:
    """Mean over questions with its interval: (mean, low, high). Arguments as `paired_delta`.

    The interval is (NaN, NaN) when there is only one scene.

    >>> mean_interval([1.0, 1.0, 1.0], ["kitchen", "kitchen", "study"])
    (1.0, 1.0, 1.0)
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, not {level}")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, not {resamples}")
    array = _finite(values)
    if len(array) != len(scenes):
        raise ValueError(f"{len(array)} values but {len(scenes)} scenes")
    if not len(array):
        raise ValueError("no questions to take a mean of")
    all_of_them = mean("mean", range(len(array)))
    found = intervals([all_of_them], array, scenes, resamples=resamples, seed=seed, level=level)["mean"]
    return float(array.mean()), found.low, found.high


def _finite(values: Sequence[float] | Floats) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if not np.isfinite(array).all():
        raise ValueError(f"value of question {int(np.argmin(np.isfinite(array)))} is not finite")
    return array


def _part(name: str) -> Callable[[Prediction], float]:
    return lambda row: float(row["reward"][name])


def _of_completion(name: str) -> Callable[[Prediction], float]:
    # A sample whose video is broken has no completion to describe; it counts as 0, as its rewards do.
    return lambda row: float(row.get(name, 0) if "error" in row else row[name])


METRICS: dict[str, Callable[[Prediction], float]] = {
    "reward/total": _part("total"),
    "reward/answer": _part("answer"),
    "reward/map": _part("map"),
    "reward/format": _part("format"),
    "reward/length": _part("length"),
    "reward/temporal": _part("temporal"),
    "map/quality": _part("map_quality"),
    "map/drawn": _of_completion("drawn"),
    "completion/tokens": _of_completion("completion_tokens"),
}
_BONUSES = ("reward/length", "reward/temporal")  # left out where no completion earned one


def compare(
    before: Sequence[Prediction],
    after: Sequence[Prediction],
    *,
    resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, PairedDelta]:
    """Every metric of two evaluations of the same questions, matched by `id`.

    The metrics, in this order: reward/total, reward/answer, reward/map (what the map added to the reward),
    reward/format, reward/length and reward/temporal (where some completion earned one), map/quality (the map's score,
    counted or not), map/drawn (share of completions with a map), completion/tokens, and answer/<question_type>.
    Samples with an `error` count with their zeros.

    Raises:
        ValueError: an id occurs twice, is missing on one side, or has another scene or question type there.
    """
    if not before and not after:
        raise ValueError("no predictions to compare")
    rows_before, rows_after = _by_id(before, "before"), _by_id(after, "after")
    faults = []
    if missing := [key for key in rows_before if key not in rows_after]:
        faults.append(f"missing after: {_named(missing)}")
    if missing := [key for key in rows_after if key not in rows_before]:
        faults.append(f"missing before: {_named(missing)}")
    both = [(row, rows_after[key]) for key, row in rows_before.items() if key in rows_after]
    for field in ("scene", "question_type"):
        if changed := [first["id"] for first, second in both if first[field] != second[field]]:
            faults.append(f"{field} differs: {_named(changed)}")
    if faults:
        raise ValueError("predictions before and after are not of the same questions: " + "; ".join(faults))

    def delta(value: Callable[[Prediction], float], pairs: Sequence[tuple[Prediction, Prediction]]) -> PairedDelta:
        return paired_delta(
            [value(first) for first, _ in pairs],
            [value(second) for _, second in pairs],
            [str(first["scene"]) for first, _ in pairs],
            resamples=resamples,
            seed=seed,
            level=level,
        )

    deltas = {}
    for name, value in METRICS.items():
        if name in _BONUSES and not any(value(first) or value(second) for first, second in both):
            continue
        deltas[name] = delta(value, both)
    present = {first["question_type"] for first, _ in both}
    known = [kind for kind in QUESTION_TYPES if kind in present]
    for kind in known + sorted(present.difference(known)):
        pairs = [pair for pair in both if pair[0]["question_type"] == kind]
        deltas[f"answer/{kind}"] = delta(METRICS["reward/answer"], pairs)
    return deltas


def _by_id(rows: Sequence[Prediction], side: str) -> dict[str, Prediction]:
    counts = Counter(row["id"] for row in rows)
    if twice := [key for key, count in counts.items() if count > 1]:
        raise ValueError(f"predictions {side} have ids that occur more than once: {_named(twice)}")
    return {row["id"]: row for row in rows}


def _named(ids: Sequence[str]) -> str:
    """The first ten ids, and how many more there are."""
    return ", ".join(str(key) for key in ids[:10]) + (f" and {len(ids) - 10} more" if len(ids) > 10 else "")
