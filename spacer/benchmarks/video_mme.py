"""Video-MME (Fu et al., arXiv 2405.21075): 2,700 multiple-choice questions on videos of 11 seconds to an hour.

Overall, durations and task types are accuracies over their questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from spacer.benchmarks import answers, release
from spacer.benchmarks.fields import BenchmarkRow, unique
from spacer.benchmarks.files import Media, parquet_rows
from spacer.benchmarks.metrics import by_group, by_task, micro
from spacer.benchmarks.question import Grade, Kind, Question
from spacer.data.samples import Fault
from spacer.rewards.options import read_choice
from spacer.rewards.reading import final_text
from spacer.statistics.metrics import Metric

SECOND = "spacer_eval"
NOTE = ""
DURATIONS = ("short", "medium", "long")
PATTERN = "videomme/test-*-of-*.parquet"
COLUMNS = ("videoID", "question_id", "duration", "task_type", "question", "options", "answer")


def read(root: Path) -> tuple[list[Question], list[Fault]]:
    """The questions of `videomme/test-*-of-*.parquet`, about `data/{videoID}.mp4`, with `subtitle/{videoID}.srt`."""
    faults: list[Fault] = []
    media = Media(root)
    asked = [(row, _question(row, media)) for row in parquet_rows(root, PATTERN, COLUMNS, faults)]
    return unique(asked, faults), faults


def _question(row: BenchmarkRow, media: Media) -> Question:
    video = row.text("videoID")
    options = answers.lettered(row.texts("options"))
    return Question(
        id=row.identity("question_id"),
        task=row.text("task_type"),
        kind=Kind.choice,
        text=row.text("question"),
        options=options,
        truth=row.letter("answer", options),
        cluster=video,
        video=row.media("videoID", media.video(("data", "video", "videos"), video)),
        subtitles=media.existing(f"subtitle/{video}.srt"),
        groups={"duration": row.one_of("duration", DURATIONS)},
    )


def grade(question: Question, text: str) -> Grade:
    """Accuracy of the letter."""
    letter = read_choice(final_text(text), question.options)
    right = release.first_capital(release.answer(text), "ABCD", also_correct=True) == question.truth
    return Grade(letter, float(letter == question.truth), float(right))


def official(questions: Sequence[Question]) -> list[Metric]:
    """Accuracy over all questions, by duration and by task type."""
    return [micro(questions), *by_group(questions, "duration", DURATIONS), *by_task(questions)]


def released(questions: Sequence[Question]) -> list[Metric]:
    """The same."""
    return official(questions)
