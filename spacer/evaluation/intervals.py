"""How sure a benchmark's figures are, and the difference of two runs: intervals and tests that keep clusters whole.

`spacer.evaluation.resampling` says what is resampled, and how the interval is made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spacer.evaluation.metrics import Metric
from spacer.evaluation.resampling import Clustered, Floats, interval, portions, resample

_SAME = 1e-9  # scores nearer than this are a tie


@dataclass(frozen=True)
class Interval:
    """A figure with its interval, in the scores' own unit, and how many questions and clusters it is of.

    `low` and `high` are NaN where all its questions are of one cluster: nothing then says how much clusters differ.
    """

    value: float
    low: float
    high: float
    questions: int
    clusters: int


@dataclass(frozen=True)
class Paired:
    """A figure of two runs over the same questions, and its difference `b - a`, in the scores' own unit.

    `p` is that of the sign-flip test over clusters. `mcnemar` is McNemar's exact p over questions, which takes them for
    independent and is thus too small where they share videos; None where some score is neither 0 nor 1. `wins` are the
    questions that b scores higher in. `low`, `high` and `p` are NaN for a single cluster.
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
    """Each figure with its interval, by the bootstrap over clusters.

    Args:
        metrics: the figures; positions are places in `scores`.
        scores: one a question. Shape (questions,).
        clusters: what each question shares with others, its video. Shape (questions,).
        resamples: of the clusters, the same for all figures.
        seed: of the resampling.
        level: nominal coverage, between 0 and 1.

    Raises:
        ValueError: lengths differ, nothing is there, a score is not finite, or a name, level or number makes no sense.

    >>> from spacer.evaluation.metrics import mean
    >>> intervals([mean("all", range(3))], [1.0, 1.0, 1.0], ["kitchen", "kitchen", "study"])["all"]
    Interval(value=1.0, low=1.0, high=1.0, questions=3, clusters=2)
    """
    values, codes = _checked(metrics, scores, clusters, resamples, level)
    data = Clustered.of(metrics, values, codes)
    figures, resampled_RM = data.values(), resample(data, resamples, seed)
    found = {}
    for place, (metric, of) in enumerate(zip(metrics, data.clusters_M, strict=True)):
        low = high = math.nan
        if of > 1:
            effective = data.effective_clusters(place)
            low, high = interval(figures[place], resampled_RM[:, place], data.influences(place), effective, level)
        found[metric.name] = Interval(float(figures[place]), low, high, len(_questions(metric)), of)
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
    """Each figure of two runs over the same questions, and its difference. Arguments and errors as `intervals`.

    The interval is that of the differences b - a of each question, which takes a video's own difficulty out of it.

    p is two-sided, by the sign-flip permutation test: were the runs alike, a cluster's answers could as well be the
    other run's, all of them together. Of `resamples` such swaps, or of all 2^C where these are fewer, p is the share
    that differs by as much as was observed (the observed one counted in, so that p is never 0). Source: Fisher, The
    Design of Experiments (1935), section 21; for clusters Canay, Romano & Shaikh, Randomization tests under an
    approximate symmetry assumption (Econometrica, 2017).
    """
    values_a, codes = _checked(metrics, scores_a, clusters, resamples, level)
    values_b, _ = _checked(metrics, scores_b, clusters, resamples, level)
    moved = values_b - values_a
    deltas = intervals(metrics, moved, clusters, resamples=resamples, seed=seed, level=level)
    figures_a = Clustered.of(metrics, values_a, codes).values()
    figures_b = Clustered.of(metrics, values_b, codes).values()
    p_M = _sign_flips(Clustered.of(metrics, moved, codes), resamples, seed)
    found = {}
    for place, (metric, delta) in enumerate(zip(metrics, deltas.values(), strict=True)):
        of = _questions(metric)
        wins, losses = int((moved[of] > _SAME).sum()), int((moved[of] < -_SAME).sum())
        binary = bool(np.isin(values_a[of], (0, 1)).all() and np.isin(values_b[of], (0, 1)).all())
        found[metric.name] = Paired(
            a=float(figures_a[place]),
            b=float(figures_b[place]),
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
    """McNemar's exact two-sided p: that of so uneven a split of wins + losses fair coins.

    Source: McNemar, Psychometrika (1947), in the exact form by the binomial distribution.

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
    """p of each figure of the differences, shape (M,). A swap of a cluster turns the sign of its differences."""
    totals_K = data.counts_CK.sum(axis=0)
    shares_CK = data.sums_CK / totals_K
    parts_CM = np.stack([shares_CK[:, s] @ w for s, w in zip(data.subsets, data.weights, strict=True)], axis=1)
    clusters = len(parts_CM)
    # swaps that differ as much as what was observed, to rounding
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
    """The places of all questions of a figure, each once."""
    return np.unique(np.concatenate([np.asarray(of, dtype=np.intp) for _, of in metric.parts]))


def _checked(
    metrics: Sequence[Metric], scores: Sequence[float] | Floats, clusters: Sequence[str], resamples: int, level: float
) -> tuple[Floats, NDArray[np.intp]]:
    """Scores as an array, and clusters numbered."""
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
        raise ValueError(f"figures must have names of their own, and several are called {', '.join(twice)}")
    if empty := [metric.name for metric in metrics if not metric.parts or not all(of for _, of in metric.parts)]:
        raise ValueError(f"figures of no questions: {', '.join(empty)}")
    return values, np.unique(np.asarray(clusters, dtype=str), return_inverse=True)[1]
