"""Uncertainty of a benchmark's metrics and of differences between two runs: cluster-level intervals and tests.

`spacer.statistics.resampling` defines what is resampled, and how the interval is computed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from spacer.statistics.metrics import Metric
from spacer.statistics.resampling import Clustered, Floats, interval, interval_of_equals, portions, resample

FEWEST_CLUSTERS = 10  # fewer say too little of how clusters vary for an interval
UNIT = (0.0, 1.0)  # the scale of a benchmark's scores
_SAME = 1e-9  # scores closer than this are a tie

Scale = tuple[float, float]


def why_no_interval(clusters: int, noun: str = "clusters") -> str:
    """What a table has in place of an interval.

    >>> why_no_interval(9, "videos"), why_no_interval(10)
    ('< 10 videos', 'no spread')
    """
    return f"< {FEWEST_CLUSTERS} {noun}" if clusters < FEWEST_CLUSTERS else "no spread"


@dataclass(frozen=True)
class Interval:
    """A metric with its interval, in the scores' own unit, and the numbers of questions and clusters that it covers.

    `low` and `high` are NaN for fewer than `FEWEST_CLUSTERS` clusters, and where no cluster differs from another and
    the scale of the scores is unknown: how much clusters vary is then unknown.
    """

    value: float
    low: float
    high: float
    questions: int
    clusters: int


@dataclass(frozen=True)
class Paired:
    """A metric of two runs over the same questions, and its difference `b - a`, in the scores' own unit.

    `p` is from the sign-flip test over clusters. `mcnemar` is McNemar's exact p over questions, which assumes that they
    are independent and is thus too small where they share videos; None if a score is neither 0 nor 1, or with fewer
    than `FEWEST_CLUSTERS` clusters of several questions. `wins` counts questions on which b scores higher. `low` and
    `high` are NaN as in `Interval`, `p`, which holds for any number of clusters, for a single one.
    """

    a: float
    b: float
    delta: float
    low: float
    high: float
    p: float
    mcnemar: float | None
    wins: int
    losses: int
    ties: int
    questions: int
    clusters: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of 0."""
        return self.low > 0 or self.high < 0


def intervals(
    metrics: Sequence[Metric],
    scores: Sequence[float] | Floats,
    clusters: Sequence[str],
    *,
    scale: Scale | None = None,
    resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Each metric with its interval, by the cluster bootstrap.

    Where no cluster differs from another, as with 0 of 20 right, the bootstrap would give an interval without width.
    With a `scale` it is then Clopper and Pearson's, for as many clusters that may each have scored otherwise; without,
    there is none.

    Args:
        metrics: their positions are indices into `scores`.
        scores: one per question. Shape (questions,).
        clusters: what each question shares with others, its video. Shape (questions,).
        scale: the least and the largest score that a question can have; None: unknown.
        resamples: of the clusters, shared by all metrics.
        seed: of the resampling.
        level: nominal coverage, between 0 and 1.

    Raises:
        ValueError: lengths differ, the input is empty, a score is not finite, or a name, level or number is invalid.

    >>> from spacer.statistics.metrics import mean
    >>> rooms = [f"room {n}" for n in range(20)]
    >>> found = intervals([mean("all", range(20))], [0.0] * 20, rooms, scale=UNIT)["all"]
    >>> found.low, round(found.high, 3)
    (0.0, 0.168)
    """
    values, codes = _checked(metrics, scores, clusters, resamples, level)
    found = _intervals(metrics, _vectors(metrics, values), codes, scale, resamples, seed, level)
    moved = {metric.name: metric.offset for metric in metrics}
    return {
        name: replace(of, value=of.value + moved[name], low=of.low + moved[name], high=of.high + moved[name])
        for name, of in found.items()
    }


def _vectors(metrics: Sequence[Metric], values: Floats) -> Floats:
    """Each metric's scores of the questions, shape (M, N)."""
    return np.stack([np.asarray(metric.joined(values.tolist()), dtype=np.float64) for metric in metrics])


def _intervals(
    metrics: Sequence[Metric],
    vectors_MN: Floats,
    codes: NDArray[np.intp],
    scale: Scale | None,
    resamples: int,
    seed: int,
    level: float,
) -> dict[str, Interval]:
    """The same without the metrics' offsets, which differences do not have."""
    data = Clustered.of(metrics, vectors_MN, codes)
    values, resampled_RM = data.values(), resample(data, resamples, seed)
    found = {}
    for place, (metric, of) in enumerate(zip(metrics, data.clusters_M, strict=True)):
        low = high = math.nan
        if of >= FEWEST_CLUSTERS:
            value, effective = float(values[place]), data.effective_clusters(place)
            if _varies(value, resampled_RM[:, place]):
                low, high = interval(value, resampled_RM[:, place], data.influences(place), effective, level)
            elif scale is not None:
                total = sum(weight for weight, _ in metric.parts)
                low, high = interval_of_equals(value, total * scale[0], total * scale[1], effective, level)
        found[metric.name] = Interval(float(values[place]), low, high, len(_questions(metric)), of)
    return found


def _varies(value: float, resampled_R: Floats) -> bool:
    """Whether some resample differs from the value by more than rounding."""
    found = resampled_R[~np.isnan(resampled_R)]
    return bool((np.abs(found - value) > _SAME * max(1.0, abs(value))).any())


def paired(
    metrics: Sequence[Metric],
    scores_a: Sequence[float] | Floats,
    scores_b: Sequence[float] | Floats,
    clusters: Sequence[str],
    *,
    scale: Scale | None = None,
    resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Paired]:
    """Each metric of two runs over the same questions, and its difference. Arguments and errors as `intervals`.

    The interval is that of the per-question differences b - a, which removes the difficulty of each video.

    p is two-sided, by the sign-flip permutation test: under the null hypothesis the runs are exchangeable, so each
    cluster's answers can be swapped between them, all together. Of `resamples` swaps, or of all 2^C if fewer, p is the
    share that differs by at least as much as observed (itself included, so that p is never 0). Source: Fisher, The
    Design of Experiments (1935), section 21; for clusters Canay, Romano & Shaikh, Randomization tests under an
    approximate symmetry assumption (Econometrica, 2017).
    """
    values_a, codes = _checked(metrics, scores_a, clusters, resamples, level)
    values_b, _ = _checked(metrics, scores_b, clusters, resamples, level)
    vectors_a, vectors_b = _vectors(metrics, values_a), _vectors(metrics, values_b)
    width = None if scale is None else scale[1] - scale[0]
    moves = None if width is None else (-width, width)
    deltas = _intervals(metrics, vectors_b - vectors_a, codes, moves, resamples, seed, level)
    p_M = _sign_flips(Clustered.of(metrics, vectors_b - vectors_a, codes), resamples, seed)
    found = {}
    for place, (metric, delta) in enumerate(zip(metrics, deltas.values(), strict=True)):
        of, moved = _questions(metric), vectors_b[place] - vectors_a[place]
        wins, losses = int((moved[of] > _SAME).sum()), int((moved[of] < -_SAME).sum())
        binary = bool(np.isin([vectors_a[place, of], vectors_b[place, of]], (0, 1)).all())
        # questions of a few videos are no independent ones, by which McNemar's test would find nearly anything
        told = delta.clusters >= min(FEWEST_CLUSTERS, len(of))
        found[metric.name] = Paired(
            a=metric.value(values_a.tolist()),
            b=metric.value(values_b.tolist()),
            delta=delta.value,
            low=delta.low,
            high=delta.high,
            p=float(p_M[place]) if delta.clusters > 1 else math.nan,
            mcnemar=mcnemar(wins, losses) if binary and told else None,
            wins=wins,
            losses=losses,
            ties=len(of) - wins - losses,
            questions=len(of),
            clusters=delta.clusters,
        )
    return found


def mcnemar(wins: int, losses: int) -> float:
    """McNemar's exact two-sided p: the probability of a split at least as uneven of wins + losses fair coins.

    Source: McNemar, Psychometrika (1947), in the exact form with the binomial distribution.

    >>> mcnemar(0, 5), mcnemar(3, 3)
    (0.0625, 1.0)
    """
    coins = wins + losses
    ways, tail = 1, 0
    for heads in range(min(wins, losses) + 1):
        tail += ways
        ways = ways * (coins - heads) // (heads + 1)
    return min(1.0, 2 * tail / 2**coins)


def _sign_flips(data: Clustered, resamples: int, seed: int) -> Floats:
    """p of each metric's difference, shape (M,). Swapping a cluster flips the sign of its differences."""
    totals_K = data.counts_CK.sum(axis=0)
    shares_CK = data.sums_CK / totals_K
    parts_CM = np.stack([shares_CK[:, s] @ w for s, w in zip(data.subsets, data.weights, strict=True)], axis=1)
    clusters = len(parts_CM)
    # swaps that differ at least as much as observed, up to rounding
    bound_M = np.abs(parts_CM.sum(axis=0)) - 1e-12 * np.abs(parts_CM).sum(axis=0)
    everyone = clusters < 63 and 2**clusters <= resamples
    rows, rng, beyond_M = (2**clusters if everyone else resamples), np.random.default_rng(seed), 0
    for start, stop in portions(rows, clusters):
        if everyone:
            bits = np.arange(start, stop)[:, None] >> np.arange(clusters) & 1
        else:
            bits = rng.integers(2, size=(stop - start, clusters))
        beyond_M = beyond_M + (np.abs((1.0 - 2.0 * bits) @ parts_CM) >= bound_M).sum(axis=0)
    return np.asarray(beyond_M / rows if everyone else (1 + beyond_M) / (1 + rows))


def _questions(metric: Metric) -> NDArray[np.intp]:
    """The positions of all questions of a metric, each once."""
    return np.unique(np.concatenate([np.asarray(of, dtype=np.intp) for _, of in metric.parts]))


def _checked(
    metrics: Sequence[Metric], scores: Sequence[float] | Floats, clusters: Sequence[str], resamples: int, level: float
) -> tuple[Floats, NDArray[np.intp]]:
    """Scores as an array, and clusters as numbers."""
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, not {level}")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, not {resamples}")
    values = np.asarray(scores, dtype=np.float64)
    if len(values) != len(clusters):
        raise ValueError(f"{len(values)} scores but {len(clusters)} clusters")
    if not len(values):
        raise ValueError("no questions to take a mean of")
    if not np.isfinite(values).all():
        raise ValueError(f"score of question {int(np.argmin(np.isfinite(values)))} is not finite")
    names = [metric.name for metric in metrics]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"metrics must have unique names, but several are called {', '.join(twice)}")
    if empty := [metric.name for metric in metrics if not metric.parts or not all(of for _, of in metric.parts)]:
        raise ValueError(f"metrics without questions: {', '.join(empty)}")
    return values, np.unique(np.asarray(clusters, dtype=str), return_inverse=True)[1]
