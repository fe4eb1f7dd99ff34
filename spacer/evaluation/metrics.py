"""Figures of a benchmark as weighted means over questions, so that they can be computed and resampled alike (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

Positions = tuple[int, ...]


@dataclass(frozen=True)
class Metric:
    """A weighted sum of means: `parts` are weights, which add up to 1, and the positions of the questions averaged.

    >>> Metric("overall", ((0.5, (0, 1)), (0.5, (2,)))).value([1.0, 0.0, 1.0])
    0.75
    """

    name: str
    parts: tuple[tuple[float, Positions], ...]

    def value(self, scores: Sequence[float]) -> float:
        """The figure, from one score a question."""
        return sum(weight * sum(scores[i] for i in of) / len(of) for weight, of in self.parts)


def mean(name: str, positions: Iterable[int]) -> Metric:
    """The mean over questions, each as heavy as another."""
    return Metric(name, ((1.0, tuple(positions)),))


def mean_of(name: str, metrics: Sequence[Metric]) -> Metric:
    """The mean of other figures, each as heavy as another: a macro mean."""
    return Metric(name, tuple((weight / len(metrics), of) for metric in metrics for weight, of in metric.parts))


def grouped(labels: Sequence[str]) -> Mapping[str, Positions]:
    """Label → the positions that have it, in the order in which labels first come."""
    found: dict[str, list[int]] = {}
    for position, label in enumerate(labels):
        found.setdefault(label, []).append(position)
    return {label: tuple(positions) for label, positions in found.items()}
