"""MindCube (Yin et al., arXiv 2506.21458): rooms seen from two to four views, and what lies where no view shows it.

Overall is the accuracy over all questions but those of the setting translation, as in the authors' code
(github.com/mll-lab-nu/MindCube); the setting is the first of around, rotation, translation and among that the id holds.
lmms-eval includes translation. The authors corrected the data in March 2026, so older scores differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from spacer.benchmarks import readings
from spacer.benchmarks.fields import BenchmarkRow, unique
from spacer.benchmarks.files import Media, jsonl_rows
from spacer.benchmarks.metrics import by_task, letter_grade
from spacer.benchmarks.question import Grade, Kind, Question
from spacer.data.samples import Fault
from spacer.data.stored import FileImages
from spacer.statistics.metrics import Metric, mean

SECOND = "authors_code"
NOTE = "The setting translation is not in overall, as its authors have it."
SETTINGS = ("around", "rotation", "translation", "among")
TINY, FULL = "MindCube_tinybench.jsonl", "MindCube.jsonl"


def read(root: Path) -> tuple[list[Question], list[Fault]]:
    """The questions of `data/raw/MindCube_tinybench.jsonl`, or of `data/raw/MindCube.jsonl` where that is not there.

    Images are relative to `data/`.
    """
    faults: list[Fault] = []
    media = Media(root)
    name = next((f"data/raw/{name}" for name in (TINY, FULL) if (root / "data/raw" / name).is_file()), None)
    if name is None:
        faults.append(Fault(f"data/raw/{TINY}", "missing file", f"neither it nor {FULL} is in {root / 'data/raw'}"))
        return [], faults
    return unique([(row, _question(row, media)) for row in jsonl_rows(root, name, faults)], faults), faults


def _question(row: BenchmarkRow, media: Media) -> Question:
    identity, names = row.identity("id"), row.paths("images")
    return Question(
        id=identity,
        task=next((setting for setting in SETTINGS if setting in identity.lower()), "other"),
        kind=Kind.choice,
        text=row.text("question"),  # includes its options
        options=(),
        truth=row.letter("gt_answer", ()),
        cluster=names[0].rpartition("/")[0] if names else "",  # a folder of views
        images=FileImages(tuple(row.media("images", media.find(f"data/{name}")) for name in names)),
    )


def grade(question: Question, text: str) -> Grade:
    """Accuracy of the letter."""
    return letter_grade(question, text, readings.mindcube(text))


def official(questions: Sequence[Question]) -> list[Metric]:
    """Accuracy over all questions but those of translation, and by setting."""
    counted = [place for place, question in enumerate(questions) if question.task != "translation"]
    return [mean("overall", counted or range(len(questions))), *by_task(questions, SETTINGS)]


released = official
