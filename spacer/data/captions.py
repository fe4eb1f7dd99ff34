"""Subtitles of a video and their places between its frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_SHORTEST = 1.0  # seconds: shorter captions are widened to this, around their middle, when matched to frames


@dataclass(frozen=True)
class Caption:
    """A subtitle line, shown from `start` to `end` (seconds of the video)."""

    start: float
    end: float
    text: str


def shown_with(seconds: Sequence[float], captions: Sequence[Caption]) -> tuple[Caption, ...]:
    """The captions that are on screen at one or more of these times, in order.

    >>> said = [Caption(0.5, 2.5, "Hello"), Caption(2.6, 3.0, "no frame"), Caption(3.0, 6.0, "there")]
    >>> [caption.text for caption in shown_with([0.0, 2.0, 4.0], said)]
    ['Hello', 'there']
    """
    return tuple(caption for caption in captions if any(caption.start <= second <= caption.end for second in seconds))


def interleave(seconds: Sequence[float], captions: Sequence[Caption]) -> tuple[int | str, ...]:
    """Frame indices and captions, interleaved as in LongVideoBench's own loader (Wu et al., arXiv 2407.15754).

    A caption follows the frames up to its middle; one that overlaps no frame is dropped.

    Args:
        seconds: the time of each frame, ascending.
        captions: sorted by start.

    >>> said = [Caption(0.5, 2.5, "Hello"), Caption(2.6, 3.0, "no frame"), Caption(3.0, 6.0, "there")]
    >>> interleave([0.0, 2.0, 4.0], said)
    (0, 'Hello', 1, 2, 'there')
    """
    woven: list[int | str] = []
    frame = 0
    for caption in captions:
        middle = (caption.start + caption.end) / 2
        while frame < len(seconds) and seconds[frame] <= middle:
            woven.append(frame)
            frame += 1
        half = max(caption.end - caption.start, _SHORTEST) / 2
        if any(middle - half < second < middle + half for second in seconds):
            woven.append(caption.text)
    return (*woven, *range(frame, len(seconds)))
