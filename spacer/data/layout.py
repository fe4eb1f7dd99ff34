"""Where media stand in a question's text: in the places of marks, or before it (pure)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

MARK = re.compile(r"<(image|video)>")
T = TypeVar("T")


class ShownMedium(Protocol):
    """What stands at a place of a prompt: media of one `kind`, image or video, each a None of `content`, with the texts
    between them; `at` are the seconds at which a video's frames were taken."""

    @property
    def kind(self) -> str:
        """Image or video."""

    @property
    def content(self) -> tuple[str | None, ...]:
        """None for a medium, text between them."""

    @property
    def at(self) -> tuple[float, ...]:
        """Seconds of the video's frames; empty for images."""


def is_placed(text: str, kinds: Sequence[str]) -> bool:
    """Whether a text marks the places of media of these kinds: as many marks, in the same order.

    >>> is_placed("Is <image> in <image>?", ["image", "image"]), is_placed("Is it <image>?", ["video"])
    (True, False)
    """
    return bool(kinds) and MARK.findall(text) == list(kinds)


def laid_out(text: str, media: Sequence[T], placed: bool) -> list[str | T]:
    """The text's parts and the media in their order. Parts that are empty or blank between two media are left out.

    >>> laid_out("Is <image> in <image>?", [1, 2], placed=True), laid_out("Where?", [1, 2], placed=False)
    (['Is ', 1, ' in ', 2, '?'], [1, 2, 'Where?'])
    """
    if not placed:
        return [*media, text]
    said = MARK.split(text)[::2]
    woven: list[str | T] = []
    for part, medium in zip(said, media, strict=False):
        woven += [part, medium]
    return [part for part in (*woven, said[-1]) if not isinstance(part, str) or part.strip()]


def paths_of(row: Mapping[str, Any]) -> list[str]:
    """The media that a sound line of a data file names, in order; none where its question is of text alone."""
    path = row.get("path") or []
    return [path] if isinstance(path, str) else list(path)


def media_kinds(row: Mapping[str, Any]) -> list[str]:
    """The kinds of a sound line's media: as its text marks their places, where it does, and otherwise its
    `data_type`."""
    paths = paths_of(row)
    marks = marks_in((row["problem"], *row["options"]))
    return marks if len(paths) > 1 and marks else [row["data_type"]] * len(paths)


def marks_in(texts: Iterable[str]) -> list[str]:
    """The kinds that the marks in texts name, in order."""
    return [str(mark) for text in texts for mark in MARK.findall(text)]


def without_marks(text: str) -> str:
    """A text whose media are not shown."""
    return MARK.sub("", text).strip()
