"""STI-Bench (Li et al., arXiv 2503.23765): eight tasks of spatial-temporal understanding, all multiple choice.

Overall is the accuracy over all questions, as in the authors' code (github.com/MINT-SJTU/STI-Bench).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from spacer.benchmarks import answers, release
from spacer.benchmarks.fields import BenchmarkRow, unique
from spacer.benchmarks.files import Media, parquet_rows
from spacer.benchmarks.metrics import by_task, macro, micro
from spacer.benchmarks.question import Grade, Kind, Question
from spacer.data.samples import Fault
from spacer.rewards.options import read_choice
from spacer.rewards.reading import final_text
from spacer.statistics.metrics import Metric, mean_of

SECOND = "spacer_eval"
NOTE = "spacer_eval's overall is the mean over the tasks and, as one more of them, the mean of six of them (sr_sub)."
# SpaceR's subtotal for spatial reasoning
SR_SUB = (
    *("Dimensional Measurement", "Displacement & Path Length", "Ego-Centric Orientation"),
    *("Spatial Relation", "Speed & Acceleration", "Trajectory Description"),
)
TASKS = ("3D Video Grounding", *SR_SUB[:3], "Pose Estimation", *SR_SUB[3:])
COLUMNS = ("ID", "Video", "time_start", "time_end", "Question", "Candidates", "Answer", "Task")


def read(root: Path) -> tuple[list[Question], list[Fault]]:
    """The questions of `qa.parquet`, about `video/{Video}` or `videos/{Video}`.

    Questions that share an `ID` are renamed `{Video}/{ID}/{time_start}-{time_end}`, as the authors distinguish them.
    """
    faults: list[Fault] = []
    media = Media(root)
    asked = [(row, _question(row, media)) for row in parquet_rows(root, "qa.parquet", COLUMNS, faults)]
    return unique(asked, faults, _key), faults


def _key(question: Question) -> str:
    start, end = question.span or (0.0, 0.0)
    return f"{question.cluster}/{question.id}/{start:g}-{end:g}"


def _question(row: BenchmarkRow, media: Media) -> Question:
    video = row.text("Video")
    options = _options(row)
    start, end = row.number("time_start"), row.number("time_end")
    return Question(
        id=row.identity("ID"),
        task=row.one_of("Task", TASKS),
        kind=Kind.choice,
        text=f"Between {start:g} s and {end:g} s of the video: {row.text('Question')}",
        options=options,
        truth=row.letter("Answer", options),
        cluster=video,
        video=row.media("Video", media.find(f"video/{video}", f"videos/{video}")),
        span=(start, end),
    )


def _options(row: BenchmarkRow) -> tuple[str, ...]:
    """Candidates, {letter: text} or that as JSON. In a struct column, letters that a row lacks are null."""
    raw = row.get("Candidates")
    if isinstance(raw, str):
        try:
            raw = json.loads(raw)
        except (ValueError, RecursionError) as error:
            row.fail("Candidates", f"is no JSON: {error}")
            return ()
    texts = {key: value for key, value in raw.items() if value is not None} if isinstance(raw, dict) else {}
    as_it_should_be = [answers.letter_of(index) for index in range(len(texts))]
    if len(texts) < 2 or sorted(texts) != as_it_should_be or not all(isinstance(text, str) for text in texts.values()):
        row.fail("Candidates", f"must be texts by the letters from A on, not {raw!r}")
        return ()
    return tuple(f"{letter}. {texts[letter].strip()}" for letter in as_it_should_be)


def grade(question: Question, text: str) -> Grade:
    """Accuracy of the letter."""
    letter = read_choice(final_text(text), question.options)
    right = release.sti_choice(release.answer(text)) == question.truth
    return Grade(letter, float(letter == question.truth), float(right))


def official(questions: Sequence[Question]) -> list[Metric]:
    """Accuracy over all questions and by task."""
    return [micro(questions), *by_task(questions, TASKS)]


def released(questions: Sequence[Question]) -> list[Metric]:
    """By task, the subtotal `level/sr_sub`, and as overall the mean over the tasks and that subtotal."""
    tasks = by_task(questions, TASKS)
    subtotal = macro("level/sr_sub", {metric.name.removeprefix("task/"): metric for metric in tasks}, SR_SUB)
    return [mean_of("overall", tasks + subtotal), *tasks, *subtotal]
