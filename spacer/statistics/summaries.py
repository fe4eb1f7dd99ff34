"""Uncertainty of held-out scores: intervals that resample scenes.

Questions about one scene share its video, so their scores are correlated and an interval that treats them as
independent is too narrow. Whole scenes are resampled instead, with all of their questions, which are pooled (a ratio of
sums, so that scenes with more questions weigh more, exactly as in the reported mean). Before and after answer the same
questions, so the change is resampled as the per-question difference, which removes the scene's own difficulty from
the interval. `spacer.statistics.resampling` defines how resamples become an interval.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spacer.statistics.intervals import intervals
from spacer.statistics.metrics import mean
from spacer.statistics.resampling import Floats

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
# those that are answered by where things are and when they come into view, not by how many or how large they are
SPATIAL_TYPES = tuple(kind for kind in QUESTION_TYPES if kind != "object_counting" and "size" not in kind)
SPATIAL = "spatial"  # all of them together


@dataclass(frozen=True)
class PairedDelta:
    """Mean before, mean after and their difference with its interval, all in the metric's own unit.

    `delta_low` and `delta_high` are NaN for fewer than `FEWEST_CLUSTERS` scenes, and where no scene differs from
    another: how much scenes vary is then unknown, and an interval without width must not pass for certainty.
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
        before, after: one value per question, in the same order. Shape (questions,).
        scenes: the scene of each question. Shape (questions,).
        resamples: bootstrap resamples.
        seed: of the resampling; equal seeds and scenes give equal draws, so that all metrics share resamples.
        level: coverage of the interval, between 0 and 1.

    >>> rooms = [f"room {n}" for n in range(20)]
    >>> found = paired_delta([0.0, 1.0] * 10, [1.0, 1.0] * 10, rooms)
    >>> found.delta, found.delta_low < 0.4, found.excludes_zero
    (0.5, True, True)
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

    The ends are NaN for few scenes and for scenes without differences, as in `PairedDelta`.

    >>> mean_interval([1.0, 1.0, 1.0], ["kitchen", "kitchen", "study"])
    (1.0, nan, nan)
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
    # A sample whose video is broken has no completion; it counts as 0, as its rewards do.
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
_PUBLISHED = frozenset(name.removeprefix("reward/") for name in METRICS) | {"map_quality"}
_COMPARED_ALONE = ("reward/length", "reward/temporal", "map/drawn", "completion/tokens")  # say little of one evaluation
_BONUSES = ("reward/length", "reward/temporal")  # omitted if no completion earned one


def metrics_of(rows: Iterable[Prediction]) -> dict[str, Callable[[Prediction], float]]:
    """Metric → its value for a row that `covers` it: `METRICS`, with rewards of the user's after the published ones."""
    custom = dict.fromkeys(name for row in rows for name in row["reward"] if name not in _PUBLISHED)
    found: dict[str, Callable[[Prediction], float]] = {}
    for metric, value in METRICS.items():
        found[metric] = value
        if metric == "reward/temporal":
            found |= {f"reward/{name}": _part(name) for name in custom}
    return found


def covers(metric: str, row: Prediction) -> bool:
    """Whether a question counts for a metric: for a map's quality where a map was drawn, for a part of the reward where
    it applies, which that of maps does to questions with a true one."""
    if metric == "map/quality":
        return has_quality(row)
    kind, _, name = metric.partition("/")
    return kind != "reward" or (name in row["reward"] and (name != "map" or _has_true_map(row)))


def has_quality(row: Prediction) -> bool:
    """Whether a question's completion has a map to score against a true one; a map that was not drawn does not count
    as one of quality 0."""
    return bool(row.get("drawn")) and _has_true_map(row) and "map_quality" in row["reward"]


def _has_true_map(row: Prediction) -> bool:
    return bool(row.get("true_map", True))


def by_metric(rows: Iterable[Prediction]) -> dict[str, list[tuple[float, str]]]:
    """Metric → (value, scene) of each question that it covers, of one evaluation; higher is better for all of them."""
    found: dict[str, list[tuple[float, str]]] = {}
    held = list(rows)
    metrics = {name: value for name, value in metrics_of(held).items() if name not in _COMPARED_ALONE}
    for row in held:
        for name, value in metrics.items():
            if covers(name, row):
                found.setdefault(name, []).append((value(row), row["scene"]))
    for kind, types in answer_groups(row["question_type"] for row in held).items():
        part = [(row["reward"]["answer"], row["scene"]) for row in held if row["question_type"] in types]
        found[f"answer/{kind}"] = part
    return found


def answer_groups(present: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Name → the question types whose answers it stands for: the spatial types together, if there are several of them
    and others too, then each type that is present.

    >>> answer_groups(["route_planning", "object_counting", "obj_appearance_order"])["spatial"]
    ('obj_appearance_order', 'route_planning')
    """
    kinds = set(present)
    known = [kind for kind in QUESTION_TYPES if kind in kinds]
    spatial = tuple(kind for kind in known if kind in SPATIAL_TYPES)
    together = {SPATIAL: spatial} if 1 < len(spatial) < len(kinds) else {}
    return together | {kind: (kind,) for kind in (*known, *sorted(kinds.difference(known)))}


def mean_scores(rows: Iterable[Prediction], resamples: int, seed: int) -> dict[str, dict[str, float]]:
    """Metric → its `mean` over the rows, the ends of its interval, `low` and `high`, and the number of its `scenes`."""
    found: dict[str, dict[str, float]] = {}
    for name, part in by_metric(rows).items():
        values, scenes = zip(*part, strict=True)
        average, low, high = mean_interval(values, scenes, resamples=resamples, seed=seed)
        found[name] = {"mean": average, "low": low, "high": high, "scenes": len(set(scenes))}
    return found


def compare(
    before: Sequence[Prediction],
    after: Sequence[Prediction],
    *,
    resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, PairedDelta]:
    """Compares every metric of two evaluations of the same questions, matched by `id`.

    The metrics, in this order: reward/total, reward/answer, reward/map (the map's contribution to the reward),
    reward/format, reward/length and reward/temporal (if some completion earned one), rewards of the user's, each part
    over questions to which it applies on both sides, map/quality (the map's score,
    whether or not it counted, over questions where both sides drew one), map/drawn (share of completions with a map, if
    a question has one or a completion drew one), completion/tokens, answer/spatial (over all spatial types) and
    answer/<question_type>.
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
    maps = any(_has_true_map(row) or row.get("drawn") for pair in both for row in pair)
    for name, value in metrics_of([*before, *after]).items():
        if name in _BONUSES and not any(value(first) or value(second) for first, second in both):
            continue
        if name == "map/drawn" and not maps:
            continue
        pairs = [pair for pair in both if all(covers(name, row) for row in pair)]
        if pairs:
            deltas[name] = delta(value, pairs)
    for kind, types in answer_groups(first["question_type"] for first, _ in both).items():
        pairs = [pair for pair in both if pair[0]["question_type"] in types]
        deltas[f"answer/{kind}"] = delta(METRICS["reward/answer"], pairs)
    return deltas


def _by_id(rows: Sequence[Prediction], side: str) -> dict[str, Prediction]:
    counts = Counter(row["id"] for row in rows)
    if twice := [key for key, count in counts.items() if count > 1]:
        raise ValueError(f"predictions {side} have ids that occur more than once: {_named(twice)}")
    return {row["id"]: row for row in rows}


def _named(ids: Sequence[str]) -> str:
    """The first ten ids, and the number of others."""
    return ", ".join(str(key) for key in ids[:10]) + (f" and {len(ids) - 10} more" if len(ids) > 10 else "")
