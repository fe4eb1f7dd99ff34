"""Benchmark metrics as weighted means over questions, so that all are computed and resampled in the same way (pure)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

Positions = tuple[int, ...]


@dataclass(frozen=True)
class Metric:
    """A weighted sum of means: `parts` are weights and the positions of the questions averaged.

    With `together`, each group of positions counts as one question, at its first position, whose score is the product
    of the group's: all of its questions must be right (circular evaluation). `offset` is added to the sum, as a
    correction for chance needs; weights and offset sum to 1.

    >>> Metric("overall", ((0.5, (0, 1)), (0.5, (2,)))).value([1.0, 0.0, 1.0])
    0.75
    >>> Metric("circular", ((1.0, (0, 2)),), together=((0, 1), (2, 3))).value([1.0, 0.0, 1.0, 1.0])
    0.5
    """

    name: str
    parts: tuple[tuple[float, Positions], ...]
    together: tuple[Positions, ...] = ()
    offset: float = 0.0

    def value(self, scores: Sequence[float]) -> float:
        """The metric, from one score per question."""
        joined = self.joined(scores)
        return self.offset + sum(weight * sum(joined[i] for i in of) / len(of) for weight, of in self.parts)

    def joined(self, scores: Sequence[float]) -> Sequence[float]:
        """The scores, in which the first question of each group has the product of the group's."""
        if not self.together:
            return scores
        found = list(scores)
        for group in self.together:
            found[group[0]] = math.prod(scores[i] for i in group)
        return found


def mean(name: str, positions: Iterable[int]) -> Metric:
    """The mean over questions, equally weighted."""
    return Metric(name, ((1.0, tuple(positions)),))


def mean_of(name: str, metrics: Sequence[Metric]) -> Metric:
    """The mean of other metrics, equally weighted: a macro mean. None of them may have groups or an offset."""
    if any(metric.together or metric.offset for metric in metrics):
        raise ValueError(f"{name}: metrics with groups or an offset have no mean")
    return Metric(name, tuple((weight / len(metrics), of) for metric in metrics for weight, of in metric.parts))


def grouped(labels: Sequence[str]) -> Mapping[str, Positions]:
    """Label → its positions, in order of first occurrence."""
    found: dict[str, list[int]] = {}
    for position, label in enumerate(labels):
        found.setdefault(label, []).append(position)
    return {label: tuple(positions) for label, positions in found.items()}


def circular(name: str, groups: Sequence[Positions]) -> Metric:
    """The mean over groups of questions, each right where all of its questions are (MMBench's circular evaluation)."""
    return Metric(name, ((1.0, tuple(group[0] for group in groups)),), tuple(groups))


def chance_adjusted(name: str, positions: Sequence[int], options: Sequence[int]) -> Metric:
    """Accuracy in which guessing scores 0: the sum over questions of (hit - 1/n) over the sum of (1 - 1/n).

    Args:
        name: of the metric.
        positions: of the questions, all with two options at least.
        options: how many options each of these questions has, n.

    Source: SITE (Wang et al., arXiv 2505.05456). Below 0 for a model that is worse than chance.

    >>> metric = chance_adjusted("overall", (0, 1, 2), (2, 4, 4))
    >>> metric.value([1.0, 1.0, 1.0]), metric.value([1.0, 0.0, 0.0])
    (1.0, 0.0)
    """
    total = sum(1 - 1 / count for count in options)
    by_count = grouped([str(count) for count in options])
    parts = tuple((len(of) / total, tuple(positions[i] for i in of)) for of in by_count.values())
    return Metric(name, parts, offset=1 - sum(weight for weight, _ in parts))
