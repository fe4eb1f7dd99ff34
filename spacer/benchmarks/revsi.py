"""ReVSI (hub 3dlg-hcvc/ReVSI): the questions of VSI-Bench, with truths that hold for the frames shown.

A truth depends on the frame budget, so one configuration's folder is evaluated at a time (`32_frame`, `64_frame`, …),
with that many frames. Accuracy for a choice, mean relative accuracy for a number; overall is the mean of the groups of
types that are present, a group the mean of its types. The second reading is that of lmms-eval and VLMEvalKit: the
authors' own code was not verified.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from spacer.benchmarks import answers, release
from spacer.benchmarks.fields import BenchmarkRow, unique
from spacer.benchmarks.files import Media, parquet_rows
from spacer.benchmarks.metrics import by_label, by_task
from spacer.benchmarks.question import Grade, Kind, Question
from spacer.benchmarks.readings import first_word
from spacer.benchmarks.vsi_bench import numbered_grade
from spacer.data.samples import Fault
from spacer.statistics.metrics import Metric, mean_of

SECOND = "authors_code"
NOTE = ""
GROUPS = {
    "object_counting": ("single", "multiple"),
    "object_abs_distance": (),
    "object_size_estimation": (),
    "room_size_estimation": ("single", "multiple"),
    "object_rel_distance": ("closest", "farthest"),
    "object_rel_direction": ("forward_easy", "backward_easy", "forward_hard", "backward_hard"),
    "route_planning": (),
}
TYPES = {group: tuple(f"{group}_{part}" for part in parts) or (group,) for group, parts in GROUPS.items()}
NUMBERS = tuple(kind for group in tuple(GROUPS)[:4] for kind in TYPES[group])
CHOICES = tuple(kind for group in tuple(GROUPS)[4:] for kind in TYPES[group])
PATTERN = "test-*.parquet"
COLUMNS = ("id", "dataset", "scene_id", "num_frames", "question_type", "question", "options", "ground_truth")


def read(root: Path) -> tuple[list[Question], list[Fault]]:
    """The questions of `test-*.parquet` in the folder of a configuration, about `{scene_id}.mp4` beside it.

    Ids are `{folder}/{id}`. In the configuration `all_frame`, `num_frames` is that of each video.
    """
    faults: list[Fault] = []
    media = Media(root)
    asked = [(row, _question(row, root, media)) for row in parquet_rows(root, PATTERN, COLUMNS, faults)]
    return unique(asked, faults), faults


def _question(row: BenchmarkRow, root: Path, media: Media) -> Question:
    task, scene = row.one_of("question_type", CHOICES + NUMBERS), row.text("scene_id")
    options = answers.lettered(row.texts("options")) if task in CHOICES else ()
    return Question(
        id=f"{root.name}/{row.identity('id')}",
        task=task,
        kind=Kind.number if task in NUMBERS else Kind.choice,
        text=row.text("question"),
        options=options,
        truth=row.letter("ground_truth", options) if task in CHOICES else row.number_text("ground_truth"),
        cluster=f"{row.text('dataset')}/{scene}",
        video=row.media("scene_id", media.video((".",), scene)),
        frames=None if root.name.startswith("all") else int(row.number("num_frames")),
    )


def grade(question: Question, text: str) -> Grade:
    """Accuracy or mean relative accuracy of the answer; the second reading takes the first word."""
    return numbered_grade(question, text, first_word(text), release.as_float(first_word(text)))


def official(questions: Sequence[Question]) -> list[Metric]:
    """The groups' mean, the groups and the types, as far as present."""
    types = {metric.name.removeprefix("task/"): metric for metric in by_task(questions, CHOICES + NUMBERS)}
    groups = [
        mean_of(f"group/{group}", [types[kind] for kind in kinds if kind in types])
        for group, kinds in TYPES.items()
        if any(kind in types for kind in kinds)
    ]
    whole = groups or by_label("all", ["all"] * len(questions))  # rows whose type cannot be read alone
    return [mean_of("overall", whole), *groups, *types.values()]


released = official
