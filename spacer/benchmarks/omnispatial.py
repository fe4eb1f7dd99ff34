"""OmniSpatial, test part (Jia et al., arXiv 2506.03135): four kinds of spatial reasoning about an image.

Overall, kinds and their tasks are accuracies over their questions. The authors ask five times and pool the answers,
with a system prompt for step-by-step thinking; here a question is asked once, or `benchmark.samples` times and the most
common answer counts. Their code takes A where it finds no answer, and leaves failed calls out: `official` does neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from spacer.benchmarks import answers, readings
from spacer.benchmarks.fields import BenchmarkRow
from spacer.benchmarks.files import Media, json_questions
from spacer.benchmarks.metrics import by_group, by_task, letter_grade, micro
from spacer.benchmarks.question import Grade, Kind, Question
from spacer.data.samples import Fault
from spacer.data.stored import FileImages
from spacer.statistics.metrics import Metric

SECOND = "authors_code"
NOTE = "authors_code takes A for an answer that it cannot read."
KINDS = {
    "Dynamic_Reasoning": ("Manipulation", "Motion_Analysis"),
    "Spatial_Interaction": ("Traffic_Analysis", "Localization", "Geospatial_Strategy"),
    "Complex_Logic": ("Pattern_Recognition", "Geometric_Reasoning"),
    "Perspective_Taking": ("Egocentric", "Allocentric", "Hypothetical"),
}
TASKS = tuple(task for tasks in KINDS.values() for task in tasks)
FILE = "data.json"


def read(root: Path) -> tuple[list[Question], list[Fault]]:
    """The questions of `data.json`, about `{task_type}/{n}.png` with n the id up to its underscore.

    Ids repeat across kinds, so that a question's id is `{task_type}/{id}`.
    """
    return json_questions(root, FILE, partial(_question, media=Media(root)))


def _question(row: BenchmarkRow, media: Media) -> Question:
    kind, identity, texts = row.one_of("task_type", tuple(KINDS)), row.identity("id"), row.texts("options")
    image = f"{kind}/{identity.partition('_')[0]}.png"
    return Question(
        id=f"{kind}/{identity}",
        task=row.one_of("sub_task_type", TASKS),
        kind=Kind.choice,
        text=row.text("question"),
        options=answers.lettered(texts),
        truth=answers.letter_of(row.position("answer", len(texts))),
        cluster=image,
        images=FileImages((row.media("id", media.find(image)),)),
        groups={"kind": kind},
    )


def grade(question: Question, text: str) -> Grade:
    """Accuracy of the letter."""
    return letter_grade(question, text, readings.omnispatial(text))


def official(questions: Sequence[Question]) -> list[Metric]:
    """Accuracy over all questions, by kind and by task."""
    return [micro(questions), *by_group(questions, "kind", tuple(KINDS)), *by_task(questions, TASKS)]


released = official
