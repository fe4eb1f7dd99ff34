"""EmbSpatial-Bench (Du et al., arXiv 2406.05756): six spatial relations in images of indoor scenes.

Overall and relations are accuracies over their questions. The authors released no scoring code, so there is no
second reading; VLMEvalKit's scores by source are `source`. Questions about one image share a cluster.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from spacer.benchmarks import answers
from spacer.benchmarks.fields import BenchmarkRow
from spacer.benchmarks.files import json_questions
from spacer.benchmarks.metrics import by_group, by_task, letter_grade, micro
from spacer.benchmarks.question import Grade, Kind, Question
from spacer.data.samples import Fault
from spacer.data.stored import EncodedImages
from spacer.statistics.metrics import Metric

SECOND = ""
NOTE = ""
TASKS = ("close", "far", "above", "under", "left", "right")
SOURCES = ("mp3d", "ai2thor", "scannet")
FILE = "embspatial_bench.json"


def read(root: Path) -> tuple[list[Question], list[Fault]]:
    """The questions of `embspatial_bench.json`, with their images in it."""
    return json_questions(root, FILE, _question)


def _question(row: BenchmarkRow) -> Question:
    texts, image = row.texts("answer_options"), row.text("image")
    return Question(
        id=row.identity("question_id"),
        task=row.one_of("relation", TASKS),
        kind=Kind.choice,
        text=row.text("question"),
        options=answers.lettered(texts),
        truth=answers.letter_of(row.position("answer", len(texts))),
        cluster=hashlib.sha256(image.encode()).hexdigest()[:12],
        images=EncodedImages((image,)),
        groups={"source": row.one_of("data_source", SOURCES)},
    )


def grade(question: Question, text: str) -> Grade:
    """Accuracy of the letter."""
    return letter_grade(question, text, None)


def official(questions: Sequence[Question]) -> list[Metric]:
    """Accuracy over all questions, by relation and by source."""
    return [micro(questions), *by_task(questions, TASKS), *by_group(questions, "source", SOURCES)]


def released(questions: Sequence[Question]) -> list[Metric]:
    """None."""
    return []
