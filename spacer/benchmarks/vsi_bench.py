"""VSI-Bench (Yang et al., arXiv 2412.14171): eight tasks of spatial reasoning on 288 videos of indoor scans.

Scores as in the authors' code (github.com/vision-x-nyu/thinking-in-space): accuracy for a choice, mean relative
accuracy for a number; direction is the mean of its three levels; overall is the mean of the eight tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from spacer.benchmarks import answers, release
from spacer.benchmarks.fields import Row, unique
from spacer.benchmarks.figures import by_task
from spacer.benchmarks.files import Media, parquet_rows
from spacer.benchmarks.question import Grade, Kind, Question
from spacer.data.samples import Fault
from spacer.evaluation.metrics import Metric, mean_of
from spacer.rewards.answer import mean_relative_accuracy
from spacer.rewards.extract import read_number

NOTE = ""
DIRECTION = tuple(f"object_rel_direction_{level}" for level in ("easy", "medium", "hard"))
CHOICES = (*DIRECTION, "object_rel_distance", "route_planning", "obj_appearance_order")
NUMBERS = ("object_abs_distance", "object_counting", "object_size_estimation", "room_size_estimation")
# the order of the authors' table
TASKS = (
    *("object_counting", "object_abs_distance", "object_size_estimation", "room_size_estimation"),
    *("object_rel_distance", "object_rel_direction", "route_planning", "obj_appearance_order"),
)
COLUMNS = ("id", "dataset", "scene_name", "question_type", "question", "ground_truth", "options")


def read(root: Path) -> tuple[list[Question], list[Fault]]:
    """The questions of `test-*-of-*.parquet`, about `{dataset}/{scene_name}.mp4`."""
    faults: list[Fault] = []
    media = Media(root)
    asked = [(row, _question(row, media)) for row in parquet_rows(root, "test-*-of-*.parquet", COLUMNS, faults)]
    return unique(asked, faults), faults


def _question(row: Row, media: Media) -> Question:
    task = row.one_of("question_type", CHOICES + NUMBERS)
    dataset, scene = row.text("dataset"), row.text("scene_name")
    options: tuple[str, ...] = ()
    truth = ""
    if task in NUMBERS:
        truth = row.number_text("ground_truth")
    elif task in CHOICES:
        options = answers.lettered(row.texts("options"))
        truth = row.letter("ground_truth", options)
    return Question(
        id=row.identity("id"),
        task=task,
        kind=Kind.number if task in NUMBERS else Kind.choice,
        text=row.text("question"),
        options=options,
        truth=truth,
        cluster=f"{dataset}/{scene}",
        video=row.media("scene_name", media.video((dataset,), scene)),
        groups={"dataset": dataset},
    )


def grade(question: Question, text: str) -> Grade:
    """Accuracy or mean relative accuracy of the answer."""
    given = release.answer(text)
    if question.kind is Kind.choice:
        letter = answers.option_letter(answers.final(text), question.options)
        right = release.vsi_choice(given).lower() == question.truth.lower()
        return Grade(letter, float(letter == question.truth), float(right))
    number, truth = read_number(answers.final(text)), read_number(question.truth)
    assert truth is not None  # checked in reading
    score = 0.0 if number is None else mean_relative_accuracy(number, truth)
    return Grade(answers.shown(number), score, _released_number(given, question.truth))


def _released_number(given: str, true: str) -> float:
    number, truth = release.vsi_number(given), release.as_float(true)
    if number is None or not truth:
        return 0.0
    return release.mean_relative_accuracy(abs(number - truth) / truth)


def official(questions: Sequence[Question]) -> list[Metric]:
    """The eight tasks and their mean. A task, or a level of direction, that is not there is left out of the mean."""
    found = {metric.name.removeprefix("task/"): metric for metric in by_task(questions)}
    levels = [found[level] for level in DIRECTION if level in found]
    if levels:
        found["object_rel_direction"] = mean_of("task/object_rel_direction", levels)
    tasks = [found[task] for task in TASKS if task in found]
    return [mean_of("overall", tasks), *tasks]


def released(questions: Sequence[Question]) -> list[Metric]:
    """The same; on a part of the benchmark the release would score direction 0 where a level of it is missing."""
    return official(questions)
