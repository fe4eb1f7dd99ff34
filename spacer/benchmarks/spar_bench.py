"""SPAR-Bench (Zhang et al., arXiv 2503.22976): twenty tasks on single and multiple images of indoor scenes.

Accuracy for a choice, mean relative accuracy for a number and for each axis of a camera motion; overall is the mean
over all tasks, a level's score the mean over its tasks. Unlike in the authors' code: there an empty answer to a choice
is right, `view_change_infer` is scored relative to the prediction, and it is missing from its level.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from spacer.benchmarks import release, view_change
from spacer.benchmarks.answers import letters, options_in, shown
from spacer.benchmarks.fields import BenchmarkRow, unique
from spacer.benchmarks.files import parquet_rows
from spacer.benchmarks.metrics import macro
from spacer.benchmarks.mra import mean_relative_accuracy_as_published, thresholds_met
from spacer.benchmarks.question import Grade, Kind, Question
from spacer.data.samples import Fault
from spacer.data.stored import StoredImages
from spacer.rewards.extract import read_number
from spacer.rewards.options import read_choice
from spacer.rewards.quantities import read_quantity
from spacer.rewards.reading import final_text
from spacer.statistics.metrics import Metric, grouped, mean, mean_of

SECOND = "spacer_eval"
NOTE = "spacer_eval counts an empty answer to a choice as right, and its Middle lacks view_change_infer."
VIEW_CHANGE = "view_change_infer"
SIDES = ("oc", "oo", "oc_mv", "oo_mv")
LEVELS = {
    "Low": tuple(f"{what}_prediction_{side}" for what in ("depth", "distance") for side in SIDES),
    "Middle": (VIEW_CHANGE, "position_matching", "camera_motion_infer"),
    "High": (
        *("distance_infer_center_oo", "distance_infer_center_oo_mv", "obj_spatial_relation_oo"),
        *("obj_spatial_relation_oc_mv", "obj_spatial_relation_oo_mv"),
        *(f"spatial_imagination_{side}" for side in SIDES),
    ),
}
TASKS = tuple(task for tasks in LEVELS.values() for task in tasks)
PATTERN = "data/test-*-of-*.parquet"
COLUMNS = ("id", "task", "img_type", "question", "answer")
IMAGES = "image"


def read(root: Path) -> tuple[list[Question], list[Fault]]:
    """The questions of `data/test-*-of-*.parquet`. Their images are read on access."""
    faults: list[Fault] = []
    asked = [(row, _question(row, root)) for row in parquet_rows(root, PATTERN, COLUMNS, faults, beside=(IMAGES,))]
    return unique(asked, faults), faults


def _question(row: BenchmarkRow, root: Path) -> Question:
    task = row.one_of("task", TASKS)
    kind = Kind.text if task == VIEW_CHANGE else Kind.number if task in LEVELS["Low"] else Kind.choice
    truth = ""
    if kind is Kind.number:
        truth = row.number_text("answer")
    elif kind is Kind.text:
        truth = row.text("answer")
        if truth and view_change.read_motion(truth) is None:
            row.fail("answer", f"must be motions such as move_right:0.3, not {truth!r}")
    elif task:
        truth = row.letter("answer", ())
    identity = row.identity("id")
    return Question(
        id=identity,
        task=task,
        kind=kind,
        text=row.text("question"),  # includes its options
        options=(),
        truth=truth,
        cluster=identity,  # the files do not say which questions share a scene
        images=StoredImages(root / row.file, row.number_in_file, (IMAGES,)),
        groups={"image_type": row.text("img_type")},
    )


def grade(question: Question, text: str) -> Grade:
    """Accuracy, mean relative accuracy, or its mean over five axes."""
    final, given = final_text(text), release.answer(text)
    if question.kind is Kind.text:
        return _grade_motion(question.truth, final, given)
    if question.kind is Kind.choice:
        options = options_in(question.text)
        letter = read_choice(final, options if question.truth in letters(options) else ())
        return Grade(letter, float(letter == question.truth), float(release.spar_choice(given, question.truth)))
    last = question.task.endswith("_mv")  # reasoning over several images states the result last
    number, truth = read_quantity(final, last), read_number(question.truth)
    assert truth is not None  # checked on reading
    score = 0.0 if number is None else mean_relative_accuracy_as_published(number, truth, absolute_at_zero=True)
    return Grade(shown(number), score, _released_number(given, question.truth, last))


def _grade_motion(true: str, final: str, given: str) -> Grade:
    motion, truth = view_change.read_motion(final), view_change.read_motion(true)
    assert truth is not None  # checked on reading
    written = None if motion is None else ",".join(f"{action}:{value:g}" for action, value in motion.items())
    score = 0.0 if motion is None else view_change.accuracy(motion, truth)
    return Grade(written, score, view_change.released_accuracy(given, true))


def _released_number(given: str, true: str, last: bool) -> float:
    number, truth = release.spar_number(given, last), release.as_float(true)
    if number is None or truth is None:
        return 0.0
    return thresholds_met(abs((number - truth) / truth) if truth else abs(number))


def official(questions: Sequence[Question]) -> list[Metric]:
    """The tasks, their mean, and the means of levels and of image kinds over their tasks."""
    return _metrics(questions, LEVELS)


def released(questions: Sequence[Question]) -> list[Metric]:
    """The same, except for the task that the release omits from the level Middle."""
    return _metrics(questions, LEVELS | {"Middle": LEVELS["Middle"][1:]})


def _metrics(questions: Sequence[Question], levels: dict[str, tuple[str, ...]]) -> list[Metric]:
    positions = grouped([question.task for question in questions])
    tasks = {task: mean(f"task/{task}", positions[task]) for task in TASKS if task in positions}
    metrics = [mean_of("overall", list(tasks.values()))]
    for level, of in levels.items():
        metrics += macro(f"level/{level}", tasks, of)
    metrics += tasks.values()
    for image_type, of_type in grouped([question.groups["image_type"] for question in questions]).items():
        of_task = grouped([questions[position].task for position in of_type])
        means = [mean("", [of_type[index] for index in of_task[task]]) for task in TASKS if task in of_task]
        if image_type and means:
            metrics.append(mean_of(f"image_type/{image_type}", means))
    return metrics
