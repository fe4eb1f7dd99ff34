"""3DSRBench (Ma et al., arXiv 2412.07825): heights, locations, orientations and relations of objects in an image.

Each question is asked several times, with its options rotated and its image mirrored. Overall, types and categories
follow the authors: a question is right where all rotations of its options are, of the mirrored image separately
(`circ_eval` of VLMEvalKit). `vanilla` is the mean over all rows, which EASI reports; `flip` wants a question and its
mirrored one right, rotation by rotation, and `flip_circular` all of them. How the authors read a letter from prose is
not published with the files: there is no second reading.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from spacer.benchmarks import answers
from spacer.benchmarks.fields import BenchmarkRow, unique
from spacer.benchmarks.files import tsv_rows
from spacer.benchmarks.metrics import letter_grade, micro
from spacer.benchmarks.question import UNREADABLE, Grade, Kind, Question
from spacer.data.samples import Fault
from spacer.data.stored import TsvImages
from spacer.statistics.metrics import Metric, circular, grouped

SECOND = ""
NOTE = "A question is right where all rotations of its options are; vanilla is the mean over rows."
TYPES = {
    "height": ("higher",),
    "location": ("above", "closer_to_camera", "next_to"),
    "orientation": ("in_front_of", "on_the_left", "viewpoint"),
    "multi_object": ("closer_to", "facing", "viewpoint_towards_object", "parallel", "same_direction"),
}
TASKS = tuple(f"{kind}_{what}" for kind, names in TYPES.items() for what in names)
CIRCULAR, FLIPS = "3dsrbench_v1_vlmevalkit_circular.tsv", "3dsrbench_v1_vlmevalkit.tsv"
COLUMNS = ("index", "qid", "question", "A", "B", "C", "D", "answer", "category")
_QID = re.compile(r"(?P<base>.{8})(?P<flip>-flip)?(?P<turn>-\d+)?")


def read(root: Path) -> tuple[list[Question], list[Fault]]:
    """The rows of `3dsrbench_v1_vlmevalkit_circular.tsv`, with their images in it, which are read on access.

    If only the file without rotations is there, that one is read, and its scores are not circular.
    """
    faults: list[Fault] = []
    name = FLIPS if (root / FLIPS).is_file() and not (root / CIRCULAR).is_file() else CIRCULAR
    asked = [(row, _question(row, image)) for row, image in tsv_rows(root, name, COLUMNS, "image", faults)]
    return unique(asked, faults), faults


def _question(row: BenchmarkRow, image: TsvImages) -> Question:
    qid = row.text("qid")
    found = _QID.fullmatch(qid)
    if qid and not found:
        row.fail("qid", f"must be eight characters, then -flip and a number or neither, not {qid!r}")
    texts = [row.get(letter) for letter in "ABCD"]
    count = next((place for place, text in enumerate(texts) if text is None), 4)
    if count < 2 or any(texts[count:]):
        row.fail("A", f"to D must be two or more options without a gap, not {texts!r}")
    options = tuple(f"{answers.letter_of(place)}. {text}" for place, text in enumerate(texts[:count]))
    return Question(
        id=row.text("index"),
        task=row.one_of("category", TASKS),
        kind=Kind.choice,
        text=row.text("question"),
        options=options,
        truth=row.letter("answer", options),
        cluster=found["base"] if found else qid,
        images=image,
        groups={"qid": qid},
    )


def grade(question: Question, text: str) -> Grade:
    """Accuracy of the letter, of one row."""
    return letter_grade(question, text, None)


def official(questions: Sequence[Question]) -> list[Metric]:
    """Circular accuracy: overall, by type and by category; then the other three groupings of rows."""
    kinds = {f"{kind}_{name}": kind for kind, names in TYPES.items() for name in names}
    of_task = grouped([question.task for question in questions])
    of_kind = grouped([kinds.get(question.task, "") for question in questions])
    found = [circular("overall", _groups(questions, range(len(questions)), _circle))]
    parts = [(f"type/{kind}", of_kind[kind]) for kind in TYPES if kind in of_kind]
    parts += [(f"task/{task}", of_task[task]) for task in TASKS if task in of_task and task != UNREADABLE]
    found += [circular(name, _groups(questions, of, _circle)) for name, of in parts]
    found.append(replace(micro(questions), name="vanilla"))
    for name, key in (("flip", _flip), ("flip_circular", _base)):
        found.append(circular(name, _groups(questions, range(len(questions)), key)))
    return found


def released(questions: Sequence[Question]) -> list[Metric]:
    """None."""
    return []


def _groups(questions: Sequence[Question], places: Sequence[int], key: Callable[[str], str]) -> list[tuple[int, ...]]:
    of = grouped([key(questions[place].groups["qid"]) for place in places])
    return [tuple(places[i] for i in group) for group in of.values()]


def _circle(qid: str) -> str:
    """The rotations of one question about one image."""
    return re.sub(r"-\d+$", "", qid)


def _flip(qid: str) -> str:
    """A question and that about the mirrored image, in the same rotation."""
    return qid.replace("-flip", "")


def _base(qid: str) -> str:
    return qid[:8]
