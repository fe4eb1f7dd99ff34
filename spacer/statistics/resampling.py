"""The cluster bootstrap of a benchmark's metrics: what is resampled, and the interval from the resamples (pure).

A metric is a weighted sum of means over subsets k of the questions (`spacer.statistics.metrics.Metric`; its offset is
not resampled). Questions
about one video are not independent, so whole clusters are resampled: a resample gives cluster c the weight W_c,
W ~ Multinomial(C; 1/C, …, 1/C), and the metric becomes

    T* = Σ_k w_k (Σ_c W_c x_ck) / (Σ_c W_c n_ck)

with x_ck the sum and n_ck the number of the scores of subset k in cluster c: only these sums are needed. A subset with
no question in a resample is left out, and the weights of the others are rescaled to the same total; a resample
without any question of the metric is left out.

The interval is Efron's BCa interval, which accounts for skewed resamples, with its level widened for few
clusters: the normal quantile z is replaced by sqrt(n / (n - 1)) t, t the quantile of Student's distribution with
n - 1 degrees of freedom (Hesterberg's expanded interval: resamples vary less than samples, by (n - 1) / n, and their
variance is itself an estimate). n is the effective number of clusters, as unequal clusters carry less information
than as many equal ones: with h_c the share of cluster c in the metric's weight,

    n = sqrt(Σ h² / Σ h⁴)

the geometric mean of Kish's 1 / Σ h², Satterthwaite's degrees of freedom if a cluster's questions are independent,
and of (Σ h²)² / Σ h⁴, the same if they all agree. Equal clusters give n = C. `tests/unit/test_intervals.py` measures
the coverage of the result.

Sources: Efron, Better bootstrap confidence intervals (JASA, 1987); Hesterberg, What teachers should know about the
bootstrap (The American Statistician, 2015), section 4.2; Field & Welsh, Bootstrapping clustered data (JRSS B, 2007);
Satterthwaite, Biometrics Bulletin (1946); Kish, Survey Sampling (1965).

Shape suffixes: C clusters, K distinct subsets of questions, M metrics, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from spacer.statistics.metrics import Metric, Positions

Floats = NDArray[np.float64]

_CHUNK_DRAWS = 1_000_000  # cluster indices drawn at once: 8 MB
_GRID = 20_001  # angles at which Student's distribution is tabulated
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Clustered:
    """Sums of scores by cluster, once for each distinct subset that the metrics average over.

    `weights` and `subsets` are parallel: a metric's weights, and the columns that they apply to.
    """

    sums_CK: Floats
    counts_CK: Floats
    subsets: tuple[NDArray[np.intp], ...]
    weights: tuple[Floats, ...]

    @classmethod
    def of(cls, metrics: Sequence[Metric], scores: Floats, clusters: NDArray[np.intp]) -> Clustered:
        """Sums scores by cluster; `clusters` numbers each question's cluster, from 0 without gaps.

        `scores` are one per question, shape (N,), or such a vector for each metric, shape (M, N).
        """
        vectors_MN = np.broadcast_to(scores, (len(metrics), scores.shape[-1]))
        columns: dict[tuple[Positions, tuple[Positions, ...]], int] = {}
        count = int(clusters.max()) + 1
        sums, counts = [], []
        for metric, vector_N in zip(metrics, vectors_MN, strict=True):
            for _, of in metric.parts:
                if (of, metric.together) in columns:
                    continue
                columns[of, metric.together] = len(columns)
                where = np.asarray(of, dtype=np.intp)
                sums.append(np.bincount(clusters[where], weights=vector_N[where], minlength=count))
                counts.append(np.bincount(clusters[where], minlength=count).astype(np.float64))
        return cls(
            np.stack(sums, axis=1),
            np.stack(counts, axis=1),
            tuple(np.array([columns[of, metric.together] for _, of in metric.parts]) for metric in metrics),
            tuple(np.array([weight for weight, _ in metric.parts]) for metric in metrics),
        )

    @property
    def clusters_M(self) -> list[int]:
        """The number of clusters with a question of each metric."""
        return [int((self.counts_CK[:, subset] > 0).any(axis=1).sum()) for subset in self.subsets]

    def values(self) -> Floats:
        """The metrics themselves, shape (M,)."""
        return self.resampled(np.ones((1, len(self.sums_CK))))[0]

    def resampled(self, weights_RC: Floats) -> Floats:
        """The metrics under other cluster weights, shape (R, M); NaN where no question of a metric is left."""
        counts_RK = weights_RC @ self.counts_CK
        there_RK = counts_RK > 0
        means_RK = (weights_RC @ self.sums_CK) / np.where(there_RK, counts_RK, 1)
        values_RM = np.full((len(weights_RC), len(self.subsets)), math.nan)
        for place, (subset, weights) in enumerate(zip(self.subsets, self.weights, strict=True)):
            left = weights * there_RK[:, subset]
            total, any_left = left.sum(axis=1), there_RK[:, subset].any(axis=1)
            scale = weights.sum() / np.where(any_left, total, 1)
            values_RM[any_left, place] = (scale * (left * means_RK[:, subset]).sum(axis=1))[any_left]
        return values_RM

    def influences(self, place: int) -> Floats:
        """First-order influence of each cluster on the metric at `place`, Σ_k w_k (x_ck - m_k n_ck) / N_k; (C,)."""
        subset, weights = self.subsets[place], self.weights[place]
        counts, sums = self.counts_CK[:, subset], self.sums_CK[:, subset]
        totals = counts.sum(axis=0)
        return np.asarray((sums - counts * (sums.sum(axis=0) / totals)) @ (weights / totals))

    def effective_clusters(self, place: int) -> float:
        """The effective number of clusters of the metric at `place`, at least 2."""
        counts = self.counts_CK[:, self.subsets[place]]
        shares = counts @ (self.weights[place] / counts.sum(axis=0))
        shares = shares / shares.sum()  # weights may sum to another total, as in a correction for chance
        return max(2.0, math.sqrt((shares**2).sum() / (shares**4).sum()))


def resample(data: Clustered, resamples: int, seed: int) -> Floats:
    """The metrics of `resamples` resamples, shape (R, M); computed in chunks to bound memory."""
    rng, clusters = np.random.default_rng(seed), len(data.sums_CK)
    values_RM = np.empty((resamples, len(data.subsets)))
    for start, stop in portions(resamples, clusters):
        drawn = rng.integers(clusters, size=(stop - start, clusters))
        drawn += clusters * np.arange(stop - start)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
        values_RM[start:stop] = data.resampled(weights.astype(np.float64))
    return values_RM


def portions(rows: int, width: int) -> Iterator[tuple[int, int]]:
    """Yields starts and ends that split `rows` rows of `width` numbers into chunks that fit in memory."""
    size = max(1, _CHUNK_DRAWS // width)
    for start in range(0, rows, size):
        yield start, min(start + size, rows)


def interval(
    value: float, resampled_R: Floats, influences_C: Floats, clusters: float, level: float
) -> tuple[float, float]:
    """The expanded BCa interval of a metric; NaN if no resample has any question of it.

    Args:
        value: the metric.
        resampled_R: its resamples, NaN where a resample has none of its questions.
        influences_C: the first-order influence of each cluster, which determines the skewness.
        clusters: their effective number, at least 2.
        level: nominal coverage.
    """
    found = resampled_R[~np.isnan(resampled_R)]
    if not len(found):
        return math.nan, math.nan
    z = math.sqrt(clusters / (clusters - 1)) * student_quantile((1 + level) / 2, clusters - 1)
    # a resample equal to the value counts on neither side; rounding must not decide
    tie = 1e-12 * max(1.0, abs(value))
    below = float((found < value - tie).mean() + (found <= value + tie).mean()) / 2
    bias = _NORMAL.inv_cdf(min(max(below, 0.5 / len(found)), 1 - 0.5 / len(found)))
    largest = float(np.abs(influences_C).max(initial=0.0))
    acceleration = 0.0
    if largest > 0:
        scaled_C = influences_C / largest  # the skewness stays the same, and powers of small numbers would underflow
        acceleration = float((scaled_C**3).sum()) / (6 * float((scaled_C**2).sum()) ** 1.5)

    def share(side: float) -> float:
        moved = bias + side
        # beyond the pole of BCa's formula, take the outermost resample
        slope = 1 - acceleration * moved
        return _NORMAL.cdf(bias + moved / slope) if slope > 0 else float(side > 0)

    low, high = np.quantile(found, [share(-z), share(z)])
    return float(low), float(high)


def interval_of_equals(value: float, least: float, most: float, clusters: float, level: float) -> tuple[float, float]:
    """The interval of a mean where all clusters agree on `value`, of scores between `least` and `most`.

    If a share q of all clusters differed, so many drawn ones would all agree with probability (1 - q)^clusters; q is
    taken as large as Clopper and Pearson's interval for none of them allows, and those that differ as far from `value`
    as the scale goes. Source: Clopper & Pearson, Biometrika (1934).

    >>> [round(end, 3) for end in interval_of_equals(0.0, 0.0, 1.0, 20, 0.95)]
    [0.0, 0.168]
    """
    share = 1 - ((1 - level) / 2) ** (1 / clusters)
    return value - share * (value - least), value + share * (most - value)


def student_quantile(share: float, freedom: float) -> float:
    """Quantile of Student's distribution with `freedom` ≥ 1 degrees of freedom, which may be fractional.

    With t = sqrt(freedom) tan(angle) the density of the angle is proportional to cos(angle)^(freedom - 1), which is
    bounded and is integrated on a grid.

    >>> round(student_quantile(0.975, 1), 2), round(student_quantile(0.975, 19), 3)
    (12.71, 2.093)
    """
    reach = min(math.pi / 2, 60 / math.sqrt(freedom))  # with many degrees of freedom, no mass lies beyond t = 60
    angles = np.linspace(-reach, reach, _GRID)
    density = np.clip(np.cos(angles), 0, None) ** (freedom - 1)
    below = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return math.sqrt(freedom) * math.tan(float(np.interp(share, below / below[-1], angles)))
