"""The cluster bootstrap of a benchmark's figures: what is resampled, and how resamples become an interval (pure).

A figure is a weighted sum of means over subsets k of the questions (`spacer.evaluation.metrics.Metric`). Questions
about one video are not independent, so that whole clusters are resampled: a resample gives cluster c the weight W_c,
W ~ Multinomial(C; 1/C, …, 1/C), and the figure becomes

    T* = Σ_k w_k (Σ_c W_c x_ck) / (Σ_c W_c n_ck)

with x_ck the sum and n_ck the number of the scores of subset k in cluster c: only these enter, not the questions. A
subset of which a resample has no question is left out of it, and the weights of the others are scaled to add up to
what they did; a resample without any question of the figure is left out.

The interval is Efron's BCa interval, which follows the resamples where they are skewed, with its level widened for few
clusters: the normal quantile z is replaced by sqrt(n / (n - 1)) t, t the quantile of Student's distribution with
n - 1 degrees of freedom (Hesterberg's expanded interval: resamples vary less, by n - 1 in n, than samples do, and how
much they vary is itself an estimate). n is the effective number of clusters, for unequal ones say less than as many
equal ones: with h_c the share of cluster c in the figure's weight,

    n = sqrt(Σ h² / Σ h⁴)

the geometric mean of Kish's 1 / Σ h², Satterthwaite's degrees of freedom where a cluster's questions are independent,
and of (Σ h²)² / Σ h⁴, the same where they all agree. Equal clusters give n = C. `tests/unit/test_intervals.py` measures
how often all this covers the truth.

Sources: Efron, Better bootstrap confidence intervals (JASA, 1987); Hesterberg, What teachers should know about the
bootstrap (The American Statistician, 2015), section 4.2; Field & Welsh, Bootstrapping clustered data (JRSS B, 2007);
Satterthwaite, Biometrics Bulletin (1946); Kish, Survey Sampling (1965).

Shape suffixes: C clusters, K distinct subsets of questions, M figures, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from spacer.evaluation.metrics import Metric, Positions

Floats = NDArray[np.float64]

_CHUNK_DRAWS = 1_000_000  # cluster indices drawn at once: 8 MB
_GRID = 20_001  # angles that Student's distribution is tabulated at
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Clustered:
    """Scores summed up by cluster, once for each distinct subset that the figures take a mean over.

    `weights` and `subsets` belong to each other: the weights of a figure, and the columns they are of.
    """

    sums_CK: Floats
    counts_CK: Floats
    subsets: tuple[NDArray[np.intp], ...]
    weights: tuple[Floats, ...]

    @classmethod
    def of(cls, metrics: Sequence[Metric], scores: Floats, clusters: NDArray[np.intp]) -> Clustered:
        """Sums up one score a question; `clusters` numbers each question's cluster, from 0 without gaps."""
        columns: dict[Positions, int] = {}
        for metric in metrics:
            for _, of in metric.parts:
                columns.setdefault(of, len(columns))
        count = int(clusters.max()) + 1
        sums, counts = np.zeros((count, len(columns))), np.zeros((count, len(columns)))
        for of, column in columns.items():
            where = np.asarray(of, dtype=np.intp)
            sums[:, column] = np.bincount(clusters[where], weights=scores[where], minlength=count)
            counts[:, column] = np.bincount(clusters[where], minlength=count)
        return cls(
            sums,
            counts,
            tuple(np.array([columns[of] for _, of in metric.parts]) for metric in metrics),
            tuple(np.array([weight for weight, _ in metric.parts]) for metric in metrics),
        )

    @property
    def clusters_M(self) -> list[int]:
        """How many clusters have a question of each figure."""
        return [int((self.counts_CK[:, subset] > 0).any(axis=1).sum()) for subset in self.subsets]

    def values(self) -> Floats:
        """The figures themselves, shape (M,)."""
        return self.resampled(np.ones((1, len(self.sums_CK))))[0]

    def resampled(self, weights_RC: Floats) -> Floats:
        """The figures under other weights of the clusters, shape (R, M); NaN where no question of a figure is left."""
        counts_RK = weights_RC @ self.counts_CK
        there_RK = counts_RK > 0
        means_RK = (weights_RC @ self.sums_CK) / np.where(there_RK, counts_RK, 1)
        figures = np.full((len(weights_RC), len(self.subsets)), math.nan)
        for place, (subset, weights) in enumerate(zip(self.subsets, self.weights, strict=True)):
            left = weights * there_RK[:, subset]
            total, any_left = left.sum(axis=1), there_RK[:, subset].any(axis=1)
            scale = weights.sum() / np.where(any_left, total, 1)
            figures[any_left, place] = (scale * (left * means_RK[:, subset]).sum(axis=1))[any_left]
        return figures

    def influences(self, place: int) -> Floats:
        """What each cluster adds to the figure at `place` to first order, Σ_k w_k (x_ck - m_k n_ck) / N_k; (C,)."""
        subset, weights = self.subsets[place], self.weights[place]
        counts, sums = self.counts_CK[:, subset], self.sums_CK[:, subset]
        totals = counts.sum(axis=0)
        return np.asarray((sums - counts * (sums.sum(axis=0) / totals)) @ (weights / totals))

    def effective_clusters(self, place: int) -> float:
        """The effective number of clusters of the figure at `place`, at least 2."""
        counts = self.counts_CK[:, self.subsets[place]]
        shares = counts @ (self.weights[place] / counts.sum(axis=0))
        return max(2.0, math.sqrt((shares**2).sum() / (shares**4).sum()))


def resample(data: Clustered, resamples: int, seed: int) -> Floats:
    """The figures of so many resamples, shape (R, M); in portions, so that memory stays small."""
    rng, clusters = np.random.default_rng(seed), len(data.sums_CK)
    figures = np.empty((resamples, len(data.subsets)))
    for start, stop in portions(resamples, clusters):
        drawn = rng.integers(clusters, size=(stop - start, clusters))
        drawn += clusters * np.arange(stop - start)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
        figures[start:stop] = data.resampled(weights.astype(np.float64))
    return figures


def portions(rows: int, width: int) -> Iterator[tuple[int, int]]:
    """Starts and ends that cut rows of so many numbers into portions that are held at once."""
    size = max(1, _CHUNK_DRAWS // width)
    for start in range(0, rows, size):
        yield start, min(start + size, rows)


def interval(
    value: float, resampled_R: Floats, influences_C: Floats, clusters: float, level: float
) -> tuple[float, float]:
    """The expanded BCa interval of a figure; NaN where no resample has any question of it.

    Args:
        value: the figure.
        resampled_R: its resamples, NaN where one has none of its questions.
        influences_C: what each cluster adds to it, to first order, which tells how skewed it is.
        clusters: their effective number, at least 2.
        level: nominal coverage.
    """
    found = resampled_R[~np.isnan(resampled_R)]
    if not len(found):
        return math.nan, math.nan
    z = math.sqrt(clusters / (clusters - 1)) * student_quantile((1 + level) / 2, clusters - 1)
    # a resample equal to the value lies on neither side of it; rounding must not decide
    tie = 1e-12 * max(1.0, abs(value))
    below = float((found < value - tie).mean() + (found <= value + tie).mean()) / 2
    bias = _NORMAL.inv_cdf(min(max(below, 0.5 / len(found)), 1 - 0.5 / len(found)))
    largest = float(np.abs(influences_C).max(initial=0.0))
    acceleration = 0.0
    if largest > 0:
        scaled_C = influences_C / largest  # the skew is the same, and powers of small numbers would come to 0
        acceleration = float((scaled_C**3).sum()) / (6 * float((scaled_C**2).sum()) ** 1.5)

    def share(side: float) -> float:
        moved = bias + side
        # beyond the pole of BCa's formula nothing is more extreme than the outermost resample
        slope = 1 - acceleration * moved
        return _NORMAL.cdf(bias + moved / slope) if slope > 0 else float(side > 0)

    low, high = np.quantile(found, [share(-z), share(z)])
    return float(low), float(high)


def student_quantile(share: float, freedom: float) -> float:
    """Quantile of Student's distribution with `freedom` ≥ 1 degrees of freedom, which need not be whole.

    With t = sqrt(freedom) tan(angle) the density of the angle is proportional to cos(angle)^(freedom - 1), which is
    bounded and is summed on a grid.

    >>> round(student_quantile(0.975, 1), 2), round(student_quantile(0.975, 19), 3)
    (12.71, 2.093)
    """
    reach = min(math.pi / 2, 60 / math.sqrt(freedom))  # with many degrees, nothing lies beyond t = 60
    angles = np.linspace(-reach, reach, _GRID)
    density = np.clip(np.cos(angles), 0, None) ** (freedom - 1)
    below = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return math.sqrt(freedom) * math.tan(float(np.interp(share, below / below[-1], angles)))
