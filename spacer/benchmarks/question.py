"""The common form of benchmark questions, and of a graded answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from spacer.data.stored import FileImages

UNREADABLE = "unreadable"  # the task of a question whose row does not give it


class Kind(StrEnum):
    """How a question is answered, which determines the prompt and how the answer is read."""

    choice = "choice"  # one of the options, by its letter
    number = "number"
    text = "text"  # words, read by the benchmark's own rule


@dataclass(frozen=True)
class Question:
    """One question of a benchmark.

    `id` is unique in the benchmark and matches predictions. `options` are lettered (`A. …`), or lines
    with labels of their own (`Caption A: …`) to choose from. `truth` is the answer as in the benchmark's file, the
    letter for a choice. `video` is the absolute path of the file that it is about, which may not exist, or `images` are
    encoded images: where the text (with its options) has as many marks `<image>` as there are images, each stands in
    its place, and otherwise all stand before the text. `frames` is the number of frames that the truth is for, where it
    depends on that. `span` is the part of the video, in seconds, that is asked about; the text names it too.
    `subtitles` is a file for `spacer.benchmarks.subtitles`, on whose clock the video begins at `subtitles_from`
    seconds. `groups` are further breakdowns of the scores, such as {"duration": "short"}. `cluster` is what questions
    share (their video), which intervals resample. `fault` describes what is wrong with its row, whose faulty
    fields are empty here: the question is not asked and counts as wrong.
    """

    id: str
    task: str
    kind: Kind
    text: str
    options: tuple[str, ...]
    truth: str
    cluster: str
    video: Path | None = None
    images: Sequence[bytes] = ()
    span: tuple[float, float] | None = None
    frames: int | None = None
    subtitles: Path | None = None
    subtitles_from: float = 0.0
    groups: Mapping[str, str] = field(default_factory=dict)
    fault: str | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """The media files that the question is about; none if its images are in the annotation."""
        if isinstance(self.images, FileImages):
            return self.images.paths
        return () if self.video is None else (self.video,)


@dataclass(frozen=True)
class Grade:
    """A graded answer: what was extracted from it (None if nothing), and its scores between 0 and 1.

    `official` follows the benchmark's authors, and is 0 if nothing was extracted. `released` follows the code that the
    module's `SECOND` names, SpaceR's or the authors' own, bugs included.
    """

    answer: str | None
    official: float
    released: float
