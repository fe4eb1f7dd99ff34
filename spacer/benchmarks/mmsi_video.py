"""MMSI-Video-Bench (Lin et al., arXiv 2512.10863): questions about clips and reference images, in thirteen types.

Clips are their distributed frames, of which 50 are shown as images in the places of the marks `<video>`: the authors'
setting Uniform-50. Their second setting, Sufficient-Coverage with 300 frames, is not offered, nor are the
sub-benchmarks, which are lists of ids. Overall and types are accuracies over their questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from spacer.benchmarks import readings
from spacer.benchmarks.fields import BenchmarkRow
from spacer.benchmarks.files import Media, json_questions
from spacer.benchmarks.metrics import by_task, letter_grade, micro
from spacer.benchmarks.question import Grade, Kind, Question
from spacer.data.samples import Fault
from spacer.data.stored import FileImages
from spacer.statistics.metrics import Metric

SECOND = "authors_code"
NOTE = "Asked with 50 frames of all clips together, the setting Uniform-50."
FILE, FRAMES = "mmsivideo.json", 50
PROMPTS = ("task_prompt", "user_prompt", "format_prompt")
IMAGE, VIDEO = "<image>", "<video>"


def read(root: Path) -> tuple[list[Question], list[Fault]]:
    """The questions of `mmsivideo.json`, about `frames/…` and `ref_images/…`."""
    return json_questions(root, FILE, partial(_question, media=Media(root)))


def _question(row: BenchmarkRow, media: Media) -> Question:
    clips, references = _clips(row), row.paths("ref_images", empty=True)
    text = "".join(str(row.get(name) or "") for name in PROMPTS)
    row.text("user_prompt")
    if isinstance(system := row.get("system_prompt"), str) and system:
        text = f"{system}\n{text}"
    if text.count(VIDEO) != len(clips) or text.count(IMAGE) != len(references):
        row.fail(
            "user_prompt",
            f"must mark {len(clips)} clips with {VIDEO} and {len(references)} reference images with {IMAGE}",
        )
    text, names = _placed(text, uniform(clips, FRAMES), references)
    return Question(
        id=row.identity("id"),
        task=row.text("type"),
        kind=Kind.choice,
        text=text,  # includes its options
        options=(),
        truth=row.letter("ground_truth", ()),
        cluster=clips[0][0].rpartition("/")[0] if clips else "",
        images=FileImages(tuple(row.media("frames_list", media.find(name)) for name in names)),
    )


def _clips(row: BenchmarkRow) -> list[tuple[str, ...]]:
    value: Any = row.get("frames_list")
    if isinstance(value, list) and all(
        isinstance(clip, list) and clip and all(isinstance(name, str) for name in clip) for clip in value
    ):
        return [tuple(clip) for clip in value]
    row.fail("frames_list", "must be a list of clips, each a list of one or more paths")
    return []


def uniform(clips: Sequence[Sequence[str]], most: int) -> list[list[str]]:
    """Frames of all clips: every one if there are at most `most`, else that many from the first to the last of all
    clips put together, and at least one of each clip.

    >>> uniform([("a", "b"), ("c", "d", "e")], 3), uniform([("a",), ("b",)], 3)
    ([['a'], ['c', 'e']], [['a'], ['b']])
    """
    total, start = sum(map(len, clips)), 0
    if total <= most:
        return [list(clip) for clip in clips]
    places = [int(i * ((total - 1) / (most - 1))) for i in range(most)]
    found = []
    for clip in clips:
        found.append([clip[place - start] for place in places if start <= place < start + len(clip)] or [clip[0]])
        start += len(clip)
    return found


def _placed(text: str, clips: Sequence[Sequence[str]], references: Sequence[str]) -> tuple[str, list[str]]:
    """The text with a mark for each frame in a clip's place, and the files in the order of the marks."""
    said, names = "", []
    left_clips, left_references = list(clips), list(references)
    while (marks := [mark for mark in (VIDEO, IMAGE) if mark in text]) and (left_clips or left_references):
        mark = min(marks, key=text.index)
        before, _, text = text.partition(mark)
        if mark == VIDEO and left_clips:
            shown = [f"frames/{name}" for name in left_clips.pop(0)]
        elif mark == IMAGE and left_references:
            shown = [f"ref_images/{left_references.pop(0)}"]
        else:
            shown = []  # reported as a fault of the row
        said += before + IMAGE * len(shown)
        names += shown
    return said + text, names


def grade(question: Question, text: str) -> Grade:
    """Accuracy of the letter."""
    return letter_grade(question, text, readings.mmsi_video(text))


def official(questions: Sequence[Question]) -> list[Metric]:
    """Accuracy over all questions and by type."""
    return [micro(questions), *by_task(questions)]


released = official
