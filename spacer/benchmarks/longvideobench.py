"""LongVideoBench, validation part (Wu et al., arXiv 2407.15754): questions that refer to a moment of a long video.

Overall, duration groups, categories and the two levels are accuracies over their questions. The authors' code guesses
a random letter for an unreadable answer; here that is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from spacer.benchmarks import answers, release
from spacer.benchmarks.fields import BenchmarkRow
from spacer.benchmarks.files import Media, json_questions
from spacer.benchmarks.metrics import by_group, by_task, micro
from spacer.benchmarks.question import Grade, Kind, Question
from spacer.data.samples import Fault
from spacer.rewards.options import read_choice
from spacer.rewards.reading import final_text
from spacer.statistics.metrics import Metric

SECOND = "spacer_eval"
NOTE = "An answer that cannot be read is wrong; the authors' code draws a letter at random for it."
FILE = "lvb_val.json"
LEVELS = {
    "perception": ("S2E", "S2O", "S2A", "E2O", "O2E", "T2E", "T2O", "T2A"),
    "relation": ("E3E", "O3O", "SSS", "SOS", "SAA", "T3E", "T3O", "TOS", "TAA"),
}
CATEGORIES = tuple(category for level in LEVELS.values() for category in level)
LEVEL_OF = {category: level for level, categories in LEVELS.items() for category in categories}


def read(root: Path) -> tuple[list[Question], list[Fault]]:
    """The questions of `lvb_val.json`, about `videos/{video_path}`, with `subtitles/{subtitle_path}`."""
    return json_questions(root, FILE, partial(_question, media=Media(root)))


def _question(row: BenchmarkRow, media: Media) -> Question:
    video = row.text("video_path")
    texts = row.texts("candidates")
    right = row.position("correct_choice", len(texts))
    category = row.one_of("question_category", CATEGORIES)
    subtitles = row.get("subtitle_path")
    return Question(
        id=row.identity("id"),
        task=category,
        kind=Kind.choice,
        text=row.text("question"),
        options=tuple(f"{answers.letter_of(index)}. {text}" for index, text in enumerate(texts)),
        truth=answers.letter_of(right),
        cluster=row.text("video_id"),
        video=row.media("video_path", media.find(f"videos/{video}", f"video/{video}")),
        subtitles=media.existing(f"subtitles/{subtitles}") if isinstance(subtitles, str) else None,
        subtitles_from=row.number("starting_timestamp_for_subtitles", default=0.0),
        groups={"duration": row.identity("duration_group"), "level": LEVEL_OF.get(category, "")},
    )


def grade(question: Question, text: str) -> Grade:
    """Accuracy of the letter."""
    letter = read_choice(final_text(text), question.options)
    right = release.first_capital(release.answer(text), "ABCDE") == question.truth
    return Grade(letter, float(letter == question.truth), float(right))


def official(questions: Sequence[Question]) -> list[Metric]:
    """Accuracy over all questions, by duration group (upper bound in seconds), by level and by category."""
    durations = sorted({question.groups["duration"] for question in questions}, key=lambda group: (len(group), group))
    return [micro(questions), *by_group(questions, "duration", durations), *_levels(questions)]


def released(questions: Sequence[Question]) -> list[Metric]:
    """The same, without the duration groups."""
    return [micro(questions), *_levels(questions)]


def _levels(questions: Sequence[Question]) -> list[Metric]:
    return [*by_group(questions, "level", tuple(LEVELS)), *by_task(questions, CATEGORIES)]
