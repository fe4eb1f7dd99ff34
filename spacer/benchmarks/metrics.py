"""Metrics shared by benchmarks: means over questions, over labels, and macro means over these (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from spacer.benchmarks.answers import options_in
from spacer.benchmarks.question import UNREADABLE, Grade, Question
from spacer.rewards.options import read_choice
from spacer.rewards.reading import final_text
from spacer.statistics.metrics import Metric, grouped, mean, mean_of


def by_label(prefix: str, labels: Sequence[str], order: Sequence[str] = ()) -> list[Metric]:
    """The mean over the questions of each label that occurs: first those of `order`, then others as they occur.

    Questions with an empty label are left out.

    >>> [metric.name for metric in by_label("duration", ["long", "short", "long"], ("short", "medium", "long"))]
    ['duration/short', 'duration/long']
    """
    positions = {label: of for label, of in grouped(labels).items() if label}
    found = [label for label in order if label in positions] + [label for label in positions if label not in order]
    return [mean(f"{prefix}/{label}", positions[label]) for label in found]


def by_group(questions: Sequence[Question], group: str, order: Sequence[str] = ()) -> list[Metric]:
    """The mean over the questions of each value of a group."""
    return by_label(group, [question.groups[group] for question in questions], order)


def by_task(questions: Sequence[Question], order: Sequence[str] = ()) -> list[Metric]:
    """The mean over the questions of each task in their rows."""
    return by_label("task", ["" if q.task == UNREADABLE else q.task for q in questions], order)


def micro(questions: Sequence[Question]) -> Metric:
    """The mean over all questions."""
    return mean("overall", range(len(questions)))


def macro(name: str, metrics: Mapping[str, Metric], of: Sequence[str]) -> list[Metric]:
    """The mean of those metrics that exist; empty if none does."""
    there = [metrics[label] for label in of if label in metrics]
    return [mean_of(name, there)] if there else []


def letter_grade(question: Question, text: str, as_authors: str | None) -> Grade:
    """Accuracy of an option's letter, as a person reads it and as the authors' code did. Options may be in the text."""
    letter = read_choice(final_text(text), question.options or options_in(question.text))
    return Grade(letter, float(letter == question.truth), float(as_authors == question.truth))
