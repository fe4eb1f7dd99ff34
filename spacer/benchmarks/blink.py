"""BLINK, validation part (Fu et al., arXiv 2404.12390): fourteen subtasks of perception, on one to four images.

Overall is the mean of the subtasks, as in the authors' evaluate.py; the mean over questions, which VLMEvalKit reports,
is `micro`. The authors have a language model map prose to an option; here it is read by rule. The test part has no
answers in its files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from spacer.benchmarks import answers, readings
from spacer.benchmarks.fields import BenchmarkRow, unique
from spacer.benchmarks.files import parquet_rows
from spacer.benchmarks.metrics import by_task, letter_grade, micro
from spacer.benchmarks.question import Grade, Kind, Question
from spacer.data.samples import Fault
from spacer.data.stored import StoredImages
from spacer.statistics.metrics import Metric, mean_of

SECOND = "authors_code"
NOTE = "authors_code takes a letter alone or the only option in brackets, without the authors' judge model."
TASKS = (
    *("Art_Style", "Counting", "Forensic_Detection", "Functional_Correspondence", "IQ_Test", "Jigsaw"),
    *("Multi-view_Reasoning", "Object_Localization", "Relative_Depth", "Relative_Reflectance"),
    *("Semantic_Correspondence", "Spatial_Relation", "Visual_Correspondence", "Visual_Similarity"),
)
PATTERN, COLUMNS = "*/val-*.parquet", ("idx", "sub_task", "prompt", "answer")
IMAGES = ("image_1", "image_2", "image_3", "image_4")


def read(root: Path) -> tuple[list[Question], list[Fault]]:
    """The questions of `{Subtask}/val-*.parquet`, with their images in it, which are read on access.

    A subtask whose folder is missing is a fault, since it would be missing from the mean.
    """
    faults: list[Fault] = []
    asked = [(row, _question(row, root)) for row in parquet_rows(root, PATTERN, COLUMNS, faults, beside=IMAGES)]
    there = {path.parent.name for path in root.glob(PATTERN)} or set(TASKS)  # if none is there, all are faults
    faults += [
        Fault(f"{task}/val-*.parquet", "missing file", f"it is not in {root}") for task in TASKS if not {task} & there
    ]
    return unique(asked, faults), faults


def _question(row: BenchmarkRow, root: Path) -> Question:
    identity = row.identity("idx")
    return Question(
        id=identity,
        task=row.one_of("sub_task", TASKS),
        kind=Kind.choice,
        text=row.text("prompt"),  # includes its options
        options=(),
        truth=row.letter("answer", ()),
        cluster=identity,
        images=StoredImages(root / row.file, row.number_in_file, IMAGES),
    )


def grade(question: Question, text: str) -> Grade:
    """Accuracy of the letter."""
    letters = answers.letters(answers.options_in(question.text)) or "ABCDE"
    return letter_grade(question, text, readings.blink(text, letters))


def official(questions: Sequence[Question]) -> list[Metric]:
    """The mean of the subtasks, the mean over questions, and the subtasks."""
    tasks = by_task(questions, TASKS)
    return [mean_of("overall", tasks) if tasks else micro(questions), replace(micro(questions), name="micro"), *tasks]


released = official
