"""VSI-Bench (Yang et al., arXiv 2412.14171): eight tasks of spatial reasoning on 288 videos of indoor scans.

Scores follow the authors' code (github.com/vision-x-nyu/thinking-in-space): accuracy for a choice, mean relative
accuracy for a number; direction is the mean of its three levels; overall is the mean of the eight tasks. If the
files mark the questions that cannot be guessed without looking (Brown et al., arXiv 2511.04655), the same metrics
over these alone are `debiased/…`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from spacer.benchmarks import answers, release
from spacer.benchmarks.fields import BenchmarkRow, RowFault, unique
from spacer.benchmarks.files import Media, jsonl_rows, parquet_rows
from spacer.benchmarks.metrics import by_label, micro
from spacer.benchmarks.mra import mean_relative_accuracy_as_published, thresholds_met
from spacer.benchmarks.question import Grade, Kind, Question
from spacer.data.samples import Fault
from spacer.rewards.extract import read_number
from spacer.rewards.options import read_choice
from spacer.rewards.quantities import read_quantity
from spacer.rewards.reading import final_text
from spacer.statistics.metrics import Metric, mean_of

SECOND = "spacer_eval"
NOTE = ""
HALVES = ("debiased", "pruned")
DIRECTION = tuple(f"object_rel_direction_{level}" for level in ("easy", "medium", "hard"))
CHOICES = (*DIRECTION, "object_rel_distance", "route_planning", "obj_appearance_order")
NUMBERS = ("object_abs_distance", "object_counting", "object_size_estimation", "room_size_estimation")
# the order of the authors' table
TASKS = (
    *("object_counting", "object_abs_distance", "object_size_estimation", "room_size_estimation"),
    *("object_rel_distance", "object_rel_direction", "route_planning", "obj_appearance_order"),
)
COLUMNS = ("id", "dataset", "scene_name", "question_type", "question", "ground_truth", "options")


FULL, DEBIASED, PRUNED = "test-*-of-*.parquet", "test_debiased.parquet", "test_pruned.parquet"
LINES, PRUNED_IDS = "test.jsonl", "pruned_ids.txt"


def read(root: Path) -> tuple[list[Question], list[Fault]]:
    """The questions, about `{dataset}/{scene_name}.mp4`, from any of the formats in which they have been distributed.

    All of them are in `test-*-of-*.parquet`, in `test_debiased.parquet` and `test_pruned.parquet` together, and in
    `test.jsonl`. `test_debiased.parquet` marks those that are debiased, or else `pruned_ids.txt`, which lists the
    ids of the others, one per line. A repeated id is dropped.
    """
    faults: list[Fault] = []
    media = Media(root)
    rows, debiased = list(_rows(root, faults)), _debiased(root, faults)
    asked: dict[str, tuple[BenchmarkRow, Question]] = {}
    for row in rows:
        question = _question(row, media, debiased)
        first = asked.setdefault(question.id or row.where, (row, question))[0]
        if first is not row:
            detail = f"{question.id!r} is that of {first.where} too, and is asked once"
            faults.append(RowFault(row.where, "repeated id", detail))
    return unique(list(asked.values()), faults), faults


def _rows(root: Path, faults: list[Fault]) -> Iterator[BenchmarkRow]:
    halves = [name for name in (DEBIASED, PRUNED) if (root / name).is_file()]
    if any(root.glob(FULL)):
        yield from parquet_rows(root, FULL, COLUMNS, faults)
    elif len(halves) == 2:
        for name in halves:
            yield from parquet_rows(root, name, COLUMNS, faults)
    elif (root / LINES).is_file():
        yield from jsonl_rows(root, LINES, faults)
    elif halves:
        lacking = PRUNED if halves == [DEBIASED] else DEBIASED
        faults.append(Fault(lacking, "missing file", f"{halves[0]} has a part of the questions alone"))
    else:
        said = f"neither it, nor {DEBIASED} and {PRUNED}, nor {LINES} is in {root}"
        faults.append(Fault(FULL, "missing file", said))


def _debiased(root: Path, faults: list[Fault]) -> Callable[[str], bool] | None:
    """Whether the question with an id is debiased; None if no file tells."""
    if (root / DEBIASED).is_file():
        kept = {row.identity("id") for row in parquet_rows(root, DEBIASED, ("id",), faults)}
        return kept.__contains__
    try:
        listed = (root / PRUNED_IDS).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        faults.append(Fault(PRUNED_IDS, "unreadable file", str(error)))
        return None
    pruned = set(listed.split())
    return lambda identity: identity not in pruned


def _question(row: BenchmarkRow, media: Media, debiased: Callable[[str], bool] | None) -> Question:
    identity = row.identity("id")
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
        id=identity,
        task=task,
        kind=Kind.number if task in NUMBERS else Kind.choice,
        text=row.text("question"),
        options=options,
        truth=truth,
        cluster=f"{dataset}/{scene}",
        video=row.media("scene_name", media.video((dataset,), scene)),
        groups={"dataset": dataset} | ({} if debiased is None else {"half": HALVES[not debiased(identity)]}),
    )


def read_debiased(root: Path) -> tuple[list[Question], list[Fault]]:
    """The debiased questions alone, for which the other half of the files is not needed."""
    faults: list[Fault] = []
    media = Media(root)
    debiased: Callable[[str], bool] | None = None
    if (root / DEBIASED).is_file():
        rows = list(parquet_rows(root, DEBIASED, COLUMNS, faults))
        debiased = {row.identity("id") for row in rows}.__contains__
    elif (root / PRUNED_IDS).is_file():
        rows = list(_rows(root, faults))
        debiased = _debiased(root, faults)
    else:
        faults.append(Fault(DEBIASED, "missing file", f"neither it nor {PRUNED_IDS} is in {root}"))
        return [], faults
    asked = [(row, _question(row, media, debiased)) for row in rows]
    return unique([pair for pair in asked if pair[1].groups.get("half") == HALVES[0]], faults), faults


def grade(question: Question, text: str) -> Grade:
    """Accuracy or mean relative accuracy of the answer."""
    given = release.answer(text)
    if question.kind is Kind.choice:
        return numbered_grade(question, text, release.vsi_choice(given), None)
    return numbered_grade(question, text, "", release.vsi_number(given))


def numbered_grade(question: Question, text: str, second_letter: str, second_number: float | None) -> Grade:
    """Accuracy or mean relative accuracy, of what a person reads and of what another reading has found."""
    if question.kind is Kind.choice:
        letter = read_choice(final_text(text), question.options)
        return Grade(letter, float(letter == question.truth), float(second_letter.lower() == question.truth.lower()))
    number, truth = read_quantity(final_text(text)), read_number(question.truth)
    assert truth is not None  # checked on reading
    score = 0.0 if number is None else mean_relative_accuracy_as_published(number, truth)
    return Grade(answers.shown(number), score, _second_number(second_number, question.truth))


def _second_number(number: float | None, true: str) -> float:
    truth = release.as_float(true)
    if number is None or not truth:
        return 0.0
    return thresholds_met(abs(number - truth) / truth)


def official(questions: Sequence[Question]) -> list[Metric]:
    """The eight tasks and their mean, then the same over debiased questions if the files mark them."""
    debiased = [question.task if question.groups.get("half") == HALVES[0] else "" for question in questions]
    return [*metrics([question.task for question in questions]), *metrics(debiased, "debiased/")]


def released(questions: Sequence[Question]) -> list[Metric]:
    """The eight tasks, and as overall the mean over all questions. On a part of the benchmark without one level of
    direction, the release would score direction 0."""
    return [micro(questions), *_tasks([question.task for question in questions])]


def metrics(tasks: Sequence[str], prefix: str = "") -> list[Metric]:
    """The tasks' mean and the tasks, with a prefix to their names. Absent tasks are left out."""
    there = _tasks(tasks)
    found = [mean_of("overall", there), *there] if there else []
    return [replace(metric, name=prefix + metric.name) for metric in found]


def _tasks(tasks: Sequence[str]) -> list[Metric]:
    """The eight tasks, as far as present; direction is the mean of the levels present."""
    found = {metric.name.removeprefix("task/"): metric for metric in by_label("task", tasks)}
    levels = [found[level] for level in DIRECTION if level in found]
    if levels:
        found["object_rel_direction"] = mean_of("task/object_rel_direction", levels)
    return [found[task] for task in TASKS if task in found]
