"""ViewSpatial-Bench (Li et al., arXiv 2505.21500): directions from the camera's view and from that of a person.

Overall and types are accuracies over their questions. The authors' code reads the last line alone, and scales images to
420 x 280 for Qwen models; here they keep their proportions, as for every benchmark.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from spacer.benchmarks import readings
from spacer.benchmarks.answers import options_in
from spacer.benchmarks.fields import BenchmarkRow
from spacer.benchmarks.files import Media, json_questions
from spacer.benchmarks.metrics import by_task, letter_grade, micro
from spacer.benchmarks.question import Grade, Kind, Question
from spacer.data.samples import Fault
from spacer.data.stored import FileImages
from spacer.statistics.metrics import Metric

SECOND = "authors_code"
NOTE = ""
_KINDS = ("Relative Direction", "Object View Orientation")
TASKS = (
    *(f"Camera perspective - {kind}" for kind in _KINDS),
    *(f"Person perspective - {kind}" for kind in (*_KINDS, "Scene Simulation Relative Direction")),
)
FILE, PREFIX = "ViewSpatial-Bench.json", "ViewSpatial-Bench/"


def read(root: Path) -> tuple[list[Question], list[Fault]]:
    """The questions of `ViewSpatial-Bench.json`, whose ids are their places in it, from 0.

    Images are in `scannetv2_val/` and `val2017/`; their paths begin with the benchmark's name, which is dropped.
    """
    return json_questions(root, FILE, partial(_question, media=Media(root)))


def _question(row: BenchmarkRow, media: Media) -> Question:
    names = [name.removeprefix(PREFIX) for name in row.paths("image_path")]
    options = options_in(row.text("choices"))
    if not options:
        row.fail("choices", f"must hold two or more options, not {row.get('choices')!r}")
    return Question(
        id=str(row.number_in_file),
        task=row.one_of("question_type", TASKS),
        kind=Kind.choice,
        text=row.text("question"),
        options=options,
        truth=row.letter("answer", options),
        cluster=names[0].rpartition("/")[0] + ("" if "scannet" in names[0] else names[0]) if names else "",
        images=FileImages(tuple(row.media("image_path", media.find(name)) for name in names)),
    )


def grade(question: Question, text: str) -> Grade:
    """Accuracy of the letter."""
    return letter_grade(question, text, readings.viewspatial(text))


def official(questions: Sequence[Question]) -> list[Metric]:
    """Accuracy over all questions and by type."""
    return [micro(questions), *by_task(questions, TASKS)]


released = official
