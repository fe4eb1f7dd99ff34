"""MMSI-Bench (Yang et al., arXiv 2505.23764): 1,000 questions about two to ten images each, in eleven types.

Overall and types are accuracies over their questions. The README asks for a language model where no letter is found;
the authors' code counts such answers as wrong, and so does this. The files do not say which questions share a scene.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from spacer.benchmarks import readings
from spacer.benchmarks.fields import BenchmarkRow, unique
from spacer.benchmarks.files import parquet_rows
from spacer.benchmarks.metrics import by_task, letter_grade, micro
from spacer.benchmarks.question import Grade, Kind, Question
from spacer.data.samples import Fault
from spacer.data.stored import StoredImages
from spacer.statistics.metrics import Metric

SECOND = "authors_code"
NOTE = ""
_PAIRS = ("Cam.-Cam.", "Cam.-Obj.", "Cam.-Reg.", "Obj.-Obj.", "Obj.-Reg.", "Reg.-Reg.")
TASKS = (
    *(f"Positional Relationship ({pair})" for pair in _PAIRS),
    *("Attribute (Meas.)", "Attribute (Appr.)", "Motion (Cam.)", "Motion (Obj.)", "MSR"),
)
PATTERN, COLUMNS, IMAGES = "MMSI_Bench.parquet", ("id", "question_type", "question", "answer"), "images"


def read(root: Path) -> tuple[list[Question], list[Fault]]:
    """The questions of `MMSI_Bench.parquet`, with their images in it, which are read on access."""
    faults: list[Fault] = []
    asked = [(row, _question(row, root)) for row in parquet_rows(root, PATTERN, COLUMNS, faults, beside=(IMAGES,))]
    return unique(asked, faults), faults


def _question(row: BenchmarkRow, root: Path) -> Question:
    identity = row.identity("id")
    task = re.sub("[\u2010-\u2015]", "-", row.text("question_type"))  # the files have several kinds of dashes
    if task and task not in TASKS:
        row.fail("question_type", f"is {task!r}, not one of {', '.join(TASKS)}")
    return Question(
        id=identity,
        task=task if task in TASKS else "",
        kind=Kind.choice,
        text=row.text("question"),  # includes its options
        options=(),
        truth=row.letter("answer", ()),
        cluster=identity,
        images=StoredImages(root / row.file, row.number_in_file, (IMAGES,)),
    )


def grade(question: Question, text: str) -> Grade:
    """Accuracy of the letter."""
    return letter_grade(question, text, readings.mmsi(text))


def official(questions: Sequence[Question]) -> list[Metric]:
    """Accuracy over all questions and by type."""
    return [micro(questions), *by_task(questions, TASKS)]


released = official
