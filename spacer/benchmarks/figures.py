"""The figures that benchmarks have in common: means over questions, over labels, and macro means over these (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from spacer.benchmarks.question import Question
from spacer.evaluation.metrics import Metric, grouped, mean, mean_of


def by_label(prefix: str, labels: Sequence[str], order: Sequence[str] = ()) -> list[Metric]:
    """The mean over the questions of each label that there is: first those of `order`, then others as they come.

    >>> [metric.name for metric in by_label("duration", ["long", "short", "long"], ("short", "medium", "long"))]
    ['duration/short', 'duration/long']
    """
    positions = grouped(labels)
    found = [label for label in order if label in positions] + [label for label in positions if label not in order]
    return [mean(f"{prefix}/{label}", positions[label]) for label in found]


def by_group(questions: Sequence[Question], group: str, order: Sequence[str] = ()) -> list[Metric]:
    """The mean over the questions of each value of a group."""
    return by_label(group, [question.groups[group] for question in questions], order)


def by_task(questions: Sequence[Question], order: Sequence[str] = ()) -> list[Metric]:
    """The mean over the questions of each task."""
    return by_label("task", [question.task for question in questions], order)


def micro(questions: Sequence[Question]) -> Metric:
    """The mean over all questions."""
    return mean("overall", range(len(questions)))


def macro(name: str, metrics: Mapping[str, Metric], of: Sequence[str]) -> list[Metric]:
    """The mean of those of the figures that there are; nothing where there is none."""
    there = [metrics[label] for label in of if label in metrics]
    return [mean_of(name, there)] if there else []
