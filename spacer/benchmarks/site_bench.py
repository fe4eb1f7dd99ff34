"""SITE-Bench (Wang et al., arXiv 2505.05456): spatial intelligence in images and videos, scored beyond chance.

Overall and categories are chance-adjusted accuracies, images and videos pooled: guessing scores 0, and a model
worse than chance scores less. Marks `<image>` in a question or its options are the places of its images. The authors'
code draws a random letter where it finds none; here that is wrong, in both readings.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from spacer.benchmarks import answers, readings
from spacer.benchmarks.fields import BenchmarkRow, unique
from spacer.benchmarks.files import Media, json_file
from spacer.benchmarks.metrics import letter_grade
from spacer.benchmarks.question import Grade, Kind, Question
from spacer.data.samples import Fault
from spacer.data.stored import FileImages
from spacer.statistics.metrics import Metric, chance_adjusted, grouped

SECOND = "authors_code"
NOTE = "Scores are adjusted for chance: guessing scores 0, and anything worse scores less."
TASKS = (
    *("counting & existence", "object localization & positioning", "3d information understanding"),
    *("multi-view & cross-image reasoning", "spatial relationship reasoning", "movement prediction & navigation"),
)
FILES = {"image": "image_test.json", "video": "video_test.json"}


def read(root: Path) -> tuple[list[Question], list[Fault]]:
    """The questions of `image_test.json` and `video_test.json`, ids `image/{n}` and `video/{n}`, n from 0.

    `visual` is relative to the root, where the archives `data_chunked_NN.zip` are unpacked.
    """
    faults: list[Fault] = []
    media = Media(root)
    rows = [
        (kind, BenchmarkRow(name, index, row))
        for kind, name in FILES.items()
        for index, row in enumerate(json_file(root, name, list, faults))
    ]
    return unique([(row, _question(row, kind, media)) for kind, row in rows], faults), faults


def _question(row: BenchmarkRow, kind: str, media: Media) -> Question:
    names, options = row.paths("visual"), answers.lettered(row.texts("options"))
    files = tuple(row.media("visual", media.find(name)) for name in names)
    return Question(
        id=f"{kind}/{row.number_in_file}",
        task=row.one_of("category", TASKS),
        kind=Kind.choice,
        text=row.text("question"),
        options=options,
        truth=row.letter("answer", options),
        cluster=names[0] if names else "",
        video=files[0] if kind == "video" and files else None,
        images=FileImages(files) if kind == "image" else (),
        groups={"media": kind},
    )


def grade(question: Question, text: str) -> Grade:
    """Accuracy of the letter; the metrics adjust it."""
    return letter_grade(question, text, readings.site(text, answers.letters(question.options)))


def official(questions: Sequence[Question]) -> list[Metric]:
    """Chance-adjusted accuracy over all questions, of images, of videos, and by category."""
    of_media = grouped([question.groups["media"] for question in questions])
    of_task = grouped([question.task for question in questions])
    parts = [("overall", tuple(range(len(questions))))]
    parts += [(f"media/{kind}", of_media[kind]) for kind in FILES if kind in of_media]
    parts += [(f"task/{task}", of_task[task]) for task in TASKS if task in of_task]
    # a malformed row may have lost its options: most questions have four
    counts = [len(question.options) or 4 for question in questions]
    return [chance_adjusted(name, of, [counts[place] for place in of]) for name, of in parts]


released = official
