"""What every benchmark's questions become, and how an answer to one is graded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path


class Kind(StrEnum):
    """How a question is answered, which says what its prompt asks for and how the answer is read."""

    choice = "choice"  # one of the options, by its letter
    number = "number"
    text = "text"  # in words that the benchmark's own rule reads


@dataclass(frozen=True)
class Question:
    """One question of a benchmark.

    `id` is unique in the benchmark and is what predictions are matched by. `options` are lettered (`A. …`), or lines
    with labels of their own (`Caption A: …`) to choose from. `truth` is the answer as the benchmark's file has it, the
    letter for a choice. `video` is the file, absolute, that it is about, which need not exist, or `images` are the
    pictures, as encoded bytes. `span` is the part of the video, in seconds, that is asked about; the text names it too.
    `subtitles` is a file for `spacer.benchmarks.subtitles`, on whose clock the video begins at `subtitles_from`
    seconds. `groups` are what scores are also told by, such as {"duration": "short"}. `cluster` names what questions
    share (their video), which intervals resample.
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
    subtitles: Path | None = None
    subtitles_from: float = 0.0
    groups: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Grade:
    """An answer judged: what was read from it (None where nothing could be), and its scores between 0 and 1.

    `official` follows the benchmark's authors, and is 0 where nothing was read. `released` follows the evaluation code
    of SpaceR, with its faults.
    """

    answer: str | None
    official: float
    released: float
