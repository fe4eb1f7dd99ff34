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
from spacer.statistics.resampling import Clustered, Floats, interval, portions, resample

_SAME = 1e-9  # scores closer than this are a tie


@dataclass(frozen=True)
class Interval:
    """A metric with its interval, in the scores' own unit, and the numbers of questions and clusters that it covers.

    `low` and `high` are NaN if all questions are of one cluster: the variance between clusters is then unknown.
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
    are independent and is thus too small where they share videos; None if a score is neither 0 nor 1. `wins` counts
    questions on which b scores higher. `low`, `high` and `p` are NaN for a single cluster.
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
    resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Each metric with its interval, by the cluster bootstrap.

    Args:
        metrics: their positions are indices into `scores`.
        scores: one per question. Shape (questions,).
        clusters: what each question shares with others, its video. Shape (questions,).
        resamples: of the clusters, shared by all metrics.
        seed: of the resampling.
        level: nominal coverage, between 0 and 1.

    Raises:
        ValueError: lengths differ, the input is empty, a score is not finite, or a name, level or number is invalid.

    >>> from spacer.statistics.metrics import mean
    >>> intervals([mean("all", range(3))], [1.0, 1.0, 1.0], ["kitchen", "kitchen", "study"])["all"]
    Interval(value=1.0, low=1.0, high=1.0, questions=3, clusters=2)
    """
    values, codes = _checked(metrics, scores, clusters, resamples, level)
    found = _intervals(metrics, _vectors(metrics, values), codes, resamples, seed, level)
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
        if of > 1:
            effective = data.effective_clusters(place)
            low, high = interval(values[place], resampled_RM[:, place], data.influences(place), effective, level)
        found[metric.name] = Interval(float(values[place]), low, high, len(_questions(metric)), of)
    return found


def paired(
    metrics: Sequence[Metric],
    scores_a: Sequence[float] | Floats,
    scores_b: Sequence[float] | Floats,
    clusters: Sequence[str],
    *,
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
    deltas = _intervals(metrics, vectors_b - vectors_a, codes, resamples, seed, level)
    p_M = _sign_flips(Clustered.of(metrics, vectors_b - vectors_a, codes), resamples, seed)
    found = {}
    for place, (metric, delta) in enumerate(zip(metrics, deltas.values(), strict=True)):
        of, moved = _questions(metric), vectors_b[place] - vectors_a[place]
        wins, losses = int((moved[of] > _SAME).sum()), int((moved[of] < -_SAME).sum())
        binary = bool(np.isin([vectors_a[place, of], vectors_b[place, of]], (0, 1)).all())
        found[metric.name] = Paired(
            a=metric.value(values_a.tolist()),
            b=metric.value(values_b.tolist()),
            delta=delta.value,
            low=delta.low,
            high=delta.high,
            p=float(p_M[place]) if delta.clusters > 1 else math.nan,
            mcnemar=mcnemar(wins, losses) if binary else None,
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
